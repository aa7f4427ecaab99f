"""``echopix models``: what models there are, what of them is on this machine, and fetching them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.model_records import (
    all_models,
    columns,
    count_cell,
    describe,
    entry_record,
    plan_record,
    pulled_record,
    size_cell,
)
from echopix_cli.cli.output import SCHEMA_VERSION, Output
from echopix_cli.errors import EchopixError, ModelError, UsageError
from echopix_cli.sizes import binary, decimal

if TYPE_CHECKING:
    from echopix_cli.weights.registry import Model, ModelSource
    from echopix_cli.weights.store import Entry, Store
    from echopix_cli.weights.upkeep import Removal

models = opt.group("models", "List, fetch, check and remove models.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="a model's name, hf:OWNER/REPO[@REVISION], or a folder")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask", show_default=False)]


@models.command("list")
@opt.taking(*opt.PRINTING)
def list_models(run: opt.Run, json: opt.Json = False) -> None:
    """Every model's name, whether it is on this machine, its size and its licence."""
    from echopix_cli.weights.hub import hub_cache
    from echopix_cli.weights.store import Store

    store = Store()
    records = [describe(model, store) for model in all_models(store)]
    named = {record["key"] for record in records}
    others = [entry_record(entry) for entry in store.all() if entry.key not in named]
    if json:
        run.output.record(
            {
                "schema_version": SCHEMA_VERSION,
                "cache_dir": str(store.root),
                "hub_cache": str(hub_cache()),
                "models": records,
                "others": others,
            }
        )
        return
    rows = [
        [
            r["name"],
            r["state"],
            size_cell(r),
            r["licence"] or "–",
            "echopix" if r["origin"] == "bundled" else r["source"],
        ]
        for r in records
    ]
    rows += [[o["key"], o["state"], decimal(o["bytes"]), o["kind"], o["source"]] for o in others]
    columns(run.output, rows, ("model", "state", "size", "licence", "source"))


@models.command("info")
@opt.taking(*opt.PRINTING)
def info(run: opt.Run, name: Name, json: opt.Json = False) -> None:
    """What is known about one model: licence, sizes, weights by quantization, files. Asks no hub."""
    from echopix_cli.weights.registry import find_model
    from echopix_cli.weights.store import Store

    record = describe(find_model(name), Store(), files=True)
    if json:
        run.output.record({"schema_version": SCHEMA_VERSION, **record})
        return
    weights = record["weight_bytes"]
    to_fetch = record["key"] is not None and not record["checked"]
    rows = [
        ["name", record["name"]],
        ["source", record["source"]],
        ["revision", record["revision"] or ("– (resolved by the first download)" if to_fetch else "–")],
        ["layout", record["layout"] or "–"],
        ["licence", record["licence"] or ("– (the hub states it before a download)" if to_fetch else "–")],
        ["state", record["state"]],
        ["folder", record["folder"] or "–"],
        ["size", size_cell(record)],
        ["parameters", count_cell(record["parameters"]) if record["parameters"] else "–"],
        ["context", f"{record['context']} tokens" if record["context"] else "–"],
        ["weights", ", ".join(f"{k} {binary(v)}" for k, v in weights.items()) if weights else "–"],
        *(
            [
                "copy",
                f"{copy['quantize']}, {copy['dtype']}, {copy['state']}, {decimal(copy['bytes'])}: {copy['folder']}",
            ]
            for copy in record["copies"]
        ),
        *([["checked", record["checked"]]] if record["checked"] else []),
        *(
            ["file", f"{path}  {decimal(fact['size'])}  {fact['sha256'][:12]}…"]
            for path, fact in record["files"].items()
        ),
    ]
    columns(run.output, rows)


@models.command("path")
@opt.taking("debug", "no_color")
def path(run: opt.Run, name: Name) -> None:
    """Print the folder that a model's files lie in: its download, or the quantized copy where that is all there is."""
    from echopix_cli.weights import copies
    from echopix_cli.weights.registry import NotHere, files_of, find_model
    from echopix_cli.weights.store import Store

    model = find_model(name)
    _require_checkpoint(model)
    try:
        folder = files_of(model).folder
    except NotHere:
        made = [copy for copy in copies.of_model(model, Store()) if not copy.faults]
        if not made:
            raise
        folder = max(made, key=lambda copy: copy.manifest.created).folder
    run.output.answer(str(folder))


