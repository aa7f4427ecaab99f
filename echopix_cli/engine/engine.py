"""The engine: clips in, typed events out. It knows nothing of terminals and never prints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from echopix_cli.choices import LETTERS, posed, require_choices
from echopix_cli.decoding.worker import Decoded
from echopix_cli.engine.answers import answer_of
from echopix_cli.engine.choices import letter_ids, letter_shares
from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.encoding import ClipEncoder, decode_beside
from echopix_cli.engine.features import FeatureCache, Fetched, open_features
from echopix_cli.engine.forecast import Forecast, Workload
from echopix_cli.engine.loading import ADVICE, choose_device, memory_errors, parts_of, prepare
from echopix_cli.engine.meters import Clock, read_peaks, reset_peaks
from echopix_cli.engine.options import AskOptions
from echopix_cli.engine.posing import Posed, Sift, chosen, place
from echopix_cli.engine.reading import finished, on_device
from echopix_cli.engine.sieves import SieveChoice, SieveOptions, choose
from echopix_cli.engine.streaming import TextStream
from echopix_cli.media import Clip, DecodePlan
from echopix_cli.model.decoding import generate
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import DEFAULT_SYSTEM, Processor
from echopix_cli.model.relevance import last_attention
from echopix_cli.model.stepping import FixedCache
from echopix_cli.model.values import Prompt
from echopix_cli.results import Answer, Choice, ModelFacts, Turn
from echopix_cli.shelf import Shelf
from echopix_cli.weights.copies import Watcher
from echopix_cli.weights.quantize import parameter_count
from echopix_cli.weights.registry import ModelSource
from echopix_cli.weights.upkeep import drop_download

NO_ROOM = "the weights do not fit: try --quantize nf4, --dtype bfloat16 or --device cpu"


@dataclass(frozen=True)
class TextPiece:
    """The next piece of an answer's text."""

    text: str


