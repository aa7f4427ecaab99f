"""What a chat completion may ask about, and what it may not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import manner

from echopix_cli.engine import GenerationOptions
from echopix_cli.results import Turn
from echopix_cli.serving.chat_request import ChatRequest, Refused, below, chat_request, opened_below
from echopix_cli.serving.manners import generation_of

SEGMENTS = ["..", ".", "a", "b.mp4", "out", "in", "loop", "%2e%2e", "%2E.", "", "..%2f..", "%00", "\udcff", "x" * 300]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file, a link into it, links out of it and one in a circle; beside it a folder of a like name."""
    place = tmp_path_factory.mktemp("served")
    (place / "root-not" / "a").mkdir(parents=True)
    (place / "root-not" / "a" / "b.mp4").write_text("secret")
    folder = place / "root"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b.mp4").write_text("film")
    (folder / "in").symlink_to(folder / "a")
    (folder / "out").symlink_to(place / "root-not")
    (folder / "out.mp4").symlink_to(place / "root-not" / "a" / "b.mp4")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    return folder.resolve()


def asked(url: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What?"}, {"type": "video_url", "video_url": {"url": url}}]
    return {"model": "tiny", "messages": [{"role": "user", "content": parts}], **more}


@pytest.mark.parametrize(
    "url",
    [
        "a/b.mp4",
        "in/b.mp4",
        "a/../a/b.mp4",
        "{root}/a/b.mp4",
        "file://{root}/in/b.mp4",
        "file://localhost{root}/a/%62.mp4",
    ],
)
def test_a_file_below_the_root_is_its_real_path(root: Path, url: str) -> None:
    real = below(root, url.format(root=root))
    assert real == str(root / "a" / "b.mp4")
    with open(opened_below(root, real)) as file:
        assert file.read() == "film"


@pytest.mark.parametrize("swapped", ["a", "a/c", "a/c/b.mp4"])
@pytest.mark.parametrize("target", ["folder", "file", "nothing"])
def test_what_is_put_in_the_place_of_what_was_checked_leads_nowhere(tmp_path: Path, swapped: str, target: str) -> None:
    root, secret = tmp_path.resolve() / "root", tmp_path.resolve() / "secret"
    for place in (root / "a", secret, secret / "a"):
        (place / "c").mkdir(parents=True)
        (place / "c" / "b.mp4").write_text("secret")
    real = below(root, "a/c/b.mp4")
    (root / swapped).rename(root / "away")
    if target != "nothing":
        (root / swapped).symlink_to(secret / ("c/b.mp4" if target == "file" else "" if swapped == "a" else "c"))
    with pytest.raises(Refused) as refused:
        opened_below(root, real)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/etc/passwd", 403), ("file:///etc/passwd", 403), ("../root-not/a/b.mp4", 403), ("out/a/b.mp4", 403),
        ("out.mp4", 403), ("../nothing", 403), ("file://{root}/%2e%2e/root-not/a/b.mp4", 403), (".", 403),
        ("{root}", 403), ("nothing.mp4", 404), ("loop", 404), ("a", 400), ("pipe", 400), ("", 400), ("a\0b", 400),
        ("http://127.0.0.1/a/b.mp4", 400), ("https://localhost/a", 400), ("data:video/mp4;base64,AAAA", 400),
        ("file://elsewhere{root}/a/b.mp4", 400), ("file://{root}/a/b.mp4?x=1", 400), ("concat:a/b.mp4|a/b.mp4", 404),
        ("ftp://a/b.mp4", 400), ("file://[", 400), ("x" * 9000, 400),
    ],
)  # fmt: skip
def test_all_else_is_refused(root: Path, url: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        opened_below(root, below(root, url.format(root=root)))
    assert refused.value.status == status


@given(
    st.lists(st.sampled_from(SEGMENTS), max_size=6), st.sampled_from(["", "/", "file://", "file:///"]), st.booleans()
)
@settings(max_examples=100)
def test_no_name_leads_out(root: Path, segments: list[str], head: str, absolute: bool) -> None:
    try:
        found = below(root, head + (f"{root}/" if absolute else "") + "/".join(segments))
        os.close(opened_below(root, found))
    except Refused:
        return
    assert os.path.realpath(found) == found == str(root / "a" / "b.mp4")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *("model", "messages", "n", "stream", "stream_options", "max_tokens", "temperature", "echopix"),
    *("seed", "tool_choice", "stop", "budget"),
]
EXTRAS = st.dictionaries(st.sampled_from(["budget", "sieve", "start", "end"]), JSON, max_size=4)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), st.none() | EXTRAS)
@settings(max_examples=100)
def test_whatever_is_said_it_is_a_request_or_refused(root: Path, raw: dict[str, Any], extras: Any) -> None:
    for value in (raw, asked("a/b.mp4") | raw, asked("a/b.mp4", echopix=extras)):
        try:
            found = chat_request(value, root, "tiny", manner(8))
        except Refused as refused:
            assert 400 <= refused.status < 500
            continue
        assert isinstance(found, ChatRequest)
        assert found.ask.path == str(root / "a" / "b.mp4")


