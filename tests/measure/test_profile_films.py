"""``profile`` on a film: what is compared is the prompt that its windows hand on."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from echopix_cli.cli.bench_tables import profile_table
from echopix_cli.engine import AskOptions, Engine, GenerationOptions, SieveOptions, meters
from echopix_cli.engine.opening import open_media
from echopix_cli.engine.options import FilmOptions
from echopix_cli.engine.posing import Posed
from echopix_cli.measure.profiling import profile
from echopix_cli.media import DecodePlan

FILMS = FilmOptions(window=1.0)
CHOSEN = AskOptions(generation=GenerationOptions(3), sieve=SieveOptions("random", seed=3))


def test_windows_are_timed_apart_and_budget_1_has_the_model_s_own_sieve_throughout(
    random_checkpoint: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Placing a prompt costs a second on this clock, the model's own sieve one, chance a quarter, all else nothing."""
    engine, now, heard = Engine.load(str(random_checkpoint), "cpu"), [0.0], list[tuple[float, float, str]]()
    path, plan = str(clips["both"]), engine.plan(DecodePlan())
    (own,) = open_media(engine, path, plan, ["What?"], AskOptions(), FILMS)
    whole = engine.ask(own, "What?", AskOptions(1.0, CHOSEN.generation))
    pose, sift = engine.pose, Posed.sift

    def posed(*arguments: Any) -> Posed:
        now[0] += 1.0
        return pose(*arguments)

    def sifted(self: Posed, options: AskOptions) -> Any:
        now[0] += 0.25 if options.sieve.name == "random" else 1.0
        return sift(self, options)

    monkeypatch.setattr(engine, "pose", posed)
    monkeypatch.setattr(Posed, "sift", sifted)
    monkeypatch.setattr(meters, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    rounds = dict(repeat=2, warmup=0, repeats=0, options=CHOSEN, films=FILMS)
    result = profile(engine, path, plan, "What?", [0.25], reading=lambda *told: heard.append(told), **rounds)  # type: ignore[arg-type]
    full, quarter = result.rows
    for row, sieving in ((full, 1.0), (quarter, 0.25)):
        stages = {name: spread.median for name, spread in row.stages.items()}
        assert stages["windows"] == 3.0, "one placing of each, whatever is kept later"
        assert stages["sieve"] == stages["forward"] == 1.0 + sieving
        assert row.answer.latency.sieve == 4.0 + sieving, "a record holds all of it"
    assert quarter.speedup == 2.0 / 1.25
    assert (full.answer.sieve, quarter.answer.sieve) == ("cs2", "random")
    assert (full.answer.moments, full.answer.tokens) == (whole.moments, whole.tokens)
    assert [told[2] for told in heard if told[0] == told[1]] == ["reading"] * 2, "each round reads it all"
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(profile_table(result))
    shown = " ".join(console.export_text().split())
    assert "windows 3.00 s (3.00–3.00), the same for every budget" in shown
    assert "sieve + prefill of the prompt that the film's windows form, without the sieving of these, at" in shown
    assert "costs the same" not in shown, "a quarter of the model's own"
    alike = [replace(row, answer=replace(row.answer, sieve="cs2")) for row in result.rows]
    console.print(profile_table(replace(result, rows=alike)))
    assert "; the sieve itself costs the same at any budget" in " ".join(console.export_text().split())


@pytest.mark.parametrize("length", [1.0, 8.0])
def test_by_the_command(run: Any, clips: dict[str, Path], length: float) -> None:
    ran = run("profile", clips["both"], "--repeat", "1", "--warmup", "0", "-b", "0.1", "--window", length, "--json")
    assert ran.code == 0
    record = json.loads(ran.out)
    for row in record["budgets"]:
        stages, film = row["stages_s"], row["last"]["film"]
        assert (film is None) is (length == 8.0)
        assert (stages["windows"]["median"] == 0.0) is (length == 8.0)
        assert stages["forward"]["median"] == pytest.approx(stages["sieve"]["median"] + stages["prefill"]["median"])
