"""Scenes are what published figures were measured on: a seed of a split shows the same, version after version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import numpy as np
import pytest

from echopix_cli.scenes import (
    WIDE_FAMILIES,
    Script,
    make_movie,
    make_script,
    render_audio,
    render_frames,
    sample_times,
)

# Of scene 2623 of the test split: means of 4 x 4 blocks over four frames, and the level of every half second.
FRAMES = [68, 68, 69, 72, 68, 68, 75, 72, 68, 68, 68, 68, 68, 68, 68, 68]
LEVELS = [0.0, 0.017, 0.011, 0.0, 0.0, 0.014, 0.034, 0.013, 0.0, 0.02, 0.048, 0.027, 0.027, 0.037, 0.021, 0.0]


def written(script: Script) -> object:
    """All of a script that a scene is made of, floats to a billionth: no processor's last bit counts."""
    whole = {name: value for name, value in asdict(script).items() if name not in ("filming", "bed")}
    for sprite in whole["sprites"]:
        del sprite["drawing"], sprite["look"]
    return json.loads(json.dumps(whole), parse_float=lambda text: round(float(text), 9))


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("split", "expected"), [("train", "24e904ad18607b3e"), ("val", "4bbaad14e30810bd"), ("test", "f07383b04486851f")]
)
def test_scripts_of_the_first_splits_stay(split: str, expected: str) -> None:
    assert digest([written(make_script(split, seed)) for seed in range(40)]) == expected


def test_movies_stay() -> None:
    movie = make_movie("test", 3, 40)
    assert digest([written(movie.script(window)) for window in range(movie.windows)]) == "c78280f2ae2c47a4"


def test_pictures_and_sounds_of_the_first_splits_stay() -> None:
    """Means over blocks and spans: no processor's last bit counts, another drawing, note or place does."""
    script = make_script("test", 2623, "heard")
    frames = (
        render_frames(script, sample_times(8.0))[::5].astype(float).reshape(4, 3, 4, 28, 4, 28).mean(axis=(1, 3, 5))
    )
    wave = render_audio(script)
    assert wave is not None
    levels = np.sqrt((wave.reshape(16, 8000) ** 2).mean(axis=1))
    assert frames.mean(axis=0).ravel() == pytest.approx(FRAMES, abs=1.0)
    assert levels == pytest.approx(LEVELS, abs=0.002)


# Of scene 10 of wide-composer, which is cut, framed and accompanied: the same measures.
WIDE_FRAMES = [99, 146, 140, 98, 84, 140, 147, 85, 96, 156, 163, 100, 97, 148, 137, 97]
WIDE_LEVELS = [
    0.042, 0.123, 0.137, 0.09, 0.039, 0.095, 0.012, 0.084, 0.009, 0.011, 0.011, 0.011, 0.009, 0.011, 0.065, 0.019,
]  # fmt: skip


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("wide-train", "7319a485b6bb0b1a"),
        ("wide-val", "fd4fa8598732f994"),
        ("wide-test", "e8d15221517d29df"),
        ("wide-font", "ddf52a67a92a08b0"),
        ("wide-style", "67a32d836f75a72f"),
        ("wide-composer", "d525bb75171dbbcd"),
    ],
)
def test_scripts_of_the_wide_splits_stay(split: str, expected: str) -> None:
    """Training begins on them. Two scenes of every family, with their drawings, looks, cameras and company."""
    scripts = [make_script(split, seed, family) for family in WIDE_FAMILIES for seed in range(2)]
    whole = json.loads(
        json.dumps([asdict(script) for script in scripts]), parse_float=lambda text: round(float(text), 9)
    )
    assert digest(whole) == expected


def test_pictures_and_sounds_of_the_wide_splits_stay() -> None:
    script = make_script("wide-composer", 10, "when")
    assert script.filming is not None and script.bed is not None
    frames = render_frames(script, sample_times(8.0))[::5].astype(float)
    wave = render_audio(script)
    assert wave is not None
    levels = np.sqrt((wave.reshape(16, 8000) ** 2).mean(axis=1))
    assert frames.reshape(4, 3, 4, 28, 4, 28).mean(axis=(0, 1, 3, 5)).ravel() == pytest.approx(WIDE_FRAMES, abs=1.0)
    assert levels == pytest.approx(WIDE_LEVELS, abs=0.002)
