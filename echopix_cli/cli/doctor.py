"""``echopix doctor``: whether everything that answering needs is here and works, found out by using it."""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from echopix_cli import __version__
from echopix_cli.cli import options as opt
from echopix_cli.cli.demo import QUESTION, demo_clip, right_answer
from echopix_cli.cli.output import SCHEMA_VERSION, Output
from echopix_cli.declarations import ENVIRONMENT_PREFIX
from echopix_cli.errors import EchopixError, ExitCode, ModelError, UsageError, described
from echopix_cli.settings import TABLE
from echopix_cli.sizes import binary, decimal


@dataclass(frozen=True)
class Finding:
    """One thing that was tried: whether it works (``ok``), works with a drawback (``note``) or not (``broken``)."""

    name: str
    state: Literal["ok", "note", "broken"]
    detail: str
    hint: str = ""


def doctor(
    online: Annotated[bool, typer.Option("--online", help="also ask the model hub", show_default=False)] = False,
    json: opt.Json = False,
    debug: Annotated[bool | None, opt.option(TABLE["debug"])] = None,
    no_color: Annotated[bool | None, opt.option(TABLE["no_color"])] = None,
) -> None:
    """Try everything that answering needs, and say what is broken and how to mend it.

    Exits with 1 when something needed is broken. The network is asked with --online only.
    """
    run, findings = _begun({"debug": debug, "no_color": no_color})
    output = run.output
    checks: list[Callable[[opt.Run], Iterator[Finding]]] = [
        _versions, _device, _bitsandbytes, _video, _sound, _model, _disk, _fitting,
    ]  # fmt: skip
    if online:
        checks.append(_hub)
    shown = 0
    for check in (None, *checks):
        if check is not None:
            with output.progress(f"trying: {check.__name__.strip('_')}"):
                findings += _safely(check, run)
        for finding in findings[shown:] if not json else ():
            output.columns((finding.state, finding.name, finding.detail), (6, 15))
            if finding.hint:
                output.columns(("", f"try: {finding.hint}"), (6,))
        shown = len(findings)
    broken = any(finding.state == "broken" for finding in findings)
    if json:
        output.record(
            {"schema_version": SCHEMA_VERSION, "healthy": not broken, "findings": [asdict(f) for f in findings]}
        )
    if broken:
        raise typer.Exit(ExitCode.FAILURE)


def _begun(flags: dict[str, bool | None]) -> tuple[opt.Run, list[Finding]]:
    """Settings, and where they come from; where they do not fit, all else is tried without any."""
    from echopix_cli.settings import config_path, resolve

    try:
        path = config_path()
        there = "" if path.exists() else " (not there)"
        return opt.Run.begin(flags), [Finding("config", "ok", f"{path}{there}")]
    except UsageError as error:
        os.environ[f"{ENVIRONMENT_PREFIX}CONFIG"] = os.devnull
        run = opt.Run(resolve(flags, {}, Path(os.devnull)), Output(color=False if flags["no_color"] else None))
        return run, [Finding("settings", "broken", error.message, error.hint)]


def _safely(check: Callable[[opt.Run], Iterator[Finding]], run: opt.Run) -> Iterator[Finding]:
    """A check's findings; whatever it raises is a finding too, since finding that out is what it is for."""
    try:
        # Libraries have much to say; what matters of it is a finding.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            found = list(check(run))
        yield from found
    except EchopixError as error:
        yield Finding(check.__name__.strip("_"), "broken", error.message, error.hint or "")
    except Exception as error:
        what = described(error)
        yield Finding(check.__name__.strip("_"), "broken", what, "reinstall echopix in a fresh virtual environment")


def _versions(_: opt.Run) -> Iterator[Finding]:
    import torch
    import transformers

    yield Finding("python", "ok", f"{sys.version.split()[0]}, echopix {__version__}")
    yield Finding("torch", "ok", f"{torch.__version__}, transformers {transformers.__version__}")


def _device(_: opt.Run) -> Iterator[Finding]:
    import torch

    from echopix_cli.engine.precision import bfloat16_gain, capability_of, precision_of
    from echopix_cli.weights.registry import BUNDLED

    if not torch.cuda.is_available():
        held = str(precision_of("auto", torch.device("cpu"))).removeprefix("torch.")
        yield Finding(
            "device",
            "note",
            f"no CUDA device; the CPU answers, with {torch.get_num_threads()} threads, in {held} "
            f"(bfloat16 is {bfloat16_gain():.1f} times as fast as float32; {BUNDLED} stays in float32)",
        )
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        product = torch.randn(64, 64, device=f"cuda:{index}") @ torch.ones(64, 64, device=f"cuda:{index}")
        torch.cuda.synchronize(index)
        works = bool(product.isfinite().all())
        device = torch.device("cuda", index)
        capability, precision = capability_of(device) or (), precision_of("auto", device)
        yield Finding(
            f"cuda:{index}",
            "ok" if works else "broken",
            f"{torch.cuda.get_device_name(index)}, {binary(free)} of {binary(total)} free, "
            f"CUDA {torch.version.cuda}, compute capability {'.'.join(map(str, capability))}: "
            f"{str(precision).removeprefix('torch.')}",
            "" if works else "a matrix product came out wrong: check the driver",
        )


