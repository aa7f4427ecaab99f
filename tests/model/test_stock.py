"""Stock weights: recognised, loaded strictly, and without a budget the same as transformers' own thinker."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prompts import Media, inputs_of, make_media, prompt_of
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from echopix_cli.errors import ModelError
from echopix_cli.model.decoding import generate
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.values import FirstLayers
from echopix_cli.weights.checkpoint import load_model, read_config

KINDS = ("both", "long sound", "long picture", "video", "audio", "image", "text")


@pytest.fixture(scope="module")
def ours(stock_checkpoint: Path) -> EchoingPixelsForConditionalGeneration:
    return load_model(stock_checkpoint, dtype=torch.float32)


@pytest.fixture(scope="module")
def theirs(stock_checkpoint: Path) -> Any:
    """transformers' own thinker over the same files."""
    raw = json.loads((stock_checkpoint / "config.json").read_text())["thinker_config"]
    model, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        stock_checkpoint,
        config=Qwen2_5OmniThinkerConfig.from_dict(raw),
        output_loading_info=True,
        dtype=torch.float32,
        attn_implementation="sdpa",
    )
    assert not info["missing_keys"]
    return model.eval()


def test_it_says_that_it_has_no_sieve(ours: EchoingPixelsForConditionalGeneration, stock_checkpoint: Path) -> None:
    text = read_config(stock_checkpoint).text
    assert (text.sieve, text.compression_ratio, list(text.sync_rope_section)) == ("none", 0.2, [8, 12, 12])
    assert ours.thinker.model.bidir_encoder is None
    assert ours.thinker.model.compressor is None
    assert ours.thinker.selections == ("question-attention", "per-modality", "uniform", "random", "none")


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_transformers_own(ours: EchoingPixelsForConditionalGeneration, theirs: Any, kind: str) -> None:
    media = make_media(kind)
    inputs = inputs_of(ours, media)
    check_positions(ours, theirs, inputs, media)


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)),
    st.floats(0.02, 4.0),
    st.integers(6, 900),
    st.booleans(),
)
def test_positions_are_transformers_own_whatever_the_shape(
    ours: EchoingPixelsForConditionalGeneration,
    theirs: Any,
    cells: tuple[int, int, int],
    second_per_grid: float,
    mel_frames: int,
    sound: bool,
) -> None:
    media = Media(cells=cells, second_per_grid=float(np.float32(second_per_grid)), mel_frames=mel_frames * sound)
    check_positions(ours, theirs, inputs_of(ours, media), media)


def check_positions(
    ours: EchoingPixelsForConditionalGeneration, theirs: Any, inputs: dict[str, Tensor], media: Media
) -> None:
    mask = inputs.get("feature_attention_mask")
    expected, delta = theirs.get_rope_index(
        inputs["input_ids"],
        image_grid_thw=inputs.get("image_grid_thw"),
        video_grid_thw=inputs.get("video_grid_thw"),
        attention_mask=torch.ones_like(inputs["input_ids"]),
        use_audio_in_video=media.together,
        audio_seqlens=None if mask is None else mask.sum(-1),
        second_per_grids=inputs.get("video_second_per_grid"),
    )
    with torch.inference_mode():
        prompt = prompt_of(ours, **inputs)
    assert torch.equal(prompt.position_ids[:3], expected)
    assert torch.equal(prompt.rope_deltas, delta)


