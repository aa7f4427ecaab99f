"""Counts results: accuracy by setting and family, paired comparisons, evidence, failures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, median

from echopix_cli.evaluation.gaps import Gaps, differences
from echopix_cli.evaluation.intervals import mean_of, paired_difference, wilson
from echopix_cli.evaluation.marks import Marks, marks_of
from echopix_cli.evaluation.questions import SCENES
from echopix_cli.evaluation.recovered import NEED_NO_TOKEN, by_clip, recovery, with_full
from echopix_cli.evaluation.resampling import Resamples
from echopix_cli.evaluation.values import (
    AROUND,
    OWN,
    Comparison,
    Condition,
    EvidenceShare,
    Facts,
    Failure,
    Graded,
    ItemResult,
    Report,
    SettingResult,
    Share,
)


def make_report(
    facts: Facts,
    items: Sequence[ItemResult],
    settings: Sequence[Condition],
    seconds: float | None,
    before: Marks | None = None,
) -> Report:
    """Everything that an evaluation says.

    Args:
        facts: of the run.
        items: at least one, each with an outcome for every setting.
        settings: in the order in which they are shown.
        seconds: of wall time, where one run answered all.
        before: marks of the full-token model before CS2 on the same questions, which may be what budgets are measured
            against.
    """
    marks = marks_of(items, settings)
    resamples = Resamples(marks.clips, recordings=marks.recordings)
    names = [setting.name for setting in settings]
    paired = list(pairs(settings))
    accuracies = by_clip(marks, resamples, names)
    apart = NEED_NO_TOKEN if facts.data.startswith(SCENES) else ()
    recovered = recovery(marks if before is None else with_full(marks, before), resamples, names, apart)
    needing = () if recovered is None else recovered.needing
    gaps = differences(marks, resamples, [(a.name, b.name) for a, b in paired], needing)
    return Report(
        facts=facts,
        seconds=seconds,
        results=tuple(_setting_result(setting, items) for setting in settings),
        comparisons=tuple(_compare(a, b, items, gap) for (a, b), gap in zip(paired, gaps, strict=True)),
        failures=tuple(_failures(items)),
        items=tuple(items),
        clips=resamples.clips,
        recordings=resamples.recordings,
        by_clip={setting: accuracies[setting.name] for setting in settings},
        recovery=recovered,
    )


def by_family(items: Iterable[ItemResult]) -> dict[str, list[ItemResult]]:
    """Items of each family, families in the order in which they first appear."""
    found: dict[str, list[ItemResult]] = {}
    for item in items:
        found.setdefault(item.family, []).append(item)
    return found


def by_group(items: Iterable[ItemResult]) -> dict[str, dict[str, list[ItemResult]]]:
    """Items of each field of the data, and of that by value, all in the order in which they first appear."""
    found: dict[str, dict[str, list[ItemResult]]] = {}
    for item in items:
        for field, value in item.groups:
            found.setdefault(field, {}).setdefault(value, []).append(item)
    return found


def _setting_result(setting: Condition, items: Sequence[ItemResult]) -> SettingResult:
    families = by_family(items)
    shares = {family: _share(setting, own) for family, own in families.items()}
    evidence = {family: _evidence(setting, own) for family, own in families.items()}
    counted = [(item.pool_of(setting), kept) for item in items if (kept := item.outcomes[setting].rows) is not None]
    rows = [kept for _, kept in counted]
    times = [item.outcomes[setting].seconds for item in items if item.outcomes[setting].answer is not None]
    graded = [item.outcomes[setting] for item in items]
    prompts = [outcome.last_prompt for outcome in graded if outcome.last_prompt is not None]
    return SettingResult(
        setting=setting,
        overall=_share(setting, items),
        mean=mean_of([(share.right, share.total) for share in shares.values()]),
        families=shares,
        evidence=_evidence(setting, items),
        evidence_by_family={family: share for family, share in evidence.items() if share is not None},
        kept_video=fmean(row.video for row in rows) if rows else 0.0,
        kept_audio=fmean(row.audio for row in rows) if rows else 0.0,
        median_seconds=median(times) if times and setting.sieve in OWN else None,
        moments=_moments(graded),
        last_prompt=fmean(prompts) if prompts else None,
        share_video=_kept([(kept.video, pool.rows - pool.audio) for pool, kept in counted]),
        share_audio=_kept([(kept.audio, pool.audio) for pool, kept in counted]),
        groups={
            field: {value: _share(setting, own) for value, own in values.items()}
            for field, values in by_group(items).items()
        },
    )


def _kept(counts: Sequence[tuple[int, int]]) -> float | None:
    """The mean share of an item's rows that were kept (kept, all), over the items that have any."""
    shares = [kept / rows for kept, rows in counts if rows]
    return fmean(shares) if shares else None


