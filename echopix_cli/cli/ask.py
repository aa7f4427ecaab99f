"""``echopix ask``: questions about media files, answered."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from echopix_cli.cli import demo
from echopix_cli.cli import options as opt
from echopix_cli.cli.answer_files import AnswerFiles, Report, Vtt
from echopix_cli.cli.formats import wanted_format
from echopix_cli.errors import UsageError
from echopix_cli.parsers import is_whole
from echopix_cli.settings import MODEL

_EXAMPLE = 'echopix ask clip.mp4 "What instrument is playing?"'


def split_arguments(
    arguments: Sequence[str], questions: Sequence[str], listed: Path | None
) -> tuple[list[str], list[str]]:
    """Media and questions of a command line: as with ``cp``, the last argument is the question, unless
    questions were given by ``-Q`` or in a file (``listed``); then every argument is media. ``-`` as the question
    reads it from stdin.

    Raises:
        UsageError: no question, no media, an empty question, or more than one thing is to be read from stdin.
    """
    media, asked = list(arguments), list(questions)
    if media == [demo.NAME] and not asked and listed is None and demo.media_path(demo.NAME) != demo.NAME:
        asked = [demo.QUESTION]
    if not asked and listed is None:
        if not media:
            raise UsageError("no media and no question given", _EXAMPLE)
        last = media.pop()
        if last != "-" and os.path.exists(last):
            what = "folder" if os.path.isdir(last) else "file"
            raise UsageError(f"no question given: the last argument, {last}, is a {what}", _EXAMPLE)
        if not media:
            raise UsageError(f"no media given: {last!r} is taken for the question", _EXAMPLE)
        _require_quoted(media, last)
        asked = [last]
    if not media:
        raise UsageError("no media given", _EXAMPLE)
    if (questions or listed is not None) and media[-1].endswith("?") and not os.path.lexists(media[-1]):
        raise UsageError(
            f"{media[-1]!r} is no file: where -Q or --questions asks, every argument is media",
            "give each question with -Q",
        )
    if [*media, *asked, str(listed)].count("-") > 1:
        raise UsageError("only one thing can be read from stdin", _EXAMPLE)
    asked = [_from_stdin() if question == "-" else question for question in asked]
    for question in asked:
        require_question(question, _EXAMPLE)
    return media, asked


def require_question(text: str, example: str) -> None:
    """Check that something can be asked.

    Raises:
        UsageError: it is empty, or no text.
    """
    if not text.strip():
        raise UsageError("the question is empty", example)
    if not is_whole(text):
        raise UsageError("the question is not valid UTF-8", "check the encoding of the terminal or file")


def _require_quoted(media: Sequence[str], last: str) -> None:
    """Notice a question whose words came as arguments of their own.

    Raises:
        UsageError: words that are no files stand before the last one.
    """
    words = [last]
    for name in reversed(media):
        if name in ("", "-", demo.NAME) or os.sep in name or os.path.splitext(name)[1] or os.path.lexists(name):
            break
        words.insert(0, name)
    if len(words) > 1 and not any(len(word.split()) > 1 for word in words):
        files = list(media[: len(media) + 1 - len(words)])
        question = " ".join(words)
        whole = " ".join(["echopix ask", *map(shlex.quote, files or ["FILE"]), f'"{question}"'])
        raise UsageError(f"quote the question: {question} came as {len(words)} arguments", whole)


def _from_stdin() -> str:
    try:
        return sys.stdin.read().removeprefix("\ufeff").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"the question on stdin is not valid text: {error.reason}", "pipe in UTF-8") from None


@opt.taking("timeout", *opt.ASKING)
def ask(
    run: opt.Run,
    media: Annotated[
        list[str] | None, typer.Argument(metavar="MEDIA", help="media files to ask about", show_default=False)
    ] = None,
    last: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="what to ask; - reads it from stdin", show_default=False)
    ] = None,
    choices: Annotated[
        str | None,
        typer.Option(
            "--choices", metavar="A|B|…", help="answer with one of these", rich_help_panel=MODEL, show_default=False
        ),
    ] = None,
    vtt: Vtt = None,
    report: Report = None,
    question: opt.Questions = None,
    questions: Annotated[
        Path | None, opt.many("questions, one a line, or JSONL with ids and choices", "--questions", metavar="FILE")
    ] = None,
    tasks: Annotated[
        Path | None, opt.many("JSONL of id, media, question, budget, start, end, choices", "--input", metavar="FILE")
    ] = None,
    glob: Annotated[
        str | None,
        opt.many("what files in folders are called, in place of all video and sound", "--glob", metavar="PATTERN"),
    ] = None,
    null: Annotated[bool, opt.many("paths on stdin end with NUL, as find -print0 writes them", "--null", "-0")] = False,
    output: Annotated[
        Path | None,
        opt.many("append records to this JSONL file", "--output", "-o", metavar="FILE"),
    ] = None,
    resume: Annotated[
        bool | None, opt.many("go on with the output file (default), or begin it anew", "--resume/--overwrite")
    ] = None,
    shard: Annotated[str | None, opt.many("only the I-th of N shares of the files", "--shard", metavar="I/N")] = None,
    fail_fast: Annotated[bool, opt.many("end at the first failure", "--fail-fast")] = False,
    engine: Annotated[
        str,
        opt.many(
            "where the model runs: local, in this process, or ray, on many machines", "--engine", metavar="local|ray"
        ),
    ] = "local",
    address: Annotated[
        str | None,
        opt.many(
            "the Ray cluster to join (default: begin one here, and end it)", "--address", metavar="HOST:PORT|auto"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        opt.many("engines on Ray (default: one a GPU, without any one for every 4 cores)", "--workers", metavar="N"),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        opt.many(
            "the share of a GPU that each engine on Ray takes (default: 1), 0 for CPUs",
            "--gpus-per-worker",
            metavar="SHARE",
        ),
    ] = None,
    json: opt.Json = False,
    format: opt.Format = None,
) -> None:
    """Ask about what is seen and heard in media files.

    Of one file, the answer goes to stdout and the table of kept tokens, latency and memory to stderr. MEDIA may
    also be several files, folders, or - for paths on stdin: then every file and question becomes one line, in a pipe
    a JSON object. demo is a clip that comes with the program.
    """
    form = wanted_format(format, json)
    arguments = [*(media or []), *([] if last is None else [last])]
    if tasks is not None:
        _refuse_beside_input(arguments, question, questions)
        files, asked = list[str](), list[str]()
    else:
        files, asked = split_arguments(arguments, question or [], questions)
    if files and all(demo.media_path(name) != name for name in files):
        run = run.preferring(model="tiny")  # which knows it, whatever the GPU would hold
    files = [demo.media_path(name) for name in files]
    options = _split_choices(choices)
    if resume is not None and output is None:
        raise UsageError("there is no output file to resume or overwrite", "add --output FILE.jsonl")
    from echopix_cli.cli.fleet import fleet_options

    fleet = fleet_options(engine, address, workers, gpus_per_worker)
    if _is_one(files) and not any((tasks, questions, output, shard, fleet)):
        from echopix_cli.cli.ask_one import ask_one

        ask_one(run, files[0], asked, options, form or "text", AnswerFiles(vtt, report))
        return
    if vtt is not None:
        raise UsageError("--vtt is for the answers about one file", "ask one file, without --output")
    from echopix_cli.cli.ask_many import Many, ask_many

    overwrite = resume is False
    lists = (files, asked, options, glob, null, questions, tasks)
    ask_many(run, Many(*lists, output, overwrite, shard, fail_fast, form, report, fleet))


def _split_choices(choices: str | None) -> tuple[str, ...]:
    """Options of the command line, split.

    Raises:
        UsageError: they are no options.
    """
    if choices is None:
        return ()
    from echopix_cli.choices import clean_choices

    return clean_choices(choices.split("|"))


def _refuse_beside_input(arguments: Sequence[str], questions: Sequence[str] | None, file: Path | None) -> None:
    if arguments or questions or file is not None:
        raise UsageError("--input holds media and questions already", "leave the other ones out")


def _is_one(files: Sequence[str]) -> bool:
    """Whether one file is meant, whose answer a person waits for."""
    return len(files) == 1 and files[0] != "-" and not os.path.isdir(files[0])
