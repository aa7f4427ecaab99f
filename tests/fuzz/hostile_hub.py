"""What a hub, or something on the way to it, may do to a download: each mode by name.

    python tests/fuzz/hostile_hub.py

Each is pulled from with the command itself, in a process whose memory and time are watched. It must end in a model that
is whole (exit code 0) or in one clear error (exit code 3), and nothing may appear outside the cache.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from harness import GOOD, Ending, Worker  # noqa: E402
from weights.hub_server import COMMIT, HubServer, Repository, environment  # noqa: E402

NAME = "hf:someone/omni"
SHARD = "model.safetensors"
MEMORY = 700 * 2**20  # bytes resident; the libraries alone take a third of it
LIMIT = 60.0  # seconds
_MANY = 400_000_000  # bytes of replies that do not end when they should
Mode = Callable[[str, str, BaseHTTPRequestHandler], bool]


def repository() -> Repository:
    """A checkpoint of 1.2 MB that is recognised and fetched; its weights are large enough for the other origin."""
    return Repository(
        {
            "config.json": json.dumps({"model_type": "qwen2_5_omni", "thinker_config": {}}).encode(),
            "tokenizer.json": b'{"version": "1.0"}' + b" " * 5000,
            SHARD: bytes(range(256)) * 4700,
        }
    )


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> bool:
    request.send_response(status)
    headers.setdefault("Content_Length", str(len(body)))
    for name, value in headers.items():
        if value:
            request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
    return True


def _endless(request: BaseHTTPRequestHandler, status: int = 200, **headers: str) -> bool:
    """More bytes than anybody asked for."""
    _send(request, status, **{"Content_Length": "", "Connection": "close", **headers})
    block = b" " * 2**20
    for _ in range(_MANY // len(block)):
        request.wfile.write(block)
    request.close_connection = True
    return True


def _raw(request: BaseHTTPRequestHandler, *parts: bytes, pause: float = 0.0) -> bool:
    """Bytes as they are, in place of an answer."""
    for part in parts:
        request.wfile.write(part)
        request.wfile.flush()
        time.sleep(pause)
    request.close_connection = True
    return True


def _bomb(size: int) -> bytes:
    """Gzip of so many zeros."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.flush()


def _api(answer: Callable[[BaseHTTPRequestHandler], bool]) -> Mode:
    """A mode of the replies about a repository."""
    return lambda origin, path, request: path.startswith("/api/") and answer(request)


def _bytes(answer: Callable[[str, BaseHTTPRequestHandler], bool]) -> Mode:
    """A mode of the files themselves, wherever they come from."""
    return lambda origin, path, request: not path.startswith("/api/") and answer(path, request)


def _json(change: Callable[[dict[str, Any]], object]) -> Mode:
    """A mode of what is stated about the repository: its metadata with a change."""

    def answer(request: BaseHTTPRequestHandler) -> bool:
        stated = repository().metadata()
        changed = change(stated)
        return _send(request, 200, json.dumps(stated if changed is None else changed).encode())

    return _api(answer)


def _headers(**headers: str) -> Mode:
    """Files as they are, with headers that name what the server likes."""

    def answer(path: str, request: BaseHTTPRequestHandler) -> bool:
        name = path.rpartition("/")[2]
        return _send(request, 200, repository().files[name], **headers)

    return _bytes(answer)


def _file(body: Callable[[bytes], bytes], **headers: str) -> Mode:
    """A mode of the weights' bytes."""

    def answer(path: str, request: BaseHTTPRequestHandler) -> bool:
        return path.endswith(SHARD) and _send(request, 200, body(repository().files[SHARD]), **headers)

    return _bytes(answer)


def _pieces(path: str, request: BaseHTTPRequestHandler) -> bool:
    """Connections that end after 100 kB, whatever was asked."""
    name = path.rpartition("/")[2]
    data = repository().files[name]
    begin = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
    request.send_response(206 if begin else 200)
    request.send_header("Content-Length", str(len(data) - begin))
    if begin:
        request.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
    request.end_headers()
    request.wfile.write(data[begin : begin + 100_000])
    request.close_connection = True
    return True


def _redirect(target: str, status: int = 302) -> Callable[[BaseHTTPRequestHandler], bool]:
    return lambda request: _send(request, status, Location=target)


_OUT = str(Path(tempfile.gettempdir()) / "echopix-hub-was-here")
_NAMES = {"absolute": _OUT, "relative": "../" * 12 + _OUT[1:], "nul": "a\0b", "long": "a" * 5000, "dots": "..", "": ""}
_VALUES: dict[str, object] = {"null": None, "number": 7, "list": [], "negative": -1, "text": "x", "object": {}}


