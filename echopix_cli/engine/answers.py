"""An answer with all that is known about how it came to be."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.meters import larger
from echopix_cli.engine.moments import kept_tokens_of, moments_of
from echopix_cli.engine.posing import Sift
from echopix_cli.model.positions import SpecialTokens
from echopix_cli.results import DEMONSTRATION, Answer, ModalityTokens, ModelFacts, PeakMemory, StageTimes, TokenCounts


def answer_of(
    encoded: Encoded,
    question: str,
    text: str,
    sift: Sift,
    attention: Tensor,
    *,
    special: SpecialTokens,
    generated: int,
    finish_reason: str,
    load_seconds: float,
    seconds: dict[str, float],
    peaks: PeakMemory,
    model: ModelFacts,
) -> Answer:
    """One answer's record.

    Args:
        encoded: what was asked about.
        question: in the user's words.
        text: of the answer.
        sift: what the sieve kept for it.
        attention: (K,) that kept rows get from the row which the answer is read from.
        special: ids of the placeholders.
        generated: tokens of the answer, with the one that ends it.
        finish_reason: ``stop``, ``length`` or ``choice``.
        load_seconds: what loading the model took.
        seconds: of the stages ``sieve``, ``prefill``, ``generate`` and ``moments``.
        peaks: of memory since the question was put.
        model: that answered.
    """
    before, film = dict(encoded.seconds), None
    seconds = {**seconds, "sieve": seconds["sieve"] + before.pop("sieve", 0.0)}  # of a film's windows, too
    if encoded.survivors is not None:
        film = replace(encoded.survivors.facts, share=min(sift.budget, encoded.survivors.share))
    first_token = sum(before.values()) + seconds["sieve"] + seconds["prefill"]
    return Answer(
        media=encoded.path,
        question=question,
        answer=text,
        tokens=_count(encoded, sift, special, generated),
        budget=sift.budget if sift.choice.selection != "none" else 0.0,
        sieve=sift.choice.selection,
        latency=StageTimes(
            load=load_seconds,
            decode=before["decode"],
            vision=before["vision"],
            audio=before["audio"],
            sieve=seconds["sieve"],
            prefill=seconds["prefill"],
            first_token=first_token,
            generate=seconds["generate"],
            total=first_token + seconds["generate"] + seconds["moments"],
        ),
        peak_memory=larger(encoded.peaks, peaks),
        model=model,
        audio=encoded.audio_status,
        sampling=encoded.sampling,
        finish_reason=finish_reason,
        question_layer=sift.choice.layer,
        prefilter=sift.choice.prefilter,
        cached=encoded.cached,
        moments=moments_of(encoded, sift, attention, special),
        kept_tokens=kept_tokens_of(encoded, sift, attention, special) if sift.list_kept else (),
        film=film,
        notices=(*encoded.notices, *((DEMONSTRATION,) if model.demonstration else ())),
        turns_seen=sift.turns_seen,
    )


def _count(encoded: Encoded, sift: Sift, special: SpecialTokens, generated: int) -> TokenCounts:
    """Rows by modality, before the sieve and after it."""
    ids, kept = sift.prompt.input_ids[0], sift.sieved.kept[0]

    def rows(*tokens: int) -> ModalityTokens:
        where = torch.isin(ids, torch.tensor(tokens, device=ids.device))
        return ModalityTokens(int(where.sum()), int(where[kept].sum()))

    video, audio = rows(special.video, special.image), rows(special.audio)
    text = len(ids) - video.total - audio.total
    if encoded.survivors is not None:
        video = ModalityTokens(encoded.survivors.video_total, video.kept)
        audio = ModalityTokens(encoded.survivors.audio_total, audio.kept)
    return TokenCounts(video, audio, text=text, generated=generated)
