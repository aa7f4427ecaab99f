"""``echopix scene``: a procedural clip, or a movie of many, whose questions have known answers."""

import json as json_module
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.output import SCHEMA_VERSION, Output, one_line
from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.times import TIME_HELP, clock

if TYPE_CHECKING:
    from echopix_cli.scenes import Movie, Script

    Subject = Script | Movie


@opt.taking(*opt.PRINTING)
def scene(
    run: opt.Run,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the mp4 to write; with --count, a folder for many")],
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="which scene; the same number, the same scene")] = 0,
    family: Annotated[
        str | None,
        # Written out, not imported: reading the scenes room would slow --help down. A test compares them.
        typer.Option(
            "--family",
            metavar="NAME",
            help="what the first question is about (default: drawn by the seed): instrument, object, count, sync, "
            "order, when, heard, exists, silent or dark; in the wide splits also list, corner and each; a movie has "
            "no count, sync, silent and dark, and by default questions of all others",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="NAME",
            help="the scenes' pool (unseen-font needs a note bank built on this machine): train, val, test, "
            "unseen-font, wide-train, wide-val, wide-test, wide-font, wide-style or wide-composer",
        ),
    ] = "test",
    count: Annotated[
        int | None,
        typer.Option(
            "--count", min=1, metavar="N", help="N scenes, of this seed and those after it", show_default=False
        ),
    ] = None,
    movie: Annotated[
        str | None,
        typer.Option(
            "--movie",
            metavar="LENGTH",
            help=f"a movie of scenes one after another, as long as {TIME_HELP}, with questions about what only one of "
            "them holds",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int, typer.Option("--size", min=32, max=2160, metavar="N", help="pixels along an edge of the square picture")
    ] = 224,
    fps: Annotated[int, typer.Option("--fps", min=1, max=60, metavar="RATE", help="frames per second")] = 25,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="write the questions to a JSONL file too", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace files that exist", show_default=False)] = False,
    json: opt.Json = False,
) -> None:
    """Render a scene with known answers to an mp4, and print its questions and answers.

    For 8 seconds pictures come, go and move while recorded instruments play. In a movie what is asked about is seen or
    heard once, or never. Files appear when all are complete.
    """
    # --fps here is of the file that is written, not the setting of that name.
    folder = _folder(out, many=count is not None)
    with run.output.progress("writing scripts"):
        scripts = [_subject(split, seed + k, family, movie) for k in range(count or 1)]
    media = [out] if count is None else [folder / f"{_kind(s)}-{s.seed:06d}.mp4" for s in scripts]
    _require_free(media, data, folder, force)
    scenes = list(zip(media, scripts, strict=True))
    with run.output.progress("rendering") as say:
        _write(scenes, data, folder, size, fps, force, say)
    if json:
        for path, script in scenes:
            run.output.record(scene_record(str(path), script))
    else:
        _print(run.output, scenes, name_media=count is not None)


def _subject(split: str, seed: int, family: str | None, movie: str | None) -> "Subject":
    """What a seed stands for.

    Raises:
        UsageError: a length that is no time or that no movie has, an unknown split or family, or a negative seed.
    """
    from echopix_cli.scenes import make_movie, make_script

    if movie is None:
        return make_script(split, seed, family)
    return make_movie(split, seed, opt.read_length("--movie", movie), family)


def _kind(subject: "Subject") -> str:
    """What sets its file and its questions apart from others of the same seed."""
    from echopix_cli.scenes import Movie

    if not isinstance(subject, Movie):
        return subject.family
    kind = f"movie-{subject.duration:.0f}s"
    return kind if subject.family is None else f"{kind}-{subject.family}"


def scene_record(media: str, script: "Subject") -> dict[str, Any]:
    """A scene or movie as one JSON object: its questions, their answers, and what each answer rests on."""
    return {
        "schema_version": SCHEMA_VERSION,
        "media": media,
        "split": script.split,
        "seed": script.seed,
        "family": script.family,
        "duration": script.duration,
        "items": [asdict(item) for item in script.items],
    }


def data_lines(media: Path, script: "Subject", home: Path) -> Iterator[str]:
    """A scene's questions as lines of a JSONL file in the folder ``home``, which media paths are relative to."""
    relative = Path(os.path.relpath(_real(media), os.path.realpath(home))).as_posix()
    for number, item in enumerate(script.items):
        line = {
            # Split, kind and seed are the whole scene: an id stays unique when files are joined.
            "id": f"{script.split}-{_kind(script)}-{script.seed:06d}-{number}",
            "media": relative,
            "question": item.question,
            "answer": item.answer,
            "family": item.family,
        }
        yield json_module.dumps(line) + "\n"


