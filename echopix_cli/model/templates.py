"""Chat templates: the text that a checkpoint puts around a system prompt, a clip and a question.

A template depends on none of these three but on whether there is a picture or a sound, so it is rendered once, when the
model is loaded, with stand-ins, of one question and of several. One that is not the family's own is rendered by
:mod:`.render` in a process that is bounded in time and memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echopix_cli.errors import ModelError

# Stand-ins for the user's words: private-use characters, which no template contains.
_SYSTEM_MARK, _QUESTION_MARK, _ANSWER_MARK = _MARKS = "\ue000\ue001\ue002"
_EARLIER = 2  # questions and answers before the last question, which show whether all stand in the same text
_MEDIA = (None, "video", "audio")
_LARGEST = 2**20  # characters of a template; the family's has a thousandth of that
_MEMORY, _SECONDS = 256 * 2**20, 2  # bytes of address space and processor time that rendering may take
_PATIENCE = 15 * _SECONDS  # seconds, on a machine that is busy
_RENDER = Path(__file__).with_name("render.py")  # run, not imported: Jinja is for it alone

# For checkpoints whose tokenizer brings no template of its own: the family's turns and borders.
FAMILY_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'video' -%}{{ '<|vision_bos|><|VIDEO|><|vision_eos|>' }}"
    "{%- elif part['type'] == 'audio' -%}{{ '<|audio_bos|><|AUDIO|><|audio_eos|>' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{ '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
_FAMILY_REPLY = "<|im_end|>\n<|im_start|>assistant\n"
_FAMILY_BLOCKS = {
    None: "",
    "video": "<|vision_bos|><|VIDEO|><|vision_eos|>",
    "audio": "<|audio_bos|><|AUDIO|><|audio_eos|>",
}


@dataclass(frozen=True)
class Turns:
    """A template's own text: ``before`` the system prompt, ``between`` it and the question with the media block's
    placeholder, and ``after`` the question.

    ``earlier`` is what stands between an earlier question and its answer, and between that and the next question; None
    where the template takes one question only.
    """

    before: str
    between: str
    after: str
    earlier: tuple[str, str] | None = None


def turns_of(template: object, names: Mapping[str, Any]) -> dict[str | None, Turns]:
    """The turns by kind of media block: None, ``video`` or ``audio``.

    Args:
        template: of the tokenizer; None stands for the family's own.
        names: special tokens that it may print.

    Raises:
        ModelError: it cannot be rendered, takes too much time or memory, or has no place for the user's words.
    """
    if isinstance(template, Mapping):
        template = template.get("default")
    if template is None or template == FAMILY_TEMPLATE:
        return {
            media: Turns("<|im_start|>system\n", f"<|im_end|>\n<|im_start|>user\n{block}", _FAMILY_REPLY,
                         (_FAMILY_REPLY, "<|im_end|>\n<|im_start|>user\n"))
            for media, block in _FAMILY_BLOCKS.items()
        }  # fmt: skip
    if not isinstance(template, str):
        raise ModelError(f"the chat template of this checkpoint is a {type(template).__name__}, not a text")
    if len(template) > _LARGEST:
        raise ModelError(f"the chat template of this checkpoint is unusually large: {len(template)} characters")
    texts = _rendered(template, {key: value for key, value in names.items() if isinstance(value, str)})
    return {media: _split(*pair) for media, pair in zip(_MEDIA, texts, strict=True)}


def conversation(media: str | None, earlier: int = 0) -> list[dict[str, Any]]:
    """The messages that are rendered: a system prompt and a question, with a picture, a sound, or neither, and between
    the two so many earlier questions with their answers; picture and sound go with the first question."""
    roles = [("user", _QUESTION_MARK), ("assistant", _ANSWER_MARK)] * earlier + [("user", _QUESTION_MARK)]
    (_, first), *others = roles
    block = [{"type": media}] if media else []
    return [
        {"role": "system", "content": [{"type": "text", "text": _SYSTEM_MARK}]},
        {"role": "user", "content": [*block, {"type": "text", "text": first}]},
        *({"role": role, "content": [{"type": "text", "text": mark}]} for role, mark in others),
    ]


def _split(text: str, longer: str | None) -> Turns:
    """A template's own text.

    Args:
        text: rendered of one question.
        longer: of several; None where the template fails there.

    Raises:
        ModelError: it has no place for the user's words.
    """
    own = f"([^{_MARKS}]*)"
    found = re.fullmatch(f"{own}{_SYSTEM_MARK}{own}{_QUESTION_MARK}{own}", text)
    if found is None:
        raise ModelError("the chat template of this checkpoint has no place for a system prompt and a question")
    before, between, after = found.groups()
    first, others = f"{_QUESTION_MARK}{own}{_ANSWER_MARK}{own}", rf"{_QUESTION_MARK}\1{_ANSWER_MARK}\2"
    start, end = re.escape(f"{before}{_SYSTEM_MARK}{between}"), re.escape(f"{_QUESTION_MARK}{after}")
    several = re.fullmatch(start + first + (_EARLIER - 1) * others + end, longer or "")
    return Turns(before, between, after, None if several is None else (several[1], several[2]))


def _rendered(template: str, names: dict[str, str]) -> list[tuple[str, str | None]]:
    """Texts for each kind of media block, of one question and of several, from a process that may be killed.

    Raises:
        ModelError: none came.
    """
    one, several = ([conversation(media, earlier) for media in _MEDIA] for earlier in (0, _EARLIER))
    wanted = {"template": template, "names": names, "conversations": one, "attempts": several,
              "memory": _MEMORY, "seconds": _SECONDS}  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_RENDER)],
            input=json.dumps(wanted).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # killed, by us or by its limits
        what = f"it takes more than {_SECONDS} s or {_MEMORY >> 20} MiB"
        raise ModelError(f"the chat template of this checkpoint cannot be rendered: {what}") from None
    if "error" in answer:
        raise ModelError(f"the chat template of this checkpoint cannot be rendered: {answer['error']}")
    return list(zip(answer["rendered"], answer["attempts"], strict=True))