@models.command("pull")
@opt.taking("quantize", "keep_source", "device", "dtype", *opt.PRINTING)
def pull(run: opt.Run, name: Name, dry_run: DryRun = False, json: opt.Json = False) -> None:
    """Fetch a model, and check every file against the hub's checksums. Interrupted, it goes on where it stopped.

    Only what answering needs is fetched: no talker, no vocoder. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE are respected. With --quantize the quantized copy is made too, for the device and --dtype that
    will load it; of a folder, that alone. --drop-source then removes the download.
    """
    from echopix_cli.weights.registry import find_model

    model = find_model(name)
    wanted = run.resolved.said("quantize") and run.settings.quantize != "none"
    if wanted and run.settings.quantize != "auto":
        from echopix_cli.weights.packing import bitsandbytes

        bitsandbytes()  # before anything is fetched for it
    if (
        run.resolved.origins["keep_source"] == "flag"
        and not run.settings.keep_source
        and (not wanted or model.repository is None)
    ):
        raise UsageError("--drop-source removes a download that has a quantized copy", "add --quantize nf4 or int8")
    if dry_run and model.repository is not None:
        from echopix_cli.cli.download import Shown
        from echopix_cli.weights import hub

        watcher = Shown(run.output)
        plan = hub.look(model, watcher)
        watcher.planned(plan)
        if json:
            run.output.record(plan_record(plan))
        return
    record: dict[str, Any] = {}
    if not (wanted and _has_copy(run, model)):
        record = _fetch(run, model)
    if wanted and not dry_run:
        source = _quantize(run, model)
        if source.quantization == "none":
            run.output.notice(f"{model.name} needs no quantized copy here: --quantize nf4 or int8 makes one")
        else:
            run.output.notice(f"{model.name} is ready as {source.quantization}: {source.folder}")
        record = {
            "schema_version": SCHEMA_VERSION,
            "name": model.name,
            "revision": source.revision,
            "fetched": 0,
            **record,
            "quantization": source.quantization,
            "copy": str(source.folder) if source.quantization != "none" else None,
        }
    if json:
        run.output.record(record)


def _fetch(run: opt.Run, model: "Model") -> dict[str, Any]:
    """Download a model's full-precision files where they are not here; returns what was done as a JSON object."""
    _require_checkpoint(model)
    if model.folder is not None:
        run.output.notice(f"{model.name} is on this machine already: nothing to fetch")
        return {"schema_version": SCHEMA_VERSION, "name": model.name, "folder": str(model.folder), "fetched": 0}
    from echopix_cli.cli.download import fetch

    done = fetch(run.output, model)
    return pulled_record(model, done)


def _require_checkpoint(model: "Model") -> None:
    """Refuse a folder that no model could be loaded from, as loading it would.

    Raises:
        ModelError: what is wrong with it.
    """
    if model.folder is not None:
        from echopix_cli.weights.checkpoint import open_checkpoint

        open_checkpoint(model.folder).config  # noqa: B018 - which is checked when it is asked for


def _has_copy(run: opt.Run, model: "Model") -> bool:
    """Whether a download was dropped whose copy is here and good: then nothing is to be fetched."""
    from echopix_cli.weights.store import Store

    if model.repository is None or Store().peek(model.key) is not None:
        return False
    from echopix_cli.engine.loading import choose_device, prepare

    try:
        prepare(model.typed, choose_device(run.settings.device), run.settings.dtype, run.settings.quantize)
    except ModelError:
        return False
    return True


def _quantize(run: opt.Run, model: "Model") -> "ModelSource":
    """Make a model's quantized copy where it is not here; returns what will be loaded."""
    with run.output.progress("quantizing") as say:
        from echopix_cli.cli.download import Quantizing
        from echopix_cli.engine.loading import choose_device, memory_errors, prepare
        from echopix_cli.weights.upkeep import drop_download

        where = choose_device(run.settings.device)
        with memory_errors(where, "close what else uses the memory, or give --device cpu"):
            found = prepare(
                model.typed,
                where,
                run.settings.dtype,
                run.settings.quantize,
                watcher=Quantizing(run.output, say),
                mend=True,
            )
        if found.replaces_download and not run.settings.keep_source:
            drop_download(found.model)
        return found.source


