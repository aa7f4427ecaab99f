"""The engine on real small files with a random checkpoint: what matters here is the plumbing, not the words."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions, TextPiece
from echopix_cli.engine import engine as engine_module
from echopix_cli.engine.loading import choose_device, memory_errors
from echopix_cli.engine.reading import TOO_SHORT
from echopix_cli.errors import DeviceError, MediaError, ModelError, UsageError
from echopix_cli.measure.profiling import profile
from echopix_cli.media import Clip, DecodePlan, load_clip
from echopix_cli.results import Answer, AudioStatus

SHORT = GenerationOptions(max_new_tokens=5)


@pytest.fixture(scope="module")
def engine(random_checkpoint: Path) -> Engine:
    return Engine.load(str(random_checkpoint))


@pytest.fixture(scope="module")
def encoded(engine: Engine, clips: dict[str, Path]) -> Encoded:
    return engine.read(str(clips["both"]), engine.plan(DecodePlan()))


@pytest.mark.parametrize("budget", [0.05, 0.1, 0.37, 1.0])
def test_an_answer_counts_its_tokens(engine: Engine, encoded: Encoded, budget: float) -> None:
    answer = engine.ask(encoded, "What instrument is playing?", AskOptions(budget, SHORT))
    tokens = answer.tokens
    assert tokens.audio.total == 77  # 3 s at 25 rows a second, and the encoder's padding
    assert tokens.video.total == 3 * 12  # six frames, 3 × 4 merged rows each pair
    assert tokens.kept == math.ceil(budget * tokens.total)
    assert 1 <= tokens.generated <= 5
    assert answer.audio == AudioStatus.USED
    assert answer.budget == budget


def test_the_checkpoints_own_budget_is_the_default(engine: Engine, encoded: Encoded) -> None:
    assert engine.ask(encoded, "What?", AskOptions(generation=SHORT)).budget == 0.1
    assert engine.ask(encoded, "What?", AskOptions(generation=SHORT)).tokens.kept == math.ceil(0.1 * 113)


def test_events_are_text_pieces_then_one_answer(engine: Engine, encoded: Encoded) -> None:
    *pieces, answer = engine.stream(encoded, "What?", AskOptions(0.2, SHORT))
    assert isinstance(answer, Answer)
    assert all(isinstance(piece, TextPiece) for piece in pieces)
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextPiece)) == answer.answer
    assert answer.finish_reason in ("stop", "length")
    assert (answer.finish_reason == "length") == (answer.tokens.generated == 5)


def test_characters_of_several_tokens_arrive_whole(
    engine: Engine, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [*engine.processor.tokenizer.encode("犬ä", literal=True), 2]
    monkeypatch.setattr(engine_module, "generate", lambda *_, **__: iter([torch.tensor([token]) for token in ids]))
    *pieces, answer = engine.stream(encoded, "What?", AskOptions(0.2))
    assert [piece.text for piece in pieces if isinstance(piece, TextPiece)] == ["犬", "ä"]
    assert answer.answer == "犬ä"
    assert answer.finish_reason == "stop"


def test_stage_times_add_up(engine: Engine, encoded: Encoded) -> None:
    began = time.perf_counter()
    times = engine.ask(encoded, "What?", AskOptions(0.1, SHORT)).latency
    passed = time.perf_counter() - began
    parts = times.decode + times.vision + times.audio + times.sieve + times.prefill
    assert times.first_token == pytest.approx(parts)
    assert parts + times.generate < times.total < parts + times.generate + 1.0  # and one step, for the moments
    assert times.total <= passed + times.decode + times.vision + times.audio
    assert min(times.load, times.decode, times.vision, times.audio, times.sieve, times.prefill) > 0


def test_several_questions_decode_and_encode_once(
    engine: Engine, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"decode": 0, "vision": 0, "audio": 0}

    def count(name: str, function):  # type: ignore[no-untyped-def]
        def counted(*arguments, **named):  # type: ignore[no-untyped-def]
            calls[name] += 1
            return function(*arguments, **named)

        return counted

    monkeypatch.setattr(engine_module, "decode_beside", count("decode", engine_module.decode_beside))
    monkeypatch.setattr(engine.model.thinker, "encode_pixels", count("vision", engine.model.thinker.encode_pixels))
    monkeypatch.setattr(engine.model.thinker, "encode_mel", count("audio", engine.model.thinker.encode_mel))
    encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan()))
    answers = [engine.ask(encoded, question, AskOptions(0.1, SHORT)) for question in ("What?", "Who?", "Where?")]
    assert calls == {"decode": 1, "vision": 1, "audio": 1}
    assert len({answer.latency.vision for answer in answers}) == 1


@pytest.mark.parametrize(
    ("clip", "plan", "status", "video", "audio"),
    [
        ("both", DecodePlan(), AudioStatus.USED, 36, 77),
        ("both", DecodePlan(audio=False), AudioStatus.DISABLED, 36, 0),
        ("both", DecodePlan(video=False), AudioStatus.USED, 0, 77),
        ("silent", DecodePlan(), AudioStatus.ABSENT, 36, 0),
        ("dark", DecodePlan(), AudioStatus.USED, 0, 77),
        ("both", DecodePlan(max_audio_seconds=2.0), AudioStatus.TRUNCATED, 36, 50),
        ("both", DecodePlan(start=1.0, end=2.0), AudioStatus.USED, 24, 25),
    ],
)
def test_every_answer_says_what_became_of_the_sound(
    engine: Engine,
    clips: dict[str, Path],
    clip: str,
    plan: DecodePlan,
    status: AudioStatus,
    video: int,
    audio: int,
) -> None:
    answer = engine.ask(engine.read(str(clips[clip]), engine.plan(plan)), "What?", AskOptions(0.1, SHORT))
    assert answer.audio == status
    assert (answer.tokens.video.total, answer.tokens.audio.total) == (video, audio)


@pytest.fixture(scope="module")
def clip(engine: Engine, clips: dict[str, Path]) -> Clip:
    return load_clip(str(clips["both"]), engine.plan(DecodePlan()))


def test_a_sound_shorter_than_a_token_is_mentioned(engine: Engine, clip: Clip) -> None:
    assert clip.waveform is not None
    answer = engine.ask(engine.encode(replace(clip, waveform=clip.waveform[:100])), "What?", AskOptions(0.1, SHORT))
    assert answer.audio == AudioStatus.UNDECODABLE
    assert TOO_SHORT in answer.notices
    alone = replace(clip, waveform=clip.waveform[:100], frames=None, frame_times=None)
    with pytest.raises(MediaError, match="no picture"):
        engine.encode(alone)


def test_a_picture_longer_than_the_context_is_mentioned(engine: Engine, clip: Clip, encoded: Encoded) -> None:
    assert clip.frame_times is not None
    stretched = replace(clip, frame_times=clip.frame_times * 500)
    assert any("can tell times apart" in notice for notice in engine.encode(stretched).notices)
    assert not any("can tell times apart" in notice for notice in encoded.notices)


def test_plans_follow_the_checkpoint_unless_told(engine: Engine) -> None:
    plan = engine.plan(DecodePlan())
    assert (plan.min_pixels, plan.max_pixels) == (112 * 112, 112 * 112)
    assert engine.plan(DecodePlan(), max_pixels=50_000).max_pixels == 50_000
    assert plan.max_audio_seconds == (8192 - 1024) // 25


def test_a_small_context_leaves_a_second_of_sound(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.processor.config.text, "max_position_embeddings", 512)
    assert engine.plan(DecodePlan()).max_audio_seconds == 1.0


def test_sampling_is_reported_as_taken(engine: Engine, encoded: Encoded) -> None:
    sampling = engine.ask(encoded, "What?", AskOptions(0.1, SHORT)).sampling
    assert (sampling.frames, sampling.height, sampling.width) == (6, 84, 112)
    assert sampling.second_per_grid == pytest.approx(2 * 2.9 / 5)
    assert sampling.audio_seconds == pytest.approx(3.072)


def test_temperature_follows_its_seed(engine: Engine, encoded: Encoded) -> None:
    def say(seed: int) -> str:
        return engine.ask(encoded, "What?", AskOptions(0.5, GenerationOptions(8, temperature=3.0, seed=seed))).answer

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("budget", [0.0, -1.0, 1.5, float("nan")])
def test_impossible_budgets(engine: Engine, encoded: Encoded, budget: float) -> None:
    with pytest.raises(UsageError, match="outside"):
        engine.ask(encoded, "What?", AskOptions(budget))


def test_the_engine_never_prints(engine: Engine, clips: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    engine.ask(engine.read(str(clips["both"]), engine.plan(DecodePlan())), "What?", AskOptions(0.1, SHORT))
    assert capfd.readouterr() == ("", "")


def test_memory_is_measured(engine: Engine, encoded: Encoded) -> None:
    peak = engine.ask(encoded, "What?", AskOptions(0.1, SHORT)).peak_memory
    assert peak.host_resident is not None
    assert peak.host_resident > 50 * 2**20


def test_unknown_models_and_devices(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model named 'nope'") as caught:
        Engine.load("nope")
    assert "tiny" in caught.value.hint
    with pytest.raises(ModelError, match=r"no config\.json"):
        Engine.load(str(tmp_path))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA device"):
            choose_device("cuda")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("x"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_running_out_of_memory_gives_advice(error: Exception) -> None:
    with pytest.raises(DeviceError, match="out of memory") as caught, memory_errors(torch.device("cpu")):
        raise error
    assert "--budget" in caught.value.hint


def test_other_failures_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(torch.device("cpu")):
        raise RuntimeError("shapes")


def test_profile_measures_the_full_budget_beside_the_others(engine: Engine, clips: dict[str, Path]) -> None:
    plan, rounds = engine.plan(DecodePlan()), []
    result = profile(
        engine, str(clips["both"]), plan, "What?", [0.1, 0.3], repeat=2, warmup=1,
        options=AskOptions(generation=SHORT),
        watch=lambda done, of: rounds.append((done, of)),
    )  # fmt: skip
    assert [row.budget for row in result.rows] == [1.0, 0.3, 0.1]
    full = result.rows[0]
    assert full.speedup == 1.0
    assert (full.memory_ratio is None) == (full.answer.peak_memory.device_allocated is None)
    assert full.same_answer
    assert [row.answer.tokens.kept for row in result.rows] == [113, 34, 12]
    assert rounds[0] == (1, 3)
    assert rounds[-1] == (len(rounds), len(rounds))
    assert 2 <= result.rounds <= 4, "a busy machine has some repeated"


@pytest.mark.parametrize("temperature", [1e-60, 1e-5, 50.0])
def test_no_temperature_overflows(engine: Engine, encoded: Encoded, temperature: float) -> None:
    options = GenerationOptions(4, temperature=temperature, seed=1)
    greedy = engine.ask(encoded, "What?", AskOptions(0.5, GenerationOptions(4))).answer
    answer = engine.ask(encoded, "What?", AskOptions(0.5, options)).answer
    assert (answer == greedy) == (temperature < 1)


def spoiled(folder: Path, name: str, edit: dict[str, object]) -> None:
    """Change fields of a JSON file, deep ones by dotted names."""
    import json

    value = json.loads((folder / name).read_text())
    for path, new in edit.items():
        *parents, last = path.split(".")
        place = value
        for parent in parents:
            place = place[parent]
        place[last] = new
    (folder / name).write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("config.json", {"thinker_config.text_config.hidden_size": "abc"}),
        ("config.json", {"thinker_config.text_config.num_attention_heads": 0}),
        ("config.json", {"thinker_config.text_config.hidden_act": "zzz"}),
        ("config.json", {"thinker_config.text_config.compression_ratio": 5.0}),
        ("tokenizer.json", {"added_tokens": None}),
        ("preprocessor_config.json", {"image_mean": 3}),
        ("generation_config.json", {"eos_token_id": "x"}),
    ],
)
def test_a_spoiled_model_folder_is_a_model_error(
    random_checkpoint: Path, tmp_path: Path, name: str, edit: dict[str, object]
) -> None:
    shutil.copytree(random_checkpoint, tmp_path / "model")
    spoiled(tmp_path / "model", name, edit)
    with pytest.raises(ModelError):
        Engine.load(str(tmp_path / "model"))


@pytest.mark.parametrize("template", ["{% for %}", "no places at all"])
def test_a_spoiled_chat_template_is_a_model_error(random_checkpoint: Path, tmp_path: Path, template: str) -> None:
    shutil.copytree(random_checkpoint, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError):
        Engine.load(str(tmp_path / "model"))


@pytest.mark.parametrize("name", ["x" * 5000, "~nosuchuser/x", "a\0b"])
def test_names_that_no_folder_can_have(name: str) -> None:
    with pytest.raises(ModelError, match="no model named"):
        Engine.load(name)


def test_auto_is_chosen_by_the_device_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUDA the demonstration model; with room for a large one that was not fetched, what to type."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert Engine.load("auto", "cpu").facts.chosen == "tiny, the demonstration model: no CUDA device is in use"
    assert Engine.load("tiny", "cpu").facts.chosen is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * 2**30, 80 * 2**30))
    with pytest.raises(
        ModelError, match=r"qwen2.5-omni-7b is not on this machine \(auto took the largest model"
    ) as failed:
        Engine.load("auto")
    assert "echopix models pull qwen2.5-omni-7b" in failed.value.hint
    assert "--model tiny" in failed.value.hint
