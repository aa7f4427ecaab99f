"""Plain frozen values of an evaluation: what was measured and how it came out. No torch here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from echopix_cli.evaluation.intervals import Interval, wider
from echopix_cli.results import AudioStatus, ModelFacts

AROUND = "without-cs2"  # all rows, as the towers and embeddings made them, past CS2 straight into the decoder
OTHER = "other-question"  # the model's own sieve for another question about the clip; the decoder reads this one
SINGLE_PASS = "single-pass"  # the model's own sieve once over a whole movie, as if it were one window
OWN = ("cs2", "question-attention")  # a model has one of them, and it is what the controls are compared with
CONTROLS = ("per-modality", "uniform", "random", "none")
SIEVES = ("cs2", *CONTROLS)  # of a model with a trained sieve
LOST = (AudioStatus.UNDECODABLE, AudioStatus.TRUNCATED)  # sound that is there, and was not heard or not all of it


def written(budget: float) -> str:
    """A budget as records and tables have it: one that reads the same is the same."""
    return f"{budget:.12g}"


@dataclass(frozen=True, order=True)
class Condition:
    """A way of choosing audio-visual rows, and the fraction kept: 0 for ``none``, 1 for ``without-cs2``."""

    sieve: str
    budget: float

    @property
    def name(self) -> str:
        """As it is written in records: ``cs2@0.1``, ``none``, ``without-cs2``."""
        return self.sieve if self.sieve in ("none", AROUND) else f"{self.sieve}@{written(self.budget)}"


@dataclass(frozen=True)
class Rows:
    """Prompt rows of one setting: kept of video and audio, and how many of those kept lie on the evidence."""

    video: int
    audio: int
    on_evidence: int

    @property
    def kept(self) -> int:
        """Audio-visual rows kept."""
        return self.video + self.audio


@dataclass(frozen=True)
class Pool:
    """Audio-visual rows that a setting chose from: all, those of sound, and those on the evidence."""

    rows: int
    audio: int
    evidence: int


@dataclass(frozen=True)
class Graded:
    """One question answered with one setting.

    ``answer`` is None, and ``rows`` too, where ``failure`` says why there is none. ``seconds`` are those of
    the sieve, prefill and generation. Of a movie, ``moment`` says whether the top moment lies on the evidence (None
    where there is nothing to find), and ``last_prompt`` how many audio-visual rows its windows handed on; ``pool`` is
    what was chosen from where settings differ in that, else None.
    """

    answer: str | None
    right: bool
    rows: Rows | None
    seconds: float
    failure: str = ""
    moment: bool | None = None
    last_prompt: int | None = None
    pool: Pool | None = None

    @classmethod
    def failed(cls, reason: str) -> Graded:
        """A question that got no answer, and why."""
        return cls(None, False, None, 0.0, reason)


@dataclass(frozen=True)
class ItemResult:
    """One question answered with every setting; ``pool`` audio-visual rows, ``evidence`` of them on the evidence.

    ``pool_audio`` of the pool's rows are sound. All are 0 where the item failed before it had rows, and ``evidence``
    is 0 where none is known; :meth:`pool_of` says the same of one setting. ``groups`` and ``recordings`` are as of
    :class:`~.questions.Question`. ``audio`` is what became of the sound, None where that is not known, and ``notices``
    are what was said of the media.
    """

    id: str
    media: str
    family: str
    question: str
    answer: str
    pool: int
    evidence: int
    outcomes: dict[Condition, Graded]
    pool_audio: int = 0
    groups: tuple[tuple[str, str], ...] = ()
    recordings: tuple[str, ...] = ()
    audio: AudioStatus | None = None
    notices: tuple[str, ...] = ()

    def pool_of(self, setting: Condition) -> Pool:
        """What a setting chose from."""
        return self.outcomes[setting].pool or Pool(self.pool, self.pool_audio, self.evidence)

    @property
    def failed(self) -> bool:
        """Whether there is a setting with which it got no answer."""
        return any(outcome.answer is None for outcome in self.outcomes.values())


@dataclass(frozen=True)
class ByClip:
    """Accuracy with intervals from drawing anew: overall, of the mean over families, and of each family."""

    overall: Interval
    mean: Interval
    families: dict[str, Interval]


@dataclass(frozen=True)
class Recovered:
    """What a setting, by its name, recovers of the difference between everything and no token.

    ``accuracy`` and ``share`` are of the mean over the families that need tokens, None where there are none;
    ``families`` has their shares. Ends of intervals may be infinite.
    """

    setting: str
    accuracy: Interval | None
    share: Interval | None
    families: dict[str, Interval | None]


@dataclass(frozen=True)
class Recovery:
    """Shares recovered, by setting.

    ``full`` names the setting that 100 % are of. ``needing`` has the families that need tokens and ``apart`` those that
    do not, each with how much oftener ``full`` is right than ``none``.
    """

    full: str
    needing: dict[str, Interval]
    apart: dict[str, Interval]
    settings: tuple[Recovered, ...]


@dataclass(frozen=True)
class Share:
    """How many of ``total`` items were answered right. Failed items are in ``total`` and never right."""

    right: int
    total: int
    failed: int
    accuracy: Interval


@dataclass(frozen=True)
class EvidenceShare:
    """Where kept rows lie; means over the items that have evidence rows.

    ``on_evidence`` is the share of kept rows on the evidence, ``at_random`` the pool's own share, which is what
    a blind choice keeps on average; ``ratio`` is the first over the second. ``recall`` is the share of evidence
    rows kept. ``on_evidence`` and ``ratio`` are None where nothing is kept.
    """

    items: int
    on_evidence: float | None
    at_random: float
    ratio: float | None
    recall: float


@dataclass(frozen=True)
class SettingResult:
    """Everything measured about one setting.

    ``mean`` weighs every family the same, ``overall`` every item. ``kept_video`` and ``kept_audio`` are mean rows
    an item, ``share_video`` and ``share_audio`` the mean shares of an item's rows of that kind that were kept, None
    where no item has such rows. ``groups`` has the shares by each field of the data, and of that by value, over the
    items that have the field. ``median_seconds`` of a question (sieve, prefill, generation) is given for the model's
    own sieve only: a control is charged here for scores that it does not use. Of movies, ``moments`` counts the items
    whose top moment lies on the evidence, and ``last_prompt`` is the mean number of audio-visual rows in the last
    prompt.
    """

    setting: Condition
    overall: Share
    mean: Interval
    families: dict[str, Share]
    evidence: EvidenceShare | None
    evidence_by_family: dict[str, EvidenceShare]
    kept_video: float
    kept_audio: float
    median_seconds: float | None
    moments: Share | None = None
    last_prompt: float | None = None
    share_video: float | None = None
    share_audio: float | None = None
    groups: dict[str, dict[str, Share]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Two settings on the same items: accuracy of ``setting`` − that of ``reference``, and the first over the second.

    ``ratio`` is None where the reference got nothing right. ``by_clip`` is the difference with the
    wider of the intervals by clips and by questions; ``needing`` is that of the mean over the families that need
    tokens, None where none is known to; ``families`` has each family's.
    """

    setting: Condition
    reference: Condition
    items: int
    difference: Interval
    ratio: float | None
    by_clip: Interval
    needing: Interval | None
    families: dict[str, Interval]


