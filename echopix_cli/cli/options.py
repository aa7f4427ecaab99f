"""Options that several commands share, and how they become plans and engines."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from echopix_cli.cli.help import Command, Group
from echopix_cli.cli.output import Output
from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.settings import SETTINGS, Resolved, parse_budget, resolve, unknown_variables
from echopix_cli.times import clock

if TYPE_CHECKING:
    from echopix_cli.engine import AskOptions, Engine, GenerationOptions, Workload
    from echopix_cli.media import DecodePlan, Limits, MediaInfo

_SETTING = {setting.name: setting for setting in SETTINGS}


def _option(name: str, *flags: str, metavar: str | None = None, panel: str | None = None) -> Any:
    """A shared option. Its default is None: who said what is settled in one place, ``settings``."""
    flags = flags or (f"--{name.replace('_', '-')}",)
    metavar = metavar or _SETTING[name].metavar or None
    return typer.Option(*flags, help=_SETTING[name].help, metavar=metavar, rich_help_panel=panel, show_default=False)


_MEDIA, MODEL, _SHOW = "What to take from the media", "Model and answer", "What to print"
_MANY = "Many files and questions"

Budget = Annotated[str | None, _option("budget", "--budget", "-b", metavar="FRACTION", panel=MODEL)]
Sieve = Annotated[str | None, _option("sieve", panel=MODEL)]
Prefilter = Annotated[bool | None, _option("prefilter", "--prefilter/--no-prefilter", panel=MODEL)]
QuestionLayer = Annotated[str | None, _option("question_layer", metavar="N", panel=MODEL)]
Model = Annotated[str | None, _option("model", "--model", "-m", metavar="NAME|DIR", panel=MODEL)]
Device = Annotated[str | None, _option("device", panel=MODEL)]
Dtype = Annotated[str | None, _option("dtype", panel=MODEL)]
Quantize = Annotated[str | None, _option("quantize", panel=MODEL)]
KeepSource = Annotated[bool | None, _option("keep_source", "--keep-source/--drop-source", panel=MODEL)]
System = Annotated[str | None, _option("system", metavar="TEXT", panel=MODEL)]
MaxNewTokens = Annotated[str | None, _option("max_new_tokens", metavar="N", panel=MODEL)]
Temperature = Annotated[str | None, _option("temperature", metavar="T", panel=MODEL)]
Fps = Annotated[str | None, _option("fps", metavar="RATE", panel=_MEDIA)]
MaxFrames = Annotated[str | None, _option("max_frames", metavar="N", panel=_MEDIA)]
MaxPixels = Annotated[str | None, _option("max_pixels", metavar="N", panel=_MEDIA)]
Start = Annotated[str | None, _option("start", metavar="TIME", panel=_MEDIA)]
End = Annotated[str | None, _option("end", metavar="TIME", panel=_MEDIA)]
NoAudio = Annotated[bool | None, _option("no_audio", "--no-audio/--audio", panel=_MEDIA)]
NoVideo = Annotated[bool | None, _option("no_video", "--no-video/--video", panel=_MEDIA)]
AudioTrack = Annotated[str | None, _option("audio_track", metavar="N", panel=_MEDIA)]
VideoTrack = Annotated[str | None, _option("video_track", metavar="N", panel=_MEDIA)]
Cache = Annotated[bool | None, _option("cache", "--cache/--no-cache", panel=_MEDIA)]
Timeout = Annotated[str | None, _option("timeout", metavar="TIME", panel=_MANY)]
Quiet = Annotated[bool | None, _option("quiet", "--quiet", "-q", panel=_SHOW)]
Verbose = Annotated[bool | None, _option("verbose", "--verbose", "-v", panel=_SHOW)]
Debug = Annotated[bool | None, _option("debug", "--debug", panel=_SHOW)]
NoColor = Annotated[bool | None, _option("no_color", "--no-color/--color", panel=_SHOW)]
Json = Annotated[
    bool, typer.Option("--json", help="print JSON objects instead of text", rich_help_panel=_SHOW, show_default=False)
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="text|jsonl|tsv|csv",
        help="how answers are printed, the same on a terminal and in a pipe (default: text; of several files in a "
        "pipe jsonl)",
        rich_help_panel=_SHOW,
        show_default=False,
    ),
]


def many(help: str, *flags: str, metavar: str | None = None) -> Any:
    """An option about many files and questions."""
    return typer.Option(*flags, help=help, metavar=metavar, rich_help_panel=_MANY, show_default=False)


Questions = Annotated[
    list[str] | None,
    many("a question; repeat for more", "--question", "-Q", metavar="TEXT"),
]


_Function = TypeVar("_Function", bound=Callable[..., Any])


class Commands(typer.Typer):
    """A group whose commands print our help."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[_Function], _Function]:
        """As of ``typer.Typer``."""
        return super().command(name, **{"cls": Command, **more})