class Engine:
    """One loaded model on one device.

    ``encode`` runs the towers once per clip; ``stream`` answers one question about an encoded clip. With ``features``,
    ``read`` looks there first and keeps there what the towers made.
    """

    def __init__(
        self,
        model: EchoingPixelsForConditionalGeneration,
        processor: Processor,
        source: ModelSource,
        load_seconds: float,
        chosen: str | None = None,
        forecast: Forecast | None = None,
        loaded_from: str | None = None,
        features: FeatureCache | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.source = source
        self.load_seconds = load_seconds
        self.forecast = forecast
        self.loaded_from = loaded_from  # the folder's revision when it was read
        self.features = features
        self.advice = (forecast and forecast.advice) or ADVICE
        parameters = list(model.parameters())
        self.device = parameters[0].device
        self.facts = ModelFacts(
            name=source.name,
            revision=source.revision,
            parameters=parameter_count(model),
            dtype=str(parameters[0].dtype).removeprefix("torch."),
            device=str(self.device),
            demonstration=source.demonstration,
            chosen=chosen,
            quantization=source.quantization,
        )

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "tiny",
        device: str = "auto",
        dtype: str = "auto",
        quantize: str = "auto",
        *,
        keep_source: bool = True,
        workload: Workload | None = None,
        watcher: Watcher | None = None,
        shelf: Shelf | None = None,
        notice: Callable[[str], None] = lambda text: None,
    ) -> Engine:
        """Load a model by name or path; ``auto`` chooses one by the device's free memory.

        Args:
            model: name, path or ``auto``; what is no text, such as a :class:`~pathlib.Path`, is always a path.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            dtype: of all that is not quantized; ``auto`` is told in :func:`~.precision.precision_of`.
            quantize: ``auto``, ``none``, ``int8`` or ``nf4``, for the linear layers of decoder and CS2. A copy of the
                quantized model is made once and kept; ``auto`` is told in :func:`~.loading.prepare`.
            keep_source: whether a full-precision download stays once a copy of it is there.
            workload: the most that will be asked at once, to know beforehand whether it fits.
            watcher: is told what happens while a copy is made.
            shelf: where features of media files are kept and found; None keeps nothing.
            notice: is told why something is not kept there.

        Raises:
            ModelError: no such model, or files missing, damaged or of another kind.
            DeviceError: the device is not there, or model and work do not fit on it.
        """
        where = choose_device(device)
        clock, name = Clock(where), model if isinstance(model, str) else os.path.join(os.curdir, model)
        with memory_errors(where, NO_ROOM):  # making a copy is no part of loading: it is done once
            found = prepare(name, where, dtype, quantize, workload=workload, watcher=watcher)
        if found.replaces_download and not keep_source:
            drop_download(found.model)
        checkpoint = found.checkpoint
        advice = (found.forecast and found.forecast.advice) or NO_ROOM
        with clock.stage("load"), memory_errors(where, advice):
            loaded, processor = parts_of(found, where)
        seconds, cache = clock.seconds["load"], None
        if shelf is not None:
            cache = open_features(shelf, loaded, processor.rules, checkpoint, notice)
        return cls(loaded, processor, found.source, seconds, found.chosen, found.forecast, checkpoint.revision, cache)

    @property
    def sieves(self) -> tuple[str, ...]:
        """Names of what can choose rows in this model: its own sieve first, then the controls."""
        return tuple(self.model.thinker.selections)

    def choose(self, sieve: SieveOptions, budget: float = 0.0) -> SieveChoice:
        """What a wish for a sieve comes to in this model, at a budget.

        Raises:
            UsageError: no such sieve, layer or stage here, with the right names.
        """
        return choose(self.model.thinker, sieve, budget)

    def plan(self, plan: DecodePlan, max_pixels: int | None = None) -> DecodePlan:
        """A decode plan with this model's frame sizes and the longest sound its context can hold.

        Args:
            plan: what the user asked for.
            max_pixels: the user's own bound; without it the checkpoint's, or the plan's.
        """
        return self.processor.plan(plan, max_pixels)

    def read(
        self, path: str | os.PathLike[str], plan: DecodePlan, identity: Callable[[], str] | None = None
    ) -> Encoded:
        """Decode a file and encode it, or take its features from the cache.

        Args:
            path: of the file.
            plan: from :meth:`plan`.
            identity: as of :meth:`fetch`.

        Raises:
            MediaError: the file cannot be opened or holds nothing that can be decoded.
            DeviceError: out of memory.
        """
        reset_peaks(self.device)
        path, clock = os.fspath(path), Clock(self.device)
        with memory_errors(self.device, self.advice):
            with clock.stage("decode"):
                entry = self.features.entry(path, plan, identity) if self.features else None
                kept = entry.find() if entry else None
            if kept is not None:
                return on_device(self.model.thinker, kept, clock)
            encoder = ClipEncoder(self.model.thinker, self.processor.rules, clock)
            return finished(encoder, decode_beside(encoder, path, plan, clock), clock, entry)

    def fetch(
        self,
        path: str,
        plan: DecodePlan,
        decode: Callable[[str, DecodePlan], Decoded],
        identity: Callable[[], str] | None = None,
    ) -> Fetched:
        """The part of :meth:`read` before the device, in any thread: features kept earlier, or a decoded clip.

        Args:
            path: of the file.
            plan: from :meth:`plan`.
            decode: reads the file where nothing is kept of it.
            identity: as :func:`~echopix_cli.files.identity_of`; asked only where features are kept. By default the
                file is read for it.

        Raises:
            MediaError: as ``decode`` and ``identity`` do.
        """
        entry = self.features.entry(path, plan, identity) if self.features else None
        if entry and (kept := entry.find()):
            return Fetched(kept, entry, kept.seconds["decode"])
        decoded = decode(path, plan)
        return Fetched(decoded.clip, entry, decoded.seconds)

    def encode(self, what: Clip | Fetched) -> Encoded:
        """Towers over a decoded clip, once for all questions about it; or its features brought to the device.

        Raises:
            MediaError: it holds neither a picture nor a sound long enough for one token.
            DeviceError: out of memory.
        """
        fetched = what if isinstance(what, Fetched) else Fetched(what)
        reset_peaks(self.device)
        clock = Clock(self.device)
        clock.seconds["decode"] = fetched.seconds
        with memory_errors(self.device, self.advice):
            if isinstance(fetched.content, Encoded):
                return on_device(self.model.thinker, fetched.content, clock)
            encoder = ClipEncoder(self.model.thinker, self.processor.rules, clock)
            return finished(encoder, fetched.content, clock, fetched.entry)

    def pose(
        self, encoded: Encoded, question: str, system: str = DEFAULT_SYSTEM, earlier: Sequence[Turn] = ()
    ) -> Posed:
        """A question about an encoded clip, ready to be sieved in any number of ways."""
        return Posed(self.model.thinker, self.place(encoded, question, system, earlier))

    @torch.inference_mode()
    def place(
        self, encoded: Encoded, question: str, system: str = DEFAULT_SYSTEM, earlier: Sequence[Turn] = ()
    ) -> Prompt:
        """A question about an encoded clip as embedded, positioned prompt rows."""
        return place(self.model.thinker, self.processor, encoded, question, system, earlier)

    def stream(
        self,
        encoded: Encoded,
        question: str,
        options: AskOptions = AskOptions(),  # noqa: B008 - frozen
    ) -> Iterator[TextPiece | Answer]:
        """Answer one question: pieces of text as they come, then exactly one :class:`Answer`.

        Args:
            encoded: from :meth:`encode` or :meth:`read`.
            question: in the user's words.
            options: budget, sieve and generation.

        Raises:
            UsageError: a question that is empty or no valid UTF-8, a budget outside (0, 1], or a sieve that this model
                has not.
            DeviceError: out of memory.
        """
        clock, shown, pieces = Clock(self.device), "", TextStream(self.processor.tokenizer.core)
        generation, ids = options.generation, list[int]()
        with memory_errors(self.device, self.advice):
            sift = self._sift(clock, encoded, question, options)
            cache = FixedCache(self.model.thinker.model, sift.sieved, generation.max_new_tokens - 1)
            tokens = generate(
                self.model.thinker,
                sift.sieved,
                cache=cache,
                max_new_tokens=generation.max_new_tokens,
                stop_ids=self.processor.stop_ids,
                temperature=generation.temperature,
                generator=None if generation.seed is None else torch.Generator().manual_seed(generation.seed),
            )
            with clock.stage("prefill"):
                following: Tensor | None = next(tokens)
            while following is not None:
                with clock.waiting("generate"):
                    ids.append(int(following))
                    piece = pieces.add(ids[-1])
                if piece:
                    yield TextPiece(piece)
                    shown += piece
                with clock.waiting("generate"):  # the reader's own time between pieces is not the engine's
                    following = next(tokens, None)
        text = self.processor.text(ids).strip()
        if text != shown:
            yield TextPiece(text[len(shown) :])
        finish = "stop" if ids[-1] in self.processor.stop_ids else "length"
        yield self._answer(encoded, question, text, sift, cache, len(ids), finish, clock)

    def decide(
        self,
        encoded: Encoded,
        question: str,
        choices: Sequence[str],
        options: AskOptions = AskOptions(),  # noqa: B008 - frozen
        wording: str = "",
    ) -> Answer:
        """Answer a multiple-choice question by the likelihood of the options' letters: always one of them.

        Args:
            encoded: from :meth:`encode` or :meth:`read`.
            question: in the user's words, without the options.
            choices: texts of the options, which :func:`~echopix_cli.choices.clean_choices` makes of what people write.
            options: budget and sieve; of generation only the system prompt matters.
            wording: the whole text that the model reads, where it is not the question with the options below it.

        Raises:
            UsageError: as in :meth:`stream`; fewer than two choices or more than there are letters, an empty one, or
                one twice, where no ``wording`` shows them already.
            ModelError: the vocabulary has no tokens for the letters.
            DeviceError: out of memory.
        """
        if not wording:
            require_choices(choices)
        letters = letter_ids(self.processor, len(choices))
        clock = Clock(self.device)
        with memory_errors(self.device, self.advice):
            sift = self._sift(clock, encoded, wording or posed(question, choices), options)
            cache = FixedCache(self.model.thinker.model, sift.sieved, 0)
            with clock.stage("prefill"):
                shares = letter_shares(self.model.thinker, sift.sieved, letters, cache)
        scored = tuple(map(Choice, LETTERS, choices, shares))
        best = max(scored, key=lambda choice: choice.probability)
        clock.seconds["generate"] = 0.0
        return replace(self._answer(encoded, question, best.text, sift, cache, 1, "choice", clock), choices=scored)

    def ask(
        self,
        encoded: Encoded,
        question: str,
        options: AskOptions = AskOptions(),  # noqa: B008 - frozen
    ) -> Answer:
        """As :meth:`stream`, but the answer in one piece."""
        *_, answer = self.stream(encoded, question, options)
        assert isinstance(answer, Answer)
        return answer

    def _sift(self, clock: Clock, encoded: Encoded, question: str, options: AskOptions) -> Sift:
        """The sieve over one prompt, on the clock."""
        reset_peaks(self.device)
        with clock.stage("sieve"):
            wanted, choice = chosen(self.model.thinker, options)
            share = 1.0 if encoded.survivors is None else encoded.survivors.share  # of what the budget is of
            budget = min(1.0, wanted / share) if share else 1.0
            prompt = self.pose(encoded, question, options.generation.system, options.earlier)
            taken = replace(options, budget=budget)
            if encoded.survivors is not None:  # the redundancy stage compares neighbours, and was in the windows
                taken = replace(taken, sieve=replace(options.sieve, prefilter=False))
            sift = prompt.sift(taken)
            seen = len(self.processor.read_again(options.earlier)) if options.earlier else None
            return replace(sift, budget=wanted, choice=choice, turns_seen=seen)

    def _answer(
        self,
        encoded: Encoded,
        question: str,
        text: str,
        sift: Sift,
        cache: FixedCache,
        generated: int,
        finish_reason: str,
        clock: Clock,
    ) -> Answer:
        with memory_errors(self.device, self.advice), clock.stage("moments"), torch.inference_mode():
            attention = last_attention(self.model.thinker.model, sift.sieved, cache)
        return answer_of(
            encoded,
            question,
            text,
            sift,
            attention,
            special=self.model.thinker.special,
            generated=generated,
            finish_reason=finish_reason,
            load_seconds=self.load_seconds,
            seconds=clock.seconds,
            peaks=read_peaks(self.device),
            model=self.facts,
        )
