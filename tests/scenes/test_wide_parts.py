"""What the wide splits keep apart: recorded samples, drawings and wordings of training, validation, test and shifts."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from places import TESTS, load_script

from echopix_cli.scenes import INSTRUMENTS, PICTURES, make_script
from echopix_cli.scenes.beds import MUSIC, bed_wave, phrases, seconds_of
from echopix_cli.scenes.notes import (
    ASSETS,
    FONTS,
    WIDE_FONTS,
    find,
    is_held_out,
    of_part,
    recordings,
    samples,
    sources,
)
from echopix_cli.scenes.pictures import _bank, drawings, part_of
from echopix_cli.scenes.script import Bed
from echopix_cli.scenes.wordings import WIDE
from echopix_cli.scenes.worlds import WORLDS

PARTS = ("train", "val", "test", "font")
soundfont = load_script(TESTS / "tools" / "soundfont.py")
build = load_script(TESTS / "tools" / "wide_assets.py")


def test_no_recording_is_in_two_parts() -> None:
    """Over the whole note bank: what a test note plays, no note of training plays, at whatever pitch."""
    parts = defaultdict(set)
    for (_, instrument, _, _), (recording, part) in recordings().items():
        assert recording.startswith(f"{instrument} ")
        parts[recording].add(part)
    assert all(len(own) == 1 for own in parts.values())
    for instrument in INSTRUMENTS:
        held = {
            part: {r for r, own in parts.items() if r.startswith(f"{instrument} ") and own == {part}} for part in PARTS
        }
        assert len(held["train"]) >= 10 and len(held["test"]) >= 4 and len(held["val"]) >= 3 and held["font"]
    notes = {
        (font, name, *pair) for font in (*FONTS, *WIDE_FONTS) for name in INSTRUMENTS for pair in sources(font, name)
    }
    assert notes == set(recordings()), "every note of both banks has a recording"


def test_today_s_split_by_pitch_shared_recordings_and_the_wide_one_does_not() -> None:
    """A split by pitch, as of today's scenes, looks apart and is not: it plays the same samples at other speeds."""
    table = {note: recording for note, (recording, _) in recordings().items() if note[0] in FONTS}
    by_pitch = [{r for note, r in table.items() if is_held_out(note[1], note[2]) == held} for held in (True, False)]
    assert len(by_pitch[0] & by_pitch[1]) > 0.5 * len(by_pitch[0])
    by_part = [{recordings()[note][0] for note in table if recordings()[note][1] == part} for part in ("test", "train")]
    assert by_part[0] and not by_part[0] & by_part[1]


@pytest.mark.parametrize("font", FONTS)
def test_recordings_are_what_the_soundfonts_say(font: str) -> None:
    """With the soundfonts at hand: notes that share a sample are one recording, also across fonts of one origin."""
    path = Path(build.scene_assets.FONTS[font])
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    own = soundfont.SoundFont(path)
    of_sample = defaultdict(set)
    for note in build.scene_assets.wanted_notes(with_training=True):
        for sample in build.samples_of(own, note):
            of_sample[note[0], sample].add(recordings()[font, note[0], *note[2:]][0])
    assert len(of_sample) > 100
    assert all(len(names) == 1 for names in of_sample.values())


def test_samples_that_sound_together_are_one_recording() -> None:
    names = build.recordings([("piano", ("a", "b")), ("piano", ("b",)), ("piano", ("c",)), ("harp", ("a",))])
    assert names["piano", "a", "b"] == names["piano", "b"] != names["piano", "c"]
    assert names["harp", "a"] not in {names["piano", "b"], names["piano", "c"]}


@pytest.mark.parametrize("split", WORLDS)
def test_scenes_play_and_show_their_own_part_only(split: str) -> None:
    world = WORLDS[split]
    shown = set()
    for seed in range(60):
        script = make_script(split, seed)
        for note in script.notes:
            assert recordings()[note.font, note.instrument, note.source, note.velocity][1] == world.notes
        for sprite in script.sprites:
            part = part_of(sprite.name, sprite.drawing)
            assert part == world.drawings or (part == "train" and not world.strong and sprite.name == "flute")
            shown.add(sprite.drawing.partition("/")[0])
    assert (shown == {"openmoji"}) == (world.drawings == "style")


def pictures_of(part: str) -> dict[str, np.ndarray]:
    """The drawings of a part, as they look: what is transparent has no colour."""
    shown = {}
    for drawing, (rgba, held, _) in _bank().items():
        if held == part:
            shown[drawing] = np.where(rgba[..., 3:] > 0, rgba, 0)
    return shown


