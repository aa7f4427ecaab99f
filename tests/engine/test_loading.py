"""What is loaded, and whether it will fit: quantization by name and auto, predictions, refusals, a clean device."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from prompts import Media, inputs_of, prompt_of

from echopix_cli.engine import AskOptions, Engine, GenerationOptions, Workload
from echopix_cli.engine import loading as room
from echopix_cli.engine.forecast import Forecast, forecast, foresee, free_memory, require_room, usual_workload
from echopix_cli.engine.loading import (
    choose_auto,
    choose_device,
    prepare,
)
from echopix_cli.engine.precision import precision_of
from echopix_cli.errors import DeviceError
from echopix_cli.measure.live_bytes import LiveBytes
from echopix_cli.media import DecodePlan
from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.shapes import SHAPES
from echopix_cli.weights import quantize
from echopix_cli.weights.assembly import outline
from echopix_cli.weights.checkpoint import Checkpoint, load_model, open_checkpoint, read_config
from echopix_cli.weights.headers import TensorHeader
from echopix_cli.weights.packing import WeightCounts, is_quantized_name, settings_of
from echopix_cli.weights.registry import REGISTERED, Model, NotHere
from echopix_cli.weights.store import FileFact, Store

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 2**30
FILM = Workload(frames=120, frame_pixels=105_369, audio_seconds=60.0, budget=0.2)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path / "echopix"))


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_a_quantized_model_answers(random_checkpoint: Path, clips: dict[str, Path], method: str) -> None:
    engine = Engine.load(str(random_checkpoint), "cpu", quantize=method)
    assert (engine.facts.quantization, engine.facts.dtype) == (method, "float32")
    assert engine.facts.parameters == Engine.load(str(random_checkpoint), "cpu").facts.parameters
    answer = engine.ask(
        engine.read(str(clips["both"]), engine.plan(DecodePlan())), "What?", AskOptions(0.1, GenerationOptions(4))
    )
    assert answer.tokens.kept == 12
    assert answer.model.quantization == method


def test_the_second_load_makes_no_copy(random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Engine.load(str(random_checkpoint), "cpu", quantize="nf4")
    monkeypatch.setattr(quantize, "write_copy", None)
    assert Engine.load(str(random_checkpoint), "cpu", quantize="nf4").facts.quantization == "nf4"


def test_what_auto_stands_for(random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nf4 on CUDA for large weights; full precision on a CPU and for small ones."""
    assert prepare(str(random_checkpoint), CPU).source.quantization == "none"
    found = prepare("tiny", CUDA)
    assert found.source.quantization == "none"
    monkeypatch.setattr(room, "LARGE", 2**20)
    assert room._method(found.checkpoint, CPU, "auto") == "none"
    assert room._method(found.checkpoint, CUDA, "auto") == "nf4"
    assert room._method(found.checkpoint, CUDA, "none") == "none"
    assert Store().all() == []


