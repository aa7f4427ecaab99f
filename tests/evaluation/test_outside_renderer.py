"""The renderer that shares no code with ours: its answers are true of its clips, and it is as apart as it says."""

from __future__ import annotations

import ast
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from places import TESTS, load_script

from echopix_cli import scenes
from echopix_cli.evaluation.questions import load_questions
from echopix_cli.scenes import script
from echopix_cli.scenes.wide_questions import CORNERS
from echopix_cli.scenes.wordings import WIDE, WORDINGS

pytest.importorskip("PIL", reason="drawings are made with Pillow")
FILES = [TESTS / "benchmarks" / f"outside{part}.py" for part in ("", "_scenes", "_wordings", "_drawings", "_sounds")]
SEEDS = range(40)
SIDES = {"on the left": ("x", -1), "on the right": ("x", 1), "at the top": ("y", -1), "at the bottom": ("y", 1)}


@pytest.fixture(scope="module")
def outside() -> ModuleType:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "path", [str(TESTS / "benchmarks"), *sys.path])
        return load_script(FILES[0])


@pytest.fixture(scope="module")
def rules(outside: ModuleType) -> ModuleType:
    return sys.modules["outside_scenes"]


def test_it_shares_no_code_with_ours(rules: ModuleType) -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("echopix")]
    # The same things, or the bundled model could not know their names.
    assert sorted(rules.INSTRUMENTS) == sorted(script.INSTRUMENTS)
    assert sorted(rules.PICTURES) == sorted(script.PICTURES)
    assert tuple(rules.FAMILIES) == scenes.WIDE_FAMILIES and tuple(rules.NARROW) == scenes.FAMILIES
    assert (rules.NUMBERS, rules.CORNERS, rules.NOTHING) == (script.COUNTED, CORNERS, script.NOTHING)


def test_known_wordings_are_those_of_training_and_others_of_none(outside: ModuleType) -> None:
    def plain(texts: Any) -> set[str]:
        return {re.sub(r"\{(?!a\})\w+\}", "{0}", text).replace("{a}", "{1}") for kind in texts for text in kind}

    wide, narrow = plain(WIDE["train"].values()), plain(WORDINGS.values())
    known = {kind: words[0] for kind, words in outside.WORDINGS.items()}
    assert set(known.values()) <= wide
    new = {kind for kind in known if kind.split()[0] in ("list", "corner", "each")}
    older = {kind: text for kind, text in (known | outside.NARROW_WORDINGS).items() if kind not in new}
    assert len(new) == 7 and set(older.values()) <= narrow
    held_out = plain(WIDE["test"].values())
    assert not {words[1] for words in outside.WORDINGS.values()} & (wide | narrow)
    strangers = {text for texts in outside.STRANGERS.values() for text in texts}
    assert outside.STRANGERS.keys() == known.keys() and len(strangers) == 3 * len(known)
    assert not strangers & (wide | narrow | held_out)


def composed(rules: ModuleType, family: str) -> list[Any]:
    return [rules.FAMILIES[family](np.random.default_rng(seed)) for seed in SEEDS]


def playing(made: Any, name: str) -> list[Any]:
    return [note for note in made.notes if note.name == name]


def visible(made: Any, notes: list[Any]) -> set[str]:
    return {p.name for p in made.pictures for n in notes if p.show[0] < n.end and n.start < p.show[1]}


def corner_of(picture: Any) -> str:
    assert min(abs(picture.x - 0.5), abs(picture.y - 0.5)) > 0.15
    return f"{'bottom' if picture.y > 0.5 else 'top'} {'right' if picture.x > 0.5 else 'left'}"


