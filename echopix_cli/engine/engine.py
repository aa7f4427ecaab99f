"""The engine: clips in, typed events out. It knows nothing of terminals and never prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from echopix_cli.engine.choices import LETTERS, letter_ids, posed
from echopix_cli.engine.encoded import Encoded as Encoded
from echopix_cli.engine.encoded import sampling_of
from echopix_cli.engine.encoding import ClipEncoder, decode_beside
from echopix_cli.engine.forecast import Forecast, Workload
from echopix_cli.engine.loading import ADVICE, is_out_of_memory, locate
from echopix_cli.engine.loading import choose_device as choose_device
from echopix_cli.engine.loading import memory_errors as memory_errors
from echopix_cli.engine.meters import Clock, larger, read_peaks, reset_peaks
from echopix_cli.engine.sieves import SieveChoice, SieveOptions, choose
from echopix_cli.engine.streaming import TextStream
from echopix_cli.errors import EchopixError, MediaError, ModelError, UsageError, described
from echopix_cli.media import Clip, DecodePlan
from echopix_cli.model.decoding import generate
from echopix_cli.model.finite import require_finite
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import DEFAULT_SYSTEM, Processor
from echopix_cli.model.stepping import FixedCache
from echopix_cli.model.values import Prompt, Sieved
from echopix_cli.results import (
    Answer,
    AudioStatus,
    Choice,
    ModalityTokens,
    ModelFacts,
    StageTimes,
    TokenCounts,
)
from echopix_cli.times import clock
from echopix_cli.weights.checkpoint import load_model, read_config
from echopix_cli.weights.copies import Watcher, folder_revision
from echopix_cli.weights.quantize import check_modules, parameter_count
from echopix_cli.weights.registry import ModelSource

if TYPE_CHECKING:
    from echopix_cli.engine.features import FeatureCache, Slot

DEMONSTRATION = "tiny is the demonstration model: it knows only its own little world of rendered scenes"
TOO_SHORT = "the sound is shorter than one token (about 30 ms) and was not used"
NO_ROOM = "the weights do not fit: try --quantize nf4, --dtype bfloat16 or --device cpu"


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is made: longest length in tokens, temperature (0 is greedy), its seed, system prompt."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None
    system: str = DEFAULT_SYSTEM


@dataclass(frozen=True)
class TextPiece:
    """The next piece of an answer's text."""

    text: str


@dataclass(frozen=True)
class _Sift:
    """A prompt and what its sieve kept, with the budget and the sieve that were meant."""

    budget: float
    choice: SieveChoice
    prompt: Prompt
    sieved: Sieved


