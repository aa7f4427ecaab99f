"""The loaded model as several may use it: one at a time, each with features kept where they want them."""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from echopix_cli.engine import Engine
from echopix_cli.engine.features import FeatureCache
from echopix_cli.errors import ModelError
from echopix_cli.serving.client import wish_of
from echopix_cli.serving.messages import Manner, Notice, Wish
from echopix_cli.serving.turns import Turns
from echopix_cli.shelf import feature_shelf
from echopix_cli.weights.opening import folder_revision
from echopix_cli.weights.registry import AUTO, PREFIX, find_model, open_download


class Desk:
    """A model that stays.

    Args:
        engine: that was loaded.
        wish: that it was loaded for.
        named: :func:`folder_revision` of the folder that the wish names, as it was before the model was loaded, perhaps
            from a quantized copy of it; None where the wish names none.
    """

    def __init__(self, engine: Engine, wish: Wish, named: str | None = None) -> None:
        self.engine, self.wish, self._named = engine, wish, named
        facts = engine.facts
        model = wish_of(facts.name, "", "", "").model if wish.model == AUTO else wish.model
        self.held = Wish(model, facts.device, facts.dtype, facts.quantization)  # what the wish came to
        self.turns = Turns()
        self.since = time.time()
        self.answers = 0
        self.ending = threading.Event()
        self._used = time.monotonic()
        self._counts = Counter[str]()  # of requests that are ``arriving`` and ``running``
        self._counting = threading.Lock()

    @property
    def running(self) -> int:
        """Requests that are being answered, or wait."""
        return self._counts["running"]

    @property
    def idle_seconds(self) -> float:
        """Since the last request ended; 0 while there is one, or one comes in."""
        return 0.0 if self._counts.total() else time.monotonic() - self._used

    def refusal(self, wish: Wish) -> str:
        """Why the model is not the one that is wanted; empty where it is."""
        if self.ending.is_set():
            return "it is ending"
        for name, held in asdict(self.held).items():
            wanted, asked = getattr(wish, name), getattr(self.wish, name)
            if wanted not in (held, asked) and (name, wanted, held) != ("device", "cuda", "cuda:0"):
                return f"its {name} is {held}, not {wanted}"
        return self._outdated()

    def _outdated(self) -> str:
        """Why a process that loaded the model now would load another one; empty where it would not."""
        source = self.engine.source
        try:
            if self.held.model.startswith(PREFIX):
                there = open_download(find_model(self.held.model))
                if there is not None and there.manifest.revision != source.revision:
                    return "another revision of the model was fetched since it was loaded"
            moved = self._named is not None and folder_revision(Path(self.wish.model)) != self._named
            if moved or folder_revision(source.folder) != self.engine.loaded_from:
                return "the model's files have changed since it was loaded"
        except ModelError as error:
            return error.message
        return ""

    @contextmanager
    def request(self, stage: Literal["arriving", "running"] = "running") -> Iterator[None]:
        """Count a request for as long as it lasts; whoever ends the desk does not wait for one that still arrives."""
        with self._counting:
            self._counts[stage] += 1
        try:
            yield
        finally:
            with self._counting:
                self._counts[stage] -= 1
                self._used = time.monotonic()

    def turn(self, gone: Callable[[], bool] = lambda: False) -> AbstractContextManager[None]:
        """The model, once it is free; a server that ends lends it to nobody who waits.

        Args:
            gone: whether nobody waits for the answer any more, asked while waiting.

        Raises:
            Left: the server ends, or ``gone`` says so.
        """
        return self.turns.turn(lambda: gone() or self.ending.is_set())

    def lent(self, manner: Manner, notice: Callable[[Notice], None]) -> Engine:
        """The model for one request, which has waited for no loading.

        Args:
            manner: says where features are kept.
            notice: is told what goes wrong there, where more is to be told.
        """
        engine = copy.copy(self.engine)
        engine.load_seconds = 0.0
        own, engine.features = engine.features, None
        if own is not None and manner.cache_dir is not None and manner.cache_size:
            shelf = feature_shelf(Path(manner.cache_dir), manner.cache_size)
            say: Callable[[str], None] = (lambda text: notice(Notice(text))) if manner.verbose else (lambda text: None)
            engine.features = FeatureCache(shelf, own.model, say)
        return engine