def test_no_drawing_that_is_measured_on_looks_like_a_trained_one() -> None:
    """Byte by byte, mirrored or not; ``val`` shares what the manual says that it shares."""
    trained = {drawing.tobytes() for own in pictures_of("train").values() for drawing in (own, own[:, ::-1])}
    assert len(trained) > 400
    for part in ("test", "style"):
        shown = pictures_of(part)
        assert len(shown) > 30 and not {drawing.tobytes() for drawing in shown.values()} & trained
    known = {name for name, drawing in pictures_of("val").items() if drawing.tobytes() in trained}
    assert known == {"fluent-emoji-flat/cat-face"}
    shared = {name for name in PICTURES if set(drawings(name, "val")) & set(drawings(name, "train"))}
    assert shared == {"flute"} and len(drawings("flute", "val")) == 5


def test_drawings_are_apart_and_one_style_is_never_trained_on() -> None:
    for name in PICTURES:
        own = {part: set(drawings(name, part)) for part in ("train", "test", "style")}
        assert own["train"] and own["test"] and own["style"]
        assert not own["train"] & own["test"]
        # Shaded or flat, Fluent's are the same drawings.
        plain = {part: {drawing.replace("-flat", "") for drawing in held} for part, held in own.items()}
        assert not plain["train"] & plain["test"]
        styles = {part: {drawing.partition("/")[0] for drawing in held} for part, held in own.items()}
        assert len(styles["train"]) >= 2 and styles["style"] == {"openmoji"}
        assert "openmoji" not in styles["train"] | styles["test"]


def test_icon_sets_are_trained_on_and_nothing_else() -> None:
    sets = load_script(TESTS / "tools" / "training_drawings.py")
    assert sets.DRAWINGS.keys() == sets.VERSIONS.keys()
    for style, of in sets.DRAWINGS.items():
        for name, slugs in of.items():
            assert {part_of(name, f"{style}/{slug}") for slug in slugs.split()} == {"train"}
    licences = (ASSETS / "LICENSES.md").read_text()
    assert all(f"`{style}`" in licences for style in sets.VERSIONS)


def test_wordings_are_apart_and_made_of_words_that_training_has() -> None:
    words = {}
    for part in ("train", "test"):
        texts = [text for kind in WIDE[part].values() for text in kind]
        assert len(set(texts)) == len(texts) or part == "train"
        words[part] = set(re.findall(r"[a-z]+|[?.,]", " ".join(re.sub(r"\{\w+\}", "", text) for text in texts).lower()))
    assert words["test"] <= words["train"]
    assert WIDE["train"].keys() == WIDE["test"].keys()
    for kind, texts in WIDE["test"].items():
        assert not set(texts) & {text for own in WIDE["train"].values() for text in own}, kind


@pytest.mark.parametrize("instrument", [name for name in INSTRUMENTS if name not in ("drum", "bell")])
def test_made_notes_have_their_pitch(instrument: str) -> None:
    errors = []
    for pitch, velocity in sources("synth", instrument):
        note = samples(find("synth", instrument, pitch, velocity)).astype(np.float64)[800:9_000]
        spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), 1 << 16))
        first = 440 * 2 ** ((pitch - 69) / 12) / 16_000 * (1 << 16)
        levels = [
            max(spectrum[round(k * first * step) - 2 : round(k * first * step) + 3].max() for k in (1, 2))
            for step in (1, 2 ** (0.5 / 12))
        ]
        errors.append(levels[0] > levels[1])
    assert np.mean(errors) > 0.9


def test_every_part_has_music_and_speech_of_its_own() -> None:
    assert not set(MUSIC["train"]) & set(MUSIC["test"])
    assert not set(phrases("train")) & set(phrases("test"))
    for part in ("train", "test"):
        bed = Bed(MUSIC[part][0], -10.0, ((phrases(part)[0], 1.0),), -6.0)
        both = bed_wave(bed, 0.1, 128_000)
        music = bed_wave(Bed(MUSIC[part][0], -10.0), 0.1, 128_000)
        said = both - music
        assert np.sqrt((music**2).mean()) == pytest.approx(0.1 * 10 ** (-10 / 20), rel=1e-3)
        ends = 1.0 + seconds_of(phrases(part)[0])
        assert not said[:15_999].any() and not said[round(ends * 16_000) + 1 :].any()
        assert np.sqrt((said[16_000 : round(ends * 16_000)] ** 2).mean()) == pytest.approx(
            0.1 * 10 ** (-6 / 20), rel=1e-2
        )


def test_heldlists_every_note_once() -> None:
    for instrument in INSTRUMENTS:
        found = [(font, *pair) for part in PARTS for font, own in of_part(instrument, part).items() for pair in own]
        assert len(found) == len(set(found)) == sum(note[1] == instrument for note in recordings())
