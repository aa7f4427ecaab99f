"""Memory that runs out: what counts as that, what is left behind, and what is advised."""

from __future__ import annotations

import errno
import weakref
from pathlib import Path

import pytest
import torch

from echopix_cli.engine import Engine
from echopix_cli.engine import loading as room
from echopix_cli.engine.forecast import usual_workload
from echopix_cli.engine.loading import (
    is_out_of_memory,
    memory_errors,
)
from echopix_cli.errors import DeviceError
from echopix_cli.media import DecodePlan


def wrapped(kind: str) -> Exception:
    """Running out of memory, as it comes out of what called the allocator."""
    full = torch.OutOfMemoryError("CUDA out of memory")
    try:
        try:
            raise full
        except torch.OutOfMemoryError as error:
            if kind == "cause":
                raise RuntimeError("We encountered some issues during automatic conversion of the weights") from error
            if kind == "context":
                raise ValueError("conversion failed")  # noqa: B904 - what a careless library does
            raise RuntimeError("something else") from None
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (wrapped("cause"), True),
        (wrapped("context"), True),
        (wrapped("hidden"), False),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"), True),
        (RuntimeError("unable to mmap 9 bytes from file <x>: Cannot allocate memory (12)"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_ran_out(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) == memory
    expected = DeviceError if memory else type(error)
    with pytest.raises(expected), memory_errors(torch.device("cpu")):
        raise error


@pytest.mark.parametrize("kind", ["bare", "cause", "mapping"])
def test_out_of_memory_while_loading_is_no_damage(
    random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Exit 5 with what would take less, not "the model is damaged"."""

    def full(*args: object, **kwargs: object) -> torch.Tensor:
        if kind == "mapping":
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        raise torch.OutOfMemoryError("CUDA out of memory") if kind == "bare" else wrapped(kind)

    engine = Engine.load(str(random_checkpoint), "cpu", workload=usual_workload())
    target = "safetensors.safe_open" if kind == "mapping" else "echopix_cli.weights.assembly._put"
    monkeypatch.setattr(room, "forecast", lambda *args: engine.forecast)  # which reads headers
    monkeypatch.setattr(target, full)
    with pytest.raises(DeviceError, match="out of memory on cpu") as caught:
        Engine.load(str(random_checkpoint), "cpu", workload=usual_workload())
    assert caught.value.exit_code == 5
    assert engine.forecast is not None and caught.value.hint == engine.forecast.advice


def test_out_of_memory_leaves_nothing_behind() -> None:
    """The frames that failed give their tensors back, though the error that names them is kept."""
    seen: list[weakref.ref[torch.Tensor]] = []

    def hungry() -> None:
        held = torch.zeros(1000)
        seen.append(weakref.ref(held))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with (
        pytest.raises(DeviceError, match="out of memory on cpu") as caught,
        memory_errors(torch.device("cpu"), "take less"),
    ):
        hungry()
    assert seen[0]() is None
    assert caught.value.hint == "take less"
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_advice_when_memory_runs_out_all_the_same(
    random_checkpoint: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(str(random_checkpoint), "cpu", workload=usual_workload())

    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.model.thinker, "encode_pixels", full)
    with pytest.raises(DeviceError, match="out of memory") as caught:
        engine.read(str(clips["both"]), engine.plan(DecodePlan()))
    assert engine.forecast is not None
    assert caught.value.hint == engine.forecast.advice
    assert "--max-frames 60 saves" in caught.value.hint
