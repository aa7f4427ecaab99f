"""The family's real vocabulary and depth: the same ids, positions and answers as transformers' own classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import ADDED, FIRST_ADDED, TEMPLATE, TEXTS, stock_config, write_checkpoint
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from prompts import prompt_of
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from echopix_cli.choices import LETTERS
from echopix_cli.engine.choices import letter_ids
from echopix_cli.engine.streaming import TextStream
from echopix_cli.media import Clip, MediaInfo
from echopix_cli.model.decoding import generate
from echopix_cli.model.processing import Processor, normalise, prepare_clip
from echopix_cli.results import AudioStatus, Turn
from echopix_cli.weights.checkpoint import load_model, read_config

SYSTEM, QUESTION = "You are a helpful assistant.", "What is happening? 发生了什么? 🎻"


@pytest.fixture(scope="module", params=list(TEXTS))
def checkpoint(
    request: pytest.FixtureRequest, family_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("family") / request.param, request.param, family_tokenizer)


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> Processor:
    return Processor.load(checkpoint, read_config(checkpoint))


def film(seconds: int = 5) -> Clip:
    """Two frames a second, so that the true time of a grid step is what the official processor takes it for."""
    source = np.random.default_rng(0)
    return Clip(
        path="film",
        frames=source.integers(0, 255, (2 * seconds, 3, 56, 84), np.uint8),
        frame_times=np.arange(2 * seconds) / 2,
        waveform=source.standard_normal(seconds * 16_000).astype(np.float32),
        audio_status=AudioStatus.USED,
        start=0.0,
        end=None,
        info=MediaInfo("film", None, ()),
    )


def test_special_tokens_are_where_the_configuration_says(processor: Processor) -> None:
    assert [processor.tokenizer.id_of(token) for token in ADDED] == list(range(FIRST_ADDED, FIRST_ADDED + len(ADDED)))
    thinker: Any = processor.config.thinker_config
    assert (thinker.audio_token_id, thinker.image_token_id, thinker.video_token_id) == (151_646, 151_655, 151_656)
    assert (thinker.audio_start_token_id, thinker.audio_end_token_id) == (151_647, 151_648)
    assert (thinker.vision_start_token_id, thinker.vision_end_token_id) == (151_652, 151_653)
    assert processor.tokenizer.encode("Hello, world!") == [9707, 11, 1879, 0]
    assert processor.stop_ids == {151_645}  # its generation config names none


def test_letters_of_choices_are_single_tokens(processor: Processor) -> None:
    assert letter_ids(processor, len(LETTERS)) == list(range(32, 58))


@pytest.fixture(scope="module")
def official(family_tokenizer: Path) -> Any:
    """The tokenizer as transformers reads it."""
    return AutoTokenizer.from_pretrained(family_tokenizer, config=PreTrainedConfig())


def official_ids(theirs: Any, clip: Any, question: str, *others: str) -> list[int]:
    """The whole prompt through the official template, its placeholder replaced by the official chunks, in one go;
    ``others`` are an answer, the next question, and so on."""
    kind = "video" if clip.grid_thw is not None else "audio"
    content = [{"type": kind}, {"type": "text", "text": question}]
    messages = [{"role": "system", "content": [{"type": "text", "text": SYSTEM}]}, {"role": "user", "content": content}]
    messages += [
        {"role": ("assistant", "user")[place % 2], "content": [{"type": "text", "text": text}]}
        for place, text in enumerate(others)
    ]
    text = str(theirs.apply_chat_template(messages, chat_template=TEMPLATE, tokenize=False, add_generation_prompt=True))
    if kind == "audio":
        return list(theirs(text.replace("<|AUDIO|>", "<|AUDIO|>" * clip.audio_rows))["input_ids"])
    steps, height, width = clip.grid_thw
    cells = height * width // 4
    block = "<|VIDEO|>" * (steps * cells)
    if clip.audio_rows:
        chunked: Any = Qwen2_5OmniProcessor.get_chunked_index
        seen = list(chunked(None, np.repeat(np.arange(steps), cells) * 25.0, 50))
        heard = list(chunked(None, np.arange(clip.audio_rows), 50))
        block = "<|audio_bos|>"
        for at in range(max(len(seen), len(heard))):
            for name, spans in (("<|VIDEO|>", seen), ("<|AUDIO|>", heard)):
                block += name * (spans[at][1] - spans[at][0]) if at < len(spans) else ""
        block += "<|audio_eos|>"
    return list(theirs(text.replace("<|VIDEO|>", block))["input_ids"])


@pytest.mark.parametrize("seconds", [5, 2])
@pytest.mark.parametrize("kind", ["both", "picture", "sound"])
def test_the_whole_prompt_is_the_official_one(processor: Processor, official: Any, seconds: int, kind: str) -> None:
    clip = film(seconds)
    clip = {"both": clip, "picture": replace(clip, waveform=None),
            "sound": replace(clip, frames=None, frame_times=None)}[kind]  # fmt: skip
    inputs = prepare_clip(clip)
    assert processor.prompt_ids(QUESTION, inputs, SYSTEM)[0].tolist() == official_ids(official, inputs, QUESTION)
    said = [QUESTION, "A violin, in the dark.", "Who plays?", "Nobody:\n\n- a machine"]
    ours = processor.prompt_ids("And then?", inputs, SYSTEM, earlier=[Turn(*said[:2]), Turn(*said[2:])])
    assert ours[0].tolist() == official_ids(official, inputs, *said, "And then?")


@pytest.fixture(scope="module")
def bare(family_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Processor:
    """The vocabulary without weights."""
    folder = tmp_path_factory.mktemp("bare")
    for file in family_tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(stock_config("3B")))
    return Processor.load(folder, read_config(folder))


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Co"]), min_size=1).filter(str.strip), min_size=3))
def test_any_question_is_cut_as_it_would_be_in_one_piece(bare: Processor, official: Any, said: list[str]) -> None:
    """Turns, words and media are tokenized apart; together they would give the same ids."""
    assume(not any(token in text for text in said for token in ADDED))
    inputs = prepare_clip(replace(film(1), frames=None, frame_times=None))
    question, answer, following = said[:3]
    ids = bare.prompt_ids(question, inputs, SYSTEM)
    assert ids[0].tolist() == official_ids(official, inputs, question.strip())
    ids = bare.prompt_ids(following, inputs, SYSTEM, earlier=[Turn(question, answer)])
    assert ids[0].tolist() == official_ids(official, inputs, *(text.strip() for text in said[:3]))


TEXT = "他在拉小提琴🎻, family 👩‍👩‍👧‍👦, café, ไทย, 🇨🇭"


def test_streamed_text_never_shows_half_a_character(processor: Processor) -> None:
    ids = processor.tokenizer.encode(TEXT)
    assert any("�" in processor.tokenizer.decode(ids[:end]) for end in range(len(ids)))  # some tokens are parts
    stream = TextStream(processor.tokenizer.core)
    pieces = [stream.add(token) for token in ids]
    assert not any("�" in piece for piece in pieces)
    assert "".join(pieces) == TEXT


def test_greedy_answers_are_transformers_own(checkpoint: Path, processor: Processor) -> None:
    """At budget 1.0, through 36 (28) layers: positions exactly, eight tokens exactly."""
    ours = load_model(checkpoint, dtype=torch.float32)
    raw = json.loads((checkpoint / "config.json").read_text())["thinker_config"]
    theirs: Any = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        checkpoint, config=Qwen2_5OmniThinkerConfig.from_dict(raw), dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    clip = prepare_clip(film(3))
    ids = processor.prompt_ids(QUESTION, clip, SYSTEM)
    inputs = {
        "input_ids": ids,
        "pixel_values_videos": normalise(clip.patches),
        "video_grid_thw": torch.tensor([clip.grid_thw]),
        "video_second_per_grid": torch.tensor([1.0]),
        "input_features": clip.mel[None],
        "feature_attention_mask": torch.ones(1, clip.mel.shape[-1], dtype=torch.long),
    }
    expected_positions, _ = theirs.get_rope_index(
        ids,
        video_grid_thw=inputs["video_grid_thw"],
        attention_mask=torch.ones_like(ids),
        use_audio_in_video=True,
        audio_seqlens=inputs["feature_attention_mask"].sum(-1),
        second_per_grids=inputs["video_second_per_grid"],
    )
    with torch.inference_mode():
        prompt = prompt_of(ours, **inputs)
        answer = torch.cat(list(generate(ours.thinker, ours.thinker.sieve(prompt, 1.0), max_new_tokens=8)))
        expected = theirs.generate(
            **inputs, attention_mask=torch.ones_like(ids), use_audio_in_video=True, max_new_tokens=8,
            do_sample=False, eos_token_id=None,
        )  # fmt: skip
    assert torch.equal(prompt.position_ids[:3], expected_positions)
    assert answer.tolist() == expected[0, ids.shape[1] :].tolist()
