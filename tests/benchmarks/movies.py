"""Needles in movies of growing length: ``python tests/benchmarks/movies.py OUT --length 8 --length 1:00=96``.

Of every length ``echopix eval --data scenes:movie-SPLIT`` runs with picture and sound and the controls, without the
sound, without the picture, and in a single pass; or only as ``--sense`` says. OUT gets each run's report and items,
where an interrupted run goes on, and the table as ``movies.md`` and ``movies.json``. A single pass over more than ten
minutes is left out: no context holds it. Another split wants another OUT.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from echopix_cli.cli.eval_markdown import interval_of
from echopix_cli.scenes import SPLITS
from echopix_cli.times import clock, parse_time

LENGTHS = ("8", "1:00", "10:00", "60:00")
BOTH, SINGLE_PASS = "both", "single pass"
SENSES = {BOTH: (), "sound only": ("--no-video",), "picture only": ("--no-audio",), SINGLE_PASS: ()}
CONTROLS = ("uniform", "random")
SINGLE_PASS_UP_TO = 600.0  # seconds


def measure(out: Path, split: str, length: str, sense: str, count: int, model: str) -> dict[str, Any]:
    """One run's report, from OUT where it is whole already."""
    seconds = parse_time(length)
    name = f"{seconds:.0f}s-{sense.replace(' ', '-')}"
    sieves = {BOTH: ["auto", *CONTROLS], SINGLE_PASS: ["single-pass"]}.get(sense, ["auto"])
    command = [
        sys.executable, "-m", "echopix_cli", "eval", "--data", f"scenes:movie-{split}", "--length", length,
        "--count", str(count),
        "--model", model, "-b", "1.0", *(part for sieve in sieves for part in ("--sieve", sieve)), *SENSES[sense],
        "--output", str(out / f"{name}.json"), "--items", str(out / f"{name}.jsonl"), "--quiet",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    report: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return report


def rows_of(length: str, sense: str, report: dict[str, Any], alone: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The table's rows from one run; ``alone`` is the first row at 8 s, which shares are relative to."""
    rows = []
    for setting in report["settings"]:
        right, moment = interval_of(report, setting, "overall"), setting["top_moment_on_evidence"]
        rows.append(
            {
                "length": clock(parse_time(length)),
                "way": setting["sieve"] if sense == BOTH else sense,
                "questions": setting["overall"]["total"],
                "right": {"accuracy": right.value, "low": right.low, "high": right.high},
                "relative_to_8_s": right.value / alone["right"]["accuracy"] if alone else None,
                "top_moment": None if moment is None else {name: moment[name] for name in ("accuracy", "low", "high")},
                "rows_in_last_prompt": setting["mean_rows_in_last_prompt"],
                "families": {name: share["accuracy"] for name, share in setting["families"].items()},
                "seconds_of_the_run": report["seconds"],
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, intervals of 95 % in brackets: of what is right the wider of counting questions and of drawing the
    haystacks, which questions share, anew."""
    families = list(rows[0]["families"])
    first = ("length", "way", "questions", "right, %", "relative to 8 s", "top moment on the evidence, %")
    heads = (*first, "rows in the last prompt", *families)
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        relative = "–" if row["relative_to_8_s"] is None else f"{row['relative_to_8_s']:.2f}"
        each = " | ".join(f"{100 * row['families'][name]:.0f}" for name in families)
        lines.append(
            f"| {row['length']} | {row['way']} | {row['questions']} | {_share(row['right'])} | {relative} | "
            f"{_share(row['top_moment'])} | {row['rows_in_last_prompt']:.0f} | {each} |"
        )
    return "\n".join(lines) + "\n"


def _share(share: dict[str, float] | None) -> str:
    if share is None:
        return "–"
    return f"{100 * share['accuracy']:.1f} [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder, made where it is missing")
    parser.add_argument("--count", type=int, default=300, help="questions of each length (default 300)")
    parser.add_argument(
        "--length", action="append", metavar="LENGTH[=COUNT]", help=f"repeat for more (default {' '.join(LENGTHS)})"
    )
    parser.add_argument("--sense", action="append", choices=SENSES, help="repeat for more (default all)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="of the movies' scenes (default test)")
    parser.add_argument("--model", default="tiny")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    alone = None
    wished = [length.partition("=") for length in chosen.length or LENGTHS]
    for length, _, count in sorted(wished, key=lambda wish: parse_time(wish[0])):
        seconds = parse_time(length)
        for sense in chosen.sense or SENSES:
            if sense == SINGLE_PASS and not 8 < seconds <= SINGLE_PASS_UP_TO:
                continue
            report = measure(chosen.out, chosen.split, length, sense, int(count or chosen.count), chosen.model)
            rows += rows_of(length, sense, report, alone)
            if alone is None and seconds == 8:
                alone = rows[0]
                rows[0]["relative_to_8_s"] = 1.0
            (chosen.out / "movies.json").write_text(json.dumps(rows, indent=2) + "\n")
            (chosen.out / "movies.md").write_text(markdown(rows))
    print(markdown(rows), end="")


if __name__ == "__main__":
    main()