@models.command("verify")
@opt.taking(*opt.PRINTING)
def verify(run: opt.Run, name: Name, json: opt.Json = False) -> None:
    """Read every byte of a downloaded model and compare. What differs is fetched again by the next pull."""
    from echopix_cli.weights import copies
    from echopix_cli.weights.registry import find_model, resolve_model
    from echopix_cli.weights.store import Store

    model, store = find_model(name), Store()
    made = copies.of_model(model, store)
    entry = None if model.repository is None else store.peek(model.key)
    if model.repository is not None and entry is None and not made:
        raise ModelError(f"{name} is not on this machine", f"echopix models pull {name}")
    again = f"echopix models pull {model.typed}"
    faults, checked = [], "the checksums that the hub states"
    if model.folder is not None:
        resolve_model(name)
        with run.output.progress("reading"):
            faults = _structure(model)
        checked = "headers and lengths; there are no checksums to compare with"
        again = "copy or convert it again"
    elif entry is not None:
        faults = _compared(run.output, store, entry)
    else:
        checked = "the checksums of its copy"
    damaged = []
    for copy in made:
        method = copy.manifest.settings.get("quantize", copy.manifest.kind)
        if wrong := _compared(run.output, store, copy):
            damaged += [f"{method} copy: {fault}" for fault in wrong]
            dtype = copy.manifest.settings.get("dtype", "auto")
            again = again if faults else copies.Wanted(model, method, dtype).remedy
    if json:
        run.output.record(
            {
                "schema_version": SCHEMA_VERSION,
                "name": model.name,
                "whole": not faults and not damaged,
                "compared": checked,
                "copies": [copy.key for copy in made],
                "faults": faults + damaged,
            }
        )
    if faults or damaged:
        raise ModelError(f"{model.name} is damaged: {'; '.join(faults + damaged)}", again)
    also = f", and its {len(made)} quantized " + ("copy" if len(made) == 1 else "copies") if made and entry else ""
    run.output.notice(f"{model.name} is whole{also} (compared: {checked})")


def _compared(output: Output, store: "Store", entry: "Entry") -> list[str]:
    """Read every byte of an entry; what differs. A damaged copy goes; a download is kept, to be mended or removed."""
    from echopix_cli.weights.upkeep import judge

    with _counted(output, "comparing", entry.size) as advance:
        faults = store.verify(entry, advance)
    judge(entry, faults, store)
    return faults or ([] if entry.manifest.damaged else [*entry.faults])


@models.command("rm")
@opt.taking(*opt.PRINTING)
def rm(run: opt.Run, name: Name, yes: Yes = False, dry_run: DryRun = False, json: opt.Json = False) -> None:
    """Remove what this machine holds of a model: its download, copies made of it, unfinished files."""
    from echopix_cli.weights import upkeep
    from echopix_cli.weights.registry import find_model

    _remove(run.output, upkeep.of_model(find_model(name)), yes, dry_run, json, f"of {name} on this machine")


@models.command("prune")
@opt.taking(*opt.PRINTING)
def prune(run: opt.Run, yes: Yes = False, dry_run: DryRun = False, json: opt.Json = False) -> None:
    """Remove what nothing can use: unfinished downloads, half-written copies, records of files that are gone."""
    from echopix_cli.weights import upkeep

    _remove(run.output, upkeep.of_nobody(), yes, dry_run, json, "to prune")


def _remove(output: Output, removals: "list[Removal]", yes: bool, dry_run: bool, json: bool, whose: str) -> None:
    """Say what would go, ask, remove.

    Raises:
        UsageError: there is nobody to ask, and no ``--yes``.
        EchopixError: something stayed.
    """
    total = sum(removal.size for removal in removals)
    stayed: dict[str, str] = {}
    if not removals:
        output.notice(f"there is nothing {whose}")
    for removal in removals:
        output.notice(f"{removal.what}, {decimal(removal.size)}: {removal.path}")
    if removals and not dry_run:
        if not yes:
            if not (sys.stdin.isatty() and output.stderr.isatty()):
                raise UsageError("removing needs your word, and there is no terminal to ask on", "add --yes")
            if not typer.confirm(f"remove {len(removals)} things, {decimal(total)}?", err=True):
                raise EchopixError("nothing was removed")
        from echopix_cli.weights.upkeep import carry_out

        stayed = {str(removal.path): why for removal, why in carry_out(removals) if why}
    if json:
        output.record(
            {
                "schema_version": SCHEMA_VERSION,
                "dry_run": dry_run,
                "removed": [
                    {"what": r.what, "path": str(r.path), "bytes": r.size}
                    for r in removals
                    if str(r.path) not in stayed
                ],
                "stayed": [{"path": where, "why": why} for where, why in stayed.items()],
            }
        )
    for where, why in stayed.items():
        raise EchopixError(f"{where} stayed: {why}" + (f" (and {len(stayed) - 1} more)" if len(stayed) > 1 else ""))


def _structure(model: "Model") -> list[str]:
    """What is wrong with a model's folder without checksums: its configuration, headers and lengths of its weights."""
    try:
        _require_checkpoint(model)
    except ModelError as error:
        return [error.message]
    return []


@contextmanager
def _counted(output: Output, text: str, total: int) -> Iterator[Any]:
    """A function that is told of bytes read and shows their count on a terminal."""
    read = 0
    with output.progress(text) as say:

        def advance(count: int) -> None:
            nonlocal read
            read += count
            say(f"{text}: {decimal(read)} of {decimal(total)}")

        yield advance
