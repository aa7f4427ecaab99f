"""``echopix scene``: real files, probed; what is printed and written down; and what a failure leaves behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from echopix_cli.errors import EchopixError
from echopix_cli.media import DecodePlan, load_clip, probe
from echopix_cli.scenes import FAMILIES, MOVIE_FAMILIES, SPLITS, Script, make_movie, make_script

SMALL = ("--size", "32", "--fps", "5")
# Where bytes are compared: of a row of macroblocks that does not fill its vectors, x264's macroblock tree reads
# memory that nobody wrote, and chooses other bits from time to time.
STEADY = ("--size", "128", "--fps", "5")


@pytest.fixture
def run(command):
    """The command line without a model: scenes need none."""
    return command


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "room"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def without_track() -> Script:
    return next(s for seed in range(100) if not (s := make_script("test", seed, "silent")).sound.track)


def test_the_file_is_a_real_mp4(run, room: Path) -> None:
    ran = run("scene", "--seed", "7", "--family", "order", "out.mp4")
    assert (ran.code, ran.err) == (0, "")
    info = probe(room / "out.mp4")
    picture, sound = info.tracks
    assert (picture.kind, picture.codec, picture.width, picture.height, picture.fps) == ("video", "h264", 224, 224, 25)
    assert (sound.kind, sound.codec, sound.sample_rate, sound.channels) == ("audio", "aac", 16000, 1)
    assert info.duration == pytest.approx(8.0, abs=0.1)
    assert left_in(room) == ["out.mp4"]
    assert stat.S_IMODE((room / "out.mp4").stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_size_and_rate(run, room: Path) -> None:
    run("scene", "out.mp4", "--size", "64", "--fps", "10", "--family", "object")
    picture = probe(room / "out.mp4").tracks[0]
    assert (picture.width, picture.height, picture.fps) == (64, 64, 10)


def test_one_line_per_question_between_tabs(run, room: Path) -> None:
    ran = run("scene", "out.mp4", "--seed", "7", "--family", "order", *SMALL)
    items = make_script("test", 7, "order").items
    assert items[0].family == "order"
    assert ran.out.splitlines() == [f"{item.question}\t{item.answer}" for item in items]


def test_columns_on_a_terminal(run, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("echopix_cli.cli.output.Output.answers_on_terminal", True)
    lines = run("scene", "out.mp4", "--seed", "7", "--family", "order", *SMALL).out.splitlines()
    items = make_script("test", 7, "order").items
    column = max(len(item.question) for item in items) + 2
    assert [(line[:column].strip(), line[column:]) for line in lines] == [(i.question, i.answer) for i in items]


def test_json_says_what_answers_rest_on(run, room: Path) -> None:
    (record,) = run("scene", "out.mp4", "--seed", "4", "--family", "sync", "--split", "val", "--json", *SMALL).records
    script = make_script("val", 4, "sync")
    assert list(record) == ["schema_version", "media", "split", "seed", "family", "duration", "items"]
    assert [record[key] for key in list(record)[:-1]] == [1, "out.mp4", "val", 4, "sync", script.duration]
    expected: list[dict[str, Any]] = [
        {
            "family": item.family,
            "question": item.question,
            "answer": item.answer,
            "evidence": [
                {"modality": e.modality, "start": e.start, "end": e.end, "box": None if e.box is None else [*e.box]}
                for e in item.evidence
            ],
        }
        for item in script.items
    ]
    assert record["items"] == expected
    assert any(piece["box"] for piece in expected[0]["evidence"])


def test_the_family_is_drawn_by_the_seed(run, room: Path) -> None:
    (record,) = run("scene", "out.mp4", "--seed", "11", "--json", *SMALL).records
    assert record["family"] == make_script("test", 11).family
    (again,) = run("scene", "b.mp4", "--seed", "11", "--family", record["family"], "--json", *SMALL).records
    assert again["items"] == record["items"]


def test_the_same_seed_is_the_same_file(run, room: Path) -> None:
    for name, seed in (("a.mp4", 7), ("b.mp4", 7), ("c.mp4", 8)):
        assert run("scene", name, "--seed", seed, "--family", "order", *STEADY).code == 0
    a, b, c = ((room / name).read_bytes() for name in ("a.mp4", "b.mp4", "c.mp4"))
    assert a == b
    assert a != c


def test_a_scene_without_sound(run, room: Path) -> None:
    script = without_track()
    run("scene", "out.mp4", "--family", "silent", "--seed", script.seed, *SMALL)
    assert [track.kind for track in probe(room / "out.mp4").tracks] == ["video"]


def test_many_scenes_in_a_new_folder(run, room: Path) -> None:
    ran = run("scene", "many", "--count", "3", "--seed", "5", "--family", "order", "--data", "many/q.jsonl", *STEADY)
    names = [f"order-{seed:06d}.mp4" for seed in (5, 6, 7)]
    assert left_in(room) == ["many", *(f"many/{name}" for name in names), "many/q.jsonl"]
    items = [(f"many/{name}", item) for name, k in zip(names, (5, 6, 7), strict=True) for item in script_items(k)]
    assert ran.out.splitlines() == [f"{item.question}\t{item.answer}\t{media}" for media, item in items]
    assert stat.S_IMODE((room / "many").stat().st_mode) == 0o777 & ~_umask()
    one = run("scene", "one.mp4", "--seed", "6", "--family", "order", *STEADY)
    assert one.code == 0
    assert (room / "one.mp4").read_bytes() == (room / "many" / names[1]).read_bytes()


def test_a_movie_and_its_questions(run, room: Path) -> None:
    ran = run("scene", "--movie", "0:20", "--seed", "7", "out.mp4", "--data", "q.jsonl", "--json", *SMALL)
    (record,) = ran.records
    movie = make_movie("test", 7, 20)
    assert [record[key] for key in ("split", "seed", "family", "duration")] == ["test", 7, None, 20.0]
    assert [(item["question"], item["answer"]) for item in record["items"]] == [
        (item.question, item.answer) for item in movie.items
    ]
    assert [piece["start"] for item in record["items"] for piece in item["evidence"]] == [
        piece.start for item in movie.items for piece in item.evidence
    ]
    info = probe(room / "out.mp4")
    assert [track.kind for track in info.tracks] == ["video", "audio"]
    assert info.duration == pytest.approx(20.0, abs=0.1)
    lines = [json.loads(line) for line in (room / "q.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"test-movie-20s-000007-{k}" for k in range(len(movie.items))]


def test_movies_of_one_family_in_a_folder(run, room: Path) -> None:
    ran = run("scene", "many", "--count", "2", "--movie", "8", "--family", "order", "--json", *SMALL)
    assert [record["media"] for record in ran.records] == [f"many/movie-8s-order-00000{seed}.mp4" for seed in (0, 1)]
    assert all(record["items"][0]["family"] == "order" for record in ran.records)
    assert (ran.code, ran.err) == (0, "")


def script_items(seed: int) -> tuple[Any, ...]:
    return make_script("test", seed, "order").items


def test_many_scenes_in_a_folder_that_exists(run, room: Path) -> None:
    (room / "keep.txt").write_text("mine")
    records = run("scene", ".", "--count", "2", "--json", *SMALL).records
    assert [record["seed"] for record in records] == [0, 1]
    assert left_in(room) == sorted(["keep.txt", *(record["media"] for record in records)])


def test_data_lines_are_read_from_where_they_lie(run, room: Path) -> None:
    """Media paths are relative to the JSONL file, through a symbolic link too, and lead to the scenes."""
    (room / "lists" / "deep").mkdir(parents=True)
    (room / "link").symlink_to(room / "lists" / "deep")
    ran = run("scene", "clips", "--count", "2", "--family", "count", "--data", "link/q.jsonl", "--json", *SMALL)
    lines = [json.loads(line) for line in (room / "lists" / "deep" / "q.jsonl").read_text().splitlines()]
    expected = [(record["media"], item) for record in ran.records for item in record["items"]]
    assert len({line["id"] for line in lines}) == len(lines) == len(expected)
    for line, (media, item) in zip(lines, expected, strict=True):
        assert list(line) == ["id", "media", "question", "answer", "family"]
        assert (line["question"], line["answer"], line["family"]) == (item["question"], item["answer"], item["family"])
        for seen_from in ("lists/deep", "link"):
            assert os.path.samefile(room / seen_from / line["media"], room / media)
        assert not os.path.isabs(line["media"])
    clip = load_clip(room / "link" / lines[0]["media"], DecodePlan())
    assert clip.frames is not None and clip.waveform is not None
    assert np.abs(np.asarray(clip.waveform)).max() > 0


def test_one_scene_beside_its_questions(run, room: Path) -> None:
    assert run("scene", "out.mp4", "--data", "q.jsonl", *SMALL).code == 0
    assert {json.loads(line)["media"] for line in (room / "q.jsonl").read_text().splitlines()} == {"out.mp4"}
    assert left_in(room) == ["out.mp4", "q.jsonl"]


def test_nothing_is_replaced_without_force(run, room: Path) -> None:
    (room / "out.mp4").write_text("mine")
    (room / "q.jsonl").write_text("mine")
    (room / "dangling.mp4").symlink_to("nowhere")
    for arguments in (["out.mp4"], ["new.mp4", "--data", "q.jsonl"], ["dangling.mp4"]):
        ran = run("scene", *arguments, *SMALL)
        assert ran.code == 2
        assert "exists" in ran.err and "--force" in ran.err
    assert (room / "out.mp4").read_text() == (room / "q.jsonl").read_text() == "mine"
    assert left_in(room) == ["dangling.mp4", "out.mp4", "q.jsonl"]
    assert run("scene", "out.mp4", "--data", "q.jsonl", "--force", *SMALL).code == 0
    assert probe(room / "out.mp4").tracks[0].codec == "h264"
    assert json.loads((room / "q.jsonl").read_text().splitlines()[0])["media"] == "out.mp4"


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("late", ["out.mp4", "q.jsonl"])
def test_what_comes_while_it_renders_is_not_replaced(
    run, room: Path, monkeypatch: pytest.MonkeyPatch, late: str, links: bool
) -> None:
    """Nor is half of a run left beside it; also on file systems without hard links."""
    import echopix_cli.scenes

    write = echopix_cli.scenes.write_mp4

    def write_late(*arguments: Any) -> None:
        write(*arguments)
        (room / late).write_text("mine")

    def refuse(*names: Any, **more: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(echopix_cli.scenes, "write_mp4", write_late)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    arguments = ("scene", "out.mp4", "--data", "q.jsonl", *SMALL)
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {late} exists by now") and "--force" in ran.err
    assert (left_in(room), (room / late).read_text()) == ([late], "mine")
    (room / late).unlink()
    monkeypatch.setattr(echopix_cli.scenes, "write_mp4", write)
    assert run(*arguments).code == 0
    assert left_in(room) == ["out.mp4", "q.jsonl"]
    assert run(*arguments, "--force").code == 0


def test_one_taken_name_of_many(run, room: Path) -> None:
    (room / "order-000006.mp4").write_text("mine")
    arguments = ("scene", ".", "--count", "3", "--seed", "5", "--family", "order", *SMALL)
    assert run(*arguments).code == 2
    assert left_in(room) == ["order-000006.mp4"]
    assert run(*arguments, "--force").code == 0
    assert left_in(room) == [f"order-00000{seed}.mp4" for seed in (5, 6, 7)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["out.mp4", "--family", "tango"], [*FAMILIES]),
        (["out.mp4", "--split", "dev"], [*SPLITS]),
        (["out.mp4", "--movie", "1:00", "--family", "sync"], [*MOVIE_FAMILIES]),
        (["out.mp4", "--movie", "5"], ["5 s", "from 8 s to 4:00:00"]),
        (["out.mp4", "--movie", "8.5"], ["whole seconds"]),
        (["out.mp4", "--movie", "soon"], ["not a time: 'soon'", "--movie 10:00"]),
        (["out.mp4", "--seed", "-1"], ["-1", "0 or more"]),
        (["out.mp4", "--size", "33"], ["33x33", "even"]),
        (["out.mp4", "--size", "8"], ["--size", "32"]),
        (["out.mp4", "--fps", "0"], ["--fps"]),
        (["out", "--count", "0"], ["--count"]),
        ([], ["OUT"]),
        (["out.mkv"], [".mp4"]),
        (["none/out.mp4"], ["the folder none does not exist", "mkdir -p none"]),
        (["none/many", "--count", "2"], ["the folder none does not exist"]),
        (["out.mp4", "--data", "none/q.jsonl"], ["the folder none does not exist"]),
        (["."], ["is a folder", "--count"]),
        (["file", "--count", "2"], ["file is not a folder"]),
        (["/dev/null", "--count", "1"], ["not a folder"]),
        (["out.mp4", "--data", "/dev/null", "--force"], ["/dev/null exists and is not a file"]),
        (["pipe.mp4", "--force"], ["pipe.mp4 exists and is not a file"]),
        (["out.mp4", "--data", "../room/out.mp4"], ["both"]),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(
    run, room: Path, arguments: list[str], said: list[str]
) -> None:
    (room / "file").write_text("mine")
    os.mkfifo(room / "pipe.mp4")
    ran = run("scene", *arguments)
    assert ran.code == 2
    assert ran.out == ""
    for words in said:
        assert words in ran.err
    assert left_in(room) == ["file", "pipe.mp4"]


def test_the_unseen_font_says_how_to_build_its_notes(run, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_UNSEEN_FONT", str(room / "none.ogg"))
    ran = run("scene", "out.mp4", "--split", "unseen-font", "--family", "instrument", *SMALL)
    assert ran.code == 1
    assert "none.ogg" in ran.err and "--unseen-font" in ran.err
    assert left_in(room) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), EchopixError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_half_way_leaves_nothing(
    run, room: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, existing: bool
) -> None:
    import echopix_cli.scenes

    written: list[Path] = []
    write = echopix_cli.scenes.write_mp4

    def write_one(script: Script, path: Path, *rest: Any) -> None:
        if written:
            raise error
        write(script, path, *rest)
        written.append(path)

    if existing:
        (room / "many").mkdir()
    monkeypatch.setattr(echopix_cli.scenes, "write_mp4", write_one)
    ran = run("scene", "many", "--count", "3", "--data", "q.jsonl", *SMALL)
    assert ran.code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert ran.out == ""
    assert ("No space left on device" in ran.err) == isinstance(error, OSError)
    assert len(written) == 1
    assert left_in(room) == (["many"] if existing else [])


def test_a_folder_that_cannot_be_written_to(run, room: Path) -> None:
    (room / "shut").mkdir(mode=0o500)
    folder = "/proc" if os.access(room / "shut", os.W_OK) else "shut"  # nothing is shut to root but the kernel's
    ran = run("scene", f"{folder}/out.mp4", *SMALL)
    assert ran.code == 1
    assert f"cannot write to {folder}" in ran.err
    assert "Traceback" not in ran.err
    assert left_in(room) == ["shut"]


def test_a_disk_that_fills_up(room: Path) -> None:
    """A real one, as far as a limit on file size is: the writer itself fails, in the middle of a scene."""
    code = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "sys.argv = ['echopix', 'scene', 'out.mp4', '--size', '64']\nfrom echopix_cli.cli.app import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "cannot write to ." in done.stderr
    assert "Traceback" not in done.stderr
    assert left_in(room) == []


def test_ctrl_c_leaves_nothing(room: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "echopix_cli", "scene", "many", "--count", "200", *SMALL, "--data", "many/q.jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # one scene is done, another under way
    wait_until(lambda: any(name.endswith("/2.mp4") for name in left_in(room)), process=process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "interrupted" in err and "Traceback" not in err
    assert left_in(room) == []


def test_names_of_the_greatest_length(run, room: Path) -> None:
    name = "n" * 251 + ".mp4"
    assert run("scene", name, *SMALL).code == 0
    assert left_in(room) == [name]
    ran = run("scene", "n" + name, *SMALL)
    assert ran.code == 1
    assert "too long" in ran.err
    assert left_in(room) == [name]


def test_help_names_what_there_is(run) -> None:
    text = " ".join(run("scene", "--help").out.split())
    assert ", ".join(FAMILIES[:-1]) + f" or {FAMILIES[-1]}" in text
    assert ", ".join(SPLITS[:-1]) + f" or {SPLITS[-1]}" in text
