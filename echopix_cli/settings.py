"""Where each setting comes from: flag > ``ECHOPIX_*`` > ``config.toml`` > default.

One table describes every setting; the command line, the environment, the config file and ``echopix config``
all read it. Besides settings, the config file may give models names of the user's own, in a table ``[models]``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from echopix_cli.errors import UsageError
from echopix_cli.media.plan import Limits
from echopix_cli.times import TIME_HELP, clock, parse_time

ENVIRONMENT_PREFIX = "ECHOPIX_"
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}


@dataclass(frozen=True)
class Setting:
    """One named value: how to read it from text, what holds when nobody says (or finds that), and what it means.

    ``metavar`` stands for its value in help; of a closed list it holds all of it, as ``auto|none``.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    help: str
    metavar: str = ""

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()


@dataclass(frozen=True)
class Resolved:
    """A setting's value and where it came from: ``flag``, ``environment``, ``file`` or ``default``."""

    value: Any
    origin: str


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("expected true or false")


def _bounded(kind: Callable[[str], Any], low: float, what: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(what) from None
        if not low <= value < float("inf"):
            raise ValueError(what)
        return value

    return parse


def parse_budget(text: str) -> float:
    """A fraction in (0, 1], or a percentage such as ``10%``; ValueError otherwise."""
    stripped = text.strip()
    try:
        value = float(stripped.removesuffix("%")) / (100 if stripped.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise ValueError(f"not a budget: {text!r} (a fraction of tokens kept: 0.1 or 10%, above 0 and at most 1)")
    return value


def _duration(text: str) -> float:
    seconds = parse_time(text)
    if seconds <= 0:
        raise ValueError(f"expected a time above 0: {TIME_HELP}")
    return seconds


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            near = get_close_matches(text, words, 1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"expected one of {', '.join(words)}{meant}")
        return text

    return parse


_SIZE = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?) ?(?P<unit>[kKmMgGtT]?)(?P<binary>i?)[bB]?")


def _size(text: str) -> int:
    """Bytes from ``512MiB``, ``4 GB`` or a plain number; ``kB`` is a thousand, ``KiB`` 1024."""
    match = _SIZE.fullmatch(text)
    if match is None or (match["binary"] and not match["unit"]):
        raise ValueError("expected a number of bytes, or a size such as 8G, 4GiB or 500MB")
    base = 1024 if match["binary"] else 1000
    factor: int = base ** " KMGT".index(match["unit"].upper() or " ")
    return round(float(match["count"]) * factor)


def _positive_size(text: str) -> int:
    size = _size(text)
    if not size:
        raise ValueError("expected a size above 0, such as 8G")
    return size


def _user_cache() -> str:
    import platformdirs

    return str(platformdirs.user_cache_path("echopix"))


def _folder(text: str) -> str:
    return os.path.abspath(os.path.expanduser(text))


def _device(text: str) -> str:
    if text in ("auto", "cpu", "cuda") or (text.startswith("cuda:") and text[5:].isascii() and text[5:].isdecimal()):
        return text
    raise ValueError("expected auto, cpu, cuda or cuda:N")


DTYPES = ("auto", "float32", "bfloat16", "float16")
_DEVICES = "auto|cpu|cuda|cuda:N"
QUANTIZATIONS = ("auto", "none", "int8", "nf4")
# A model has cs2 or question-attention, and all the controls.
SIEVES = ("auto", "cs2", "question-attention", "per-modality", "uniform", "random", "none")
_POSITIVE = "expected a whole number of at least 1"
_LIMITS = Limits()
SETTINGS: tuple[Setting, ...] = (
    Setting(
        "model",
        str,
        "auto",
        "model name, hf:OWNER/REPO[@REVISION] or folder; auto takes the largest model that fits the GPU, "
        "without one tiny, the demonstration model",
    ),
    Setting(
        "budget", parse_budget, None, "fraction of audio-visual tokens kept, in (0, 1]; without it the checkpoint's own"
    ),
    Setting(
        "sieve",
        _one_of(*SIEVES),
        "auto",
        "what chooses the tokens: auto takes cs2 where the model has it, else question-attention; per-modality, "
        "uniform, random and none are controls",
        "|".join(SIEVES),
    ),
    Setting(
        "prefilter",
        _boolean,
        None,
        "leave out the half that repeats itself before question-attention, or never do (default: at budgets below 0.2)",
    ),
    Setting(
        "question_layer",
        _bounded(int, 0, "expected a layer number, from 0"),
        None,
        "decoder layer at which question-attention chooses; without it a third of the layers",
    ),
    Setting("device", _device, "auto", "where the model runs; auto takes a GPU where there is one", _DEVICES),
    Setting("dtype", _one_of(*DTYPES), "auto", "precision of the weights", "|".join(DTYPES)),
    Setting(
        "quantize",
        _one_of(*QUANTIZATIONS),
        "auto",
        "hold the linear layers of decoder and CS2 in fewer bits, in a copy made once; auto takes nf4 on a GPU for "
        "models of 2 GiB and more, else none",
        "|".join(QUANTIZATIONS),
    ),
    Setting(
        "keep_source",
        _boolean,
        True,
        "keep the full-precision download once its quantized copy is there, or remove it (default: keep)",
    ),
    Setting("fps", _bounded(float, 1e-6, "expected a rate above 0"), 2.0, "frames sampled per second"),
    Setting("max_frames", _bounded(int, 1, _POSITIVE), 120, "most frames sampled from one clip"),
    Setting(
        "max_pixels",
        _bounded(int, 784, "expected a whole number of at least 784"),
        105_369,
        "most pixels of a resized frame, unless the model was trained with other frames",
    ),
    Setting("start", parse_time, None, f"begin here: {TIME_HELP}"),
    Setting("end", parse_time, None, f"stop here: {TIME_HELP}"),
    Setting("no_audio", _boolean, False, "leave the sound out"),
    Setting("no_video", _boolean, False, "leave the picture out"),
    Setting("audio_track", _bounded(int, 0, "expected a track number, from 0"), None, "which audio track, from 0"),
    Setting("video_track", _bounded(int, 0, "expected a track number, from 0"), None, "which video track, from 0"),
    Setting("system", str, None, "system prompt; without it the family's"),
    Setting("max_new_tokens", _bounded(int, 1, _POSITIVE), 256, "longest answer, in tokens"),
    Setting("temperature", _bounded(float, 0.0, "expected a number of at least 0"), 0.0, "0 is greedy"),
    Setting(
        "cache_dir",
        _folder,
        _user_cache,
        "folder for what echopix keeps about models (downloads themselves lie in the hub's cache: HF_HUB_CACHE)",
    ),
    Setting(
        "cache",
        _boolean,
        True,
        "keep features of media files in the cache folder and find them there, or do neither (default: do both)",
    ),
    Setting(
        "cache_size",
        _size,
        4 * 2**30,
        "most bytes that features may take there, such as 4GiB; what was not used for longest goes first, 0 keeps none",
    ),
    # How much of a hostile file to put up with: limit_X is max_X of media.Limits. No flags: whoever needs more of
    # one of them needs it for good.
    Setting("limit_side", _bounded(int, 1, _POSITIVE), _LIMITS.max_side, "most pixels along one edge of a picture"),
    Setting("limit_area", _bounded(int, 1, _POSITIVE), _LIMITS.max_area, "most pixels of a picture"),
    Setting("limit_tracks", _bounded(int, 1, _POSITIVE), _LIMITS.max_tracks, "most tracks that a file may declare"),
    Setting(
        "limit_packets", _bounded(int, 1, _POSITIVE), _LIMITS.max_packets, "most frames that a video track may hold"
    ),
    Setting(
        "limit_decoded_frames",
        _bounded(int, 1, _POSITIVE),
        _LIMITS.max_decoded_frames,
        "most frames that are decoded of one file to reach the sampled ones",
    ),
    Setting(
        "limit_decoded_bytes",
        _positive_size,
        _LIMITS.max_decoded_bytes,
        "most bytes that the picture and sound of one file may expand to: 3 a pixel, 4 a sample",
    ),
    Setting(
        "limit_frame_bytes",
        _positive_size,
        _LIMITS.max_frame_bytes,
        "most bytes of one file's sampled frames, resized",
    ),
    Setting(
        "limit_memory",
        _positive_size,
        _LIMITS.max_memory,
        "most bytes of memory that reading one file may take",
    ),
    Setting(
        "limit_picture_seconds",
        _duration,
        _LIMITS.max_picture_seconds,
        "longest picture that is sampled at once",
    ),
    Setting(
        "limit_sound_seconds",
        _duration,
        _LIMITS.max_sound_seconds,
        "longest sound that is read at once",
    ),
    Setting(
        "timeout",
        _duration,
        600.0,
        "seconds that reading one file of a batch may take, or a time such as 10m",
    ),
    Setting("quiet", _boolean, False, "print the answer only"),
    Setting("verbose", _boolean, False, "print more about media and model"),
    Setting("debug", _boolean, False, "show tracebacks"),
    Setting("no_color", _boolean, False, "no colours"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_OTHER_VARIABLES = ("CONFIG", "REQUIRE_GPU")  # another config file; the tests' own
_MODELS = "models"  # the table of the config file that holds names, not settings


def config_path() -> Path:
    """The config file; ``ECHOPIX_CONFIG`` names another one."""
    named = os.environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_config_path("echopix") / "config.toml"


def read_file(path: Path) -> dict[str, Any]:
    """Settings in a config file; none when there is no file.

    Raises:
        UsageError: not TOML, or a name that is no setting.
    """
    values = _read_toml(path)
    values.pop(_MODELS, None)
    if unknown := sorted(set(values) - set(_BY_NAME)):
        near = get_close_matches(unknown[0], _BY_NAME, 1)
        hint = near[0] if near else f"settings are: {', '.join(_BY_NAME)}"
        raise UsageError(f"{path} sets {', '.join(map(repr, unknown))}, which is no setting", hint)
    return values


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """``ECHOPIX_*`` variables that nothing reads, each with the nearest name that something does, or an empty text."""
    known = [setting.variable for setting in SETTINGS] + [ENVIRONMENT_PREFIX + name for name in _OTHER_VARIABLES]
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
    table = _read_toml(file).get(_MODELS, {})
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
    setting = _BY_NAME["cache_dir"]
    return Path(_settle(setting, None, os.environ, config_path(), read_file(config_path())).value)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        import tomllib

        return tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # text that is not UTF-8 or not TOML is a ValueError
        raise UsageError(f"cannot read {path}: {error}", "mend or remove the file") from None


def _parsed(setting: Setting, raw: Any, where: str) -> Any:
    """A value from text or TOML, with an error that says where it stands."""
    try:
        if isinstance(raw, bool) != (setting.parse is _boolean) and not isinstance(raw, str):
            raise ValueError(
                "expected true or false" if setting.parse is _boolean else "true or false means nothing here"
            )
        return setting.parse(str(raw))
    except ValueError as error:
        raise UsageError(f"{where}: {raw!r} does not fit: {error}", f"{setting.name}: {setting.help}") from None


def resolve(
    flags: Mapping[str, Any], environment: Mapping[str, str] | None = None, path: Path | None = None
) -> dict[str, Resolved]:
    """Every setting with its value and origin.

    Args:
        flags: values from the command line; None stands for "not given".
        environment: defaults to the process's.
        path: of the config file; defaults to :func:`config_path`.

    Raises:
        UsageError: a value that does not fit, naming the flag, variable or file it stands in.
    """
    variables = os.environ if environment is None else environment
    file = config_path() if path is None else path
    from_file = read_file(file)
    resolved = {
        setting.name: _settle(setting, flags.get(setting.name), variables, file, from_file) for setting in SETTINGS
    }
    start, end = resolved["start"].value, resolved["end"].value
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--end {clock(end)} is not after --start {clock(start)}", "give an end later than the start")
    return resolved


def _settle(
    setting: Setting, flag: Any, variables: Mapping[str, str], file: Path, from_file: Mapping[str, Any]
) -> Resolved:
    """One setting from the first place that says something."""
    name, variable = setting.name, setting.variable
    if flag is not None:
        return Resolved(_parsed(setting, flag, f"--{name.replace('_', '-')}"), "flag")
    if variable in variables and (variables[variable] or setting.parse is _boolean):
        return Resolved(_parsed(setting, variables[variable], variable), "environment")
    if name in from_file:
        return Resolved(_parsed(setting, from_file[name], f"{file}, {name}"), "file")
    return Resolved(setting.default() if callable(setting.default) else setting.default, "default")
