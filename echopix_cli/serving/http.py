"""The same answers over HTTP, in the form of OpenAI's chat completions; files below one folder only."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from echopix_cli.errors import EchopixError, ExitCode, described
from echopix_cli.media import require_file
from echopix_cli.results import Answer
from echopix_cli.serving import messages as m
from echopix_cli.serving.answering import Cancelled, answer
from echopix_cli.serving.chat_request import ChatRequest, Refused, chat_request, opened_below
from echopix_cli.serving.client import Naming
from echopix_cli.serving.completions import Completion, event
from echopix_cli.serving.desk import Desk
from echopix_cli.serving.door import Door, Impatient, body_of, error_body, refusal
from echopix_cli.serving.turns import Left

_CONNECTIONS = 256  # at once; more are told 503
_STATUS = {ExitCode.USAGE: 400, ExitCode.MEDIA: 400, ExitCode.DEVICE: 503}
_LOOK = 0.2  # seconds between looks at whether a client is still there


@dataclass(frozen=True)
class HttpOptions:
    """How the model is served.

    Attributes:
        root: the folder whose files may be asked about; a real path.
        manner: of answers, where a request does not say otherwise.
        token: that clients must bear; None for none.
        queue: requests that may wait or be answered; more are told 429.
        seconds: that one may take, waiting included.
    """

    root: Path
    manner: m.Manner
    token: str | None
    queue: int
    seconds: float


class HttpServer:
    """Serves a desk over HTTP, in a thread of its own.

    Args:
        desk: with the model.
        listener: bound.
        options: of serving.
    """

    def __init__(self, desk: Desk, listener: socket.socket, options: HttpOptions) -> None:
        self._desk, self._listener, self._options = desk, listener, options
        self._held = 0  # places of the queue, counted on the loop alone
        self._codes: Counter[int] = Counter()
        self._seconds = 0.0  # that answering took
        self._kept = self._total = 0  # tokens
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
        ]
        host = listener.getsockname()[0]
        door = Door(Starlette(routes=routes), host, options.token, options.seconds + 60.0)
        config = uvicorn.Config(
            door,
            http=Impatient,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())  # what fails is told to the client
        logging.getLogger("uvicorn").propagate = False
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)

    @property
    def root(self) -> Path:
        """The folder whose files may be asked about."""
        return self._options.root

    @property
    def address(self) -> str:
        """Where it is reached."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End, once what is being sent was sent."""
        self._server.should_exit = True
        self._thread.join(10.0)

    async def _chat(self, request: Request) -> Response:
        try:
            with self._desk.request("arriving"):
                body = await body_of(request.scope, request.receive)
            asked = chat_request(
                body,
                self._options.root,
                self._desk.engine.facts.name,
                self._options.manner,
                self._desk.engine.processor.reads_turns,
            )
            if self._held >= self._options.queue:
                raise Refused(429, "too many requests wait already", "queue_full")
            file = opened_below(self._options.root, asked.ask.path)
        except Refused as refused:
            return self._refusal(refused)
        self._held += 1
        # By this name other processes of this user open what was checked, whatever the file's own name means by then.
        asked = replace(asked, ask=replace(asked.ask, path=f"/proc/{os.getpid()}/fd/{file}"))
        told = self._told(asked, file)
        completion = Completion(asked, self._desk.engine.facts.name)
        if asked.stream:
            return await self._streamed(request, told, completion)
        return await self._whole(request, told, completion)

    async def _whole(self, request: Request, told: AsyncIterator[Any], completion: Completion) -> Response:
        """The whole answer."""

        async def last() -> Any:
            return [piece async for piece in told][-1]

        try:
            found = await _while_there(request, last())
        except Refused as refused:
            return self._refusal(refused)
        except _Gone:
            return Response(status_code=499)
        assert isinstance(found, Answer)
        self._codes[200] += 1
        return JSONResponse(completion.whole(found))

    async def _streamed(self, request: Request, told: AsyncIterator[Any], completion: Completion) -> Response:
        """Pieces as they come. What is wrong before the first of them is an error with its status."""
        try:
            first = await _while_there(request, anext(told))
        except Refused as refused:
            return self._refusal(refused)
        except _Gone:
            return Response(status_code=499)
        self._codes[200] += 1

        async def pieces() -> AsyncIterator[bytes]:
            async with aclosing(told):  # type: ignore[type-var]
                piece = first
                try:
                    while not isinstance(piece, Answer):
                        yield completion.piece(piece)
                        piece = await anext(told)
                    yield completion.last(piece)
                except Refused as refused:
                    yield event(error_body(refused))

        return StreamingResponse(pieces(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _told(self, asked: ChatRequest, file: int) -> AsyncIterator[str | Answer]:
        """Pieces of text, then the answer; the place in the queue is free again and the file closed once the model is
        free. Whoever stops listening cancels it.

        Raises:
            Refused: it cannot be answered, or not in time.
        """
        loop, events, gone = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def tell(what: Any) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(events.put_nowait, what)

        def work() -> None:
            try:
                self._answer(asked, tell, gone)
            except Exception as error:
                tell(error)
            finally:
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._release, file)

        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError as error:
            self._release(file)
            raise Refused(503, f"no thread for another request: {error}", "overloaded") from None
        try:
            until = loop.time() + self._options.seconds
            while True:
                what = await asyncio.wait_for(events.get(), until - loop.time())
                if isinstance(what, Exception):
                    raise refused_of(what, asked)
                yield what
                if isinstance(what, Answer):
                    return
        except TimeoutError:
            raise Refused(504, f"it took longer than {self._options.seconds:g} s", "timeout") from None
        finally:
            gone.set()

    def _answer(self, asked: ChatRequest, tell: Any, gone: threading.Event) -> None:
        """In a thread: wait for the model, and answer."""
        desk = self._desk

        def say(event: m.Event) -> None:
            match event:
                case m.Piece(text):
                    tell(text)
                case m.Answered(found):
                    desk.answers += 1
                    self._seconds += found.latency.total
                    self._kept, self._total = self._kept + found.tokens.kept, self._total + found.tokens.total
                    tell(found)

        with desk.request():
            require_file(asked.ask.path)
            with desk.turn(gone.is_set):
                engine = desk.lent(asked.ask.manner, lambda notice: None)
                answer(engine, asked.ask, say, stop=gone.is_set)

    def _release(self, file: int) -> None:
        self._held -= 1
        os.close(file)

    def _refusal(self, refused: Refused) -> Response:
        self._codes[refused.status] += 1
        return refusal(refused)

    def _described(self) -> dict[str, Any]:
        facts = self._desk.engine.facts
        return {"id": facts.name, "object": "model", "created": int(self._desk.since), "owned_by": "echopix"}

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _model(self, request: Request) -> Response:
        own, name = self._described(), request.path_params["name"]
        if name == own["id"]:
            return JSONResponse(own)
        return refusal(Refused(404, f"there is no model {name!r} here, only {own['id']!r}", "model_not_found"))

    async def _health(self, request: Request) -> Response:
        ending = self._desk.ending.is_set()
        return JSONResponse({"status": "ending" if ending else "ok"}, 503 if ending else 200)

    async def _metrics(self, request: Request) -> Response:
        lines = [
            *_metric("requests_total", "counter", "HTTP requests for answers, by status.",
                     {f'{{code="{code}"}}': count for code, count in sorted(self._codes.items())}),
            *_metric("answers_total", "counter", "Answers given, over HTTP and the socket.", {"": self._desk.answers}),
            *_metric("answer_seconds_total", "counter", "Seconds from decoding to the last token, over HTTP.",
                     {"": round(self._seconds, 6)}),
            *_metric("tokens_kept_total", "counter", "Audio-visual tokens kept, over HTTP.", {"": self._kept}),
            *_metric("tokens_seen_total", "counter", "Audio-visual tokens before the sieve, over HTTP.",
                     {"": self._total}),
            *_metric("requests_running", "gauge", "Requests that are answered or wait.", {"": self._desk.running}),
            *_metric("queue_limit", "gauge", "HTTP requests that may be answered or wait.",
                     {"": self._options.queue}),
            *_metric("uptime_seconds", "gauge", "Since the model was loaded.",
                     {"": round(time.time() - self._desk.since, 3)}),
        ]  # fmt: skip
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


class _Gone(Exception):
    """The client went away."""


async def _while_there(request: Request, awaited: Awaitable[Any]) -> Any:
    """What comes of something, cancelled when the client goes away.

    Raises:
        _Gone: it has.
        Refused: as what is awaited.
    """
    working = asyncio.ensure_future(awaited)
    try:
        while not working.done():
            await asyncio.wait([working], timeout=_LOOK)
            if not working.done() and await request.is_disconnected():
                raise _Gone
        return working.result()
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError, Refused):
            await working


def refused_of(error: Exception, asked: ChatRequest) -> Refused:
    """What went wrong, for a client that knows its file by another name."""
    match error:
        case Left() | Cancelled():
            return Refused(503, "the server is ending", "ending")
        case EchopixError():
            text = Naming({asked.ask.path: asked.named}).text(error.message)
            return Refused(_STATUS.get(error.exit_code, 500), text, error.kind)
    return Refused(500, f"unexpected failure: {described(error)}", "unexpected")


def _metric(name: str, kind: str, help: str, values: dict[str, float]) -> list[str]:
    full = f"echopix_{name}"
    return [
        f"# HELP {full} {help}",
        f"# TYPE {full} {kind}",
        *(f"{full}{key} {value}" for key, value in values.items()),
    ]
