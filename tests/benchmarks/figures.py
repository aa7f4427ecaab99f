"""Every figure about a checkpoint's accuracy, anew: ``python tests/benchmarks/figures.py OUT``.

One run of ``echopix eval`` after another, with seeds of their own: the splits of scenes that nothing was trained on,
clips of the test splits as files, clips of another renderer in known wordings, others and those of strangers, and with
``--movies`` what ``movies.py`` measures. ``--full`` names the full-token model before CS2: it answers the same
questions with all tokens, and what is recovered is measured against the better of the two. OUT gets each run's report
and items, named by how many questions were asked, ``accuracy.svg`` and ``figures.md``, the tables in Markdown that
model card and manual quote. The same command goes on where it was interrupted; a run that is whole, about the same data
and of the same weights, is not run again. What cannot be run here (another soundfont's notes are built first) is named
in ``figures.md``, and the exit code is then 1. Two slow cores take some hours, and a night more for each split's
movies; ``--count 10`` shows in minutes that it works.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from outside import make as render_outside

from echopix_cli.cli.eval_markdown import recovered_markdown, report_markdown
from echopix_cli.errors import ModelError
from echopix_cli.evaluation.values import CONTROLS, OTHER
from echopix_cli.files import identity_of, sha256_of
from echopix_cli.scenes import SPLITS, families_of
from echopix_cli.weights.registry import resolve_model

SEED = 600_000  # of the first scene; nobody looks at these before a model is chosen
SEED_OF_FILES = 500_000
SEED_OUTSIDE = 2026
_A_FAMILY = 4  # files
UNTOUCHED = tuple(split for split in SPLITS if not split.endswith(("train", "val")))
AS_FILES = ("test", "wide-test")
HEADLINE = "wide-test"  # which the plot is of


@dataclass(frozen=True)
class Run:
    """One run of ``echopix eval``.

    ``data`` makes what is asked, where that takes files, and names it; it is given OUT and the number of questions.
    """

    name: str
    title: str
    count: int
    data: Callable[[Path, int], str]
    more: tuple[str, ...] = ()


def scenes(split: str) -> Callable[[Path, int], str]:
    """Scenes are rendered as they are asked about."""
    return lambda out, count: f"scenes:{split}"


def files(split: str) -> Callable[[Path, int], str]:
    """A split as mp4, four scenes a family or fewer, and one list of all that they answer."""

    def written(out: Path, count: int) -> str:
        lines, families = [], families_of(split)
        home = out / f"files-{split}"
        for place, family in enumerate(families):
            folder = home / family
            folder.mkdir(parents=True, exist_ok=True)
            wanted = max(1, min(_A_FAMILY, count // len(families)))
            questions = folder / f"questions-{wanted}.jsonl"
            if not questions.exists():
                echopix("scene", "--split", split, "--seed", SEED_OF_FILES + 10 * place, "--count", wanted, "--family",
                        family, "--data", questions, "--force", "--quiet", folder)  # fmt: skip
            for line in map(json.loads, questions.read_text().splitlines()):
                lines.append({**line, "media": f"{family}/{Path(line['media']).name}"})
        return _listed(home / f"questions-{count}.jsonl", lines)

    return written


def outside(wordings: str = "known", narrow: bool = False) -> Callable[[Path, int], str]:
    """Clips of the renderer that shares no code with the scenes, with the wide splits' families or with the others'."""
    name = "outside-narrow" if narrow else "outside"
    return lambda out, count: str(render_outside(out / f"{name}-{count}", count, SEED_OUTSIDE, wordings, narrow))


def sieves(*names: str) -> tuple[str, ...]:
    """The words that ask for these."""
    return tuple(word for name in names for word in ("--sieve", name))


_EVERY, _FEW = sieves("auto", *CONTROLS, OTHER), sieves("auto", "uniform", "random", "none")
RUNS = (
    *(
        Run(split, f"Scenes: {split}", 2000, scenes(split), _EVERY if split in AS_FILES else _FEW)
        for split in UNTOUCHED
    ),
    *(
        Run(f"files-{split}", f"Scenes of {split} as files", _A_FAMILY * len(families_of(split)), files(split))
        for split in AS_FILES
    ),
    Run("outside", "Another renderer", 400, outside()),
    Run("outside-other", "Another renderer, other wordings", 400, outside("other")),
    Run("outside-strangers", "Another renderer, wordings of strangers", 400, outside("strangers")),
    Run("outside-narrow", "Another renderer, ten families", 400, outside(narrow=True)),
    Run("outside-narrow-other", "Another renderer, ten families, other wordings", 400, outside("other", True)),
)  # fmt: skip


def echopix(*words: object) -> None:
    """Run the command; what it prints is in its files, too.

    Raises:
        subprocess.CalledProcessError: it failed, and has said why.
    """
    subprocess.run([sys.executable, "-m", "echopix_cli", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def measured(run: Run, out: Path, count: int | None, model: str, full: str | None = None) -> dict[str, Any]:
    """A run's report, from OUT where it is whole already.

    Args:
        run: which one.
        out: folder of everything.
        count: of questions, where fewer are wanted; None for the run's own.
        model: as of ``--model``.
        full: the full-token model before CS2, as of ``--model``; it is asked the same first.

    Raises:
        subprocess.CalledProcessError: it cannot be run here.
    """
    wanted = run.count if count is None else min(count, run.count)
    data, stem = run.data(out, wanted), out / f"{run.name}-{wanted}"
    asked = ["--data", data, "--seed", str(SEED), *(["--count", str(wanted)] if data.startswith("scenes:") else [])]
    against: list[str] = []
    if full is not None:
        everything = ["--model", full, "--budget", "1.0", "--sieve", "auto", "--around-sieve"]
        against = ["--full", str(_evaluated(stem.with_name(f"{stem.name}.full"), [*asked, *everything]))]
    drawn = ["--plot", str(out / "accuracy.svg")] if run.name == HEADLINE else []
    report = _evaluated(stem, [*asked, "--model", model, *run.more, *against, *drawn], full)
    return dict(json.loads(report.read_text()))


def _evaluated(stem: Path, words: list[str], reading: str | None = None) -> Path:
    """The report of one evaluation, which is run unless it is whole; ``reading`` tells what a file it reads is of.

    It is whole where the same words were asked about the same questions, of the same models.
    """
    report, told, items = (stem.with_name(stem.name + end) for end in (".json", ".run", ".items.jsonl"))
    own = json.dumps([*words, reading, *_content(words)])
    if not (report.exists() and told.exists() and told.read_text() == own):
        told.unlink(missing_ok=True)
        echopix("eval", *words, "--output", report, "--items", items, "--quiet")
        told.write_text(own)
    return report


def _content(words: list[str]) -> list[str]:
    """What tells the data file and the weights that the words of an evaluation name from any others."""
    said = dict(pairwise(words))
    data = Path(said["--data"])
    weights: list[Path] = []
    with suppress(ModelError):  # which the command itself says
        weights = sorted(resolve_model(said["--model"]).folder.glob("*.safetensors"))
    return [sha256_of(data) if data.is_file() else "", *(f"{path.name} {identity_of(path)}" for path in weights)]


def pages(
    runs: list[Run], out: Path, count: int | None, model: str, full: str | None = None
) -> Iterator[tuple[str, bool]]:
    """Each run's part of ``figures.md``, and whether it could be run."""
    for run in runs:
        print(f"{run.title} …", file=sys.stderr, flush=True)
        try:
            record = measured(run, out, count, model, full)
            yield f"## {run.title}\n\n{report_markdown(record)}{recovered_markdown(record)}", True
        except subprocess.CalledProcessError as error:
            yield f"## {run.title}\n\nNot measured: `echopix {error.cmd[3]}` ended with {error.returncode}.\n", False


