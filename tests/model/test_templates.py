"""Chat templates: the same turns as transformers', rendered apart, bounded."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from echopix_cli.errors import ModelError
from echopix_cli.model import templates
from echopix_cli.model.templates import FAMILY_TEMPLATE, turns_of

# As the family's processors have it: placeholders by kind of content, a system turn of its own where there is none.
STOCK = (
    "{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'audio' or 'audio' in content %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif content['type'] == 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}"
    "<|vision_bos|><|VIDEO|><|vision_eos|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OTHER = (
    "{%- for message in messages %}\n    {% generation %}{{ eos_token }}{{ message.role | upper }}:"
    "{% endgeneration %}\n"
    "{% for part in message.content %}{% if part.type != 'text' %}{{ part | tojson }}{% continue %}{% endif %}"
    " {{ part.text }}{% endfor %}\n{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer(random_checkpoint: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(random_checkpoint, config=PreTrainedConfig())


@pytest.mark.parametrize("template", [FAMILY_TEMPLATE, STOCK, OTHER])
def test_turns_are_those_that_transformers_renders(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    found = turns_of(template, tokenizer.special_tokens_map)
    assert list(found) == [None, "video", "audio"]
    for media, turns in found.items():
        theirs = tokenizer.apply_chat_template(
            templates.conversation(media), chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert f"{turns.before}\ue000{turns.between}\ue001{turns.after}" == theirs
        theirs = tokenizer.apply_chat_template(
            templates.conversation(media, 3), chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert turns.earlier is not None
        reply, again = turns.earlier
        before = f"\ue001{reply}\ue002{again}" * 3
        assert f"{turns.before}\ue000{turns.between}{before}\ue001{turns.after}" == theirs


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages | length > 2 %}{{ raise_exception('one question') }}{% endif %}" + STOCK,
        STOCK.replace("{{ message['role'] }}", "{{ message['role'] }}{{ loop.index if loop.index > 3 else '' }}"),
        "{% set messages = messages[:1] + messages[-1:] %}" + STOCK,
    ],
    ids=["refuses", "numbers its turns", "drops what was before"],
)
def test_templates_of_single_questions_are_known_for_it(template: str) -> None:
    found, stock = turns_of(template, {}), turns_of(STOCK, {})
    assert {media: (turns.before, turns.between, turns.after) for media, turns in found.items()} == {
        media: (turns.before, turns.between, turns.after) for media, turns in stock.items()
    }
    assert {turns.earlier for turns in found.values()} == {None}


def test_the_familys_own_template_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(subprocess, "run", refuse)
    assert turns_of(FAMILY_TEMPLATE, {}) == turns_of(None, {}) == turns_of({"default": FAMILY_TEMPLATE}, {})
    with pytest.raises(AssertionError):
        turns_of(STOCK, {})


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 'a' * 10**10 }}", "more than 256 MiB"),
        ("{% for i in range(99999) %}{{ 'a' * 10**5 }}{% endfor %}", "more than 1048576 characters"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than 2 s"),
        ("{{ (9**9)**(9**9) }}", "more than 2 s"),
        ("{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}", "nested too deeply"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "no loader|not support"),
        ("{% for", "TemplateSyntaxError"),
        ("hello", "has no place for"),
        (7, "is a int, not a text"),
        ("a" * 2_000_000, "unusually large"),
    ],
)
def test_templates_that_are_refused(template: object, said: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ModelError, match=said) as caught:
        turns_of(template, {})
    assert time.monotonic() - begun < 45 and "\n" not in caught.value.message
