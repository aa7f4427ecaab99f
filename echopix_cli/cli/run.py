"""A command under way: its settings, where it writes, and the model that it loads or asks."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli.cli.output import Output
from echopix_cli.cli.signals import unbroken
from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.settings import Resolved, Settings, resolve, unknown_variables
from echopix_cli.times import clock

if TYPE_CHECKING:
    from echopix_cli.engine import AskOptions, Engine, GenerationOptions, Workload
    from echopix_cli.engine.options import FilmOptions
    from echopix_cli.media import DecodePlan, Limits, MediaInfo
    from echopix_cli.serving.client import Server
    from echopix_cli.serving.messages import Manner, Wish


@dataclass(frozen=True)
class Run:
    """A command's settings, and the output it writes to."""

    resolved: Resolved
    output: Output
    _seen: dict[str, MediaInfo | None] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)  # what is said once

    @classmethod
    def begin(cls, flags: Mapping[str, Any]) -> Run:
        """Resolve a command's flags against environment, file and defaults.

        Raises:
            UsageError: a value that does not fit.
        """
        resolved = resolve(flags)
        output = Output(quiet=resolved.settings.quiet, color=False if resolved.settings.no_color else None)
        for name, near in unknown_variables():
            output.warn(f"{name} is set, and nothing reads it" + (f"; did you mean {near}?" if near else ""))
        return cls(resolved, output)

    @property
    def settings(self) -> Settings:
        """Every setting's value."""
        return self.resolved.settings

    def preferring(self, **values: Any) -> Run:
        """With other defaults of some settings."""
        return replace(self, resolved=self.resolved.preferring(**values))

    def warn(self, text: str, kind: str | None = None) -> None:
        """Say something that nobody may miss, once in all that the command does.

        Args:
            text: in words.
            kind: what is said once, where its words change from time to time; None for the words.
        """
        if (once := text if kind is None else kind) not in self._said:
            self._said.add(once)
            self.output.warn(text)

    def engine(self, media: Sequence[str] = (), budget: float | None = None, keeps: bool = False) -> Engine:
        """Load the model, unless it is known beforehand that it and its work do not fit.

        Args:
            media: files that will be asked about; without any, as much is expected as the plan allows.
            budget: the largest that will be used; None for the setting's.
            keeps: whether features of media files are kept on the disk and found there, unless that is switched off.
        """
        engine = self._engine(media, budget, keeps)
        if engine.source.demonstration:
            from echopix_cli.results import DEMONSTRATION

            self.warn(DEMONSTRATION)
        return engine

    def _engine(self, media: Sequence[str], budget: float | None, keeps: bool) -> Engine:
        with self.output.progress("loading the model") as say:
            from echopix_cli.weights.registry import NotHere

            try:
                return self._load(say, media, budget, keeps)
            except NotHere as absent:
                from huggingface_hub import constants

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
        if keeps and self.settings.cache and self.settings.cache_size:
            from echopix_cli.shelf import feature_shelf

            shelf = feature_shelf(Path(self.settings.cache_dir), self.settings.cache_size)
        return Engine.load(
            self.settings.model,
            self.settings.device,
            self.settings.dtype,
            self.settings.quantize,
            keep_source=self.settings.keep_source,
            workload=self.workload(media, budget),
            watcher=Quantizing(self.output, say),
            shelf=shelf,
            notice=self.output.notice if self.settings.verbose else _unsaid,
        )

    def workload(self, media: Sequence[str] = (), budget: float | None = None) -> Workload:
        """The largest work to expect of the model: what the settings allow, or what the largest of some files needs."""
        from echopix_cli.engine import Workload
        from echopix_cli.engine.film import FAMILY_WINDOW

        most = self.settings.max_frames
        frames, seconds = (0, 0.0) if media else (most, most / self.settings.fps)
        for path in media:
            info = self.look(path)
            if info is None:
                continue
            span = math.inf if info.duration is None else info.duration
            span = max(0.0, min(span, self.settings.end or math.inf) - (self.settings.start or 0.0))
            if info.of_kind("video"):
                wanted = 1 if info.still else max(4, math.ceil(min(span * self.settings.fps, most)))
                frames = max(frames, min(most, wanted))
            if info.of_kind("audio"):
                seconds = max(seconds, span if math.isfinite(span) else most / self.settings.fps)
        window = self.settings.window or FAMILY_WINDOW  # of a film only one is held at a time, and what it hands on
        frames, seconds = min(frames, math.ceil(window * self.settings.fps)), min(seconds, window)
        return Workload(
            frames=0 if self.settings.no_video else frames,
            frame_pixels=self.settings.max_pixels,
            audio_seconds=0.0 if self.settings.no_audio else seconds,
            budget=self.settings.budget if budget is None else budget,
            new_tokens=self.settings.max_new_tokens,
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

    def limits(self) -> Limits:
        """What reading one file may cost."""
        from echopix_cli.media import Limits

        return Limits(
            **{field.name: getattr(self.settings, field.name.replace("max_", "limit_", 1)) for field in fields(Limits)}
        )

    def manner(self, list_kept: bool = False) -> Manner:
        """How files are read and questions answered, without the model.

        Args:
            list_kept: whether answers list every kept token.
        """
        from echopix_cli.media import DecodePlan
        from echopix_cli.serving.messages import Manner

        own = self.settings
        plan = DecodePlan(
            fps=own.fps,
            max_frames=own.max_frames,
            start=own.start,
            end=own.end,
            audio=not own.no_audio,
            video=not own.no_video,
            audio_track=own.audio_track,
            video_track=own.video_track,
            limits=self.limits(),
        )
        same = "budget max_new_tokens temperature system sieve question_layer prefilter window look cache_size timeout"
        return Manner(
            plan=plan,
            # The default yields to the frame size that the checkpoint was trained with; a wish does not.
            max_pixels=own.max_pixels if self.resolved.said("max_pixels") else None,
            list_kept=list_kept,
            cache_dir=own.cache_dir if own.cache else None,
            verbose=own.verbose,
            **{name: getattr(own, name) for name in same.split()},
        )

    def films(self) -> FilmOptions:
        """How files are read that are longer than one window."""
        from echopix_cli.serving.manners import films_of

        return films_of(self.manner())

    def plan(self, engine: Engine) -> DecodePlan:
        """What to take from each file."""
        from echopix_cli.serving.manners import plan_of

        return plan_of(engine, self.manner())

    def generation(self) -> GenerationOptions:
        """How answers are made."""
        from echopix_cli.serving.manners import generation_of

        return generation_of(self.manner())

    def asking(self, engine: Engine) -> AskOptions:
        """How questions are answered.

        Raises:
            UsageError: the model has no such sieve.
        """
        from echopix_cli.serving.manners import asking_of

        return asking_of(engine, self.manner())

    def wish(self) -> Wish:
        """Which model is wanted, and how it is held.

        Raises:
            ModelError, UsageError: its name stands for nothing.
        """
        from echopix_cli.serving.client import wish_of

        own = self.settings
        return wish_of(own.model, own.device, own.dtype, own.quantize)

    def server(self) -> Server | None:
        """A running server that fits, which the caller closes; None where there is none, or none is wanted.

        With ``--debug`` there is none: a traceback shows nothing of another process.
        """
        if not self.settings.server or self.settings.debug:
            return None
        from echopix_cli.serving.client import find_server

        try:
            return find_server(self.wish)
        except EchopixError:  # which loading the model will tell; and an unsafe folder holds no server of ours
            return None

    def require_output(self, other: object, ways: str = "--json") -> None:
        """Refuse ``--quiet`` where the table is all that there would be.

        Args:
            other: whether anything else was asked for.
            ways: options that ask for something else.

        Raises:
            UsageError: nothing would be printed.
        """
        if self.settings.quiet and not other:
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
    """Discard a notice."""


@contextmanager
def _importing() -> Iterator[None]:
    """Import torch and what needs it: to the end, as none of it can be imported a second time; and without garbage
    collection.

    It makes hundreds of thousands of objects that all stay, and which would be searched again and again.
    """
    with unbroken():
        if "torch" in sys.modules:
            yield
            return
        gc.disable()
        try:
            yield
        finally:
            gc.freeze()
            gc.enable()
