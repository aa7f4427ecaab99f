"""A question put to an encoded clip: placed once, scored once for all budgets, sieved as often as asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.options import AskOptions
from echopix_cli.engine.sieves import SieveChoice, choose, seed_of
from echopix_cli.errors import UsageError
from echopix_cli.model.finite import no_numbers, require_finite
from echopix_cli.model.positions import film_positions
from echopix_cli.model.processing import Processor
from echopix_cli.model.relevance import relevance
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import UNSCORED, FirstLayers, Prompt, Scored, Sieved
from echopix_cli.results import Turn

# Nats that a logit of relevance weighs. Measured on movies of a minute with the bundled model: from 4 on twice the
# questions are right, and from 16 on no more.
PER_LOGIT = 16.0


@dataclass(frozen=True)
class Sift:
    """A prompt and what its sieve kept, with the budget and the sieve that were meant.

    ``list_kept`` is as of :class:`~.options.AskOptions`, ``turns_seen`` as of :class:`~echopix_cli.results.Answer`.
    """

    budget: float
    choice: SieveChoice
    prompt: Prompt
    sieved: Sieved
    list_kept: bool = False
    turns_seen: int | None = None


class Posed:
    """One prompt of a thinker, to be sieved in any number of ways. The latest scores serve all ways that score alike.

    Args:
        thinker: that the prompt is for.
        prompt: from :meth:`~.engine.Engine.place`.
    """

    def __init__(self, thinker: EchoingPixelsThinker, prompt: Prompt) -> None:
        self.prompt = prompt
        self._thinker = thinker
        self._scored: tuple[FirstLayers, Scored] | None = None
        self._relevant: tuple[FirstLayers, float] | None = None

    @torch.inference_mode()
    def score(self, choice: SieveChoice) -> Scored:
        """Scores of every row, from the first layers or the encoder that a choice takes.

        Raises:
            ModelError: scores that are no numbers.
        """
        if self._scored is None or self._scored[0] != choice.first_layers:
            self._scored = None  # or two sets of rows would be held
            scored: Scored = self._thinker.score(self.prompt, first_layers=choice.first_layers)
            require_finite(self._thinker, scored.scores, "scores")
            self._scored = choice.first_layers, scored
        return self._scored[1]

    @torch.inference_mode()
    def ranking(self, options: AskOptions, window: int = 0) -> Tensor:
        """What the rows (L,) of one window of a film are ranked by among those of all, -inf where they cannot be kept.

        What scores makes of it a log probability: that the window is meant, by how much it has to do with the
        question, and the row in the window, by its score. Controls that take no heed of scores rank as ever.

        Raises:
            UsageError, ModelError: as :meth:`sift`.
        """
        _, choice = chosen(self._thinker, options)
        scored = self.score(choice)
        candidates = scored.candidates if choice.selection != "none" else torch.zeros_like(scored.candidates)
        if choice.selection in UNSCORED:
            generator = torch.Generator().manual_seed(seed_of(options.sieve.seed, window))
            ranking = self._thinker.ranking(scored.scores, candidates, choice.selection, generator)
            return ranking.masked_fill(~candidates, -torch.inf)[0]
        return self._thinker.log_shares(scored)[0] + PER_LOGIT * self._relevance(choice)

    def _relevance(self, choice: SieveChoice) -> float:
        """How much the prompt's media have to do with its question, as the decoder reads what the sieve would keep."""
        if self._relevant is None or self._relevant[0] != choice.first_layers:
            thinker, scored = self._thinker, self.score(choice)
            sieved = thinker.keep(self.prompt, scored, float(thinker.config.text_config.compression_ratio))
            in_pool = thinker.special.in_pool(self.prompt.input_ids[0, sieved.kept[0]])
            found = relevance(thinker.model, sieved, in_pool)
            if math.isnan(found) or found == math.inf:  # of a window without rows of media it is -inf
                raise no_numbers(thinker, "attention logits")
            self._relevant = choice.first_layers, found
        return self._relevant[1]

    @torch.inference_mode()
    def sift(self, options: AskOptions) -> Sift:
        """Keep what the budget allows.

        Raises:
            UsageError: a budget outside (0, 1], or a sieve that this model has not.
            ModelError: scores that are no numbers.
        """
        budget, choice = chosen(self._thinker, options)
        sieved: Sieved = self._thinker.keep(
            self.prompt,
            self.score(choice),
            budget,
            selection=choice.selection,
            generator=torch.Generator().manual_seed(options.sieve.seed),
        )
        return Sift(budget, choice, self.prompt, sieved, options.list_kept)

    @torch.inference_mode()
    def sieved_for(self, other: Posed, options: AskOptions) -> Sieved:
        """This prompt with the audio-visual rows that CS2 kept, and encoded, for another question about the same clip.

        What stands before the media is as CS2 left it for the other question; what comes after them it has not seen.

        Raises:
            UsageError, ModelError: as :meth:`sift`.
        """
        sieved, prompt = other.sift(options).sieved, self.prompt
        pool, (kept,) = self._thinker.special.in_pool(prompt.input_ids[0]), sieved.kept
        length = prompt.input_ids.shape[1]
        behind = int(pool.nonzero().max()) + 1 if bool(pool.any()) else 0
        taken = kept[kept < behind]
        places = torch.cat((taken, torch.arange(behind, length, device=kept.device)))
        return Sieved(
            hidden=torch.cat((sieved.hidden[:, : len(taken)], prompt.embeds[:, behind:]), dim=1),
            position_ids=prompt.position_ids[..., places],
            attention_mask=None,
            kept=(places,),
            scores=prompt.embeds.new_zeros(prompt.input_ids.shape),
            encoded=prompt.embeds,
            labels=None,
            next_position=prompt.rope_deltas + length,
        )

    @property
    def unsieved(self) -> Sieved:
        """All rows as embedded, no sieve having run: what a full-token checkpoint was trained on."""
        prompt = self.prompt
        length = prompt.input_ids.shape[1]
        return Sieved(
            hidden=prompt.embeds,
            position_ids=prompt.position_ids,
            attention_mask=None,
            kept=(torch.arange(length, device=prompt.embeds.device),),
            scores=prompt.embeds.new_zeros(prompt.input_ids.shape),
            encoded=prompt.embeds,
            labels=None,
            next_position=prompt.rope_deltas + length,
        )