def _folder(out: Path, many: bool) -> Path:
    """The folder that scenes go to.

    Raises:
        UsageError: OUT is not what one scene, or many, can be written to.
    """
    if many:
        if os.path.lexists(out) and not os.path.isdir(out):
            raise UsageError(f"{out} is not a folder, and --count writes many files", "name a folder, or a new one")
        needed, folder = out.parent, out
    else:
        if os.path.isdir(out):
            raise UsageError(f"{out} is a folder", f"name a file, such as {out / 'scene.mp4'}, or add --count")
        if out.suffix.lower() != ".mp4":
            raise UsageError(f"{out} does not end in .mp4, which is what is written", str(out.with_suffix(".mp4")))
        needed = folder = out.parent
    if not os.path.isdir(needed):
        raise UsageError(f"the folder {needed} does not exist", f"mkdir -p {shlex.quote(str(needed))}")
    return folder


def _require_free(media: Sequence[Path], questions: Path | None, folder: Path, force: bool) -> None:
    """Before the work, not after it, say what stands in its way.

    Raises:
        UsageError: a file exists and is not to be replaced, or cannot be; or the JSONL file has no place.
    """
    wanted = [*media, *([] if questions is None else [questions])]
    for path in wanted:
        if os.path.exists(path) and not os.path.isfile(path):  # renaming would do away even with /dev/null
            raise UsageError(f"{path} exists and is not a file", "choose another name")
    taken = [path for path in wanted if os.path.lexists(path)]
    if taken and not force:
        raise _exists(taken[0], f" (and {len(taken) - 1} more)" if len(taken) > 1 else "")
    if questions is not None:
        place = _real(questions)
        if not os.path.isdir(place.parent) and str(place.parent) != os.path.realpath(folder):  # about to be made
            there = shlex.quote(str(questions.parent))
            raise UsageError(f"the folder {questions.parent} does not exist", f"mkdir -p {there}")
        if any(place == _real(path) for path in media):
            raise UsageError(f"{questions} would be both a scene and its questions", "--data questions.jsonl")


def _exists(path: Path, more: str = "") -> UsageError:
    return UsageError(f"{path} exists{more}", "add --force to replace, or choose another name")


def _write(
    scenes: "Sequence[tuple[Path, Subject]]",
    questions: Path | None,
    folder: Path,
    size: int,
    fps: int,
    force: bool,
    say: Callable[[str], None],
) -> None:
    """Render beside where the files go, and give them their names when all are complete: all of them or none.

    Raises:
        UsageError: a file has come to exist meanwhile, and is not to be replaced.
        EchopixError: the disk refuses.
    """
    from echopix_cli.files import made, rename_new
    from echopix_cli.scenes import Movie, write_movie, write_mp4

    home = folder if questions is None else questions.parent
    try:
        with made(folder), _staging(folder) as stage, _staging(home) as desk:
            # Numbers, not names: a name of the greatest length leaves the writer no room for its own suffix.
            parts = [(stage / f"{number}.mp4", path) for number, (path, _) in enumerate(scenes, 1)]
            for (part, _), (_, script) in zip(parts, scenes, strict=True):
                say(f"rendering {part.stem} of {len(scenes)}")
                if isinstance(script, Movie):
                    write_movie(script, part, size, fps, _watch(say, part.stem, len(scenes), script.duration))
                else:
                    write_mp4(script, part, size, fps)
            if questions is not None:
                lines = desk / "questions"
                lines.write_text("".join(line for scene in scenes for line in data_lines(*scene, home)), "ascii")
                parts.append((lines, questions))
            with ExitStack() as undo:
                for part, path in parts:
                    try:
                        (os.replace if force else rename_new)(part, path)
                    except FileExistsError:
                        raise _exists(path, " by now: it came while scenes were rendered") from None
                    if not force:
                        undo.callback(path.unlink, missing_ok=True)
                undo.pop_all()
    except OSError as error:
        places = str(folder) if home == folder else f"{folder} or {home}"
        reason = error.strerror or str(error)
        raise EchopixError(f"cannot write to {places}: {reason}", "choose a folder that can be written to") from error


def _watch(say: Callable[[str], None], number: str, count: int, duration: float) -> Callable[[float], None]:
    """Tells how much of a movie is there."""
    return lambda seconds: say(f"rendering {number} of {count}: {clock(seconds)} of {clock(duration)}")


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A hidden folder for unfinished files, on the same disk as the finished ones, gone at the end."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix=".echopix-", dir=folder) as stage:
        yield Path(stage)


def _real(path: Path) -> Path:
    """A path whose folders are no symbolic links: the parent of a link's target is not the link's parent."""
    return Path(os.path.realpath(path.parent)) / path.name


def _print(output: Output, scenes: "Sequence[tuple[Path, Subject]]", name_media: bool) -> None:
    """One line per question: in columns on a terminal, between tabs elsewhere."""
    rows = [
        [item.question, item.answer, *([one_line(str(path))] if name_media else [])]
        for path, script in scenes
        for item in script.items
    ]
    if output.answers_on_terminal:
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        rows = [
            ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()] for row in rows
        ]
    for row in rows:
        output.answer("\t".join(row))
