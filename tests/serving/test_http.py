"""Chat completions over a real socket, with a client as people use it and with clients that nobody wants."""

from __future__ import annotations

import io
import os
import select
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from http_clients import Plain
from servers import manner
from waiting import wait_until

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
openai = pytest.importorskip("openai", reason="the client is not installed")

from echopix_cli.engine import Engine  # noqa: E402
from echopix_cli.serving.chat_request import opened_below  # noqa: E402
from echopix_cli.serving.desk import Desk  # noqa: E402
from echopix_cli.serving.http import HttpOptions, HttpServer  # noqa: E402
from echopix_cli.serving.messages import Wish  # noqa: E402

TOKEN = "t" * 32
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def desk(random_checkpoint: Path) -> Desk:
    """Of an engine whose answers never end by themselves."""
    engine = Engine.load(str(random_checkpoint), "cpu")
    engine.processor.stop_ids = frozenset()
    return Desk(engine, Wish(str(random_checkpoint.resolve()), "cpu", "auto", "auto"))


@contextmanager
def served(
    desk: Desk, root: Path, token: str | None = None, queue: int = 8, seconds: float = 600.0, unsent: int | None = None
) -> Iterator[HttpServer]:
    """A server on a free port, in this process; ``unsent`` bytes that the kernel keeps for a client."""
    listener = socket.create_server(("127.0.0.1", 0))
    if unsent is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, unsent)
    server = HttpServer(desk, listener, HttpOptions(root.resolve(), manner(4), token, queue, seconds))
    server.start()
    try:
        yield server
    finally:
        server.stop()
        listener.close()


@pytest.fixture(scope="module")
def server(desk: Desk, clips: dict[str, Path]) -> Iterator[HttpServer]:
    with served(desk, clips["both"].parent) as server:
        yield server


def client(server: HttpServer, token: str = "none") -> Any:
    return _client(server.address, token)


@cache  # making one takes longer than many an answer
def _client(address: str, token: str) -> Any:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=token, max_retries=0, timeout=300)


def messages(name: str = "both.mp4", kind: str = "video_url") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": kind, kind: {"url": name}}]}]


def ask(server: HttpServer, name: str = "both.mp4", **more: Any) -> Any:
    desk_name = client(server).models.list().data[0].id
    return client(server).chat.completions.create(model=desk_name, messages=messages(name), **more)


def test_a_model_is_found_by_its_name(server: HttpServer) -> None:
    own = client(server)
    listed = own.models.list().data[0]
    assert own.models.retrieve(listed.id) == listed
    with pytest.raises(openai.NotFoundError, match="only"):
        own.models.retrieve("gpt-9")


def test_an_answer_is_the_one_that_ask_gives(server: HttpServer, run, clips: dict[str, Path]) -> None:
    (record,) = run("ask", clips["both"], "What?", "--json", "--budget", "0.2", "--device", "cpu").records
    found = ask(server, f"file://{clips['both']}", max_tokens=4, extra_body={"echopix": {"budget": 0.2}})
    assert found.choices[0].message.content == record["answer"]
    assert found.choices[0].finish_reason == record["finish_reason"]
    assert {name: found.echopix[name] for name in ("tokens", "moments", "budget", "sampling")} == {
        name: record[name] for name in ("tokens", "moments", "budget", "sampling")
    }
    assert (found.echopix["server"], found.echopix["media"]) == (True, f"file://{clips['both']}")
    assert found.usage.completion_tokens == record["tokens"]["generated"]


