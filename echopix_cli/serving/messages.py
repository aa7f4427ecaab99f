"""What is said about answering: requests, and what comes of them piece by piece.

The command consumes these values wherever the model is: of its own process, or through a socket, as
:mod:`.wire` carries them. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from echopix_cli.media.plan import DecodePlan
from echopix_cli.media.values import MediaInfo
from echopix_cli.results import Answer, ModelFacts, Turn


@dataclass(frozen=True)
class Wish:
    """Which model is wanted, and how it is held.

    Attributes:
        model: ``auto``, ``hf:OWNER/NAME[@REVISION]``, or the absolute path of a folder.
        device, dtype, quantize: as the settings of these names.
    """

    model: str
    device: str
    dtype: str
    quantize: str


@dataclass(frozen=True)
class Manner:
    """How files are read and questions answered, as settings say it; a loaded model makes plans of it.

    Attributes:
        plan: what to take from each file, before the model's own frame size is known.
        max_pixels: the user's own bound of a frame; None leaves it to the checkpoint.
        budget: fraction of tokens kept; None is the checkpoint's own.
        max_new_tokens, temperature: of answers.
        system: prompt; None is the family's.
        sieve, question_layer, prefilter: what chooses tokens, as the settings of these names.
        window, look: of films.
        list_kept: whether answers list every kept token.
        cache_dir: where features are kept; None keeps none.
        cache_size: bytes that they may take there.
        timeout: seconds that reading one clip of a batch, or one window of a film in it, may take.
        verbose: whether to tell more.
        seed: of what is drawn above temperature 0; None draws anew each time.
    """

    plan: DecodePlan
    max_pixels: int | None
    budget: float | None
    max_new_tokens: int
    temperature: float
    system: str | None
    sieve: str
    question_layer: int | None
    prefilter: bool | None
    window: float | None
    look: int
    list_kept: bool
    cache_dir: str | None
    cache_size: int
    timeout: float
    verbose: bool
    seed: int | None = None


# --- from a client


@dataclass(frozen=True)
class Hello:
    """The first message of a connection: who asks, and for which model."""

    version: str
    wish: Wish


@dataclass(frozen=True)
class Ask:
    """Questions about one file, which is read once; ``choices`` of all of them, none for open ones; and the turns of a
    conversation about it that were before each of them."""

    path: str
    questions: tuple[str, ...]
    choices: tuple[str, ...]
    manner: Manner
    earlier: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Cancel:
    """End the request that was made last."""


# --- from whoever answers


@dataclass(frozen=True)
class Welcome:
    """A server's first message.

    Attributes:
        version: of echopix.
        refusal: why it does not answer this client; empty when it does.
        model: that is loaded.
        held: what the server was begun for, as it came out.
        asked: the model's name that it was begun for.
        since: when it was, in seconds of the epoch.
        answers: given so far.
        running: requests that are being answered, or wait.
        idle: seconds without a request after which the server ends; None never.
        http: address that it also listens on; empty for none.
    """

    version: str
    refusal: str
    model: ModelFacts
    held: Wish
    asked: str
    since: float
    answers: int
    running: int
    idle: float | None
    http: str


@dataclass(frozen=True)
class Found:
    """There is a file to ask about."""


@dataclass(frozen=True)
class Loaded:
    """The model is there; in seconds, what loading it took."""

    seconds: float


@dataclass(frozen=True)
class Notice:
    """Something worth knowing. ``grave`` is what nobody may miss."""

    text: str
    grave: bool = False


@dataclass(frozen=True)
class Watched:
    """How far the reading of a film has come: ``done`` of ``total`` seconds of media in this stage."""

    done: float
    total: float
    stage: str


@dataclass(frozen=True)
class Opened:
    """The file was read."""

    info: MediaInfo
    notices: tuple[str, ...]
    plan: DecodePlan


@dataclass(frozen=True)
class Asked:
    """The next question is put."""


@dataclass(frozen=True)
class Piece:
    """The next piece of an answer's text."""

    text: str


@dataclass(frozen=True)
class Answered:
    """An answer, whole."""

    answer: Answer


@dataclass(frozen=True)
class Failure:
    """An error in words. ``serial`` is the same for one error that several tasks of a batch share."""

    kind: str
    message: str
    hint: str
    exit_code: int
    serial: int = 0


@dataclass(frozen=True)
class Done:
    """The questions about a file are answered."""


Event = Found | Loaded | Notice | Watched | Opened | Asked | Piece | Answered
Sink = Callable[[Event], None]
