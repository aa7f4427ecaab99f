"""``echopix ask``: questions about media files, answered."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.output import answer_record
from echopix_cli.errors import EchopixError, ExitCode, UsageError

if TYPE_CHECKING:
    from echopix_cli.engine import Encoded, Engine

_EXAMPLE = 'echopix ask clip.mp4 "What instrument is playing?"'


def split_arguments(arguments: Sequence[str], questions: Sequence[str]) -> tuple[list[str], list[str]]:
    """Media and questions of a command line: as with ``cp``, the last argument is the question, unless
    questions were given by ``-Q``; then every argument is media. ``-`` reads the question from stdin.

    Raises:
        UsageError: no question, no media, or an empty question.
    """
    media, asked = list(arguments), list(questions)
    if not asked:
        last = media.pop()
        if last != "-" and Path(last).exists():
            raise UsageError(f"no question given: the last argument, {last}, is a file", _EXAMPLE)
        if not media:
            raise UsageError(f"no media given: {last!r} is taken for the question", _EXAMPLE)
        asked = [last]
    asked = [sys.stdin.read().strip() if question == "-" else question for question in asked]
    if not all(question.strip() for question in asked):
        raise UsageError("the question is empty", _EXAMPLE)
    return media, asked


def ask(
    media: Annotated[
        list[str] | None, typer.Argument(metavar="MEDIA", help="media files to ask about", show_default=False)
    ] = None,
    last: Annotated[
        str, typer.Argument(metavar="QUESTION", help="what to ask; - reads it from stdin", show_default=False)
    ] = ...,  # type: ignore[assignment]  # required, though it stands after an optional list
    question: opt.Questions = None,
    json: opt.Json = False,
    budget: opt.Budget = None,
    model: opt.Model = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    system: opt.System = None,
    max_new_tokens: opt.MaxNewTokens = None,
    temperature: opt.Temperature = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    max_pixels: opt.MaxPixels = None,
    start: opt.Start = None,
    end: opt.End = None,
    no_audio: opt.NoAudio = False,
    no_video: opt.NoVideo = False,
    audio_track: opt.AudioTrack = None,
    video_track: opt.VideoTrack = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    debug: opt.Debug = False,
    no_color: opt.NoColor = False,
) -> None:
    """Ask about what is seen and heard in media files.

    The answer goes to stdout; the table of kept tokens, latency and memory to stderr.
    """
    run = opt.Run.begin(locals())
    files, questions = split_arguments([*(media or []), last], question or [])
    engine = run.engine()
    plan = run.plan(engine)
    failures: list[EchopixError] = []
    for path in files:
        try:
            with run.output.progress(f"reading {path}"):
                encoded = engine.read(path, plan)
            if verbose:
                _describe(run, encoded)
            for text in questions:
                _answer(run, engine, encoded, text, as_json=json, label=path if len(files) > 1 else None)
        except EchopixError as error:
            if len(files) == 1:
                raise
            failures.append(error)
            run.output.error(error)
    if failures:
        run.output.notice(f"{len(failures)} of {len(files)} files failed")
        raise typer.Exit(ExitCode.FAILURE)


def _answer(run: opt.Run, engine: Engine, encoded: Encoded, question: str, as_json: bool, label: str | None) -> None:
    """Stream one answer: pieces to a terminal, one line or one object elsewhere, then the table."""
    from echopix_cli.results import Answer

    live = run.output.answers_on_terminal and not as_json
    if label is not None and not as_json:
        run.output.answer(label, end=": ")
    for event in engine.stream(encoded, question, run["budget"], run.generation()):
        if not isinstance(event, Answer):
            if live:
                run.output.answer(event.text, end="")
        elif as_json:
            run.output.record(answer_record(event))
        else:
            from echopix_cli.cli.tables import answer_table

            run.output.answer("" if live else event.answer)
            run.output.show(answer_table(event))


def _describe(run: opt.Run, encoded: Encoded) -> None:
    """What was found in the file, for ``--verbose``."""
    info = encoded.clip.info
    length = "unknown length" if info.duration is None else f"{info.duration:.2f} s"
    run.output.notice(f"{encoded.clip.path}: {info.format}, {length}")
    for track in info.tracks:
        facts = [
            track.codec,
            f"{track.width}×{track.height}" if track.width else None,
            f"{track.fps:.2f} fps" if track.fps else None,
            f"{track.sample_rate} Hz" if track.sample_rate else None,
            f"{track.channels} channels" if track.channels else None,
            f"rotated {track.rotation}°" if track.rotation else None,
            track.language,
        ]
        run.output.notice(f"{track.kind} track {track.index}: {', '.join(str(fact) for fact in facts if fact)}")
