"""Procedural audio-visual scenes with known answers: what training reads and evaluation measures.

A scene is first written (``make_script``: symbolic, cheap, a pure function of split and seed), then rendered
straight to arrays (``render_frames``, ``render_audio``) or to a file (``write_mp4``). A movie (``make_movie``) is
scenes one after another, rendered window by window (``movie_clip``) or to a file (``write_movie``).
"""

from __future__ import annotations

from echopix_cli.scenes.audio import heard, render_audio
from echopix_cli.scenes.clip import (
    AUDIO_ROWS_PER_SECOND,
    SIDE,
    SURROUNDINGS,
    evidence_rows,
    frame_side,
    scene_clip,
    surroundings,
)
from echopix_cli.scenes.clip_times import sample_times
from echopix_cli.scenes.compose import ask_everything, families_of, make_script
from echopix_cli.scenes.frames import render_frames
from echopix_cli.scenes.movie import LONGEST_MOVIE, Movie, make_movie, present
from echopix_cli.scenes.movie_clip import movie_clip, movie_sound, movie_span
from echopix_cli.scenes.movie_questions import (
    MOVIE_FAMILIES,
    Modality,
    Needle,
    ask_as_movie,
    ask_order,
    ask_part,
    moved,
)
from echopix_cli.scenes.notes import recording_of
from echopix_cli.scenes.script import (
    COUNTED,
    DURATION,
    FAMILIES,
    INSTRUMENT_PICTURES,
    INSTRUMENTS,
    NOTHING,
    NUMBERS,
    OBJECTS,
    PICTURES,
    SAMPLE_RATE,
    SPLITS,
    WIDE_FAMILIES,
    Background,
    Evidence,
    Item,
    NoteEvent,
    PlayedNote,
    Script,
    Sound,
    Sprite,
)
from echopix_cli.scenes.video import seen
from echopix_cli.scenes.wide import make_gallery
from echopix_cli.scenes.wide_questions import CORNERS
from echopix_cli.scenes.writer import write_movie, write_mp4

__all__ = [
    "AUDIO_ROWS_PER_SECOND", "CORNERS", "COUNTED", "DURATION", "FAMILIES", "INSTRUMENTS", "INSTRUMENT_PICTURES",
    "LONGEST_MOVIE", "MOVIE_FAMILIES", "NOTHING", "NUMBERS", "OBJECTS", "PICTURES", "SAMPLE_RATE", "SIDE", "SPLITS",
    "SURROUNDINGS", "WIDE_FAMILIES",
    "Background", "Evidence", "Item", "Modality", "Movie", "Needle", "NoteEvent", "PlayedNote", "Script",
    "Sound", "Sprite", "ask_as_movie", "ask_everything", "ask_order", "ask_part", "evidence_rows",
    "families_of", "frame_side", "heard", "make_gallery", "make_movie", "make_script", "moved", "movie_clip",
    "movie_sound", "movie_span", "present", "recording_of", "render_audio", "render_frames", "sample_times",
    "scene_clip", "seen", "surroundings", "write_movie", "write_mp4",
]  # fmt: skip
