"""Plain frozen values that leave the program. No torch here: they are cheap to import and to pickle."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

DEMONSTRATION = "tiny is the demonstration model: it knows only its own little world of rendered scenes"


class AudioStatus(StrEnum):
    """What became of the sound; every answer carries one, so that sound is never lost silently."""

    USED = "used"
    ABSENT = "absent"  # the file has no audio track, or no sound in the part asked about
    DISABLED = "disabled"  # the user said --no-audio
    UNDECODABLE = "undecodable"  # there is a track, but nothing of it could be decoded
    TRUNCATED = "truncated"  # only a part was used; a notice says how much


@dataclass(frozen=True)
class ModalityTokens:
    """Rows of one modality in the prompt: how many went in, how many the sieve kept."""

    total: int
    kept: int


@dataclass(frozen=True)
class TokenCounts:
    """Token counts of one answer. Text is always kept whole; generated includes the stop token."""

    video: ModalityTokens
    audio: ModalityTokens
    text: int
    generated: int

    @property
    def total(self) -> int:
        """Audio-visual tokens before the sieve: the pool."""
        return self.video.total + self.audio.total

    @property
    def kept(self) -> int:
        """Audio-visual tokens after the sieve."""
        return self.video.kept + self.audio.kept


@dataclass(frozen=True)
class StageTimes:
    """Seconds spent in each stage, from synchronised clocks.

    ``decode``, ``vision`` and ``audio`` are spent once per clip and repeated in each of its answers. With a feature
    cache, ``decode`` includes looking there and keeping there; of cached features it is all there is. Of one file asked
    alone, the towers work beside decoding: ``decode`` is then what they waited for, so that the stages add up.
    ``load`` (reading the model) is kept apart: ``total`` is everything but it, with the decoder step that finds the
    answer's moments.
    ``first_token`` is the time from the start of ``decode`` until the first answer token exists.
    """

    load: float = 0.0
    decode: float = 0.0
    vision: float = 0.0
    audio: float = 0.0
    sieve: float = 0.0
    prefill: float = 0.0
    first_token: float = 0.0
    generate: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class PeakMemory:
    """Peak bytes of one run. ``None`` where this machine cannot tell."""

    device_allocated: int | None = None
    device_reserved: int | None = None
    host_resident: int | None = None


@dataclass(frozen=True)
class Sampling:
    """What was really taken from the media (not what was asked for)."""

    fps: float | None  # frames per second really sampled
    frames: int
    height: int | None
    width: int | None
    second_per_grid: float | None  # seconds between temporal grid steps (two frames each)
    start: float
    end: float | None
    audio_seconds: float


@dataclass(frozen=True)
class ModelFacts:
    """Which model answered; ``chosen`` says why, where ``--model auto`` chose it.

    ``quantization`` is how the linear layers of decoder and CS2 are held (``none``, ``int8``, ``nf4``); all else is
    in ``dtype``.
    """

    name: str
    revision: str | None
    parameters: int
    dtype: str
    device: str
    demonstration: bool = False
    chosen: str | None = None
    quantization: str = "none"


@dataclass(frozen=True)
class Choice:
    """One option of a multiple-choice question, and how likely it is among the options (they sum to 1)."""

    letter: str
    text: str
    probability: float


@dataclass(frozen=True)
class Turn:
    """A question of a conversation, and the answer to it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Moment:
    """A span of media time in which kept tokens of one modality lie close together.

    ``start`` and ``end`` are seconds from the start of the media; ``modality`` is ``video`` or ``audio``; ``share``
    is that of the span's tokens in the attention to all kept tokens, in [0, 1].
    """

    start: float
    end: float
    modality: str
    share: float


@dataclass(frozen=True)
class KeptToken:
    """One token that the sieve kept, and where it lies.

    ``start``, ``end`` and ``modality`` are as of :class:`Moment`; ``share`` is the token's own in the
    attention to all kept tokens. ``box`` is what a token of the picture shows of its frame: left, top, right and
    bottom edge as fractions of the frame's width and height; None for sound.
    """

    start: float
    end: float
    modality: str
    share: float
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class FilmFacts:
    """How a file that is longer than one window was read.

    There are ``windows`` of ``window_seconds`` each, of which ``unread`` could not be read. With a ``glance``, so many
    frames at most were taken of each; ``looked`` are those that were read again at the full frame rate, as (start, end)
    in seconds. Without one (None) all were read at that rate. ``frames`` are all frames that were seen. ``survivors``
    tokens of all windows formed the last prompt; ``share`` is what the decoder could be given of the pool, where
    ``budget`` asked for more than one prompt holds.
    """

    windows: int
    window_seconds: float
    unread: int
    looked: tuple[tuple[float, float], ...]
    frames: int
    survivors: int
    share: float
    glance: int | None


@dataclass(frozen=True)
class Answer:
    """One question about one clip, answered, with everything the table shows.

    ``sieve`` names what chose the tokens. Of models without CS2, ``question_layer`` is the decoder layer at which
    they were chosen, and ``prefilter`` the share that the redundancy stage left before it, None where it did not
    run. ``budget`` is 0 where ``none`` were kept. ``cached`` says that the features came from the disk: nothing was
    decoded, and no tower ran. ``choices`` are the options, where the question had some; the
    answer is then the text of the likeliest. ``moments`` are where the kept tokens lie, those with the largest share
    first; ``film`` is there for files that are longer than one window. ``kept_tokens`` are all of them in order of
    time, picture first, where they were asked for. ``turns_seen`` is how many earlier turns of a conversation the model
    read before the question; None where there were none.
    """

    media: str
    question: str
    answer: str
    tokens: TokenCounts
    budget: float
    sieve: str
    latency: StageTimes
    peak_memory: PeakMemory
    model: ModelFacts
    audio: AudioStatus
    sampling: Sampling
    finish_reason: str  # "stop" (the model ended), "length" (max_new_tokens reached) or "choice"
    question_layer: int | None = None
    prefilter: float | None = None
    cached: bool = False
    choices: tuple[Choice, ...] = ()
    moments: tuple[Moment, ...] = ()
    film: FilmFacts | None = None
    kept_tokens: tuple[KeptToken, ...] = ()
    notices: tuple[str, ...] = field(default=())
    turns_seen: int | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Decoding rate after the first token, or None for answers of one token."""
        steps = self.tokens.generated - 1
        return steps / self.latency.generate if steps > 0 and self.latency.generate > 0 else None
