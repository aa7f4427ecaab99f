"""Answers in the form of chat completions: whole, or in pieces as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from typing import Any

from echopix_cli.records import answer_record
from echopix_cli.results import Answer
from echopix_cli.serving.chat_request import ChatRequest


class Completion:
    """One answer on its way to a client.

    Args:
        request: that it answers.
        model: that answers.
    """

    def __init__(self, request: ChatRequest, model: str) -> None:
        self._request = request
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, answer: Answer) -> dict[str, Any]:
        """All of it."""
        message = {"role": "assistant", "content": answer.answer}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(answer),
            "echopix": self._record(answer),
        }

    def piece(self, text: str) -> bytes:
        """A piece of its text."""
        return self._chunk({"role": "assistant", "content": text}, None)

    def last(self, answer: Answer) -> bytes:
        """What follows the last piece."""
        end = self._chunk({}, answer.finish_reason, echopix=self._record(answer))
        if self._request.usage:
            end += event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(answer)})
        return end + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, str], finish: str | None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return event({**self._head, "object": "chat.completion.chunk", "choices": [choice], **more})

    def _record(self, answer: Answer) -> dict[str, Any]:
        return answer_record(replace(answer, media=self._request.named), served=True)


def event(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(value).encode("ascii") + b"\n\n"


def _usage(answer: Answer) -> dict[str, int]:
    """Tokens that the decoder read, and those that it made."""
    prompt, made = answer.tokens.text + answer.tokens.kept, answer.tokens.generated
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
