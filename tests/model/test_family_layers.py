"""Towers, decoder layers and log-mel against transformers' own: the same names of parameters, the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import TEXTS, stock_config
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_layers import their_layer

from echopix_cli.model.configuration import AudioConfig, EchoingPixelsConfig, VisionConfig
from echopix_cli.model.layers import DecoderLayer
from echopix_cli.model.log_mel import log_mel
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.positions import rotary_embedding
from echopix_cli.model.text import EchoingPixelsTextModel
from echopix_cli.model.towers import AudioTower, VisionTower
from echopix_cli.weights.checkpoint import load_model

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
GRIDS = [[[8, 8, 8]], [[3, 16, 20], [1, 4, 6], [2, 2, 2]], [[1, 12, 10]]]


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def model(request: pytest.FixtureRequest, random_checkpoint: Path) -> EchoingPixelsForConditionalGeneration:
    return load_model(random_checkpoint, dtype=request.param)


def theirs(kind: str, ours: Any) -> Any:
    """transformers' tower over the weights of ours."""
    from transformers.models.qwen2_5_omni import configuration_qwen2_5_omni as configurations
    from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as models

    raw = ours.config.to_dict()
    raw.pop("model_type")
    config = getattr(configurations, f"Qwen2_5Omni{kind}EncoderConfig")(**raw)
    # Made in its precision, as a checkpoint is loaded: a cast would round the frequencies of the rotation, too.
    tower = getattr(models, f"Qwen2_5Omni{kind}Encoder")._from_config(
        config, dtype=ours.dtype, attn_implementation="sdpa"
    )
    tower.load_state_dict(ours.state_dict())  # strict: names and shapes are the same
    return tower.eval()


def close(ours: torch.Tensor, expected: torch.Tensor, roundings: int = 8) -> None:
    """Within a few roundings of the precision that was computed in."""
    assert ours.dtype == expected.dtype
    least = torch.finfo(ours.dtype).eps * float(expected.abs().max())
    torch.testing.assert_close(ours, expected, rtol=0, atol=roundings * least)


@torch.inference_mode()
def test_vision(model: EchoingPixelsForConditionalGeneration) -> None:
    tower = model.thinker.visual
    reference = theirs("Vision", tower)
    for grids in GRIDS:
        count = sum(t * h * w for t, h, w in grids)
        patches = torch.randn(count, 1176, generator=torch.Generator().manual_seed(count)).to(tower.dtype)
        expected = reference(patches, grid_thw=torch.tensor(grids)).pooler_output
        close(tower(patches, grids), expected)