def test_what_is_drawn_is_drawn_again_with_the_same_seed(server: HttpServer) -> None:
    drawn = [ask(server, max_tokens=8, temperature=2, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_conversation_is_read_with_its_turns(server: HttpServer, run, clips: dict[str, Path], monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What?\nAnd then?\n"))
    first, second = run("chat", clips["both"], "--device", "cpu", "--max-new-tokens", "4", "--no-server").records
    said = [
        *messages(),
        {"role": "assistant", "content": first["answer"]},
        {"role": "user", "content": "And then?"},
    ]
    name = client(server).models.list().data[0].id
    found = client(server).chat.completions.create(model=name, messages=said, max_tokens=4)
    assert found.choices[0].message.content == second["answer"]
    assert (found.echopix["turns_seen"], found.echopix["tokens"]) == (1, second["tokens"])


def test_a_stream_says_the_same_in_pieces(server: HttpServer) -> None:
    whole = ask(server, max_tokens=12)
    pieces = list(ask(server, max_tokens=12, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert (text, len(pieces) > 3) == (whole.choices[0].message.content, True)
    assert pieces[-2].choices[0].finish_reason == "length"
    assert pieces[-2].echopix["tokens"] == whole.echopix["tokens"]
    assert pieces[-1].usage == whole.usage


@pytest.mark.parametrize(("name", "kind"), [("dark.m4a", "audio_url"), ("silent.mp4", "image_url")])
def test_parts_are_spelled_as_others_spell_them(server: HttpServer, name: str, kind: str) -> None:
    model = client(server).models.list().data[0].id
    assert client(server).chat.completions.create(model=model, messages=messages(name, kind)).choices


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "status"), [("/etc/passwd", 403), ("../x.mp4", 403), ("nowhere.mp4", 404), ("http://127.0.0.1/x.mp4", 400)]
)
def test_other_files_are_refused(server: HttpServer, name: str, status: int, stream: bool) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        ask(server, name, stream=stream)
    assert refused.value.status_code == status
    assert "root" not in refused.value.message and "/pytest" not in refused.value.message


def test_a_broken_file_is_the_clients_error(server: HttpServer, clips: dict[str, Path]) -> None:
    (clips["both"].parent / "broken.mp4").write_text("no film")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(server, "broken.mp4")
    assert "broken.mp4" in refused.value.message
    assert str(clips["both"].parent) not in refused.value.message


def test_an_error_about_a_name_with_half_a_character_is_an_error(server: HttpServer, clips: dict[str, Path]) -> None:
    broken = clips["both"].parent / "half.mp4"
    broken.write_bytes(b"no video")
    plain = Plain(server)
    plain.post({"messages": messages("gone\udc80/../half.mp4")})
    assert plain.status() == 400


def test_a_body_of_100_megabytes_is_not_read(server: HttpServer) -> None:
    stated = Plain(server)
    stated.head(100_000_000)
    assert stated.status() == 413
    unstated = Plain(server)
    own = (f"Host: {unstated.host}", "Content-Type: application/json", "Transfer-Encoding: chunked", "", "")
    unstated.socket.sendall("\r\n".join(["POST /v1/chat/completions HTTP/1.1", *own]).encode())
    sent = 0
    with pytest.raises(OSError):
        while sent < 100_000_000:
            unstated.socket.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            sent += 65_536
    assert sent < 20_000_000, "the connection was closed"


@pytest.mark.parametrize(
    ("body", "lines", "status"),
    [
        (b"{", (), 400),
        (b"[" * 100_000, (), 400),
        (b"[]", (), 400),
        (b"{}", ("Content-Type: text/plain",), 415),
    ],
)
def test_what_is_no_request_is_refused(server: HttpServer, body: bytes, lines: tuple[str, ...], status: int) -> None:
    plain = Plain(server)
    own = lines or ("Content-Type: application/json",)
    head = ["POST /v1/chat/completions HTTP/1.1", f"Host: {plain.host}", f"Content-Length: {len(body)}", *own, "", ""]
    plain.socket.sendall("\r\n".join(head).encode() + body)
    assert plain.status() == status


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", ""])
def test_another_name_of_the_server_is_refused(server: HttpServer, name: str) -> None:
    plain = Plain(server)
    plain.socket.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    assert plain.status() in (400, 403)


def test_a_token_is_asked_for(desk: Desk, clips: dict[str, Path]) -> None:
    with served(desk, clips["both"].parent, token=TOKEN) as server:
        for wrong in ("none", TOKEN[:-1], TOKEN + "t"):
            with pytest.raises(openai.AuthenticationError):
                client(server, wrong).models.list()
        assert client(server, TOKEN).models.list().data
        plain = Plain(server)
        plain.socket.sendall(f"GET /health HTTP/1.1\r\nHost: {plain.host}\r\n\r\n".encode())
        assert plain.status() == 200


def test_beyond_this_machine_a_token_is_needed(command, tmp_path: Path) -> None:
    ran = command("serve", "--http", "0.0.0.0:0", "--root", tmp_path)
    assert (ran.code, "add --token-file" in ran.err) == (2, True)
    (tmp_path / "token").write_text("short")
    assert command("serve", "--http", "0.0.0.0:0", "--root", tmp_path, "--token-file", tmp_path / "token").code == 2
    for wrong in ("127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":80"):
        assert command("serve", "--http", wrong, "--root", tmp_path).code == 2
    assert "add --root" in command("serve", "--http", "127.0.0.1:0").err
    assert "are about HTTP" in command("serve", "--root", tmp_path).err


def test_a_client_that_sends_too_slowly_is_cut_off(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("echopix_cli.serving.door.SECONDS_TO_ASK", 0.5)
    head, body = Plain(server), Plain(server)
    head.socket.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: ")
    body.head(1000)
    body.socket.sendall(b"{")
    assert body.status() == 408
    assert head.socket.recv(1) == b""
    silent = Plain(server)
    assert silent.socket.recv(1) == b""


def test_a_client_that_goes_away_frees_its_place(desk: Desk, clips: dict[str, Path]) -> None:
    with served(desk, clips["both"].parent, queue=1) as server:
        assert ask(server).choices
        for stream in (False, True):
            plain = Plain(server)
            body = {"messages": messages(), "max_tokens": 4096, "stream": stream}
            plain.post(body)
            if stream:
                assert plain.socket.recv(10)
            wait_until(lambda: desk.running == 1)
            with pytest.raises(openai.RateLimitError):
                ask(server)
            plain.socket.close()
            wait_until(lambda: desk.running == 0)
            assert ask(server).choices, "there is room again"


def test_a_client_that_goes_away_before_the_first_token_frees_its_place(desk: Desk, clips: dict[str, Path]) -> None:
    with served(desk, clips["both"].parent) as server, desk.turns.turn():
        plain = Plain(server)
        plain.post({"messages": messages(), "stream": True})
        wait_until(lambda: desk.running == 1)
        plain.socket.close()
        wait_until(lambda: desk.running == 0, 20.0)


def test_a_body_that_is_still_coming_takes_nobodys_place(desk: Desk, clips: dict[str, Path]) -> None:
    with served(desk, clips["both"].parent, queue=1) as server:
        slow = Plain(server)
        slow.head(1000)
        slow.socket.sendall(b"{")
        wait_until(lambda: desk.idle_seconds == 0.0 and desk.running == 0)  # not idle, and not waited for
        assert ask(server).choices
        slow.socket.close()
        wait_until(lambda: desk.idle_seconds > 0.0)


def test_a_place_is_free_again_where_no_thread_was(
    desk: Desk, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*more: object, **named: object) -> None:
        raise RuntimeError("can't start new thread")

    with served(desk, clips["both"].parent, queue=1) as server:
        with monkeypatch.context() as patch:
            patch.setattr("echopix_cli.serving.http.threading", SimpleNamespace(Thread=none, Event=threading.Event))
            with pytest.raises(openai.InternalServerError) as refused:
                ask(server)
            assert refused.value.status_code == 503
        assert ask(server).choices


def test_a_client_that_does_not_read_holds_nobody_up(desk: Desk, clips: dict[str, Path]) -> None:
    """Its answer is longer than what the kernel keeps of it, and there when it reads."""
    with served(desk, clips["both"].parent, unsent=4096) as server:
        slow = Plain(server, unread=4096)
        slow.post({"messages": messages(), "max_tokens": 2000, "stream": True}, "Connection: close")
        assert ask(server).choices
        kept = slow.rest()
        assert b"[DONE]" in kept
        assert len(kept) > 4 * 4096, "both sides' kernels keep twice what they are told to"


def test_a_client_that_never_reads_is_cut_off(
    desk: Desk, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("echopix_cli.serving.door.SECONDS_TO_READ", 0.5)
    with served(desk, clips["both"].parent, unsent=4096) as server:
        still, gone = Plain(server, unread=4096), select.poll()
        gone.register(still.socket, select.POLLHUP)
        still.socket.sendall(f"GET /metrics HTTP/1.1\r\nHost: {still.host}\r\n\r\n".encode() * 500)
        assert gone.poll(30_000)
        reading = Plain(server, unread=4096)  # slowly, and yet
        reading.post({"messages": messages(), "max_tokens": 40, "stream": True}, "Connection: close")
        assert b"[DONE]" in reading.rest(pause=0.02)


def test_what_was_checked_is_what_is_read(
    desk: Desk, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write below the root swaps the file for a link as soon as it was checked."""
    root, name = tmp_path / "root", tmp_path / "root" / "clip.mp4"
    root.mkdir()
    shutil.copy(clips["silent"], name)

    def swapped(*arguments: Any) -> int:
        file = opened_below(*arguments)
        name.unlink()
        name.symlink_to(clips["both"])
        return file

    monkeypatch.setattr("echopix_cli.serving.http.opened_below", swapped)
    with served(desk, root) as server:
        found = ask(server, "clip.mp4", max_tokens=2)
        assert (found.echopix["audio"], found.echopix["media"]) == ("absent", "clip.mp4")
        with pytest.raises(openai.APIStatusError) as refused:
            ask(server, "clip.mp4")
        assert refused.value.status_code == 403
    wait_until(lambda: all(str(root) not in os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()))


def test_an_answer_that_takes_too_long_is_given_up(desk: Desk, clips: dict[str, Path]) -> None:
    with served(desk, clips["both"].parent, seconds=0.3) as server:
        with pytest.raises(openai.APIStatusError) as refused:
            ask(server, max_tokens=4096)
        assert refused.value.status_code == 504
        wait_until(lambda: desk.running == 0)


@pytest.mark.slow
def test_fifty_at_once(desk: Desk, clips: dict[str, Path]) -> None:
    with served(desk, clips["both"].parent, queue=10) as server:
        right = ask(server).choices[0].message.content
        codes: Counter[int] = Counter()

        def one() -> None:
            try:
                assert ask(server).choices[0].message.content == right
                codes[200] += 1
            except openai.APIStatusError as error:
                codes[error.status_code] += 1

        threads = [threading.Thread(target=one) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (codes.total(), codes[200] >= 10, set(codes) <= {200, 429}) == (50, True, True), codes
        wait_until(lambda: desk.running == 0)
        assert ask(server).choices[0].message.content == right


def test_metrics_count(server: HttpServer, desk: Desk) -> None:
    ask(server)
    wait_until(lambda: not desk.running)  # which is a moment after the answer
    plain = Plain(server)
    plain.socket.sendall(f"GET /metrics HTTP/1.1\r\nHost: {plain.host}\r\nConnection: close\r\n\r\n".encode())
    with plain.socket.makefile() as file:
        lines = file.read().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("echopix_"))
    assert int(values['echopix_requests_total{code="200"}']) >= 1
    assert values["echopix_requests_running"] == "0"
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == {
        name.partition("{")[0] for name in values
    }


def test_a_server_that_ends_says_so(desk: Desk, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ending = threading.Event()
    ending.set()
    monkeypatch.setattr(desk, "ending", ending)
    with served(desk, clips["both"].parent) as server, desk.turns.turn():
        with pytest.raises(openai.InternalServerError) as refused:
            ask(server)
        assert (refused.value.status_code, "ending" in refused.value.message) == (503, True)