@pytest.mark.parametrize("kind", KINDS)
def test_rotary_angles_are_transformers_own(
    ours: EchoingPixelsForConditionalGeneration, theirs: Any, kind: str
) -> None:
    with torch.inference_mode():
        prompt = prompt_of(ours, **inputs_of(ours, make_media(kind)))
        cosine, sine = ours.thinker.model.rotary(prompt.position_ids, torch.float32)
    decoder = theirs.model if hasattr(theirs.model, "rotary_emb") else theirs.model.language_model
    expected = decoder.rotary_emb(prompt.embeds, prompt.position_ids[:3])
    assert torch.equal(cosine, expected[0])
    assert torch.equal(sine, expected[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_budget_one_says_token_for_token_what_transformers_says(
    ours: EchoingPixelsForConditionalGeneration, theirs: Any, kind: str, layer: int | None
) -> None:
    media = make_media(kind)
    inputs = inputs_of(ours, media)
    with torch.inference_mode():
        expected = theirs.generate(
            **inputs,
            attention_mask=torch.ones_like(inputs["input_ids"]),
            use_audio_in_video=media.together,
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
        sieved = ours.thinker.sieve(prompt_of(ours, **inputs), 1.0, first_layers=FirstLayers(layer))
        tokens = torch.cat(list(generate(ours.thinker, sieved, max_new_tokens=12)))
        logits = ours.thinker.lm_head(
            ours.thinker.model.decode(sieved.hidden, sieved.position_ids, start=sieved.start)[:, -1]
        )
    assert sieved.kept[0].tolist() == list(range(inputs["input_ids"].shape[1]))
    assert tokens.tolist() == expected.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    assert torch.allclose(logits, expected.logits[0], atol=1e-4)


def rewritten(source: Path, folder: Path, tensors: dict[str, Tensor], bare: bool) -> Path:
    """A checkpoint folder of one file, with a whole model's configuration or the thinker's alone."""
    raw = json.loads((source / "config.json").read_text())
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw["thinker_config"] if bare else raw))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def tensors(stock_checkpoint: Path) -> dict[str, Tensor]:
    shards = (load_file(file) for file in sorted(stock_checkpoint.glob("*.safetensors")))
    return {name: value for shard in shards for name, value in shard.items() if name.startswith("thinker.")}


@pytest.mark.parametrize("prefix", ["thinker.", ""])
def test_a_bare_thinker_with_either_names(
    ours: EchoingPixelsForConditionalGeneration,
    stock_checkpoint: Path,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    prefix: str,
) -> None:
    named = {prefix + name.removeprefix("thinker."): value for name, value in tensors.items()}
    again = load_model(rewritten(stock_checkpoint, tmp_path, named, bare=True), dtype=torch.float32)
    for first, second in zip(ours.state_dict().items(), again.state_dict().items(), strict=True):
        assert first[0] == second[0]
        assert torch.equal(first[1], second[1])


def test_as_transformers_itself_saves_a_thinker(
    ours: EchoingPixelsForConditionalGeneration, theirs: Any, tmp_path: Path
) -> None:
    theirs.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("thinker.model.compressor.ln.weight", "holds unknown thinker.model.compressor.ln.weight"),
        ("thinker.model.layers.9.input_layernorm.weight", "holds unknown"),
        ("lm_head.weight", "a second time"),
        ("adapter.a", "unknown tensors: adapter.a"),
    ],
)
def test_tensors_too_many(
    stock_checkpoint: Path, tensors: dict[str, Tensor], tmp_path: Path, name: str, said: str
) -> None:
    folder = rewritten(stock_checkpoint, tmp_path, {**tensors, name: torch.zeros(192)}, bare=False)
    with pytest.raises(ModelError, match=said):
        load_model(folder)


def test_tensors_too_few(stock_checkpoint: Path, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    fewer = {name: value for name, value in tensors.items() if ".layers.1.mlp" not in name}
    with pytest.raises(ModelError, match=r"lacks thinker\..*layers\.1\.mlp"):
        load_model(rewritten(stock_checkpoint, tmp_path, fewer, bare=False))


@pytest.mark.parametrize("missing", ["thinker_config", "text_config"])
def test_a_configuration_without_a_decoder(stock_checkpoint: Path, tmp_path: Path, missing: str) -> None:
    raw = json.loads((stock_checkpoint / "config.json").read_text())
    (raw if missing == "thinker_config" else raw["thinker_config"]).pop(missing)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="lacks 'text_config'"):
        read_config(tmp_path)


def test_its_configuration_survives_being_written_by_us(
    ours: EchoingPixelsForConditionalGeneration, tmp_path: Path
) -> None:
    from echopix_cli.weights.checkpoint import save_model

    save_model(ours, tmp_path)
    again = load_model(tmp_path)
    assert again.thinker.selections == ours.thinker.selections
    assert all(torch.equal(a, b) for a, b in pairwise((ours.thinker.lm_head.weight, again.thinker.lm_head.weight)))