@pytest.mark.parametrize("frames", [[400], [1400, 1400], [400, 200], [333], [7, 200, 451, 3]])
@torch.inference_mode()
def test_sound(model: EchoingPixelsForConditionalGeneration, frames: list[int]) -> None:
    """Whole windows, sounds of several lengths, and one too short for a row."""
    tower = model.thinker.audio_tower
    mel = torch.randn(len(frames), 128, max(frames), generator=torch.Generator().manual_seed(1)).to(tower.dtype)
    joined = torch.cat([sound[:, :count] for sound, count in zip(mel, frames, strict=True)], dim=1)
    lengths = torch.tensor(frames)
    expected = theirs("Audio", tower)(joined, feature_lens=lengths, aftercnn_lens=(lengths - 1) // 2 + 1)
    close(tower(mel, frames), expected.last_hidden_state)


@pytest.mark.parametrize("causal", [True, False])
@torch.inference_mode()
def test_decoder_layers_and_cs2(model: EchoingPixelsForConditionalGeneration, causal: bool) -> None:
    text = model.thinker.model
    layer: Any = text.layers[1] if causal else text.bidir_encoder.layers[0]
    assert isinstance(layer, DecoderLayer)
    reference = their_layer(text, layer, "sdpa")
    reference.self_attn.is_causal = causal
    hidden = torch.randn(2, 40, text.config.hidden_size, generator=torch.Generator().manual_seed(2))
    hidden = hidden.to(text.embed_tokens.weight.dtype)
    rotary = rotary_embedding(torch.arange(40).expand(4, 2, 40), (9, 9, 9, 5), 1e6, hidden.dtype)
    expected = reference(hidden, attention_mask=None, position_embeddings=rotary)
    close(layer(hidden, rotary, None, causal), expected[0] if isinstance(expected, tuple) else expected)


def drawn(module: Any) -> Any:
    """A module whose parameters all matter: norms are not one, and biases not zero."""
    source = torch.Generator().manual_seed(4)
    for parameter in module.parameters():
        mean, spread = (1.0, 0.3) if parameter.ndim == 1 else (0.0, parameter[0].numel() ** -0.5)
        parameter.data.normal_(mean, spread, generator=source)
    return module.eval()


# A published checkpoint's depth, heads and fields, in narrow layers; so deep, roundings add up.
DEEP = 100


@torch.inference_mode()
def test_vision_of_the_family() -> None:
    """32 blocks, four of which attend to whole frames; frames of several windows, cut ones among them."""
    raw = stock_config("7B")["thinker_config"]["vision_config"]
    tower, grids = drawn(VisionTower(VisionConfig(**raw))), [[2, 20, 24], [1, 12, 10]]
    patches = torch.randn(1080, 1176, generator=torch.Generator().manual_seed(1))
    expected = theirs("Vision", tower)(patches, grid_thw=torch.tensor(grids)).pooler_output
    close(tower(patches, grids), expected, DEEP)
    tower.config = VisionConfig(**raw | {"fullatt_block_indexes": [7, 15, 23, 30]})
    with pytest.raises(AssertionError):
        close(tower(patches, grids), expected, DEEP)


@torch.inference_mode()
def test_sound_of_the_family() -> None:
    tower, frames = drawn(AudioTower(AudioConfig(**stock_config("7B")["thinker_config"]["audio_config"]))), [400, 333]
    mel = torch.randn(2, 128, 400, generator=torch.Generator().manual_seed(1))
    joined, lengths = torch.cat([mel[0], mel[1, :, :333]], dim=1), torch.tensor(frames)
    expected = theirs("Audio", tower)(joined, feature_lens=lengths, aftercnn_lens=(lengths - 1) // 2 + 1)
    close(tower(mel, frames), expected.last_hidden_state, DEEP)


@pytest.mark.parametrize("size", list(TEXTS))
@torch.inference_mode()
def test_the_decoder_of_the_family(size: str) -> None:
    """36 and 28 layers, 16 heads on 2 keys' and 28 on 4, and rows whose times, heights and widths differ."""
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerTextModel

    raw = stock_config(size)
    small = {"vocab_size": 64, "pad_token_id": None}
    raw["thinker_config"]["text_config"] |= small
    text = drawn(EchoingPixelsTextModel(EchoingPixelsConfig.from_stock(raw).text))
    stated = raw["thinker_config"]["text_config"]
    reference = Qwen2_5OmniThinkerTextModel._from_config(Qwen2_5OmniTextConfig(**stated), attn_implementation="sdpa")
    reference.load_state_dict(text.state_dict())
    source = torch.Generator().manual_seed(5)
    hidden = torch.randn(2, 30, text.config.hidden_size, generator=source)
    positions = torch.randint(0, 500, (4, 2, 30), generator=source)
    expected = reference.eval()(inputs_embeds=hidden, position_ids=positions[:3], use_cache=False).last_hidden_state
    close(text.decode(hidden, positions), expected, DEEP)


@settings(max_examples=20)
@given(st.integers(1, 40_000), st.sampled_from([0.0, 1e-4, 0.3]))
def test_log_mel(samples: int, loudness: float) -> None:
    """To the bit, of a sound with the silence after it that its last window reaches."""
    from transformers import WhisperFeatureExtractor

    waveform = (loudness * np.random.default_rng(samples).normal(size=samples)).astype(np.float32)
    padded = np.pad(waveform, (0, 560))
    expected = WhisperFeatureExtractor(feature_size=128)(
        padded, sampling_rate=16_000, padding=False, truncation=False, return_tensors="pt"
    )["input_features"][0]
    assert torch.equal(log_mel(waveform), expected[:, : -(-samples // 160)])


def test_a_model_recomputes_what_it_would_keep(random_checkpoint: Path) -> None:
    """With the same gradients, and less kept for them in every stack of layers."""
    grids, frames = [[2, 8, 8]], [400]
    found = []
    for recomputes in (False, True):
        model = load_model(random_checkpoint, dtype=torch.float32).train()
        if recomputes:
            model.recompute_activations()
        source, kept = torch.Generator().manual_seed(3), 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            seen = model.thinker.visual(torch.randn(128, 1176, generator=source), grids)
            heard = model.thinker.audio_tower(torch.randn(1, 128, 400, generator=source), frames)
            rows = torch.cat([seen, heard])[None]
            positions = torch.arange(rows.shape[1]).expand(4, 1, -1)
            text = model.thinker.model
            rows = text.bidir_encoder(rows, text.rotary(positions, rows.dtype), None)
            text.decode(rows, positions).square().sum().backward()
        found.append((kept, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (whole, expected), (less, gradients) = found
    assert less < whole / 2
    assert set(gradients) == set(expected)
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name])
