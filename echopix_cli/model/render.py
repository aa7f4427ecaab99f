"""Renders a chat template that came with somebody's model: a program of its own, run by :mod:`.templates`.

Reads one JSON object on stdin (``template``, ``names``, ``conversations``, ``attempts``; ``memory`` in bytes and
``seconds`` of processor time, which it may take) and writes one on stdout: ``rendered``, a text for each conversation,
and ``attempts``, a text for each of those that the template may refuse, null where it does; or ``error``.
A template is a program that can ask for any amount of time and memory and may know a way out of Jinja's sandbox, so
this process can take little of either, open no file and start no process.
"""

import json
import resource
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST = 2**20  # characters of what is rendered; the family's has 300


class Generation(jinja2.ext.Extension):
    """``{% generation %}``, which marks what a model is trained to say, and prints what is in it."""

    tags = {"generation"}  # noqa: RUF012 - as the parent has it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Its content."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _fail(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def environment() -> ImmutableSandboxedEnvironment:
    """What chat templates are written for, as transformers has it."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _fail
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def rendered(template: str, names: dict[str, Any], conversations: list[Any]) -> list[str]:
    """A text for each conversation.

    Raises:
        Exception: whatever the template does wrong.
    """
    program = environment().from_string(template)
    texts = []
    for messages in conversations:
        text, length = [], 0
        for piece in program.generate(**{**names, "messages": messages, "add_generation_prompt": True}):
            text.append(piece)
            length += len(piece)
            if length > LONGEST:
                raise ValueError(f"it makes more than {LONGEST} characters")
        texts.append("".join(text))
    return texts


def _attempted(template: str, names: dict[str, Any], messages: Any) -> str | None:
    """The text of a conversation; None where the template fails."""
    try:
        return rendered(template, names, [messages])[0]
    except Exception:
        return None


def _confine(memory: int, seconds: int) -> None:
    """Take from this process what rendering does not need."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_NPROC, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _main() -> None:
    wanted = json.load(sys.stdin)
    with suppress(jinja2.TemplateError):  # what Jinja and Python import when they are first needed
        rendered("{% for a in [1] %}{{ strftime_now('%Y') }}{% endfor %}{{ raise_exception('') }}", {}, [[]])
    _confine(wanted["memory"], wanted["seconds"])
    program = wanted["template"], wanted["names"]
    try:
        answer: dict[str, Any] = {"rendered": rendered(*program, wanted["conversations"])}
        answer["attempts"] = [_attempted(*program, messages) for messages in wanted["attempts"]]
    except MemoryError:
        answer = {"error": f"it takes more than {wanted['memory'] >> 20} MiB of memory"}
    except RecursionError:
        answer = {"error": "it is nested too deeply"}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"[:300]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main()
