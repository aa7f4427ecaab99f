"""Compare the preprocessing with reference vectors: ``python tests/golden/check_preprocess.py DIR``.

``DIR`` may hold ``frame_sampling.json``, ``smart_resize.json``, ``pixels*.safetensors`` and
``mel*.safetensors``; whatever is there is checked. One line per file and field with the largest difference;
exit status 1 on any mismatch, or when there is nothing to check.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from echopix_cli.media import frame_indices, resize_frames, smart_nframes, smart_resize
from echopix_cli.model.processing import log_mel, patchify

ONE_STEP = 1 / 255  # of a colour; what two decoders or resizers may honestly disagree by
LOG_MEL = 1e-4
# The family's defaults, where a case does not say (qwen-omni-utils 0.0.9).
FAMILY_MIN_FRAMES, FAMILY_MAX_FRAMES = 4, 768
# How the family normalises pixels: CLIP's standard deviations, per RGB channel.
STANDARD_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Row:
    """One compared field."""

    file: str
    field: str
    difference: float
    tolerance: float

    @property
    def matches(self) -> bool:
        """False as well for NaN."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok" if self.matches else "MISMATCH"
        return f"{self.file}: {self.field}: largest difference {self.difference:.3g}: {verdict}"


def largest(ours: Array, theirs: Array, unit: Array | float = 1.0) -> float:
    """The largest absolute difference times ``unit``; infinite where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)) * unit, initial=0.0))


def check_sampling(path: Path) -> Iterator[Row]:
    """Frame counts and indices."""
    worst = {"nframes": 0.0, "first_last": 0.0, "index_sum": 0.0, "sample_fps": 0.0}
    for case in json.loads(path.read_text()):
        total, rate = case["total_frames"], case["video_fps"]
        count = smart_nframes(
            total,
            rate,
            fps=case["target_fps"],
            min_frames=case.get("min_frames", FAMILY_MIN_FRAMES),
            max_frames=case.get("max_frames", FAMILY_MAX_FRAMES),
        )
        indices = frame_indices(total, count)
        ours = {
            "nframes": np.array(count),
            "first_last": np.concatenate([indices[:2], indices[-2:]]),
            "index_sum": indices.sum(),
            "sample_fps": np.array(count / total * rate),
        }
        for field, value in ours.items():
            worst[field] = max(worst[field], largest(np.asarray(value), np.asarray(case[field])))
    for field, difference in worst.items():
        yield Row(path.name, field, difference, 1e-9 if field == "sample_fps" else 0.0)


def check_sizes(path: Path) -> Iterator[Row]:
    """Resized heights and widths."""
    worst = 0.0
    for case in json.loads(path.read_text()):
        bounds = (case["factor"], case["min_pixels"], case["max_pixels"])
        ours = smart_resize(case["height"], case["width"], *bounds)
        worst = max(worst, largest(np.array(ours), np.array(case["resized"])))
    yield Row(path.name, "resized", worst, 0.0)


def check_pixels(path: Path) -> Iterator[Row]:
    """Resized frames and the patches made of them."""
    tensors = load_file(path)
    height, width = tensors["resized"].shape[-2:]
    resized = resize_frames(tensors["frames"], height, width)
    yield Row(path.name, "resized", largest(resized, tensors["resized"], 1 / 255), ONE_STEP)
    # From the reference's own frames, so that one wrong step does not blame two rooms.
    patches, grid = patchify(tensors["resized"])
    yield Row(path.name, "video_grid_thw", largest(np.array([grid]), tensors["video_grid_thw"]), 0.0)
    channels = np.repeat(STANDARD_DEVIATION, patches.shape[-1] // len(STANDARD_DEVIATION))
    difference = largest(patches.numpy(), tensors["pixel_values_videos"], channels)
    yield Row(path.name, "pixel_values_videos", difference, ONE_STEP)


def check_mel(path: Path) -> Iterator[Row]:
    """The log-mel spectrogram of a waveform."""
    tensors = load_file(path)
    frames = int(tensors["num_frames"].reshape(-1)[0])
    theirs = tensors["input_features"].reshape(-1, tensors["input_features"].shape[-1])[:, :frames]
    ours = log_mel(tensors["waveform"].astype(np.float32)).numpy()
    yield Row(path.name, "num_frames", abs(ours.shape[-1] - frames), 0.0)
    yield Row(path.name, "input_features", largest(ours, theirs), LOG_MEL)


CHECKS = {
    "frame_sampling*.json": check_sampling,
    "smart_resize*.json": check_sizes,
    "pixels*.safetensors": check_pixels,
    "mel*.safetensors": check_mel,
}


def check_folder(folder: Path) -> list[Row]:
    """Check every file of the known kinds in ``folder``."""
    return [row for kind, check in CHECKS.items() for path in sorted(folder.glob(kind)) for row in check(path)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args(arguments).folder
    rows = check_folder(folder)
    for row in rows:
        sys.stdout.write(f"{row}\n")
    if not rows:
        sys.stdout.write(f"{folder} holds nothing to check\n")
    return 0 if rows and all(row.matches for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
