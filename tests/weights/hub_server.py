"""A model hub on loopback: the parts of the real one's HTTP that downloading uses, with switches to misbehave.

Large files are kept as LFS: ``resolve`` answers with their SHA-256 and size and sends the client to another origin,
which serves ranges. Small ones are served in place, with git's hash as ETag.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LFS_FROM = 1_000_000  # bytes
_HOSTS = {"hub": "127.0.0.1", "cdn": "127.0.0.2"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """Files by name, and how the repository answers."""

    files: dict[str, bytes]
    card: dict[str, Any] = field(default_factory=dict)
    commit: str = COMMIT
    gated: bool = False
    stated_sizes: dict[str, int] = field(default_factory=dict)  # lies in the metadata
    siblings: list[dict[str, Any]] = field(default_factory=list)  # more of them
    older: dict[str, Repository] = field(default_factory=dict)  # by commit

    def __post_init__(self) -> None:
        self.sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        self.sha1 = {
            name: hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() for name, data in self.files.items()
        }

    def lfs(self, name: str) -> bool:
        return len(self.files[name]) >= LFS_FROM

    def metadata(self) -> dict[str, Any]:
        siblings = []
        for name, data in self.files.items():
            size = self.stated_sizes.get(name, len(data))
            entry: dict[str, Any] = {"rfilename": name, "size": size, "blobId": self.sha1[name]}
            if self.lfs(name):
                entry["lfs"] = {"size": size, "sha256": self.sha256[name], "pointerSize": 130}
            siblings.append(entry)
        return {
            "id": "x/y",
            "sha": self.commit,
            "private": False,
            "gated": self.gated,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "cardData": self.card,
            "siblings": siblings + self.siblings,
        }


@dataclass(frozen=True)
class Request:
    """One that arrived."""

    origin: str  # "hub" or "cdn"
    method: str
    path: str
    range: str | None
    token: str | None


class HubServer:
    """Start with ``with``. Switches apply to bytes of large files, by name.

    Attributes:
        cut: name → bytes after which the connection is closed, for each of the next answers.
        corrupt: name → how many of the next answers carry a flipped byte.
        stall: name → bytes after which nothing more comes, for each of the next answers.
        status: name → statuses that the next requests for its bytes are answered with; 0 is the bytes.
        api_status: statuses that the next requests for metadata are answered with.
        slow: seconds before each block of 1 MB.
        hostile: is given every request first, with its origin and path; true when it has answered it.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.cut: dict[str, list[int]] = {}
        self.corrupt: dict[str, int] = {}
        self.stall: dict[str, list[int]] = {}
        self.status: dict[str, list[int]] = {}
        self.api_status: list[int] = []
        self.retry_after = "0"
        self.slow = 0.0
        self.ranges = True
        self.hostile: Callable[[str, str, BaseHTTPRequestHandler], bool] | None = None
        self.stop = threading.Event()
        self._hub = self._listen("hub", self._answer_hub)
        self._cdn = self._listen("cdn", self._answer_cdn)

    @property
    def url(self) -> str:
        return f"http://{_HOSTS['hub']}:{self._hub.server_port}"

    def __enter__(self) -> HubServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def served(self, name: str) -> list[str | None]:
        """Ranges that were asked of a large file."""
        return [
            r.range for r in self.requests if r.origin == "cdn" and r.method == "GET" and r.path.endswith("/" + name)
        ]

    def _listen(self, origin: str, answer: Callable[[BaseHTTPRequestHandler], None]) -> ThreadingHTTPServer:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.requests.append(
                    Request(
                        origin, self.command, unquote(self.path), self.headers["Range"], self.headers["Authorization"]
                    )
                )
                try:
                    path = unquote(urlsplit(self.path).path)
                    if hub.hostile is None or not hub.hostile(origin, path, self):
                        answer(self)
                except (BrokenPipeError, ConnectionResetError):  # the client has gone
                    self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        # Another host for the large files, as in life: some releases of the client compare hosts, others origins.
        server = ThreadingHTTPServer((_HOSTS[origin], 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def _answer_hub(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path).strip("/")
        if path.startswith("api/models/"):
            repository, _, revision = path.removeprefix("api/models/").partition("/revision/")
            if self.api_status:
                return self._refuse(request, self.api_status.pop(0))
            if (found := self._find(request, repository, revision)) is not None:
                self._send(request, 200, json.dumps(found.metadata()).encode(), {"Content-Type": "application/json"})
            return None
        repository, _, rest = path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        if (found := self._find(request, repository, revision)) is None:
            return None
        if name not in found.files:
            return self._refuse(request, 404, "EntryNotFound")
        headers = {"X-Repo-Commit": found.commit}
        if found.lfs(name):
            headers["X-Linked-Etag"] = f'"{found.sha256[name]}"'
            headers["X-Linked-Size"] = str(len(found.files[name]))
            headers["Location"] = f"http://{_HOSTS['cdn']}:{self._cdn.server_port}/{repository}/{name}"
            return self._send(request, 302, b"", headers)
        headers["ETag"] = f'"{found.sha1[name]}"'
        return self._send(request, 200, self._spoiled(name, found.files[name]), headers)

    def _find(self, request: BaseHTTPRequestHandler, repository: str, revision: str) -> Repository | None:
        found = self.repositories.get(repository)
        found = found.older.get(revision, found) if found else None
        if found is None:
            self._refuse(request, 404, "RepoNotFound")
        elif found.gated and request.headers["Authorization"] != "Bearer good":
            self._refuse(request, 403 if request.headers["Authorization"] else 401, "GatedRepo")
        elif revision not in ("", "main", found.commit):
            self._refuse(request, 404, "RevisionNotFound")
        else:
            return found
        return None

    def _answer_cdn(self, request: BaseHTTPRequestHandler) -> None:
        owner, repo, name = unquote(urlsplit(request.path).path).strip("/").split("/", 2)
        if self.status.get(name) and (status := self.status[name].pop(0)):
            return self._refuse(request, status)
        data = self.repositories[f"{owner}/{repo}"].files[name]
        wanted = request.headers["Range"]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(data):
            return self._refuse(request, 416)
        body = memoryview(self._spoiled(name, data))[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", '"whatever"')
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        if request.command == "HEAD":
            return None
        stop_at = self.cut[name].pop(0) if self.cut.get(name) else None
        stall_at = self.stall[name].pop(0) if self.stall.get(name) else None
        for at in range(0, len(body), 1_000_000):
            end = min(at + 1_000_000, len(body))
            for limit in (stop_at, stall_at):
                if limit is not None and end > limit:
                    request.wfile.write(body[at:limit])
                    request.wfile.flush()
                    if limit == stall_at:
                        self.stop.wait(30)
                    request.close_connection = True
                    return None
            began = time.monotonic()
            while time.monotonic() < began + self.slow:  # which a test may change meanwhile
                time.sleep(0.01)
            request.wfile.write(body[at:end])
        return None

    def _spoiled(self, name: str, data: bytes) -> bytes:
        if self.corrupt.get(name, 0) <= 0:
            return data
        self.corrupt[name] -= 1
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    def _refuse(self, request: BaseHTTPRequestHandler, status: int, code: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        if status == 429:
            headers["Retry-After"] = self.retry_after
        self._send(request, status, b"{}", headers)

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


def point_to(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's environment as its library has read it, and ours. No client is replaced: only told where to go."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(cache / "echopix"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


def environment(server: HubServer, cache: Path) -> dict[str, str]:
    """The same for a process of its own."""
    return {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
        "ECHOPIX_CACHE_DIR": str(cache / "echopix"),
    }


def stock_repository() -> Repository:
    """A stock checkpoint's files: two shards of the thinker, one of them larger than two of the client's blocks
    (10 MiB), one of the talker, a pickle, code."""
    import numpy as np

    noise = np.random.default_rng(5).integers(0, 256, 25_000_000, np.uint8).tobytes()
    weight_map = {
        "thinker.model.a": "model-00001-of-00003.safetensors",
        "thinker.model.b": "model-00002-of-00003.safetensors",
        "talker.x": "model-00002-of-00003.safetensors",
        "talker.y": "model-00003-of-00003.safetensors",
        "token2wav.z": "model-00003-of-00003.safetensors",
    }
    return Repository(
        {
            "config.json": json.dumps({"model_type": "qwen2_5_omni", "thinker_config": {}}).encode(),
            "generation_config.json": b"{}",
            "tokenizer.json": b'{"version": "1.0"}',
            "tokenizer_config.json": b'{"a": 1}',
            "chat_template.json": b'{"b": 2}',
            "LICENSE": b"Do as you like.\n",
            "README.md": b"---\nlicense: mit\n---\n",
            "modeling_evil.py": b"raise SystemExit\n",
            "spk_dict.pt": b"pickle",
            "pytorch_model.bin": b"another",
            "model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": weight_map}).encode(),
            "model-00001-of-00003.safetensors": noise,
            "model-00002-of-00003.safetensors": noise[:1_500_000],
            "model-00003-of-00003.safetensors": noise[-1_100_000:],
        },
        card={"license": "other", "license_name": "qwen-research", "license_link": "LICENSE"},
    )