@torch.inference_mode()
def place(
    thinker: EchoingPixelsThinker,
    processor: Processor,
    encoded: Encoded,
    question: str,
    system: str,
    earlier: Sequence[Turn] = (),
) -> Prompt:
    """A question about an encoded clip, or about what the windows of a film handed on, as embedded, positioned rows;
    with what is read of the ``earlier`` turns of its conversation.

    Raises:
        UsageError: the question is empty, or longer than the model's context.
    """
    device, grid, survivors = thinker.device, encoded.inputs.grid_thw, encoded.survivors
    rows = None if survivors is None else survivors.is_audio
    ids = processor.prompt_ids(question, encoded.inputs, system, rows, earlier)
    positions = None
    if survivors is not None:
        made = film_positions(thinker.special, ids[0].tolist(), survivors.positions)
        positions = made[0].to(device), made[1].to(device)
    placed: Prompt = thinker.place(
        ids.to(device),
        video_features=None if encoded.video is None else encoded.video.to(device),
        video_grid_thw=None if grid is None else torch.tensor([grid]),
        video_grid_times=None if grid is None else [encoded.inputs.grid_times],
        audio_features=None if encoded.audio is None else encoded.audio.to(device),
        audio_rows=[encoded.inputs.audio_rows] if encoded.audio is not None else [],
        positions=positions,
    )
    return placed


def chosen(thinker: EchoingPixelsThinker, options: AskOptions) -> tuple[float, SieveChoice]:
    """The budget that options stand for, and what chooses the rows.

    Raises:
        UsageError: a budget outside (0, 1], or a sieve that this model has not.
    """
    budget = float(thinker.config.text_config.compression_ratio) if options.budget is None else options.budget
    if not 0.0 < budget <= 1.0:
        raise UsageError(f"budget {budget:g} is outside (0, 1]", "--budget 0.1 keeps a tenth of the tokens")
    return budget, choose(thinker, options.sieve, budget)