def group(name: str, help: str, **more: Any) -> Commands:
    """A command that consists of commands; ``more`` as of ``typer.Typer``."""
    context = {"help_option_names": ["-h", "--help"]}
    return Commands(
        name=name,
        help=help,
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        context_settings=context,
        **more,
    )


def read_budget(text: str) -> float:
    """One of several budgets of a command line.

    Raises:
        UsageError: it is no fraction in (0, 1].
    """
    try:
        return parse_budget(text)
    except ValueError as error:
        raise UsageError(f"--budget: {text!r} does not fit: {error}", "--budget 0.1 keeps a tenth") from None


@dataclass(frozen=True)
class Run:
    """Settings of one command, resolved, and the output it writes to."""

    settings: dict[str, Resolved]
    output: Output
    _seen: dict[str, MediaInfo | None] = field(default_factory=dict)

    @classmethod
    def begin(cls, flags: dict[str, Any]) -> Run:
        """Resolve a command's flags against environment, file and defaults.

        Raises:
            UsageError: a value that does not fit.
        """
        settings = resolve({setting.name: flags.get(setting.name) for setting in SETTINGS})
        color = False if settings["no_color"].value else None
        output = Output(quiet=settings["quiet"].value, color=color)
        for name, near in unknown_variables():
            output.warn(f"{name} is set, and nothing reads it" + (f"; did you mean {near}?" if near else ""))
        return cls(settings, output)

    def __getitem__(self, name: str) -> Any:
        return self.settings[name].value

    def preferring(self, name: str, value: Any) -> Run:
        """With another default of one setting."""
        if self.settings[name].origin != "default":
            return self
        return replace(self, settings={**self.settings, name: Resolved(value, "default")})

    def engine(self, media: Sequence[str] = (), budget: float | None = None, keeps: bool = False) -> Engine:
        """Load the model, unless it is known beforehand that it and its work do not fit.

        Args:
            media: files that will be asked about; without any, as much is expected as the plan allows.
            budget: the largest that will be used; None for the setting's.
            keeps: whether features of media files are kept on the disk and found there, unless that is switched off.
        """
        engine = self._engine(media, budget, keeps)
        if engine.source.demonstration:
            from echopix_cli.engine.answers import DEMONSTRATION

            self.output.warn(DEMONSTRATION)
        return engine

    def _engine(self, media: Sequence[str], budget: float | None, keeps: bool) -> Engine:
        with self.output.progress("loading the model") as say:
            from huggingface_hub import constants

            from echopix_cli.weights.registry import NotHere

            try:
                return self._load(say, media, budget, keeps)
            except NotHere as absent:
                if constants.HF_HUB_OFFLINE:
                    raise
                model = absent.model
        from echopix_cli.cli.download import fetch

        fetch(self.output, model)
        with self.output.progress("loading the model") as say:
            return self._load(say, media, budget, keeps)

    def _load(self, say: Callable[[str], None], media: Sequence[str], budget: float | None, keeps: bool) -> Engine:
        with _importing():
            from echopix_cli.decoding.nursery import warm_up

            warm_up()  # before all else that is imported here
            from echopix_cli.cli.download import Quantizing
            from echopix_cli.engine import Engine

        shelf = None
        if keeps and self["cache"] and self["cache_size"]:
            from echopix_cli.shelf import feature_shelf

            shelf = feature_shelf(Path(self["cache_dir"]), self["cache_size"])
        return Engine.load(
            self["model"],
            self["device"],
            self["dtype"],
            self["quantize"],
            keep_source=self["keep_source"],
            workload=self.workload(media, budget),
            watcher=Quantizing(self.output, say),
            shelf=shelf,
            notice=self.output.notice if self["verbose"] else _unsaid,
        )

    def workload(self, media: Sequence[str] = (), budget: float | None = None) -> Workload:
        """The most that the plan allows, or that the largest of some files holds."""
        from echopix_cli.engine import Workload

        most = self["max_frames"]
        frames, seconds = (0, 0.0) if media else (most, most / self["fps"])
        for path in media:
            info = self.look(path)
            if info is None:
                continue
            span = math.inf if info.duration is None else info.duration
            span = max(0.0, min(span, self["end"] or math.inf) - (self["start"] or 0.0))
            if info.of_kind("video"):
                wanted = 1 if info.still else max(4, math.ceil(min(span * self["fps"], most)))
                frames = max(frames, min(most, wanted))
            if info.of_kind("audio"):
                seconds = max(seconds, span if math.isfinite(span) else most / self["fps"])
        return Workload(
            frames=0 if self["no_video"] else frames,
            frame_pixels=self["max_pixels"],
            audio_seconds=0.0 if self["no_audio"] else seconds,
            budget=self["budget"] if budget is None else budget,
            new_tokens=self["max_new_tokens"],
        )

    def look(self, path: str) -> MediaInfo | None:
        """What a file's header says; None where it cannot be read, which reading all of it will explain."""
        if path not in self._seen:
            from echopix_cli.decoding.worker import probe

            try:
                self._seen[path] = probe(path, self.limits())
            except EchopixError:
                self._seen[path] = None
        return self._seen[path]

    def sampling_words(self, path: str, plan: DecodePlan) -> str:
        """What will be taken of a file that is longer than the plan reaches; nothing where all of it is."""
        info = self.look(path)
        if info is None or info.duration is None:
            return ""
        first = plan.from_time
        span = (info.duration if plan.end is None else min(plan.end, info.duration)) - first
        sparse = plan.video and info.of_kind("video") and span * plan.fps > plan.max_frames
        heard = span if plan.max_audio_seconds is None else min(span, plan.max_audio_seconds)
        cut = plan.audio and info.of_kind("audio") and heard < span
        if not (sparse or cut):
            return ""
        every = span / plan.max_frames
        taken = [f"1 frame every {f'{every:.3g} s' if every < 60 else clock(every)}"] if sparse else []
        if plan.audio and info.of_kind("audio"):
            taken.append(f"sound to {clock(first + heard)} only" if cut else "sound to the end")
        whole = "" if plan.start is None and plan.end is None else f", {clock(first)} to {clock(first + span)}"
        return f"{clock(info.duration)} long{whole}: {', '.join(taken)}"

    def limits(self) -> Limits:
        """How much of a hostile file to put up with."""
        from echopix_cli.media import Limits

        return Limits(**{field.name: self[field.name.replace("max_", "limit_", 1)] for field in fields(Limits)})

    def plan(self, engine: Engine) -> DecodePlan:
        """What to take from each file."""
        from echopix_cli.media import DecodePlan

        wanted = DecodePlan(
            fps=self["fps"],
            max_frames=self["max_frames"],
            start=self["start"],
            end=self["end"],
            audio=not self["no_audio"],
            video=not self["no_video"],
            audio_track=self["audio_track"],
            video_track=self["video_track"],
            limits=self.limits(),
        )
        # The default yields to the frame size that the checkpoint was trained with; a wish does not.
        pixels = self.settings["max_pixels"]
        return engine.plan(wanted, max_pixels=None if pixels.origin == "default" else pixels.value)

    def generation(self) -> GenerationOptions:
        """How answers are made."""
        from echopix_cli.engine import GenerationOptions

        options = GenerationOptions(max_new_tokens=self["max_new_tokens"], temperature=self["temperature"])
        return options if self["system"] is None else replace(options, system=self["system"])

    def asking(self, engine: Engine) -> AskOptions:
        """How questions are answered.

        Raises:
            UsageError: the model has no such sieve.
        """
        from echopix_cli.engine import AskOptions, SieveOptions

        sieve = SieveOptions(self["sieve"], self["question_layer"], self["prefilter"])
        engine.choose(sieve)  # now, and not once for every file
        return AskOptions(self["budget"], self.generation(), sieve)

    def require_output(self, other: object, ways: str = "--json") -> None:
        """Refuse ``--quiet`` where the table is all that there would be.

        Args:
            other: whether anything else was asked for.
            ways: options that ask for something else.

        Raises:
            UsageError: nothing would be printed.
        """
        if self["quiet"] and not other:
            raise UsageError("--quiet leaves nothing to print", f"add {ways}, or leave --quiet out")

    def describe(self, path: str, info: MediaInfo) -> None:
        """What was found in a file, for ``--verbose``."""
        length = "unknown length" if info.duration is None else f"{clock(info.duration)} long"
        self.output.notice(f"{path}: {info.format}, {length}")
        for track in info.tracks:
            facts = [
                track.codec,
                f"{track.width}×{track.height}" if track.width else None,
                f"{track.fps:.2f} fps" if track.fps else None,
                f"{track.sample_rate} Hz" if track.sample_rate else None,
                f"{track.channels} channels" if track.channels else None,
                f"rotated {track.rotation}°" if track.rotation else None,
                track.language,
            ]
            self.output.notice(f"{track.kind} track {track.index}: {', '.join(str(fact) for fact in facts if fact)}")


def _unsaid(text: str) -> None:
    """Where notices go that nobody asked for."""


@contextmanager
def _importing() -> Iterator[None]:
    """Import torch and transformers without looking for garbage.

    They make 350 000 objects that all stay; a seventh of the time would go into searching these again and again.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