def answer_of(made: Any, kind: str, slot: str) -> str:
    """The answer to a question, from what happens in the clip alone."""
    numbers = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    players = [note.name for note in sorted(made.notes, key=lambda note: note.start)]
    if kind in ("seen", "sounding"):
        there = [p.name for p in made.pictures] if kind == "seen" else players
        return "yes" if slot in there else "no"
    if kind in ("notes", "own notes", "things"):
        counted = {"notes": made.notes, "own notes": playing(made, slot), "things": made.pictures}[kind]
        return numbers[len(counted)]
    if kind == "list heard":
        in_order = list(dict.fromkeys(players))
        assert players == sorted(players, key=in_order.index), "one after another"
        return ", ".join(in_order)
    if kind == "list seen":
        shown = sorted(made.pictures, key=lambda picture: picture.show)
        assert all(a.show[1] <= b.show[0] for a, b in pairwise(shown))
        return ", ".join(picture.name for picture in shown)
    if kind == "corner when":
        (begin,) = (picture.show[0] for picture in made.pictures if picture.name == slot)
        assert abs(begin - round(begin)) <= 0.2
        return numbers[round(begin)]
    if kind == "corner where":
        (one,) = (picture for picture in made.pictures if picture.name == slot)
        return corner_of(one)
    if kind == "corner what":
        found = {picture.name for picture in made.pictures if corner_of(picture) == slot}
    elif kind == "each seen":
        times = [visible(made, [note]) for note in playing(made, slot)]
        assert len(times) > 1
        found = set.intersection(*times)
    elif kind == "each heard":
        shows = [picture for picture in made.pictures if picture.name == slot]
        assert len(shows) > 1
        heard = [{n.name for n in made.notes if p.show[0] < n.end and n.start < p.show[1]} for p in shows]
        found = set.intersection(*heard)
        assert len(set.union(*heard)) > 1, "somebody else, too, or there is nothing to compare"
    elif kind == "side":
        axis, sign = SIDES[slot]
        found = {p.name for p in made.pictures if sign * (getattr(p, axis) - 0.5) > 0.1}
    elif kind == "shown":
        found = {p.name for p in made.pictures}
    elif kind == "instrument":
        found = set(players)
    elif kind in ("first", "last"):
        found = {players[0 if kind == "first" else -1]} if players else set()
    elif kind == "when":
        found = visible(made, playing(made, slot))
    elif kind == "heard":
        found = {note.name for note in made.notes if slot in visible(made, [note])}
    else:
        assert kind == "sync"
        starts = {note.start for note in made.notes}
        found = {p.name for p in made.pictures if p.hops and {a for a, _ in p.hops} == starts}
    assert len(found) <= 1, "beyond doubt"
    return found.pop() if found else "nothing"


@pytest.mark.parametrize("family", scenes.WIDE_FAMILIES)
def test_answers_are_true_of_the_clips(rules: ModuleType, family: str) -> None:
    answers = set()
    for made in composed(rules, family):
        assert 1 <= len(made.asked) <= 2
        for kind, slot, answer in made.asked:
            assert answer == answer_of(made, kind, slot)
            answers.add(answer)
        assert all(0 <= note.start < note.end <= rules.SECONDS + 0.25 for note in made.notes)
        assert made.dark == (family == "dark") and not (made.dark and made.pictures)
        if family != "object":
            assert bool(made.notes) == (family != "silent")
    assert len(answers) > 1
    if family == "count":
        assert answers == set(script.COUNTED)
        narrow = [rules.NARROW["count"](np.random.default_rng(seed)) for seed in SEEDS]
        assert {answer for made in narrow for _, _, answer in made.asked} == set(script.NUMBERS)


@pytest.mark.parametrize("family", scenes.WIDE_FAMILIES)
def test_pictures_lie_in_the_frame_and_apart(outside: ModuleType, rules: ModuleType, family: str) -> None:
    for made in composed(rules, family):
        for width, height in ((320, 240), (240, 240), (240, 320), (384, 216)):
            boxes = []
            for one in made.pictures:
                half = one.size * min(width, height) / 2
                lift = outside.RAISED * height if one.hops else 0.0
                box = (one.x * width - half, one.y * height - half - lift, one.x * width + half, one.y * height + half)
                assert min(box[:2]) >= 0 and box[2] <= width and box[3] <= height
                boxes.append((box, one.show))
            for number, (a, seen) in enumerate(boxes):
                for b, then in boxes[:number]:
                    meet = seen[0] < then[1] and then[0] < seen[1]
                    assert not meet or not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