def test_what_is_asked_for_is_taken(root: Path) -> None:
    extras = {"budget": "10%", "sieve": "random", "start": "0:01", "end": 2.5}
    raw = asked("a/b.mp4", max_tokens=7, temperature=0.5, stream=True, stream_options={"include_usage": True})
    raw["messages"].insert(0, {"role": "system", "content": "Be brief."})
    found = chat_request(raw | {"echopix": extras}, root, "tiny", manner(8))
    own = found.ask.manner
    assert (own.budget, own.sieve, own.plan.start, own.plan.end) == (0.1, "random", 1.0, 2.5)
    assert (own.max_new_tokens, own.temperature, own.system) == (7, 0.5, "Be brief.")
    assert (found.stream, found.usage, found.ask.questions, found.named) == (True, True, ("What?",), "a/b.mp4")


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "gpt-9"}, 404, "only 'tiny'"),
        ({"n": 2}, 400, "n: only 1 is done here"),
        ({"top_p": 0.5}, 400, "top_p"),
        ({"frequency_penalty": 1}, 400, "frequency_penalty"),
        ({"presence_penalty": -1}, 400, "presence_penalty"),
        ({"repetition_penalty": 1.1}, 400, "repetition_penalty"),
        ({"guided_choice": ["a", "b"]}, 400, "unknown field 'guided_choice'"),
        ({"guided_choice": []}, 400, "unknown field 'guided_choice'"),
        ({"tool_choice": "required"}, 400, 'tool_choice: only "none" or "auto" is done here'),
        ({"modalities": ["text", "audio"]}, 400, "modalities"),
        ({"reasoning_effort": "high"}, 400, "unknown field 'reasoning_effort'"),
        ({"budget": 0.5}, 400, "budget: it belongs under echopix"),
        ({"sieve": "random"}, 400, "sieve: it belongs under echopix"),
        ({"start": 1, "echopix": {"end": 2}}, 400, "start: it belongs under echopix"),
        ({"seed": "1"}, 400, "seed"),
        ({"seed": True}, 400, "seed"),
        ({"seed": 2**63}, 400, "seed"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "What?"}]}, 400, "there are 0"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, 400, "parts"),
        ({"max_tokens": 10**9}, 400, "max_tokens"),
        ({"temperature": float("nan")}, 400, "temperature"),
        ({"echopix": {"budget": 2}}, 400, "budget"),
        ({"echopix": {"budgets": 1}}, 400, "unknown field 'budgets'"),
        ({"echopix": {"start": 3, "end": 2}}, 400, "not after its start"),
        ({"stream": "yes"}, 400, "stream"),
        ({"stop": ["i"]}, 400, "stop"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"tools": [{}]}, 400, "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
    ],
)
def test_what_is_wrong_is_said(root: Path, change: dict[str, Any], status: int, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        chat_request(asked("a/b.mp4") | change, root, "tiny", manner(8))
    assert refused.value.status == status


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1, "top_p": 1.0, "frequency_penalty": 0, "presence_penalty": 0.0, "repetition_penalty": 1.0},
        {"stop": [], "tools": [], "functions": [], "tool_choice": "auto", "function_call": "none"},
        {"logprobs": False, "top_logprobs": 0, "logit_bias": {}, "modalities": ["text"], "response_format": None},
        {"response_format": {"type": "text"}, "stop": "", "parallel_tool_calls": False},
        {"user": "me", "metadata": {"a": "b"}, "store": True, "safety_identifier": "x", "service_tier": "flex"},
        {"prompt_cache_key": "x", "stream_options": {"include_obfuscation": False}},
        {name: None for name in ("n", "top_p", "seed", "stop", "echopix", "budget", "guided_choice", "max_tokens")},
    ],
)
def test_what_asks_for_nothing_else_passes(root: Path, change: dict[str, Any]) -> None:
    plain, found = (chat_request(asked("a/b.mp4", **more), root, "tiny", manner(8)) for more in ({}, change))
    assert found == plain


