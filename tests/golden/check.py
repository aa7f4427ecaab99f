"""Compare the port with reference vectors: ``python tests/golden/check.py DIR [--device cuda]``.

``DIR/checkpoint`` is a checkpoint in the authors' layout, ``DIR/cases/*`` hold inputs and what the authors'
implementation made of them. Folders that themselves hold such folders (``DIR/variants/*``) are checked too.
One line per case and field with the largest difference; exit status 1 on any mismatch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from prompts import prompt_of

from echopix_cli.model.decoding import generate
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.training.batch import Targets
from echopix_cli.training.forward import answer_pass
from echopix_cli.weights.checkpoint import load_model

ABSOLUTE = 1e-4
GRADIENT = 1e-3


@dataclass(frozen=True)
class Row:
    """One compared field: its largest difference and whether that is within bounds."""

    case: str
    field: str
    difference: str
    ok: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'} {self.case:24} {self.field:60} {self.difference}"


def exact(case: str, field: str, ours: Tensor, theirs: Tensor) -> Row:
    """Integers must be the same."""
    ours = ours.cpu()
    if ours.shape != theirs.shape:
        return Row(case, field, f"shape {tuple(ours.shape)} against {tuple(theirs.shape)}", False)
    wrong = int((ours != theirs).sum())
    return Row(case, field, f"{wrong} of {theirs.numel()} differ", wrong == 0)


def close(case: str, field: str, ours: Tensor, theirs: Tensor, relative: bool = False) -> Row:
    """Floats within 1e-4 absolute; gradients within 1e-3 of the reference's largest value."""
    ours = ours.cpu()
    if ours.shape != theirs.shape:
        return Row(case, field, f"shape {tuple(ours.shape)} against {tuple(theirs.shape)}", False)
    difference = float((ours.double() - theirs.double()).abs().max())
    if relative:
        difference /= max(float(theirs.double().abs().max()), 1e-30)
        return Row(case, field, f"{difference:.2e} relative", difference <= GRADIENT)
    return Row(case, field, f"{difference:.2e}", difference <= ABSOLUTE)


def load(folder: Path, env: dict[str, str], device: torch.device) -> EchoingPixelsForConditionalGeneration:
    """The folder's checkpoint in single precision, under the authors' environment switches of a case."""
    overrides: dict[str, object] = {}
    if "MROPE_SECTION" in env:
        overrides["sync_rope_section"] = [int(part) for part in env["MROPE_SECTION"].split(",")]
    if "RETAIN_TOKEN" in env:
        overrides["retain_token"] = env["RETAIN_TOKEN"].lower()
    if "SOFTMAX" in env:
        overrides["sieve_softmax"] = env["SOFTMAX"].lower()
    return load_model(folder, dtype=torch.float32, device=device, text_overrides=overrides)


def check_case(folder: Path, model: EchoingPixelsForConditionalGeneration) -> Iterator[Row]:
    """Run one case and compare every field that the reference recorded."""
    case = json.loads((folder / "case.json").read_text())
    device = model.thinker.lm_head.weight.device
    inputs = {
        name: (value.float() if value.is_floating_point() else value).to(device)
        for name, value in load_file(folder / "inputs.safetensors").items()
    }
    expected = load_file(folder / "expected.safetensors")
    name, budget = folder.name, float(case["compression_ratio"])
    if "labels" in expected:
        model.zero_grad()
        targets = Targets(expected["labels"].to(device))
        answered = answer_pass(model.train(), prompt_of(model, **inputs), targets, budget)
        answered.loss.backward()
        yield close(name, "loss", answered.loss.detach().reshape(1), expected["loss"])
        yield from check_gradients(name, model, expected)
    model.eval()
    with torch.inference_mode():
        yield from check_inference(name, model, inputs, expected, budget)


def check_inference(
    name: str,
    model: EchoingPixelsForConditionalGeneration,
    inputs: dict[str, Tensor],
    expected: dict[str, Tensor],
    budget: float,
) -> Iterator[Row]:
    """Towers, positions, sieve, first logits and greedy tokens of one case."""
    thinker = model.thinker
    prompt = prompt_of(model, **inputs)
    sieved = thinker.sieve(prompt, budget)
    hidden = thinker.model.decode(sieved.hidden, sieved.position_ids, sieved.attention_mask)
    logits = thinker.lm_head(hidden[:, -1])
    if "video_features" in expected:
        ours = thinker.encode_pixels(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        yield close(name, "video_features", ours, expected["video_features"])
    if "audio_features" in expected:
        ours = thinker.encode_mel(inputs["input_features"], inputs["feature_attention_mask"].sum(dim=1))
        yield close(name, "audio_features", ours, expected["audio_features"])
    yield exact(name, "position_ids", prompt.position_ids, expected["position_ids"])
    yield exact(name, "rope_deltas", prompt.rope_deltas, expected["rope_deltas"])
    channels = expected["sieve_hidden"].shape[-1]
    yield close(name, "sieve_hidden", sieved.encoded[..., :channels], expected["sieve_hidden"])
    yield close(name, "sieve_scores", sieved.scores, expected["sieve_scores"])
    for index, kept in enumerate(sieved.kept):
        yield exact(name, f"kept_indices.{index}", kept, expected[f"kept_indices.{index}"])
    yield close(name, "logits_last", logits, expected["logits_last"])
    if "generated" in expected:
        steps = generate(thinker, sieved, max_new_tokens=expected["generated"].shape[1])
        yield exact(name, "generated", torch.stack(list(steps), dim=1), expected["generated"])


def check_gradients(
    name: str, model: EchoingPixelsForConditionalGeneration, expected: dict[str, Tensor]
) -> Iterator[Row]:
    """Gradients of one training pass."""
    parameters = dict(model.thinker.named_parameters())
    for field in sorted(expected):
        if field.startswith("grad."):
            gradient = parameters[field.removeprefix("grad.")].grad
            assert gradient is not None
            yield close(name, field, gradient, expected[field].float(), relative=True)


def check_folder(folder: Path, device: torch.device = torch.device("cpu")) -> Iterator[Row]:  # noqa: B008 - frozen
    """Every case of ``folder`` and of the folders in ``folder/variants``."""
    models: dict[str, EchoingPixelsForConditionalGeneration] = {}
    for case in sorted((folder / "cases").iterdir()):
        env = json.loads((case / "case.json").read_text()).get("env", {})
        key = json.dumps(env, sort_keys=True)
        if key not in models:
            models[key] = load(folder / "checkpoint", env, device)
        yield from check_case(case, models[key])
    variants = folder / "variants"
    for variant in sorted(variants.iterdir()) if variants.is_dir() else ():
        yield from check_folder(variant, device)


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison; 0 when everything agrees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    given = parser.parse_args(arguments)
    torch.backends.cudnn.allow_tf32 = False  # or convolutions on CUDA round to ten bits
    rows = []
    for folder in given.folders:
        for row in check_folder(folder, given.device):
            rows.append(row)
            print(row)
    failed = sum(not row.ok for row in rows)
    print(f"{len(rows)} fields compared, {failed} mismatched")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
