"""The work of sieve and prefill, counted: a guard against costs that creep in, on machines of any mood."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from echopix_cli.engine import Encoded, Engine
from echopix_cli.measure.bench import QUESTION, random_engine, synthetic_clip
from echopix_cli.media import DecodePlan
from echopix_cli.model.shapes import SHAPES

BUDGET = 0.1


class Calls(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func._overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return random_engine(SHAPES["tiny"], torch.device("cpu"), torch.float32, "none")


@pytest.fixture(scope="module")
def encoded(engine: Engine) -> Encoded:
    return engine.encode(synthetic_clip(8.0, engine.plan(DecodePlan())))


@pytest.fixture(scope="module")
def counted(engine: Engine, encoded: Encoded) -> dict[str, Any]:
    """Rows in and kept, and what sieve and prefill multiply and call."""
    thinker = engine.model.thinker
    prompt = engine.place(encoded, QUESTION)
    found: dict[str, Any] = {"rows": prompt.input_ids.shape[1]}
    with torch.no_grad():  # in inference mode operations that consist of others are not seen into
        thinker.sieve(prompt, BUDGET)  # tables that every later prompt shares are made here
        with FlopCounterMode(display=False) as flops, Calls() as calls:
            sieved = thinker.sieve(prompt, BUDGET)
        found |= {"sieve": flops.get_flop_counts()["Global"], "sieve_calls": calls.names}
        with FlopCounterMode(display=False) as flops, Calls() as calls:
            thinker.prefill(sieved, DynamicCache())
        found |= {"prefill": flops.get_flop_counts()["Global"], "prefill_calls": calls.names}
    return found | {"kept": sieved.hidden.shape[1]}


def linear_flops(engine: Engine) -> int:
    """Of one row in one decoder layer."""
    layer = engine.model.thinker.model.layers[0]
    return sum(2 * module.weight.numel() for module in layer.modules() if isinstance(module, torch.nn.Linear))


def of(counts: dict[Any, int], *names: str) -> int:
    return sum(count for operation, count in counts.items() if str(operation).split(".")[-1] in names)


def test_linear_work_is_what_counting_layers_says(engine: Engine, counted: dict[str, Any]) -> None:
    """CS2 multiplies each row once in each of its layers, the decoder the kept rows; one row meets the vocabulary."""
    text = engine.model.config.text
    per_row, width = linear_flops(engine), text.hidden_size
    scores = 2 * counted["rows"] * (width * width + width)
    sieve = of(counted["sieve"], "mm", "addmm", "bmm")
    assert sieve == text.av_refiner_layers * counted["rows"] * per_row + scores
    prefill = of(counted["prefill"], "mm", "addmm", "bmm")
    assert prefill == text.num_hidden_layers * counted["kept"] * per_row + 2 * width * text.vocab_size


def test_attention_is_one_flash_kernel_a_layer(engine: Engine, counted: dict[str, Any]) -> None:
    text = engine.model.config.text
    kernel = "_scaled_dot_product_flash_attention_for_cpu"
    assert counted["sieve_calls"][kernel] == text.av_refiner_layers
    assert counted["prefill_calls"][kernel] == text.num_hidden_layers


def test_few_operations_beside_the_layers(engine: Engine, counted: dict[str, Any]) -> None:
    """Each is a kernel to launch on a GPU: choosing the rows must not cost more of them than a layer does."""
    text = engine.model.config.text
    views = {"view", "transpose", "unsqueeze", "slice", "expand", "t", "detach", "alias", "select", "split", "permute",
             "as_strided", "_unsafe_view"}  # fmt: skip

    def kernels(calls: Counter[str]) -> int:
        return sum(count for name, count in calls.items() if name not in views)

    per_layer = kernels(counted["prefill_calls"]) / text.num_hidden_layers
    beside = kernels(counted["sieve_calls"]) - text.av_refiner_layers * per_layer
    assert beside <= 2.5 * per_layer
