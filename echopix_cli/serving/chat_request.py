"""A request for a chat completion, as it is read: a question about one file below a folder, perhaps after earlier ones
about it. Nothing else is opened, and nothing is fetched."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from echopix_cli.errors import EchopixError
from echopix_cli.parsers import is_whole, parse_budget
from echopix_cli.results import Turn
from echopix_cli.serving.messages import Ask, Manner
from echopix_cli.settings import SIEVES
from echopix_cli.times import parse_time

MOST_TOKENS = 4096  # of an answer
MOST_TEXT = 32_768  # characters of a question, or of a system prompt
_MEDIA = ("video_url", "audio_url", "image_url")
_SPEAKERS = ("the question", "an earlier answer")
_EXTRAS = ("budget", "sieve", "start", "end")
_READ = (
    *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "seed"),
    "echopix",
)
# What changes no answer, whatever its value: who asks, what is kept of it, and how fast it comes.
_UNHEEDED = (
    *("user", "metadata", "store", "safety_identifier", "service_tier", "prediction", "parallel_tool_calls"),
    *("prompt_cache_key", "prompt_cache_retention"),
)
# What would change an answer, but for these values, which ask for what is done anyway.
_AS_IT_IS: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "stop": ([], ""),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
}


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: what is wrong with it.
        code: for programs.
    """

    def __init__(self, status: int, message: str, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class ChatRequest:
    """What is asked.

    Attributes:
        ask: the question, about the file's real path.
        named: what the client calls that file.
        stream: whether the answer is sent piece by piece.
        usage: whether its last piece counts tokens.
    """

    ask: Ask
    named: str
    stream: bool
    usage: bool


def chat_request(raw: Any, root: Path, model: str, manner: Manner, reads_turns: bool = False) -> ChatRequest:
    """A request from its JSON.

    Args:
        raw: as it came.
        root: the folder whose files may be asked about, without links in its path.
        model: that is served.
        manner: of answers, where the request does not say otherwise.
        reads_turns: whether the model reads turns before a question.

    Raises:
        Refused: it is none that can be answered.
    """
    if not isinstance(raw, dict):
        raise Refused(400, "the body is no JSON object")
    if raw.get("model", model) != model:
        raise Refused(404, f"there is no model {raw['model']!r} here, only {model!r}", "model_not_found")
    _refuse_unheeded(raw)
    system, named, earlier, question = _messages(raw.get("messages"))
    if earlier and not reads_turns:
        raise Refused(400, f"messages: {model} reads single questions, and no turns before them", "single_questions")
    manner = _sampled(replace(manner, system=system or manner.system), raw)
    manner = _with_extras(manner, raw.get("echopix"))
    options = raw.get("stream_options")
    return ChatRequest(
        Ask(below(root, named), (question,), (), manner, earlier),
        named,
        _flag(raw, "stream"),
        isinstance(options, dict) and _flag(options, "include_usage"),
    )


def _refuse_unheeded(raw: Mapping[str, Any]) -> None:
    """Refuse what is neither read here nor known to leave the answer as it is; null asks for nothing."""
    for name, value in raw.items():
        if value is None or name in _READ or name in _UNHEEDED:
            continue
        if name in _EXTRAS:
            raise Refused(400, f"{name}: it belongs under echopix")
        same = _AS_IT_IS.get(name)
        if same is None:
            raise Refused(400, f"unknown field {name!r}; leave it out")
        if value not in same:
            raise Refused(400, f"{name}: only {' or '.join(map(json.dumps, same))} is done here; leave it out")


def _flag(raw: Mapping[str, Any], name: str) -> bool:
    value = raw.get(name)
    if value not in (None, True, False):
        raise Refused(400, f"{name}: expected true or false")
    return bool(value)


def _messages(raw: Any) -> tuple[str | None, str, tuple[Turn, ...], str]:
    """System prompt, the URL of the file, earlier turns and the question."""
    if not isinstance(raw, list) or not raw:
        raise Refused(400, "messages: expected a list of at least one")
    if not all(isinstance(message, dict) for message in raw):
        raise Refused(400, "messages: expected objects")
    said = [(message.get("role"), _parts(message.get("content"))) for message in raw]
    system: str | None = None
    if said[0][0] in ("system", "developer"):
        system = _text(said.pop(0)[1], "the system prompt", only=True)
    if not said:
        raise Refused(400, "messages: there is no question")
    if len(said) % 2 == 0 or any(role != ("user", "assistant")[place % 2] for place, (role, _) in enumerate(said)):
        raise Refused(
            400, "messages: expected a system prompt or none, then user and assistant in turns, the question last"
        )
    files = [value for _, parts in said for kind, value in parts if kind != "text"]
    if len(files) != 1:
        raise Refused(400, f"a conversation is about one file, in a content part {_MEDIA[0]!r}; there are {len(files)}")
    texts = [_text(parts, _SPEAKERS[place % 2], only=place > 0) for place, (_, parts) in enumerate(said)]
    return system, files[0], tuple(map(Turn, texts[:-1:2], texts[1::2])), texts[-1]


def _parts(content: Any) -> list[tuple[str, str]]:
    """Content as (kind, text or URL)."""
    if isinstance(content, str):
        return [("text", content)]
    if not isinstance(content, list):
        raise Refused(400, "content: expected text or a list of parts")
    found = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        value = None
        if kind == "text":
            value = part.get("text")
        elif kind in _MEDIA:
            value = part.get(kind)
            value = value.get("url") if isinstance(value, dict) else value
        if not isinstance(kind, str) or not isinstance(value, str):
            raise Refused(400, f"content: expected parts of the types text, {', '.join(_MEDIA)}")
        found.append((kind, value))
    return found


def _text(parts: list[tuple[str, str]], what: str, only: bool = False) -> str:
    """The text of a message; ``only`` where nothing else may be in it."""
    if only and any(kind != "text" for kind, _ in parts):
        raise Refused(400, f"{what} is text; the file belongs to the first question")
    text = "\n".join(value for kind, value in parts if kind == "text").strip()
    if not text and what != _SPEAKERS[1]:  # an answer may be nothing
        raise Refused(400, f"{what} is empty")
    if len(text) > MOST_TEXT:
        raise Refused(413, f"{what} has more than {MOST_TEXT} characters")
    if not is_whole(text):
        raise Refused(400, f"{what} holds half of a character (a lone surrogate)")
    return text


def _sampled(manner: Manner, raw: Mapping[str, Any]) -> Manner:
    for name in ("max_tokens", "max_completion_tokens"):
        if (count := raw.get(name)) is not None:
            if type(count) is not int or not 1 <= count <= MOST_TOKENS:
                raise Refused(400, f"{name}: expected a whole number from 1 to {MOST_TOKENS}")
            manner = replace(manner, max_new_tokens=count)
    if (heat := raw.get("temperature")) is not None:
        if type(heat) not in (int, float) or not 0.0 <= heat <= 2.0:
            raise Refused(400, "temperature: expected a number from 0 to 2")
        manner = replace(manner, temperature=float(heat))
    if (seed := raw.get("seed")) is not None:
        if type(seed) is not int or not -(2**63) <= seed < 2**63:
            raise Refused(400, "seed: expected a whole number of 64 bits")
        manner = replace(manner, seed=seed)
    return manner


def _with_extras(manner: Manner, raw: Any) -> Manner:
    if raw is None:
        return manner
    if not isinstance(raw, dict):
        raise Refused(400, "echopix: expected an object")
    if unknown := sorted(set(raw) - set(_EXTRAS)):
        raise Refused(400, f"echopix: unknown field {unknown[0]!r}; fields are: {', '.join(_EXTRAS)}")

    def read(name: str, parse: Callable[[str], Any]) -> Any:
        value = raw.get(name)
        if value is None:
            return None
        try:
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise ValueError("expected a number or a text")
            return parse(str(value))
        except (ValueError, OverflowError) as error:
            raise Refused(400, f"echopix: {name}: {error}") from None

    if raw.get("sieve") not in (None, *SIEVES):
        raise Refused(400, f"echopix: sieve: expected one of {', '.join(SIEVES)}")
    start, end, budget = read("start", parse_time), read("end", parse_time), read("budget", parse_budget)
    plan = manner.plan
    start, end = plan.start if start is None else start, plan.end if end is None else end
    if not all(value is None or math.isfinite(value) for value in (start, end)):
        raise Refused(400, "echopix: start and end are finite")
    try:
        plan = replace(plan, start=start, end=end)
    except EchopixError as error:
        raise Refused(400, f"echopix: {error.message}") from None
    return replace(
        manner,
        plan=plan,
        budget=manner.budget if budget is None else budget,
        sieve=raw.get("sieve") or manner.sieve,
    )


def below(root: Path, url: str) -> str:
    """The real path of a file, from its ``file://`` URL.

    Args:
        root: the folder it has to lie in, after links and ``..`` were followed; a real path itself.
        url: as the client sent it; a path without ``file://`` starts at the root.

    Raises:
        Refused: another kind of URL; or a file elsewhere, of which it is not said whether it exists. Whether there is
            one below the root, :func:`opened_below` finds out.
    """
    if len(url) > 8192:
        raise Refused(400, "the name of the file is too long")
    path = url
    if "://" in url or url.startswith("data:"):
        try:
            parts = urlsplit(url)
        except ValueError:
            raise Refused(400, "the URL of the file cannot be read") from None
        if parts.scheme.lower() != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise Refused(400, "only file:// URLs without host, query and fragment are read; nothing is fetched")
        path = unquote(parts.path, errors="surrogateescape")
    if not path or "\0" in path:
        raise Refused(400, "the name of the file is empty, or holds NUL")
    try:
        real = os.path.realpath(os.path.join(root, path))
        inside = os.path.commonpath([real, root]) == str(root) and real != str(root)
    except (OSError, ValueError):  # a name that no file can have
        inside = False
    if not inside:
        raise Refused(403, "the file is outside the folder that is served", "outside_root")
    return real


def opened_below(root: Path, real: str) -> int:
    """A descriptor of a file, for reading. Every folder on the way is looked up in the one before, and none is a link:
    what was put in the place of one since :func:`below` is not followed out of the root.

    Args:
        root: as of :func:`below`.
        real: from there.

    Raises:
        Refused: there is no such file any more, or it is none.
    """
    *folders, name = os.path.relpath(real, root).split(os.sep)
    way = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for one in folders:
                above, folder = folder, os.open(one, os.O_RDONLY | os.O_DIRECTORY | way, dir_fd=folder)
                os.close(above)
            file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | way, dir_fd=folder)  # a pipe is not waited for
        finally:
            os.close(folder)
    except PermissionError:
        raise Refused(400, "the file cannot be read: permission denied", "no_file") from None
    except (OSError, ValueError):
        raise Refused(404, "there is no such file", "file_not_found") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Refused(400, "it is no file", "no_file")
    return file
