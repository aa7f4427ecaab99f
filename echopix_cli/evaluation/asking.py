"""How the questions of an evaluation are put to the engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions, SieveOptions
from echopix_cli.engine.options import FilmOptions
from echopix_cli.engine.sieves import AUTO, SieveChoice, seed_of
from echopix_cli.evaluation.questions import Question
from echopix_cli.evaluation.values import AROUND, LOST, OTHER, OWN, SINGLE_PASS, Condition, Graded, ItemResult
from echopix_cli.media import DecodePlan
from echopix_cli.model.processing import DEFAULT_SYSTEM
from echopix_cli.results import AudioStatus
from echopix_cli.scenes import SIDE


@dataclass(frozen=True)
class Asking:
    """What holds for every question of an evaluation.

    ``plan`` is what to take from media files, from :meth:`Engine.plan`; scenes obey its ``audio`` and
    ``video`` only, and are rendered ``side`` pixels wide. ``seed`` is that of the ``random`` control.
    ``question_layer`` and ``prefilter`` are as in :class:`~echopix_cli.engine.SieveOptions`; controls have no
    redundancy stage before them. ``films`` is how movies are read. Questions with options are answered with the
    likeliest of their letters where ``by_letters``, else with text, in which a letter or an option is looked for.
    """

    plan: DecodePlan
    side: int = SIDE
    seed: int = 0
    max_new_tokens: int = 32
    system: str = DEFAULT_SYSTEM
    question_layer: int | None = None
    prefilter: bool | None = None
    films: FilmOptions = field(default_factory=FilmOptions)
    by_letters: bool = False

    @property
    def of_files(self) -> dict[str, int | float | bool | None]:
        """What is taken from a media file, by the plan's names; its limits refuse files and change none."""
        return {name: value for name, value in asdict(self.plan).items() if name != "limits"}

    @property
    def without(self) -> str:
        """The modality that scenes are rendered without, ``audio`` or ``video``; empty where both are wanted."""
        return "" if self.plan.audio and self.plan.video else "video" if self.plan.audio else "audio"


def sieve_options(sieve: str, asking: Asking) -> SieveOptions:
    """The engine's options for a sieve, by its name in a :class:`Condition`."""
    own = sieve in (AUTO, AROUND, OTHER, SINGLE_PASS, *OWN)
    name = AUTO if sieve in (AROUND, OTHER, SINGLE_PASS) else sieve
    return SieveOptions(name, asking.question_layer, asking.prefilter if own else None, asking.seed)


def scoring_of(engine: Engine, setting: Condition, asking: Asking) -> SieveChoice:
    """What chooses with a setting; settings whose sieve and ``first_layers`` are the same choose by the same scores."""
    return engine.choose(sieve_options(setting.sieve, asking), setting.budget)


def options_of(setting: Condition, asking: Asking, index: int) -> AskOptions:
    """How the question of an index is sieved with a setting, and answered."""
    # One generator a question and not a setting: a larger budget then keeps what a smaller one kept, and more.
    sieve = replace(sieve_options(setting.sieve, asking), seed=seed_of(asking.seed, index))
    generation = GenerationOptions(asking.max_new_tokens, system=asking.system)
    # ``none`` keeps nothing, whatever the budget.
    return AskOptions(setting.budget or 1.0, sieve=sieve, generation=generation)


def result_of(
    question: Question,
    pool: int,
    evidence: int,
    outcomes: dict[Condition, Graded],
    pool_audio: int = 0,
    read: Iterable[Encoded] = (),
) -> ItemResult:
    """A question with what came of it; ``read`` are what its settings were put to."""
    read = list(read)
    heard = {one.audio_status for one in read}
    return ItemResult(
        question.id, question.media, question.family, question.question, question.answer, pool, evidence, outcomes,
        pool_audio, question.groups, question.recordings,
        next((status for status in (*LOST, *AudioStatus) if status in heard), None),
        tuple(dict.fromkeys(notice for one in read for notice in one.notices)),
    )  # fmt: skip