@dataclass(frozen=True)
class Failure:
    """An item that could not be answered, with all settings or (``setting`` given) with one."""

    id: str
    setting: str | None
    reason: str


@dataclass(frozen=True)
class Facts:
    """What was run: enough to run it again."""

    version: str
    date: str
    command: str
    model: ModelFacts
    data: str
    count: int
    families: tuple[str, ...]
    seed: int
    options: dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Report:
    """An evaluation's outcome.

    ``seconds`` is wall time from the first item to the last, None where an earlier run answered some of them.
    ``by_clip`` has accuracy by setting with intervals from drawing anew the ``clips`` and, where there are any, the
    ``recordings`` that they play; ``recovery`` is None where there is nothing to compare with.
    """

    facts: Facts
    seconds: float | None
    results: tuple[SettingResult, ...]
    comparisons: tuple[Comparison, ...]
    failures: tuple[Failure, ...]
    items: tuple[ItemResult, ...]
    clips: int
    recordings: int
    by_clip: dict[Condition, ByClip]
    recovery: Recovery | None

    @property
    def audio(self) -> dict[str, int]:
        """How many questions there are by what became of their media's sound, where that is known."""
        counts = Counter(item.audio for item in self.items)
        return {status.value: counts[status] for status in AudioStatus if counts[status]}

    @property
    def notices(self) -> tuple[tuple[str, str], ...]:
        """What was said of media, with their names, each once; first of those whose sound was lost."""
        ordered = sorted(self.items, key=lambda item: item.audio not in LOST)
        return tuple(dict.fromkeys((item.media, notice) for item in ordered for notice in item.notices))

    @property
    def drawn_anew(self) -> bool:
        """Whether questions share clips, or clips recordings, and are right and wrong together."""
        return self.clips < self.facts.count or self.recordings > 0

    @property
    def shown(self) -> tuple[SettingResult, ...]:
        """Results with the intervals that are shown: where questions share clips or recordings, the wider of counting
        questions and of drawing these anew; for the data's own fields, the first."""
        return tuple(map(self._shown, self.results)) if self.drawn_anew else self.results

    def _shown(self, result: SettingResult) -> SettingResult:
        drawn = self.by_clip[result.setting]
        families = {
            name: replace(share, accuracy=wider(share.accuracy, drawn.families[name]))
            for name, share in result.families.items()
        }
        overall = replace(result.overall, accuracy=wider(result.overall.accuracy, drawn.overall))
        return replace(result, families=families, overall=overall, mean=wider(result.mean, drawn.mean))
