"""Where each setting comes from: flag > ``ECHOPIX_*`` > ``config.toml`` > default.

:class:`Settings` declares every setting once: the command line, its help and completions, the environment, the config
file, the manual and ``echopix config`` all read it. A training run's recipe is declared in the same way. Besides
settings, the config file may give models names of the user's own, in a table ``[models]``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from echopix_cli.declarations import ENVIRONMENT_PREFIX, Setting, read_toml, require_known, setting, table_of
from echopix_cli.errors import UsageError
from echopix_cli.media.plan import Limits
from echopix_cli.parsers import (
    POSITIVE,
    bounded,
    parse_budget,
    parse_device,
    parse_duration,
    parse_folder,
    parse_look,
    parse_switch,
    parse_text,
    write_look,
)
from echopix_cli.sizes import exact, parse_positive_size, parse_size
from echopix_cli.times import TIME_HELP, clock, parse_time

MEDIA, MODEL, SHOW = "What to take from the media", "Model and answer", "What to print"  # headings of help
MANY = "Many files and questions"
DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("auto", "none", "int8", "nf4")
# A model has cs2 or question-attention, and all the controls.
SIEVES = ("auto", "cs2", "question-attention", "per-modality", "uniform", "random", "none")
_OTHER_VARIABLES = ("CONFIG", "UNSEEN_FONT", "REQUIRE_BROWSER", "REQUIRE_GPU")  # config file; note bank; the tests' own
_MODELS = "models"  # the table of the config file that holds names, not settings


def _user_cache() -> str:
    import platformdirs

    return str(platformdirs.user_cache_path("echopix"))


_LIMITS = Limits()


@dataclass(frozen=True)
class Settings:
    """All settings of a command, resolved; what each means stands in its declaration."""

    model: str = setting(
        "auto",
        str,
        "model name, hf:OWNER/REPO[@REVISION] or folder; auto takes the largest model that fits the GPU, "
        "without one tiny, the demonstration model",
        "--model",
        "-m",
        metavar="NAME|DIR",
        panel=MODEL,
    )
    budget: float | None = setting(
        None,
        parse_budget,
        "fraction of audio-visual tokens kept, in (0, 1]; without it the checkpoint's own",
        "--budget",
        "-b",
        metavar="FRACTION",
        panel=MODEL,
    )
    sieve: str = setting(
        "auto",
        SIEVES,
        "what chooses the tokens: auto takes cs2 where the model has it, else question-attention; per-modality, "
        "uniform, random and none are controls",
        panel=MODEL,
    )
    prefilter: bool | None = setting(
        None,
        parse_switch,
        "leave out the half that repeats itself before question-attention, or never do (default: at budgets below 0.2)",
        "--prefilter/--no-prefilter",
        panel=MODEL,
    )
    question_layer: int | None = setting(
        None,
        bounded(int, 0, "expected a layer number, from 0"),
        "decoder layer at which question-attention chooses; without it a third of the layers",
        metavar="N",
        panel=MODEL,
    )
    device: str = setting(
        "auto",
        parse_device,
        "where the model runs; auto takes a GPU where there is one",
        metavar="auto|cpu|cuda|cuda:N",
        panel=MODEL,
    )
    dtype: str = setting("auto", DTYPES, "precision of the weights", panel=MODEL)
    quantize: str = setting(
        "auto",
        QUANTIZATIONS,
        "hold the linear layers of decoder and CS2 in fewer bits, in a copy made once; auto takes nf4 on a GPU for "
        "models of 2 GiB and more, else none",
        panel=MODEL,
    )
    keep_source: bool = setting(
        True,
        parse_switch,
        "keep the full-precision download once its quantized copy is there, or remove it (default: keep)",
        "--keep-source/--drop-source",
        panel=MODEL,
    )
    server: bool = setting(
        True,
        parse_switch,
        "have a running echopix serve answer, if its model is the one wanted, or go without (default: have it answer)",
        "--server/--no-server",
        panel=MODEL,
    )
    fps: float = setting(
        2.0, bounded(float, 1e-6, "expected a rate above 0"), "frames sampled per second", metavar="RATE", panel=MEDIA
    )
    max_frames: int = setting(
        120, bounded(int, 1, POSITIVE), "most frames sampled from one clip", metavar="N", panel=MEDIA
    )
    max_pixels: int = setting(
        105_369,
        bounded(int, 784, "expected a whole number of at least 784"),
        "most pixels of a resized frame, unless the model was trained with other frames",
        metavar="N",
        panel=MEDIA,
    )
    start: float | None = setting(None, parse_time, f"begin here: {TIME_HELP}", metavar="TIME", panel=MEDIA)
    end: float | None = setting(None, parse_time, f"stop here: {TIME_HELP}", metavar="TIME", panel=MEDIA)
    window: float | None = setting(
        None,
        bounded(float, 1.0, "expected a number of seconds from 1 to 3600", 3600.0),
        "seconds of the windows in which a longer file is read; without it what the model was trained on, or 60",
        metavar="SECONDS",
        panel=MEDIA,
    )
    look: int = setting(
        4,
        parse_look,
        "windows of a film that are read again at the full rate, where all could only be glanced at; all of them, or 0",
        metavar="N",
        panel=MEDIA,
        write=write_look,
    )
    no_audio: bool = setting(False, parse_switch, "leave the sound out", "--no-audio/--audio", panel=MEDIA)
    no_video: bool = setting(False, parse_switch, "leave the picture out", "--no-video/--video", panel=MEDIA)
    audio_track: int | None = setting(
        None,
        bounded(int, 0, "expected a track number, from 0"),
        "which audio track, from 0",
        metavar="N",
        panel=MEDIA,
    )
    video_track: int | None = setting(
        None,
        bounded(int, 0, "expected a track number, from 0"),
        "which video track, from 0",
        metavar="N",
        panel=MEDIA,
    )
    system: str | None = setting(
        None, parse_text, "system prompt; without it the family's", metavar="TEXT", panel=MODEL
    )
    max_new_tokens: int = setting(256, bounded(int, 1, POSITIVE), "longest answer, in tokens", metavar="N", panel=MODEL)
    temperature: float = setting(
        0.0, bounded(float, 0.0, "expected a number of at least 0"), "0 is greedy", metavar="T", panel=MODEL
    )
    cache_dir: str = setting(
        _user_cache,
        parse_folder,
        "folder for features of media and what else echopix keeps (downloads lie in the hub's cache: HF_HUB_CACHE)",
    )
    cache: bool = setting(
        True,
        parse_switch,
        "keep features of media files in the cache folder and find them there, or do neither (default: do both)",
        "--cache/--no-cache",
        panel=MEDIA,
    )
    cache_size: int = setting(
        4 * 2**30,
        parse_size,
        "most bytes that features may take there, such as 4GiB; what was not used for longest goes first, 0 keeps none",
        write=exact,
    )
    # What reading one file may cost: limit_X is max_X of media.Limits. No flags: whoever needs more of
    # one of them needs it for good.
    limit_side: int = setting(_LIMITS.max_side, bounded(int, 1, POSITIVE), "most pixels along one edge of a picture")
    limit_area: int = setting(_LIMITS.max_area, bounded(int, 1, POSITIVE), "most pixels of a picture")
    limit_tracks: int = setting(_LIMITS.max_tracks, bounded(int, 1, POSITIVE), "most tracks that a file may declare")
    limit_packets: int = setting(
        _LIMITS.max_packets, bounded(int, 1, POSITIVE), "most frames that a video track may hold"
    )
    limit_decoded_frames: int = setting(
        _LIMITS.max_decoded_frames,
        bounded(int, 1, POSITIVE),
        "most frames that are decoded of one file to reach the sampled ones",
    )
    limit_decoded_bytes: int = setting(
        _LIMITS.max_decoded_bytes,
        parse_positive_size,
        "most bytes that the picture and sound of one file may expand to: 3 a pixel, 4 a sample",
        write=exact,
    )
    limit_frame_bytes: int = setting(
        _LIMITS.max_frame_bytes, parse_positive_size, "most bytes of one file's sampled frames, resized", write=exact
    )
    limit_memory: int = setting(
        _LIMITS.max_memory, parse_positive_size, "most bytes of memory that reading one file may take", write=exact
    )
    limit_picture_seconds: float = setting(
        _LIMITS.max_picture_seconds, parse_duration, "longest picture that is sampled at once"
    )
    limit_sound_seconds: float = setting(
        _LIMITS.max_sound_seconds, parse_duration, "longest sound that is read at once"
    )
    timeout: float = setting(
        600.0,
        parse_duration,
        "seconds that reading one clip of a batch, or one window of a film in it, may take, or a time such as 10m",
        metavar="TIME",
        panel=MANY,
    )
    quiet: bool = setting(False, parse_switch, "print the answer only", "--quiet", "-q", panel=SHOW)
    verbose: bool = setting(False, parse_switch, "print more about media and model", "--verbose", "-v", panel=SHOW)
    debug: bool = setting(False, parse_switch, "show tracebacks", "--debug", panel=SHOW)
    no_color: bool = setting(False, parse_switch, "no colours", "--no-color/--color", panel=SHOW)


TABLE = table_of(Settings)


@dataclass(frozen=True)
class Resolved:
    """Settings, and where each came from: ``flag``, ``environment``, ``file`` or ``default``."""

    settings: Settings
    origins: Mapping[str, str]

    def said(self, name: str) -> bool:
        """Whether a flag, variable or file sets it."""
        return self.origins[name] != "default"

    def preferring(self, **values: Any) -> Resolved:
        """A copy with other defaults, for settings that no flag, variable or file sets."""
        return replace(self, settings=replace(self.settings, **{k: v for k, v in values.items() if not self.said(k)}))


def config_path() -> Path:
    """The config file; ``ECHOPIX_CONFIG`` names another one.

    Raises:
        UsageError: that one does not exist.
    """
    variable = ENVIRONMENT_PREFIX + "CONFIG"
    if named := os.environ.get(variable):
        if not os.path.exists(named):
            raise UsageError(f"{variable} names {named}, which does not exist", f"write it, or unset {variable}")
        return Path(named)
    import platformdirs

    return platformdirs.user_config_path("echopix") / "config.toml"


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """``ECHOPIX_*`` variables that nothing reads, each with the nearest name that something does, or an empty text."""
    known = [setting.variable for setting in TABLE.values()] + [ENVIRONMENT_PREFIX + name for name in _OTHER_VARIABLES]
    names = os.environ if environment is None else environment
    unknown = sorted(name for name in names if name.startswith(ENVIRONMENT_PREFIX) and name not in known)
    return [(name, next(iter(get_close_matches(name, known, 1)), "")) for name in unknown]


def read_models(path: Path | None = None) -> dict[str, str]:
    """The user's own model names: ``name = "hf:OWNER/REPO@REVISION"`` or ``name = "/a/folder"`` below ``[models]``.

    Args:
        path: of the config file, whose folder relative paths start from; defaults to :func:`config_path`.

    Raises:
        UsageError: not TOML, or not a table of strings.
    """
    file = config_path() if path is None else path
    table = read_toml(file).get(_MODELS, {})
    if not isinstance(table, dict) or not all(isinstance(value, str) and value for value in table.values()):
        raise UsageError(
            f"{file}: [models] is a table of strings", 'such as mine = "hf:OWNER/REPO" or mine = "/a/folder"'
        )
    return {
        name: value if value.startswith("hf:") else str(file.parent.absolute() / os.path.expanduser(value))
        for name, value in table.items()
    }


def cache_dir() -> Path:
    """The setting ``cache_dir``, for those who need it and no other.

    Raises:
        UsageError: the config file cannot be read.
    """
    return Path(_settle(TABLE["cache_dir"], None, os.environ, config_path(), _read_settings(config_path()))[0])


def resolve(
    flags: Mapping[str, Any], environment: Mapping[str, str] | None = None, path: Path | None = None
) -> Resolved:
    """Every setting and its origin.

    Args:
        flags: values from the command line; None stands for "not given".
        environment: defaults to the process's.
        path: of the config file; defaults to :func:`config_path`.

    Raises:
        UsageError: a value that does not fit, naming the flag, variable or file it stands in.
    """
    variables = os.environ if environment is None else environment
    file = config_path() if path is None else path
    from_file = _read_settings(file)
    found = {name: _settle(own, flags.get(name), variables, file, from_file) for name, own in TABLE.items()}
    settings = Settings(**{name: value for name, (value, _) in found.items()})
    start, end = settings.start, settings.end
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--end {clock(end)} is not after --start {clock(start)}", "give an end later than the start")
    return Resolved(settings, {name: origin for name, (_, origin) in found.items()})


def _read_settings(path: Path) -> dict[str, Any]:
    """What a config file says about settings, not parsed."""
    values = read_toml(path)
    values.pop(_MODELS, None)
    require_known(values, TABLE, str(path))
    return values


def _settle(
    own: Setting, flag: Any, variables: Mapping[str, str], file: Path, from_file: Mapping[str, Any]
) -> tuple[Any, str]:
    """A setting's value from the first place that says something, and which that is."""
    if flag is not None:
        return own.read(flag, own.flag), "flag"
    if variables.get(own.variable):
        return own.read(variables[own.variable], own.variable), "environment"
    if own.name in from_file:
        raw = from_file[own.name]
        if own.parse is parse_folder and isinstance(raw, str) and raw:
            raw = str(file.parent.absolute() / os.path.expanduser(raw))  # and not below wherever one happens to be
        return own.read(raw, f"{file}, {own.name}"), "file"
    return own.default() if callable(own.default) else own.default, "default"