def movies(split: str, out: Path, count: int, model: str) -> tuple[str, bool]:
    """The part of ``figures.md`` about movies of a split's scenes."""
    script, home = Path(__file__).with_name("movies.py"), out / f"movies-{split}"
    done = subprocess.run(
        [sys.executable, script, home, "--split", split, "--count", str(count), "--model", model]
    )  # fmt: skip
    table = (home / "movies.md").read_text() if done.returncode == 0 else "Not measured.\n"
    return f"## Movies of {split}\n\n{table}", done.returncode == 0


def _listed(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder, made where it is missing")
    parser.add_argument("--count", type=int, help="at most so many questions a run (default: as many as are quoted)")
    parser.add_argument("--only", action="append", choices=[run.name for run in RUNS], help="repeat for more")
    parser.add_argument("--movies", action="store_true", help="also movies of up to an hour: takes a night a split")
    parser.add_argument(
        "--split", action="append", choices=UNTOUCHED,
        help=f"of the movies' scenes; repeat for more (default {' and '.join(AS_FILES)})",
    )  # fmt: skip
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--full", metavar="MODEL", help="the full-token model before CS2")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    runs = [run for run in RUNS if not chosen.only or run.name in chosen.only]
    parts = []
    for part in pages(runs, chosen.out, chosen.count, chosen.model, chosen.full):
        parts.append(part)
        (chosen.out / "figures.md").write_text("\n".join(text for text, _ in parts))
    for split in (chosen.split or AS_FILES) if chosen.movies else ():
        parts.append(movies(split, chosen.out, chosen.count or 300, chosen.model))
        (chosen.out / "figures.md").write_text("\n".join(text for text, _ in parts))
    print(chosen.out / "figures.md")
    sys.exit(0 if all(whole for _, whole in parts) else 1)


if __name__ == "__main__":
    main()