@pytest.mark.parametrize(("name", "ratio"), [("organ", 1.0), ("flute", 2.0), ("piano", 1.0), ("harp", 1.0)])
def test_tones_have_the_pitch_that_is_asked_for(outside: ModuleType, name: str, ratio: float) -> None:
    wave = outside.played(name, 69, 1.0, np.random.default_rng(0))
    peak = np.fft.rfftfreq(len(wave), 1 / outside.RATE)[np.abs(np.fft.rfft(wave)).argmax()]
    assert peak == pytest.approx(440 * ratio, rel=0.02)


def test_every_instrument_sounds_like_itself(outside: ModuleType, rules: ModuleType) -> None:
    spectra = []
    for name in rules.INSTRUMENTS:
        wave = outside.played(name, 64, 0.5, np.random.default_rng(1))
        assert len(wave) == round(0.5 * outside.RATE) and np.isfinite(wave).all() and wave[-1] == 0.0
        bands = np.add.reduceat(np.abs(np.fft.rfft(wave)) ** 2, 2 ** np.arange(3, 14))
        spectra.append(bands / np.linalg.norm(bands))
    likeness = np.array(spectra) @ np.array(spectra).T
    assert (likeness - np.eye(len(spectra))).max() < 0.999


def test_questions_are_as_many_of_each_family_and_clips_the_same_for_a_seed(
    outside: ModuleType, rules: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = outside.write
    monkeypatch.setattr(outside, "write", lambda path, *rest: (made.append(path.name), path.touch()))
    monkeypatch.setattr(outside, "frames", lambda *rest: [])
    monkeypatch.setattr(outside, "sound", lambda *rest: None)
    data = outside.make(tmp_path / "all", 52, 3)
    questions = load_questions(str(data), None, 0)
    families = [question.family for question in questions]
    assert {family: families.count(family) for family in scenes.WIDE_FAMILIES} == dict.fromkeys(scenes.WIDE_FAMILIES, 4)
    assert {Path(question.media).name for question in questions} == set(made)
    assert len(set(question.id for question in questions)) == 52
    first = list(made)
    outside.make(tmp_path / "all", 52, 3)
    assert made == first, "what is there is not made again"
    asked_before = {question.question for question in questions}
    for wordings in ("other", "strangers"):
        others = load_questions(str(outside.make(tmp_path / "all", 52, 3, wordings)), None, 0)
        assert [question.answer for question in others] == [question.answer for question in questions]
        assert not asked_before & {question.question for question in others}
        asked_before |= {question.question for question in others}
    narrow = load_questions(str(outside.make(tmp_path / "narrow", 40, 3, narrow=True)), None, 0)
    families = [question.family for question in narrow]
    assert {family: families.count(family) for family in scenes.FAMILIES} == dict.fromkeys(scenes.FAMILIES, 4)
    asked = {q.question.split()[0] for q in narrow if q.family == "heard"}
    assert asked == {"What"} != {q.question.split()[0] for q in questions if q.family == "heard"}
    monkeypatch.undo()
    for module in (outside, rules):
        monkeypatch.setattr(module, "SECONDS", 1.0)
    family, clip, _ = outside.clip(3, 3)
    assert family == "sync"
    for name in ("a.mp4", "b.mp4"):
        rng = np.random.default_rng(5)
        real(tmp_path / name, outside.frames(rng, clip, 160, 120, 12), outside.sound(rng, clip), 12)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    from echopix_cli.media import DecodePlan, load_clip

    decoded = load_clip(tmp_path / "a.mp4", DecodePlan())
    assert decoded.frames is not None and decoded.waveform is not None
