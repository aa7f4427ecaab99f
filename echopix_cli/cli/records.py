"""``echopix records``: what batches have written."""

from pathlib import Path
from typing import Annotated

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.output import SCHEMA_VERSION

records = opt.group("records", "Work with the output files of batches.")


@records.command("merge")
@opt.taking(*opt.PRINTING)
def merge(
    run: opt.Run,
    parts: Annotated[list[Path], typer.Argument(metavar="PART", help="output files of echopix ask")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="where all records go")],
    json: opt.Json = False,
) -> None:
    """Put the records of several output files together, each task once.

    Shards, and what is in the output file already, become one file, with which echopix ask goes on. Of two answers to
    the same the first stays; an error goes where the task was answered.
    """
    from echopix_cli.batch.merging import merge as merge_files

    with run.output.progress(f"reading {len(parts)} files"):
        merged = merge_files(parts, output)
    if json:
        facts = {"records": merged.records, "errors": merged.errors, "left_out": merged.left_out}
        run.output.record({"schema_version": SCHEMA_VERSION, "output": str(output), **facts})
        return
    run.output.notice(
        f"{merged.records} records in {output}, {merged.errors} of them errors; "
        f"{merged.left_out} left out that say the same again"
    )
