"""Scenes without what hides whether notes and sprites are where the labels say."""

from __future__ import annotations

from dataclasses import replace

from echopix_cli.scenes import Script
from echopix_cli.scenes.audio import EQ_HZ


def clean(script: Script) -> Script:
    """The same scene without noise, room, clipping, codec or company, and with nothing behind the sprites."""
    sound = replace(
        script.sound, eq_db=(0.0,) * len(EQ_HZ), lowpass_hz=8000.0, room_mix=0.0, noise_db=-120.0, hum_hz=0.0,
        drive=1.0, codec="none", level_db=-1.0,
    )  # fmt: skip
    background = replace(script.background, kind="plain", noise=0, specks=0)
    filming = script.filming
    if filming is not None:
        shots = tuple(replace(shot, background=background) for shot in filming.shots)
        filming = replace(filming, shots=shots, gain=1.0, gamma=1.0)
    return replace(script, sound=sound, background=background, filming=filming, bed=None)