def test_auto_takes_what_fits_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a grid of free memory, wishes and work: the largest whose own forecast fits, as the same name alone would."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    long = Workload(frames=768, frame_pixels=602_112, audio_seconds=600.0, budget=1.0)
    taken: set[str] = set()
    for free, (quantization, work) in itertools.product(
        range(2 * GIB, 40 * GIB, GIB // 2), [("auto", FILM), ("none", FILM), ("int8", FILM), ("auto", long)]
    ):
        monkeypatch.setattr(room, "free_memory", lambda device, free=free: free)
        name, why = choose_auto(free, CUDA, torch.bfloat16, quantization, work)
        taken.add(name)
        fits = {}
        for model in REGISTERED:
            with pytest.raises((NotHere, DeviceError)) as caught:
                prepare(model.name, CUDA, "bfloat16", quantization, workload=work)
            fits[model.name] = caught.type is NotHere
        assert name == next((known for known in ("qwen2.5-omni-7b", "qwen2.5-omni-3b") if fits[known]), "tiny")
        assert f"{free / GIB:.1f} GiB free" in why
        assert {"auto": "nf4", "none": "bfloat16", "int8": "int8"}[quantization] in why
    assert taken == {"tiny", "qwen2.5-omni-3b", "qwen2.5-omni-7b"}
    assert choose_auto(None, CPU, torch.float32, "auto", FILM) == choose_auto(8 * GIB, CPU, torch.float32)
    assert choose_auto(None, CPU, torch.float32)[0] == "tiny"


def test_too_large_is_refused_before_it_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_memory", lambda device: 8 * GIB)
    with pytest.raises(DeviceError, match=r"qwen2\.5-omni-7b does not fit on cuda: about .* too little") as caught:
        prepare("qwen2.5-omni-7b", CUDA, quantization="none", workload=FILM)
    assert "--quantize nf4 saves" in caught.value.hint
    with pytest.raises(NotHere):
        prepare("qwen2.5-omni-3b", CUDA, workload=FILM)
    with pytest.raises(NotHere):
        prepare("qwen2.5-omni-7b", CUDA, quantization="none")  # as `models pull` asks: for no work yet


def test_an_eight_gigabyte_card_gets_a_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for free, name in ((7.5, "qwen2.5-omni-3b"), (11.5, "qwen2.5-omni-7b")):
        assert choose_auto(round(free * GIB), CUDA, torch.bfloat16, "auto", usual_workload())[0] == name


def test_offline_auto_takes_of_what_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path))
    asked = (40 * GIB, CUDA, torch.bfloat16, "auto", usual_workload())
    name, why = choose_auto(*asked)
    assert (name, "qwen2.5-omni-7b is not on this machine" in why) == ("tiny", True)
    small = next(model for model in REGISTERED if model.name == "qwen2.5-omni-3b")
    folder = tmp_path / "fetched"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    facts = {"config.json": FileFact(2, "a" * 64)}
    Store().record(small.key, kind="hub", source=str(small.repository), revision="b", folder=folder, files=facts)
    assert choose_auto(*asked)[0] == "qwen2.5-omni-3b"
    (folder / "config.json").write_text("{ }")  # what cannot be loaded is no choice
    assert choose_auto(*asked)[0] == "tiny"


@pytest.mark.parametrize("method", ["none", "int8", "nf4"])
@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model.name)
def test_foreseen_is_what_the_files_will_say(
    model: Model, method: str, random_checkpoint: Path, tmp_path: Path
) -> None:
    """A forecast by name alone, to the byte that of the downloaded checkpoint, and of its copy but for the making."""
    config = stock_shape(random_checkpoint, model.name)
    raw = {"model_type": "qwen2_5_omni", "thinker_config": config.to_dict()["thinker_config"]}
    tensors = {
        name: TensorHeader("BF16", tuple(p.shape), tmp_path, name, (0, 2 * p.numel()))
        for name, p in outline(config, torch.bfloat16).named_parameters()
    }
    ahead = foresee(model, method, torch.bfloat16, FILM, CUDA)
    full = Checkpoint(tmp_path, raw, None, tensors, "")
    assert full.counts == model.counts
    assert ahead == forecast(full, method, torch.bfloat16, FILM, CUDA)
    assert (ahead.making > 0) == (method != "none")
    assert ahead.weights <= ahead.making <= 1.25 * ahead.weights or method == "none"
    copy = Checkpoint(tmp_path, raw, settings_of("nf4", torch.bfloat16), tensors, "")
    assert forecast(copy, method, torch.bfloat16, FILM, CUDA).making == 0


def test_making_a_copy_can_be_what_does_not_fit() -> None:
    making = Forecast(100 * GIB, 0, {"sieve": 0}, 0, 0, making=200 * GIB)
    assert making.total == 200 * GIB
    with pytest.raises(DeviceError, match=r"\(to make the quantized copy 200\.0 GiB\)"):
        require_room("m", making, 150 * GIB, CPU)
    require_room("m", making, 200 * GIB, CPU)