@pytest.mark.parametrize("seed", [0, -(2**63), 2**63 - 1])
def test_a_seed_is_the_answers(root: Path, seed: int) -> None:
    own = chat_request(asked("a/b.mp4", seed=seed, temperature=1), root, "tiny", manner(8)).ask.manner
    assert generation_of(own) == GenerationOptions(8, 1.0, seed)
    torch.Generator().manual_seed(seed)


def conversation(*more: tuple[str, Any]) -> dict[str, Any]:
    """A question about a file, and what was said after it."""
    raw = asked("a/b.mp4")
    raw["messages"] += [{"role": role, "content": content} for role, content in more]
    return raw


def test_turns_before_are_taken(root: Path) -> None:
    text = [{"type": "text", "text": "And now?"}]
    raw = conversation(("assistant", "A piano."), ("user", text), ("assistant", ""), ("user", "Where?"))
    found = chat_request(raw, root, "tiny", manner(8), reads_turns=True)
    assert found.ask.questions == ("Where?",)
    assert found.ask.earlier == (Turn("What?", "A piano."), Turn("And now?", ""))
    assert found.ask.path == str(root / "a" / "b.mp4")


def test_turns_before_are_refused_by_models_of_single_questions(root: Path) -> None:
    with pytest.raises(Refused, match="tiny reads single questions") as refused:
        chat_request(conversation(("assistant", "A piano."), ("user", "And now?")), root, "tiny", manner(8))
    assert (refused.value.status, refused.value.code) == (400, "single_questions")


FILE = [{"type": "video_url", "video_url": {"url": "a/b.mp4"}}]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([("user", "And now?")], "in turns"),
        ([("assistant", "A piano.")], "in turns"),
        ([("assistant", "A piano."), ("system", "Be brief.")], "in turns"),
        ([("assistant", "A piano."), ("user", " ")], "question is empty"),
        ([("assistant", None), ("user", "And now?")], "expected text"),
        ([("assistant", "A piano."), ("user", [*FILE, {"type": "text", "text": "And now?"}])], "about one file"),
    ],
)
def test_conversations_that_are_none(root: Path, more: list[tuple[str, Any]], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        chat_request(conversation(*more), root, "tiny", manner(8), reads_turns=True)
    assert refused.value.status == 400


def test_the_file_belongs_to_the_first_question(root: Path) -> None:
    raw = conversation(("assistant", "A piano."), ("user", [*FILE, {"type": "text", "text": "And now?"}]))
    raw["messages"][0]["content"] = "What?"
    with pytest.raises(Refused, match="belongs to the first question"):
        chat_request(raw, root, "tiny", manner(8), reads_turns=True)