def _share(setting: Condition, items: Sequence[ItemResult]) -> Share:
    outcomes = [item.outcomes[setting] for item in items]
    right = sum(outcome.right for outcome in outcomes)
    failed = sum(outcome.answer is None for outcome in outcomes)
    return Share(right, len(outcomes), failed, wilson(right, len(outcomes)))


def _moments(outcomes: Sequence[Graded]) -> Share | None:
    """How often the top moment was right, where there was something to find."""
    found = [outcome.moment for outcome in outcomes if outcome.moment is not None]
    return Share(sum(found), len(found), 0, wilson(sum(found), len(found))) if found else None


def _evidence(setting: Condition, items: Sequence[ItemResult]) -> EvidenceShare | None:
    """None where no item has evidence rows in its prompt."""
    answered = [(item.pool_of(setting), rows) for item in items if (rows := item.outcomes[setting].rows) is not None]
    found = [(pool, rows) for pool, rows in answered if pool.evidence]
    if not found:
        return None
    at_random = fmean(pool.evidence / pool.rows for pool, _ in found)
    shares = [rows.on_evidence / rows.kept for _, rows in found if rows.kept]
    on_evidence = fmean(shares) if shares else None
    return EvidenceShare(
        items=len(found),
        on_evidence=on_evidence,
        at_random=at_random,
        ratio=None if on_evidence is None else on_evidence / at_random,
        recall=fmean(rows.on_evidence / pool.evidence for pool, rows in found),
    )


def pairs(settings: Sequence[Condition]) -> Iterator[tuple[Condition, Condition]]:
    """What is worth comparing: smaller budgets of the model's own sieve with 1.0, then it with controls at its budgets.

    ``none`` has no budget and is compared with each; ``without-cs2`` keeps everything, as budget 1.0 does.
    """
    ours = [setting for setting in settings if setting.sieve in OWN]
    full = next((setting for setting in ours if setting.budget == 1.0), None)
    if full is not None:
        yield from ((setting, full) for setting in ours if setting.budget < 1.0)
        yield from ((full, setting) for setting in settings if setting.sieve == AROUND)
    for control in settings:
        if control.sieve not in (*OWN, AROUND):
            yield from ((own, control) for own in ours if control.sieve == "none" or own.budget == control.budget)


def _compare(setting: Condition, reference: Condition, items: Sequence[ItemResult], gaps: Gaps) -> Comparison:
    ours = [item.outcomes[setting].right for item in items]
    theirs = [item.outcomes[reference].right for item in items]
    ratio = sum(ours) / sum(theirs) if any(theirs) else None
    difference = paired_difference(ours, theirs)
    return Comparison(setting, reference, len(items), difference, ratio, gaps.overall, gaps.needing, gaps.families)


def _failures(items: Sequence[ItemResult]) -> Iterator[Failure]:
    """Once for an item that failed for one reason with all settings, else by setting."""
    for item in items:
        failed = {setting: outcome.failure for setting, outcome in item.outcomes.items() if outcome.answer is None}
        if len(failed) == len(item.outcomes) and len(set(failed.values())) == 1:
            yield Failure(item.id, None, next(iter(failed.values())))
        else:
            yield from (Failure(item.id, setting.name, reason) for setting, reason in failed.items())
