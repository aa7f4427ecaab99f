"""Numbers that are none are refused, and the tensor that they come from is named."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch

from echopix_cli.engine import AskOptions, Engine
from echopix_cli.errors import ExitCode, ModelError
from echopix_cli.media import DecodePlan
from echopix_cli.model.finite import require_finite_weights
from echopix_cli.weights.checkpoint import load_model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_every_tensor_is_looked_at(random_engine: Engine, value: float) -> None:
    model = copy.deepcopy(random_engine.model)
    require_finite_weights(model, "here")
    for name, tensor in list(model.named_parameters()):
        place = tensor.detach().view(-1)
        kept = float(place[-1])
        place[-1] = value
        with pytest.raises(ModelError, match=f"^here: {re.escape(name)} holds NaN or infinity") as caught:
            require_finite_weights(model, "here")
        assert caught.value.exit_code is ExitCode.MODEL
        place[-1] = kept
    require_finite_weights(model, "here")


def test_what_overflows_where_it_is_loaded_is_named(random_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in random_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    tensors["thinker.model.norm.weight"][5] = 1e6
    save_file(tensors, tmp_path / "model.safetensors")
    load_model(tmp_path, dtype=torch.float32)
    with pytest.raises(ModelError, match=r"thinker\.model\.norm\.weight holds NaN or infinity \(as float16\)"):
        load_model(tmp_path, dtype=torch.float16)


@pytest.mark.parametrize(
    ("layer", "said"), [("lm_head.weight", "the logits of"), ("model.compressor.score_head.2.weight", "the scores of")]
)
def test_finite_weights_that_make_no_numbers(
    random_engine: Engine, clips: dict[str, Path], layer: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = random_engine.read(str(clips["both"]), random_engine.plan(DecodePlan(max_frames=4)))
    model = copy.deepcopy(random_engine.model)
    model.thinker.get_parameter(layer).data.fill_(3e38)
    monkeypatch.setattr(random_engine, "model", model)
    with pytest.raises(
        ModelError, match=f"{said} this model are NaN or infinite; its largest weight, 3e\\+38, is in {layer}"
    ):
        random_engine.ask(encoded, "What?", AskOptions(0.5))
    if layer.startswith("lm_head"):
        with pytest.raises(ModelError, match=said):
            random_engine.decide(encoded, "What?", ["a dog", "a cat"], AskOptions(0.5))