def _modes() -> Iterator[tuple[str, Mode]]:
    for name, odd in _NAMES.items():
        head = odd.replace("\0", "%00")
        yield f"header etag {name}", _headers(ETag=f'"{head}"', X_Linked_Etag=f'"{head}"', X_Repo_Commit=head)
        yield f"header etag alone {name}", _headers(ETag=f'"{head}"', X_Repo_Commit=COMMIT)
        yield f"commit {name}", _json(lambda stated, odd=odd: stated.update(sha=odd))
        yield f"blob {name}", _json(lambda stated, odd=odd: stated["siblings"][0].update(blobId=odd))
        yield f"sha256 {name}", _json(lambda stated, odd=odd: stated["siblings"][2]["lfs"].update(sha256=odd))
        yield (
            f"file name {name}",
            _json(lambda stated, odd=odd: stated["siblings"].append({"rfilename": odd, "size": 3, "blobId": "a" * 40})),
        )
    for name, value in _VALUES.items():
        yield f"commit is {name}", _json(lambda stated, value=value: stated.update(sha=value))
        yield f"files are {name}", _json(lambda stated, value=value: stated.update(siblings=value))
        yield f"a file is {name}", _json(lambda stated, value=value: stated["siblings"].append(value))
        yield f"size is {name}", _json(lambda stated, value=value: stated["siblings"][0].update(size=value))
        yield f"lfs is {name}", _json(lambda stated, value=value: stated["siblings"][2].update(lfs=value))
        yield f"card is {name}", _json(lambda stated, value=value: stated.update(cardData=value))
        yield f"licence is {name}", _json(lambda stated, value=value: stated.update(cardData={"license": value}))
        yield f"reply is {name}", _json(lambda stated, value=value: [value])
    yield "size beyond all disks", _json(lambda stated: stated["siblings"][2]["lfs"].update(size=10**30))
    yield "size of another file", _json(lambda stated: stated["siblings"][2]["lfs"].update(size=5000))
    yield "a hundred thousand files", _json(lambda stated: stated["siblings"].extend([stated["siblings"][0]] * 100_000))
    yield "a card that draws", _json(lambda stated: stated.update(cardData={"license": "\x1b]0;x\7[red]mit\r\n"}))
    bodies = {
        "a page": b"<!DOCTYPE html><html><body>Please log in</body></html>", "nothing": b"", "half": b'{"sha": "',
        "deep": b"[" * 200_000, "deep objects": b'{"a":' * 100_000, "latin": b'{"a": "\xff"}', "nan": b"NaN",
        "a long number": b"9" * 100_000, "utf-16": '{"sha": 1}'.encode("utf-16"), "zeros": bytes(1000),
    }  # fmt: skip
    for name, body in bodies.items():
        yield f"says {name}", _api(lambda request, body=body: _send(request, 200, body))
        yield f"config says {name}", _spoilt("config.json", body)
    bomb = _bomb(2**29)
    yield "metadata bomb", _api(lambda request: _send(request, 200, bomb, Content_Encoding="gzip"))
    yield (
        "metadata bomb in a bomb",
        _api(lambda request: _send(request, 200, gzip.compress(bomb), Content_Encoding="gzip")),
    )
    yield "metadata as brotli", _api(lambda request: _send(request, 200, b"xx", Content_Encoding="br"))
    yield "metadata badly packed", _api(lambda request: _send(request, 200, b"xx", Content_Encoding="gzip"))
    yield "metadata without end", _api(_endless)
    yield "refusal without end", _api(lambda request: _endless(request, 404))
    yield "redirect without end", _api(lambda request: _endless(request, 302, Location="/api/x"))
    for target in ("file:///etc/passwd", "http://127.0.0.1:9/", "gopher://a/", "http://", "//", "\x80", "http://[::1",
                   "http://a:99999/", "/api/models/someone/omni", ""):  # fmt: skip
        yield f"redirect to {target!r}", _api(_redirect(target))
    for status in (204, 301, 304, 400, 401, 403, 404, 408, 410, 418, 451, 500, 502, 503):
        yield f"status {status}", _api(lambda request, status=status: _send(request, status, b"no"))
        yield f"status {status} of files", _bytes(lambda path, request, status=status: _send(request, status, b"no"))
    for pause in ("1000000000", "-1", "nan", "Fri, 31 Dec 2999 23:59:59 GMT", "9" * 4000):
        yield (
            f"wait {pause[:9]}",
            _bytes(lambda path, request, pause=pause: _send(request, 429, b"", Retry_After=pause)),
        )
    ok = b"HTTP/1.1 200 OK\r\n"
    raw = {
        "closes": (), "noise": (bytes(range(128, 256)) * 10,), "header without end": (ok, b"A: " + b"b" * 300_000),
        "many headers": (ok, b"A: b\r\n" * 100_000), "bad length": (ok, b"Content-Length: -5\r\n\r\n{}"),
        "two lengths": (ok, b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n{}aaaaa"),
        "bad chunks": (ok, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}"), "http 9": (b"HTTP/9.9 200 OK\r\n\r\n",),
        "half a chunk": (ok, b"Transfer-Encoding: chunked\r\n\r\nffff\r\n{}"),
        "continues": (b"HTTP/1.1 100 C\r\n\r\n",) * 99,
    }  # fmt: skip
    for name, parts in raw.items():
        yield name, _api(lambda request, parts=parts: _raw(request, *parts))
        yield f"{name}, files", _bytes(lambda path, request, parts=parts: _raw(request, *parts))
    yield "drips headers", _api(lambda request: _raw(request, ok, *[b"A: b\r\n"] * 500, pause=0.2))
    yield (
        "drips metadata",
        _api(lambda request: _raw(request, ok, b"Content-Length: 9999\r\n\r\n", *[b" "] * 500, pause=0.2)),
    )
    yield (
        "drips files",
        _bytes(lambda path, request: _raw(request, ok, b"Content-Length: 9999\r\n\r\n", *[b" "] * 500, pause=0.2)),
    )
    yield "file without end", _bytes(lambda path, request: _endless(request))
    yield "file of a stated length without end", _bytes(lambda path, request: _endless(request, Content_Length="5018"))
    yield "file too short", _file(lambda data: data[:-1])
    yield "file too long", _file(lambda data: data + b"x")
    yield "file of nothing", _file(lambda data: b"")
    yield "file of other bytes", _file(lambda data: data[::-1])
    yield "file packed", _file(gzip.compress, Content_Encoding="gzip")
    yield "file bomb", _file(lambda data: bomb, Content_Encoding="gzip")
    yield "file from elsewhere in it", _file(lambda data: data, Content_Range="bytes 5-9/9")
    yield "connections of 100 kB", _bytes(_pieces)
    yield "a name to save it under", _headers(Content_Disposition=f'attachment; filename="{_OUT}"')


def _spoilt(name: str, body: bytes) -> Mode:
    """A repository one of whose files is another, rightly stated."""

    def answer(origin: str, path: str, request: BaseHTTPRequestHandler) -> bool:
        made = Repository({**repository().files, name: body})
        if path.startswith("/api/"):
            return _send(request, 200, json.dumps(made.metadata()).encode())
        return path.endswith(f"/{name}") and _send(request, 200, body)

    return answer


MODES: dict[str, Mode] = dict(_modes())


def attack(names: list[str], folder: Path) -> dict[str, Ending]:
    """How a pull ends in each mode. A mode that left something outside the cache ends as ``wrote outside``."""
    endings = {}
    with HubServer() as server:
        server.repositories["someone/omni"] = repository()
        cache = folder / "cache"
        own = {**environment(server, cache), "HF_HUB_DOWNLOAD_TIMEOUT": "2", "ECHOPIX_CONFIG": os.devnull}
        worker = Worker(LIMIT, MEMORY, "plain", own, code=3)
        try:
            for number, name in enumerate(names):
                server.hostile = MODES[name]
                # A revision of its own for each mode: nothing of one is there for the next.
                server.repositories["someone/omni"] = server.repositories[f"someone/m{number}"] = repository()
                ending = worker.ask(["models", "pull", f"hf:someone/m{number}", "--json", "-q"])
                out = Path(_OUT).exists()
                Path(_OUT).unlink(missing_ok=True)
                strange = out or [path for path in folder.iterdir() if path != cache]
                left = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file() and not path.is_symlink())
                if strange or left > 10_000_000 * (number + 1):
                    ending = Ending("wrote outside" if strange else "wrote too much", ending.said, 0.0, ending.peak)
                endings[name] = ending
        finally:
            worker.close()
    return endings


def _main() -> int:
    parser = argparse.ArgumentParser(description="Pull from a hub that misbehaves in every known way.")
    parser.add_argument("--only", default="", help="modes whose name holds this")
    wanted = [name for name in MODES if parser.parse_args().only in name]
    with tempfile.TemporaryDirectory() as folder:
        endings = attack(wanted, Path(folder))
    for name, ending in endings.items():
        said = next(iter(ending.said.splitlines()), "")[:200]
        print(f"{ending.outcome:12} {ending.seconds:6.2f} s {ending.peak >> 20:5} MiB  {name}: {said}")
    bad = {name: ending for name, ending in endings.items() if ending.outcome not in GOOD}
    print(f"{len(endings)} modes, {len(bad)} failed: {', '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(_main())