def _bitsandbytes(_: opt.Run) -> Iterator[Finding]:
    import torch

    from echopix_cli.weights import packing

    bitsandbytes = packing.bitsandbytes()
    where = "cuda" if torch.cuda.is_available() else "cpu"
    weights = torch.linspace(-1.0, 1.0, 4096, device=where).reshape(64, 64)
    packed, state = bitsandbytes.functional.quantize_4bit(weights, quant_type="nf4")
    error = float((bitsandbytes.functional.dequantize_4bit(packed, state) - weights).abs().max())
    works = error < 0.2  # the widest gap of NF4 is 0.3 of a block's largest weight, and half of that is lost
    yield Finding(
        "bitsandbytes",
        "ok" if works else "broken",
        f"{bitsandbytes.__version__}, a four-bit layer on {where} is off by {error:.2f} of 1 at most",
        "" if works else "install the bitsandbytes build for this CUDA version",
    )


def _video(_: opt.Run) -> Iterator[Finding]:
    from importlib.metadata import version

    from echopix_cli.decoding.worker import decode
    from echopix_cli.media import DecodePlan

    clip = decode(str(demo_clip()), DecodePlan(max_frames=4))
    assert clip.frames is not None
    yield Finding(
        "video",
        "ok",
        f"PyAV {version('av')} decodes the demo clip: {len(clip.frames)} frames, sound {clip.audio_status}",
    )


def _sound(_: opt.Run) -> Iterator[Finding]:
    import wave
    from importlib.metadata import version
    from tempfile import TemporaryDirectory

    from echopix_cli.decoding.worker import decode
    from echopix_cli.media import DecodePlan

    with TemporaryDirectory() as folder:
        path = Path(folder) / "tone.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(b"\x00\x10\x00\xf0" * 4000)
        clip = decode(str(path), DecodePlan())
    yield Finding("sound", "ok", f"soundfile {version('soundfile')} reads a WAV: {clip.audio_seconds:.1f} s")


def _model(_: opt.Run) -> Iterator[Finding]:
    from echopix_cli.engine import Engine
    from echopix_cli.media import DecodePlan

    engine = Engine.load("tiny", "cpu")
    right = right_answer()
    answer = engine.ask(engine.read(str(demo_clip()), engine.plan(DecodePlan())), QUESTION).answer
    yield Finding(
        "tiny",
        "ok" if answer == right else "broken",
        f"the bundled model hears {answer!r} in the demo clip",
        "" if answer == right else f"it should be {right!r}: report this with the output of doctor --json",
    )


def _disk(_: opt.Run) -> Iterator[Finding]:
    import shutil

    from echopix_cli.files import nearest_folder
    from echopix_cli.settings import cache_dir
    from echopix_cli.weights.hub import hub_cache

    for name, path in (("cache", cache_dir()), ("hub cache", hub_cache())):
        there = nearest_folder(path)
        writable = there.is_dir() and os.access(there, os.W_OK)
        yield Finding(
            name,
            "ok" if writable else "broken",
            f"{path}, {decimal(shutil.disk_usage(there).free)} free" + ("" if writable else ", not writable"),
            "" if writable else "set ECHOPIX_CACHE_DIR or HF_HOME to a folder of yours",
        )


def _fitting(run: opt.Run) -> Iterator[Finding]:
    import torch

    from echopix_cli.engine.forecast import foresee, free_memory
    from echopix_cli.engine.loading import choose_auto, choose_device
    from echopix_cli.engine.precision import precision_of
    from echopix_cli.weights.packing import METHODS
    from echopix_cli.weights.registry import REGISTERED

    work, here = run.workload(), choose_device("auto")
    device = here if here.type == "cuda" else torch.device("cuda")  # what a GPU would need, where there is none
    free, precision = free_memory(here) if here.type == "cuda" else None, precision_of("auto", device)
    for model in REGISTERED:
        found = {method: foresee(model, method, precision, work, device) for method in METHODS}
        needs = {method: expected.total for method, expected in found.items() if expected}
        shown = ", ".join(f"{method} {binary(need)}" for method, need in needs.items())
        fits = [method for method, need in needs.items() if free is not None and need <= free]
        verdict = f"fits as {', '.join(fits)}" if fits else "does not fit" if free is not None else "wants a GPU"
        yield Finding(model.name, "ok" if fits else "note", f"{verdict} (the settings' longest clip: {shown})")
    name, why = choose_auto(free, here, precision, run.settings.quantize, work)
    yield Finding("auto", "ok", f"--model auto takes {why if why.startswith(name) else f'{name}, {why}'}")


def _hub(_: opt.Run) -> Iterator[Finding]:
    from echopix_cli.weights.environment import hub_constants, require_connection
    from echopix_cli.weights.registry import REGISTERED
    from echopix_cli.weights.web import Web

    try:
        constants = hub_constants()
        if not constants.HF_HUB_OFFLINE:
            require_connection()
    except UsageError as error:
        yield Finding("hub", "broken", error.message, error.hint)
        return
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "note", "HF_HUB_OFFLINE is set: nothing is asked of the hub")
        return
    model = next(model for model in REGISTERED if model.repository)
    web = Web(model.name, str(model.repository), None)
    try:
        web.metadata()
        yield Finding("hub", "ok", f"{web.endpoint} answers")
    except ModelError as error:
        hint = "check the network, HF_ENDPOINT and HF_TOKEN"
        yield Finding("hub", "broken", f"{web.endpoint} does not answer: {error.message}", hint)