def test_predicted_parts_follow_the_configuration(random_checkpoint: Path) -> None:
    config = read_config(random_checkpoint).text
    found = forecast(open_checkpoint(random_checkpoint), "none", torch.float32, FILM, CPU)
    assert found.weights == sum(p.nbytes for p in load_model(random_checkpoint).parameters())
    pool = 60 * 135 + 1500
    assert (FILM.video_tokens, FILM.audio_tokens) == (60 * 135, 1500)
    assert found.features == pool * config.hidden_size * 4
    rows = pool // 5 + FILM.text_tokens + FILM.new_tokens
    assert found.cache == rows * config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim * 4
    assert found.total == found.weights + found.features + max(found.stages.values()) + found.cache + found.overhead
    half = forecast(open_checkpoint(random_checkpoint), "none", torch.bfloat16, FILM, CPU)
    assert (half.weights, half.cache) == (found.weights // 2, found.cache // 2)
    assert {flag.split()[0] for flag, _ in found.levers} >= {"--max-frames", "--max-pixels"}
    long = forecast(open_checkpoint(random_checkpoint), "none", torch.float32, replace(FILM, new_tokens=10**7), CPU)
    shorter = forecast(
        open_checkpoint(random_checkpoint), "none", torch.float32, replace(FILM, new_tokens=5 * 10**6), CPU
    )
    assert long.levers[0] == ("--max-new-tokens 5000000", long.total - shorter.total)
    small = forecast(open_checkpoint(random_checkpoint), "nf4", torch.float32, FILM, CPU)
    assert dict(found.levers)["--quantize nf4"] == found.total - small.total > 0


@pytest.mark.parametrize(
    ("dtype", "block"),
    [
        pytest.param(torch.bfloat16, 512, id="at-once", marks=pytest.mark.slow),
        pytest.param(torch.float32, 64, id="in-blocks"),
    ],
)
def test_predicted_stages_against_what_they_hold(
    dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two layers of towers and decoder, one of CS2, in the family's proportions: within a fifth."""
    from transformers import DynamicCache

    from echopix_cli.engine import forecast as rules
    from echopix_cli.model import text

    for module in (rules, text):
        monkeypatch.setattr(module, "block_rows", lambda device: block)
    config = shaped(512, 2752, 2, 4, 1, sieve_layers=1, vocab_size=1000)
    thinker = config.thinker_config
    thinker.vision_config.depth, thinker.vision_config.fullatt_block_indexes = 2, [1]
    thinker.audio_config.encoder_layers = 2
    names = "video_token audio_token image_token vision_start_token vision_end_token audio_start_token audio_end_token"
    for number, name in enumerate(names.split()):
        setattr(thinker, f"{name}_id", 11 + number)
    model = EchoingPixelsForConditionalGeneration(config).to(dtype).eval()
    inputs = inputs_of(model, Media((2, 8, 8), 1.0, 400))
    rows = inputs["input_ids"].shape[1]
    work = Workload(4, 8 * 8 * 784, 4.0, budget=0.5, text_tokens=rows - 2 * 8 * 8 - 100, new_tokens=1)
    found = rules._count(config, 0, "none", dtype.itemsize, work, CPU)
    measured: dict[str, int] = {}

    def run(name, call):
        with torch.inference_mode(), LiveBytes() as live:
            result = call()
        measured[name] = live.peak
        return result

    pixels, grid = inputs["pixel_values_videos"], inputs["video_grid_thw"]
    features = run("vision tower", lambda: model.thinker.encode_pixels(pixels, grid))
    with torch.inference_mode():
        prompt = prompt_of(model, **inputs)
    scored = run("sieve", lambda: model.thinker.score(prompt))
    with torch.inference_mode():
        sieved = model.thinker.keep(prompt, scored, 0.5)
    run("prefill", lambda: model.thinker.prefill(sieved, DynamicCache()))
    assert features.nbytes < found.features
    assert measured["vision tower"] == pytest.approx(found.stages["vision tower"], rel=0.2)
    measured["sieve"] += prompt.embeds.nbytes
    assert measured["sieve"] == pytest.approx(found.stages["sieve"], rel=0.2)
    assert measured["prefill"] == pytest.approx(found.stages["prefill"] + found.cache, rel=0.2)


def test_too_large_is_refused_before_anything_is_loaded(
    random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = forecast(open_checkpoint(random_checkpoint), "none", torch.float32, FILM, CPU)
    free = needed.total - 3 * 2**20
    with (
        monkeypatch.context() as patch,
        pytest.raises(DeviceError, match=r"does not fit on cpu: about .* \(weights .* too little") as caught,
    ):
        patch.setattr(room, "free_memory", lambda device: free)
        patch.setattr("echopix_cli.engine.loading.load_model", None)
        Engine.load(str(random_checkpoint), "cpu", workload=FILM)
    assert "3.0 MiB too little" in caught.value.message
    for flag in ("--quantize nf4", "--max-frames 60", "--max-pixels 52684"):
        assert flag in caught.value.hint
    assert "which is enough" in caught.value.hint
    assert caught.value.exit_code == 5
    assert free_memory(CPU)
    assert Engine.load(str(random_checkpoint), "cpu", workload=FILM).forecast == needed


def test_nothing_helps_but_another_machine() -> None:
    with pytest.raises(DeviceError) as caught:
        require_room("m", Forecast(2**40, 0, {"sieve": 1}, 0, 0), 2**30, CPU)
    assert "1023.0 GiB too little" in caught.value.message
    assert "--model" in caught.value.hint


def test_the_largest_models_fit_where_they_should(tmp_path: Path) -> None:
    """A film at the family's own limits: the 7B as nf4 in 12 GiB of device memory, and not as bfloat16."""
    from echopix_cli.engine import forecast as rules

    config = shaped(3584, 18944, 28, 28, 4)
    linear, other = 7_457_000_000, 2_419_000_000
    for per, fits in ((0.5 + 4 / 64, True), (2.0, False)):
        found = rules._count(config, round(linear * per) + 2 * other, "nf4" if fits else "none", 2, FILM, CUDA)
        assert (found.total < 12 * 2**30) == fits
        assert 0.25 * 2**30 < found.working < 2**30


def shaped(
    width: int, inner: int, layers: int, heads: int, kv_heads: int, sieve_layers: int = 4, vocab_size: int = 152_064
):
    """The family's configuration at another size."""
    text = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "av_refiner_layers": sieve_layers,
        "vocab_size": vocab_size,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "compression_ratio": 0.2,
    }
    vision = {"hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "depth": 32, "out_hidden_size": width}
    return EchoingPixelsConfig(
        thinker_config={"text_config": text, "vision_config": vision, "audio_config": {"output_dim": width}}
    )


def stock_shape(random_checkpoint: Path, name: str) -> EchoingPixelsConfig:
    """The configuration of a stock model."""
    raw = SHAPES[name].configured(json.loads((random_checkpoint / "config.json").read_text()))
    raw["thinker_config"]["text_config"].pop("compression_ratio")
    return EchoingPixelsConfig.from_stock(raw)


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model.name)
def test_the_registry_states_these_shapes(random_checkpoint: Path, model: Model) -> None:
    built = outline(stock_shape(random_checkpoint, model.name), torch.bfloat16)
    packed = [parameter for name, parameter in built.named_parameters() if is_quantized_name(name)]
    others = [parameter for name, parameter in built.named_parameters() if not is_quantized_name(name)]
    linear, rows = sum(parameter.numel() for parameter in packed), sum(len(parameter) for parameter in packed)
    assert model.counts == WeightCounts(linear, rows, len(packed), sum(parameter.numel() for parameter in others))


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16"), ((12, 0), "bfloat16")],
)
def test_precision_by_capability(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: str) -> None:
    """No bfloat16 where it is emulated; there, keys and values repeated for attention's kernel are foreseen."""
    whole = usual_workload()
    newest = foresee(REGISTERED[0], "nf4", torch.float16, whole, CUDA)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        assert precision_of("auto", CUDA) == getattr(torch, dtype)
        assert precision_of("bfloat16", CUDA) == torch.bfloat16  # who asks for it gets it
        assert precision_of("auto", CPU) == torch.float32
        assert foresee(REGISTERED[0], "nf4", torch.float16, whole, CUDA) == newest  # no CS2, no rows but the kept ones
        seen = sieve_bytes(shaped(2048, 11008, 36, 16, 2))
    assert (seen > sieve_bytes(shaped(2048, 11008, 36, 16, 2))) == (dtype == "float16")


def sieve_bytes(config: EchoingPixelsConfig) -> int:
    from echopix_cli.engine import forecast as rules

    return rules._count(config, 0, "none", 2, FILM, CUDA).stages["sieve"]


def test_the_device_with_the_most_room(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [5, 9, 7]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))

    def told(device: torch.device) -> tuple[int, int]:
        if not (found := free[device.index]):
            raise RuntimeError("CUDA error: out of memory")  # others have filled it
        return found, 10

    monkeypatch.setattr(torch.cuda, "mem_get_info", told)
    assert choose_device("auto") == torch.device("cuda:1")
    assert choose_device("cuda:2") == torch.device("cuda:2")
    free[:] = [0, 0, 7]
    assert choose_device("auto") == torch.device("cuda:2")
    assert free_memory(torch.device("cuda:0")) == 0
    del free[1:]
    assert choose_device("auto") == torch.device("cuda")
