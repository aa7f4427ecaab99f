"""What a scene is: small frozen values, symbolic and cheap, before anything is rendered.

Times are seconds from the start of the clip. Places are fractions of the frame,
x to the right and y downwards; a size is a fraction of the frame's shorter side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

INSTRUMENTS: tuple[str, ...] = (
    "piano", "xylophone", "organ", "guitar", "violin", "harp", "trumpet", "flute", "drum", "bell",
)  # fmt: skip
OBJECTS: tuple[str, ...] = (
    "dog", "cat", "frog", "pig", "tiger", "car", "ball", "tree", "star", "apple",
)  # fmt: skip
# Only these instruments have an emoji in the packed font (Noto Color Emoji 2.042 has no harp, and no
# emoji exists for a xylophone or an organ).
INSTRUMENT_PICTURES: tuple[str, ...] = ("piano", "guitar", "violin", "trumpet", "flute", "drum", "bell")
PICTURES: tuple[str, ...] = OBJECTS + INSTRUMENT_PICTURES
FAMILIES: tuple[str, ...] = (
    "instrument", "object", "count", "sync", "order", "when", "heard", "exists", "silent", "dark",
)  # fmt: skip
# Questions of the wide splits; the last two need nothing to be seen or heard.
WIDE_FAMILIES: tuple[str, ...] = (*FAMILIES[:8], "list", "corner", "each", *FAMILIES[8:])
SPLITS: tuple[str, ...] = (
    "train", "val", "test", "unseen-font",
    "wide-train", "wide-val", "wide-test", "wide-font", "wide-style", "wide-composer",
)  # fmt: skip
NUMBERS: tuple[str, ...] = ("one", "two", "three", "four", "five")
COUNTED: tuple[str, ...] = (*NUMBERS, "six", "seven", "eight", "nine")  # in the wide splits
NOTHING = "nothing"

DURATION = 8.0
SAMPLE_RATE = 16000

Box = tuple[float, float, float, float]
Span = tuple[float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Evidence:
    """One stretch of the clip that an answer depends on.

    ``box`` is (x0, y0, x1, y1) in 0..1, or None for sound and for "the whole picture".
    """

    modality: Literal["audio", "video"]
    start: float
    end: float
    box: Box | None = None


@dataclass(frozen=True)
class Item:
    """A question about a scene, its short answer and what the answer rests on."""

    family: str
    question: str
    answer: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class NoteEvent:
    """One note, and when it can be heard (its room tail excluded)."""

    instrument: str
    start: float
    end: float


@dataclass(frozen=True)
class PlayedNote(NoteEvent):
    """A note event together with how it is made from a recording.

    Attributes:
        font: which bank the recording is from.
        source: MIDI pitch of the recording (for "drum": the General MIDI drum key).
        velocity: MIDI velocity of the recording.
        pitch: MIDI pitch that sounds; ``pitch - source`` semitones of resampling (0 for "drum").
        cents: detuning on top, in cents.
        gain: root mean square of the note's loudest part, before the scene's own level.
        skip: seconds left out at the start of a recording that sustains: another attack.
        swell: change of level in decibels a second: another decay.
    """

    font: str
    source: int
    velocity: int
    pitch: int
    cents: float
    gain: float
    skip: float = 0.0
    swell: int = 0


@dataclass(frozen=True)
class Look:
    """How a drawing is changed before it is shown, so that neither colour nor surface nor outline alone names it.

    Attributes:
        hue: all hues are turned by this share of the circle.
        colour: gain of the saturation; 0 is grey.
        contrast: gain about the middle grey.
        texture: "", "stripes", "blobs" or "grain", of ``depth`` (a share of the brightness).
        stretch: width over height.
        shear: sideways, as a share of the height.
    """

    hue: float = 0.0
    colour: float = 1.0
    contrast: float = 1.0
    texture: Literal["", "stripes", "blobs", "grain"] = ""
    depth: float = 0.0
    stretch: float = 1.0
    shear: float = 0.0


@dataclass(frozen=True)
class Sprite:
    """A picture that is shown for one span, gliding from ``path[:2]`` to ``path[2:]``.

    Attributes:
        name: one of PICTURES.
        size: edge length as a fraction of the frame's shorter side.
        show: visible from show[0] (included) to show[1] (excluded).
        path: centre at the start and at the end of ``show``: (x0, y0, x1, y1).
        hop: displacement (dx, dy) held during every span in ``hops``.
        hops: spans in which the sprite leaves its place, eased over a tenth of a second.
        angle: tilt in degrees; flip: mirrored; tint: gain of red, green and blue.
        drawing: which drawing of the picture, as "style/slug"; empty for the first one.
        look: how that is changed.
    """

    name: str
    size: float
    show: Span
    path: Box
    hop: tuple[float, float] = (0.0, 0.0)
    hops: tuple[Span, ...] = ()
    angle: int = 0
    flip: bool = False
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    drawing: str = ""
    look: Look = Look()


@dataclass(frozen=True)
class Background:
    """What lies behind the sprites: a generator's name, its colours and its noise.

    Attributes:
        kind: a name in ``backgrounds.GENERATORS``.
        colours: the two colours, RGB in 0..1.
        hues: their hues in 0..1, kept because whole bands of hue are held out from training.
        scale, angle, phase: the generator's own knobs, each in 0..1.
        noise: standard deviation of the per-frame noise in 8-bit steps.
        specks: number of small drifting discs, which no question is about.
    """

    kind: str
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    hues: tuple[float, float]
    scale: float
    angle: float
    phase: float
    noise: int
    specks: int


@dataclass(frozen=True)
class Shot:
    """One camera position, held or moving until the next shot begins.

    Attributes:
        start: when it begins, in seconds.
        background: what lies behind the sprites.
        begin, finish: where in the viewport the scene's own frame lies at the start and at the end of the shot.
    """

    start: float
    background: Background
    begin: Box
    finish: Box


@dataclass(frozen=True)
class Filming:
    """How the scene becomes a picture.

    Attributes:
        shots: in order of start, the first at 0.
        viewport: the part of the picture that the shots fill.
        surround: what fills the rest; None is black.
        fps: frames a second that the recording has; between them nothing changes.
        gain, gamma: of the picture's brightness.
    """

    shots: tuple[Shot, ...]
    viewport: Box = WHOLE
    surround: Background | None = None
    fps: int = 25
    gain: float = 1.0
    gamma: float = 1.0


@dataclass(frozen=True)
class Bed:
    """What sounds beside the notes and is never asked about.

    Attributes:
        music: number of a piece of background music (of sines: none of INSTRUMENTS); None for none.
        music_db, speech_db: levels relative to the notes.
        speech: phrases by number, with their starts in seconds.
    """

    music: int | None = None
    music_db: float = 0.0
    speech: tuple[tuple[int, float], ...] = ()
    speech_db: float = 0.0


@dataclass(frozen=True)
class Sound:
    """How the notes are recorded: everything between the instrument and the file.

    Attributes:
        track: False when the clip has no audio track at all.
        level_db: peak of the clip in dB below full scale.
        eq_db: equaliser gains at EQ_HZ (see ``audio``).
        lowpass_hz: upper band limit, as of a phone or a coarse codec.
        room: number of the room (see ``audio.ROOMS``: the higher, the longer it rings).
        room_mix: its level relative to the direct sound; 0 means dry.
        noise_db: background noise relative to the notes (absolute, in dB full scale, without notes).
        noise_tilt: spectral slope of the noise as an exponent of frequency: 0 white, -0.5 pink.
        hum_hz, hum_db: mains hum and its level relative to the notes; hum_hz 0 means none.
        drive: gain into a clipper before the level is set; 1 or less means clean.
        codec: "none", "mulaw" or the coarse linear "bits".
    """

    track: bool
    level_db: float
    eq_db: tuple[float, ...]
    lowpass_hz: float
    room: int
    room_mix: float
    noise_db: float
    noise_tilt: float
    hum_hz: float
    hum_db: float
    drive: float
    codec: Literal["none", "mulaw", "bits"]


@dataclass(frozen=True)
class Script:
    """Everything that happens in one scene; a pure function of (split, seed, family).

    Attributes:
        split, seed, family: where the scene came from.
        key: the generator's entropy; the renderers derive their noise from it.
        notes: in order of start.
        sprites: never overlapping while visible together.
        items: the first is of ``family``; the others are true of the same scene.
        filming, bed: of the wide splits.
    """

    split: str
    seed: int
    family: str
    key: tuple[int, int]
    duration: float
    notes: tuple[PlayedNote, ...]
    sprites: tuple[Sprite, ...]
    background: Background
    sound: Sound
    items: tuple[Item, ...]
    filming: Filming | None = None
    bed: Bed | None = None