class Engine:
    """One loaded model on one device.

    ``encode`` runs the towers once per clip; ``stream`` answers one question about an encoded clip. With ``features``
    (from :func:`~.features.open_features`), ``read`` looks there first and keeps there what the towers made.
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
    ) -> None:
        self.model = model
        self.processor = processor
        self.source = source
        self.load_seconds = load_seconds
        self.forecast = forecast
        self.loaded_from = loaded_from  # the folder's revision when it was read
        self.features: FeatureCache | None = None
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
        model: str = "tiny",
        device: str = "auto",
        dtype: str = "auto",
        quantize: str = "auto",
        *,
        keep_source: bool = True,
        workload: Workload | None = None,
        watcher: Watcher | None = None,
    ) -> Engine:
        """Load a model by name or path; ``auto`` chooses one by the device's free memory.

        Args:
            model: name, path or ``auto``.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            dtype: of all that is not quantized; ``auto`` is told in :func:`~.precision.precision_of`.
            quantize: ``auto``, ``none``, ``int8`` or ``nf4``, for the linear layers of decoder and CS2. A copy of the
                quantized model is made once and kept; ``auto`` is told in :func:`~.loading.locate`.
            keep_source: whether a full-precision download stays once a copy of it is there.
            workload: the most that will be asked at once, to know beforehand whether it fits.
            watcher: is told what happens while a copy is made.

        Raises:
            ModelError: no such model, or files missing, damaged or of another kind.
            DeviceError: the device is not there, or model and work do not fit on it.
        """
        where = choose_device(device)
        clock = Clock(where)
        with memory_errors(where, NO_ROOM):  # making a copy is no part of loading: it is done once
            found = locate(model, where, dtype, quantize, keep_source=keep_source, workload=workload, watcher=watcher)
        folder = found.source.folder
        advice = (found.forecast and found.forecast.advice) or NO_ROOM
        with clock.stage("load"), memory_errors(where, advice):
            try:
                config = found.config or read_config(folder)
                processor = Processor.load(folder, config)
                revision = folder_revision(folder)  # before the weights: what is read may be replaced meanwhile
                loaded = load_model(folder, dtype=found.dtype, device=where, config=config)
                check_modules(loaded, found.source.quantization, found.dtype)
            except EchopixError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                # A folder from anywhere can be wrong in more ways than can be listed.
                what = described(error)
                raise ModelError(f"{folder} holds no usable model: {what}") from error
        return cls(loaded, processor, found.source, clock.seconds["load"], found.chosen, found.forecast, revision)

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

    @property
    def default_budget(self) -> float:
        """The checkpoint's own budget; 0.2 for stock weights, which name none."""
        return float(self.model.config.text.compression_ratio)

    def plan(self, plan: DecodePlan, max_pixels: int | None = None) -> DecodePlan:
        """A decode plan with this model's frame sizes and the longest sound its context can hold.

        Args:
            plan: what the user asked for.
            max_pixels: the user's own bound; without it the checkpoint's, or the plan's.
        """
        return self.processor.plan(plan, max_pixels)

    def read(self, path: str, plan: DecodePlan) -> Encoded:
        """Decode a file and encode it, or take its features from the cache; ``plan`` comes from :meth:`plan`.

        Raises:
            MediaError: the file cannot be opened or holds nothing that can be decoded.
            DeviceError: out of memory.
        """
        reset_peaks(self.device)
        clock = Clock(self.device)
        with clock.stage("decode"), memory_errors(self.device, self.advice):
            slot = self.features.slot(path, plan) if self.features else None
            kept = self.features.find(slot) if self.features and slot else None
        if kept is not None:
            return self._restore(kept, clock)
        encoder = ClipEncoder(self.model.thinker, self.processor.rules, clock)
        with memory_errors(self.device, self.advice):
            clip = decode_beside(encoder, path, plan, clock)
        return self._encode(clip, clock, slot if slot and slot.holds() else None, encoder)

    def encode(self, clip: Clip, decode_seconds: float = 0.0, slot: Slot | None = None) -> Encoded:
        """Towers over a decoded clip, once for all questions about it.

        Args:
            clip: from the media room.
            decode_seconds: what decoding it took, wherever that was done.
            slot: of the cache, where the features are to be kept.

        Raises:
            MediaError: it holds neither a picture nor a sound long enough for one token.
            DeviceError: out of memory.
        """
        reset_peaks(self.device)
        clock = Clock(self.device)
        clock.seconds["decode"] = decode_seconds
        return self._encode(clip, clock, slot)

    def restore(self, kept: Encoded) -> Encoded:
        """What :meth:`~.features.FeatureCache.find` found, brought to the device.

        Raises:
            DeviceError: out of memory.
        """
        reset_peaks(self.device)
        clock = Clock(self.device)
        clock.seconds["decode"] = kept.seconds["decode"]
        return self._restore(kept, clock)

    def _restore(self, kept: Encoded, clock: Clock) -> Encoded:
        with clock.stage("decode"), memory_errors(self.device, self.advice):
            video, audio = (None if part is None else part.to(self.device) for part in (kept.video, kept.audio))
        seconds = {**clock.seconds, "vision": 0.0, "audio": 0.0}
        return self._told(replace(kept, video=video, audio=audio, seconds=seconds, peaks=read_peaks(self.device)))

    @torch.inference_mode()
    def _encode(
        self, clip: Clip, clock: Clock, slot: Slot | None = None, encoder: ClipEncoder | None = None
    ) -> Encoded:
        encoder = encoder or ClipEncoder(self.model.thinker, self.processor.rules, clock)
        with memory_errors(self.device, self.advice):
            inputs, video, audio = encoder.finish(clip)
        clock.seconds = {"vision": 0.0, "audio": 0.0, **clock.seconds}
        status, notices = clip.audio_status, clip.notices
        if clip.waveform is not None and not inputs.audio_rows:
            if video is None:
                raise MediaError(f"{clip.path} holds no picture, and {TOO_SHORT}", "give a longer clip or span")
            status, notices = AudioStatus.UNDECODABLE, (*notices, TOO_SHORT)
        peaks = read_peaks(self.device)
        encoded = Encoded(
            clip.path, clip.info, status, sampling_of(clip), notices, inputs, video, audio, clock.seconds, peaks
        )
        if self.features and slot:
            with clock.stage("decode"), memory_errors(self.device, self.advice):
                self.features.keep(slot, encoded)
        return self._told(encoded)

    def _told(self, encoded: Encoded) -> Encoded:
        """With a notice when the picture spans more time than this model's positions reach."""
        times = encoded.inputs.grid_times
        context = self.model.config.text.max_position_embeddings / self.model.thinker.timeline.per_second
        if not len(times) or times[-1] <= context:
            return encoded
        notice = (
            f"the picture spans {clock(round(float(times[-1])))}, but this model can tell times apart up to "
            f"{clock(round(context))} only; ask about a part with --start and --end"
        )
        return replace(encoded, notices=(*encoded.notices, notice))

    @torch.inference_mode()
    def place(self, encoded: Encoded, question: str, system: str = DEFAULT_SYSTEM) -> Prompt:
        """A question about an encoded clip as embedded, positioned prompt rows."""
        ids = self.processor.prompt_ids(question, encoded.inputs, system).to(self.device)
        grid = encoded.inputs.grid_thw
        placed: Prompt = self.model.thinker.place(
            ids,
            video_features=encoded.video,
            video_grid_thw=None if grid is None else torch.tensor([grid]),
            video_grid_times=None if grid is None else [encoded.inputs.grid_times],
            audio_features=encoded.audio,
            audio_rows=[encoded.inputs.audio_rows] if encoded.audio is not None else [],
        )
        return placed

    def stream(
        self,
        encoded: Encoded,
        question: str,
        budget: float | None = None,
        options: GenerationOptions = GenerationOptions(),
        sieve: SieveOptions = SieveOptions(),  # noqa: B008 - frozen
    ) -> Iterator[TextPiece | Answer]:
        """Answer one question: pieces of text as they come, then exactly one :class:`Answer`.

        Args:
            encoded: from :meth:`encode` or :meth:`read`.
            question: in the user's words.
            budget: fraction of audio-visual tokens kept, in (0, 1]; None takes the checkpoint's own.
            options: of generation.
            sieve: what chooses those tokens.

        Raises:
            UsageError: an empty question, a budget outside (0, 1], or a sieve that this model has not.
            DeviceError: out of memory.
        """
        clock, shown, pieces = Clock(self.device), "", TextStream(self.processor.tokenizer.backend_tokenizer)
        ids: list[int] = []
        with memory_errors(self.device, self.advice):
            sift = self._sift(clock, encoded, question, budget, options, sieve)
            tokens = generate(
                self.model.thinker,
                sift.sieved,
                max_new_tokens=options.max_new_tokens,
                stop_ids=self.processor.stop_ids,
                temperature=options.temperature,
                generator=None if options.seed is None else torch.Generator().manual_seed(options.seed),
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
        yield self._answer(encoded, question, sift, text, finish, len(ids), clock.seconds)

    def decide(
        self,
        encoded: Encoded,
        question: str,
        choices: Sequence[str],
        budget: float | None = None,
        options: GenerationOptions = GenerationOptions(),
        sieve: SieveOptions = SieveOptions(),  # noqa: B008 - frozen
    ) -> Answer:
        """Answer a multiple-choice question by the likelihood of the options' letters: always one of them.

        Args:
            encoded: from :meth:`encode` or :meth:`read`.
            question: in the user's words, without the options.
            choices: texts of the options, from :func:`~.choices.clean_choices`.
            budget: as in :meth:`stream`.
            options: of which only the system prompt matters.
            sieve: what chooses the tokens.

        Raises:
            UsageError: as in :meth:`stream`.
            ModelError: the vocabulary has no tokens for the letters.
            DeviceError: out of memory.
        """
        letters = letter_ids(self.processor, len(choices))
        clock = Clock(self.device)
        with memory_errors(self.device, self.advice):
            sift = self._sift(clock, encoded, posed(question, choices), budget, options, sieve)
            with clock.stage("prefill"), torch.inference_mode():
                cache = FixedCache(self.model.thinker.model, sift.sieved, 0)
                thinker = self.model.thinker
                logits = require_finite(thinker, thinker.prefill(sift.sieved, cache), "logits")[0]
                shares = logits[letters].double().softmax(dim=-1).tolist()
        scored = tuple(map(Choice, LETTERS, choices, shares))
        best = max(scored, key=lambda choice: choice.probability)
        clock.seconds["generate"] = 0.0
        answer = self._answer(encoded, question, sift, best.text, "choice", 1, clock.seconds)
        return replace(answer, choices=scored)

    def _sift(
        self,
        clock: Clock,
        encoded: Encoded,
        question: str,
        budget: float | None,
        options: GenerationOptions,
        sieve: SieveOptions,
    ) -> _Sift:
        """The sieve over one prompt, on the clock."""
        fraction = self.default_budget if budget is None else budget
        if not 0.0 < fraction <= 1.0:
            raise UsageError(f"budget {fraction:g} is outside (0, 1]", "--budget 0.1 keeps a tenth of the tokens")
        choice = self.choose(sieve, fraction)
        reset_peaks(self.device)
        with clock.stage("sieve"), torch.inference_mode():
            prompt = self.place(encoded, question, options.system)
            sieved = self.model.thinker.sieve(
                prompt,
                fraction,
                selection=choice.selection,
                generator=torch.Generator().manual_seed(sieve.seed),
                first_layers=choice.first_layers,
            )
            require_finite(self.model.thinker, sieved.scores, "scores")
        return _Sift(fraction, choice, prompt, sieved)

    def ask(
        self,
        encoded: Encoded,
        question: str,
        budget: float | None = None,
        options: GenerationOptions = GenerationOptions(),
        sieve: SieveOptions = SieveOptions(),  # noqa: B008 - frozen
    ) -> Answer:
        """As :meth:`stream`, but the answer in one piece."""
        *_, answer = self.stream(encoded, question, budget, options, sieve)
        assert isinstance(answer, Answer)
        return answer

    def _answer(
        self,
        encoded: Encoded,
        question: str,
        sift: _Sift,
        text: str,
        finish_reason: str,
        generated: int,
        seconds: dict[str, float],
    ) -> Answer:
        before, choice = encoded.seconds, sift.choice
        first_token = sum(before.values()) + seconds["sieve"] + seconds["prefill"]
        notices = (*encoded.notices, *((DEMONSTRATION,) if self.source.demonstration else ()))
        return Answer(
            media=encoded.path,
            question=question,
            answer=text,
            tokens=self._count(sift.prompt.input_ids[0], sift.sieved.kept[0], generated),
            budget=sift.budget if choice.selection != "none" else 0.0,
            sieve=choice.selection,
            latency=StageTimes(
                load=self.load_seconds,
                decode=before["decode"],
                vision=before["vision"],
                audio=before["audio"],
                sieve=seconds["sieve"],
                prefill=seconds["prefill"],
                first_token=first_token,
                generate=seconds["generate"],
                total=first_token + seconds["generate"],
            ),
            peak_memory=larger(encoded.peaks, read_peaks(self.device)),
            model=self.facts,
            audio=encoded.audio_status,
            sampling=encoded.sampling,
            finish_reason=finish_reason,
            question_layer=choice.layer,
            prefilter=choice.prefilter,
            cached=encoded.cached,
            notices=notices,
        )

    def _count(self, ids: Tensor, kept: Tensor, generated: int) -> TokenCounts:
        special = self.model.thinker.special

        def rows(*tokens: int) -> ModalityTokens:
            where = torch.isin(ids, torch.tensor(tokens, device=ids.device))
            return ModalityTokens(int(where.sum()), int(where[kept].sum()))

        video, audio = rows(special.video, special.image), rows(special.audio)
        return TokenCounts(video, audio, text=len(ids) - video.total - audio.total, generated=generated)
