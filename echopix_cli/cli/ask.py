"""``echopix ask``: questions about media files, answered."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.output import answer_record, one_line
from echopix_cli.errors import EchopixError, ExitCode, UsageError
from echopix_cli.media import require_file

if TYPE_CHECKING:
    from echopix_cli.engine import Encoded, Engine, SieveOptions

_EXAMPLE = 'echopix ask clip.mp4 "What instrument is playing?"'


def split_arguments(arguments: Sequence[str], questions: Sequence[str]) -> tuple[list[str], list[str]]:
    """Media and questions of a command line: as with ``cp``, the last argument is the question, unless
    questions were given by ``-Q``; then every argument is media. ``-`` reads the question from stdin.

    Raises:
        UsageError: no question, no media, or an empty question.
    """
    media, asked = list(arguments), list(questions)
    if not asked:
        if not media:
            raise UsageError("no media and no question given", _EXAMPLE)
        last = media.pop()
        if last != "-" and os.path.isfile(last):
            raise UsageError(f"no question given: the last argument, {last}, is a file", _EXAMPLE)
        if not media:
            raise UsageError(f"no media given: {last!r} is taken for the question", _EXAMPLE)
        asked = [last]
    if not media:
        raise UsageError("no media given", _EXAMPLE)
    if asked.count("-") > 1:
        raise UsageError("only one question can be read from stdin", _EXAMPLE)
    asked = [_from_stdin() if question == "-" else question for question in asked]
    if not all(question.strip() for question in asked):
        raise UsageError("the question is empty", _EXAMPLE)
    if any("\ud800" <= character <= "\udfff" for question in asked for character in question):
        raise UsageError("the question is not valid UTF-8", "check the encoding of the terminal or file")
    return media, asked


def _from_stdin() -> str:
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"the question on stdin is not valid text: {error.reason}", "pipe in UTF-8") from None


def ask(
    media: Annotated[
        list[str] | None, typer.Argument(metavar="MEDIA", help="media files to ask about", show_default=False)
    ] = None,
    last: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="what to ask; - reads it from stdin", show_default=False)
    ] = None,
    question: opt.Questions = None,
    json: opt.Json = False,
    budget: opt.Budget = None,
    sieve: opt.Sieve = None,
    prefilter: opt.Prefilter = None,
    question_layer: opt.QuestionLayer = None,
    model: opt.Model = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    quantize: opt.Quantize = None,
    keep_source: opt.KeepSource = None,
    system: opt.System = None,
    max_new_tokens: opt.MaxNewTokens = None,
    temperature: opt.Temperature = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    max_pixels: opt.MaxPixels = None,
    start: opt.Start = None,
    end: opt.End = None,
    no_audio: opt.NoAudio = None,
    no_video: opt.NoVideo = None,
    audio_track: opt.AudioTrack = None,
    video_track: opt.VideoTrack = None,
    quiet: opt.Quiet = None,
    verbose: opt.Verbose = None,
    debug: opt.Debug = None,
    no_color: opt.NoColor = None,
) -> None:
    """Ask about what is seen and heard in media files.

    The answer goes to stdout; the table of kept tokens, latency and memory to stderr.
    """
    run = opt.Run.begin(locals())
    arguments = [*(media or []), *([] if last is None else [last])]
    files, questions = split_arguments(arguments, question or [])
    if len(files) == 1:
        require_file(files[0])  # before the model is loaded for nothing
    engine = run.engine(files)
    plan, wanted = run.plan(engine), run.sieve(engine)
    failures: list[EchopixError] = []
    encoded: Encoded | None = None
    for path in files:
        try:
            with run.output.progress(f"reading {path}"):
                encoded = engine.read(path, plan)
            if run["verbose"]:
                run.describe(path, encoded.clip.info)
            for text in questions:
                _answer(run, engine, encoded, text, wanted, as_json=json, label=path if len(files) > 1 else None)
        except EchopixError as error:
            if len(files) == 1:
                raise
            failures.append(error)
            run.output.error(error)
        finally:
            encoded = None  # or this file's features would count towards the next one's peak memory
    if failures:
        run.output.notice(f"{len(failures)} of {len(files)} files failed")
        codes = {failure.exit_code for failure in failures}
        raise typer.Exit(codes.pop() if len(codes) == 1 and len(failures) == len(files) else ExitCode.FAILURE)


def _answer(
    run: opt.Run,
    engine: Engine,
    encoded: Encoded,
    question: str,
    sieve: SieveOptions,
    as_json: bool,
    label: str | None,
) -> None:
    """Stream one answer: pieces to a terminal, one line or one object elsewhere, then the table."""
    from echopix_cli.results import Answer

    output = run.output
    live = output.answers_on_terminal and not as_json
    before = "" if label is None else f"{one_line(label)}: "
    started = False
    try:
        for event in engine.stream(encoded, question, run["budget"], run.generation(), sieve):
            if not isinstance(event, Answer):
                if live:
                    output.answer(event.text if started else before + event.text, end="")
                    started = True
            elif as_json:
                output.record(answer_record(event))
            else:
                from echopix_cli.cli.tables import answer_table

                output.answer("" if started else before + event.answer)
                started = False
                output.show(answer_table(event))
    finally:
        if started:
            output.answer("")  # an answer that broke off still ends its line
