"""Answers as an engine gives them, for tests of what is shown of them."""

from __future__ import annotations

from echopix_cli.results import (
    Answer,
    AudioStatus,
    KeptToken,
    ModalityTokens,
    ModelFacts,
    Moment,
    PeakMemory,
    Sampling,
    StageTimes,
    TokenCounts,
)


def an_answer(
    moments: tuple[Moment, ...],
    *,
    media: str = "clip.mp4",
    question: str = "What instrument is playing?",
    answer: str = "a piano",
    start: float = 0.0,
    end: float | None = 8.0,
    picture: bool = True,
    sound: bool = True,
    kept_tokens: tuple[KeptToken, ...] = (),
    notices: tuple[str, ...] = (),
) -> Answer:
    """An answer about a clip with those moments."""
    tokens = TokenCounts(ModalityTokens(128 * picture, 13 * picture), ModalityTokens(200 * sound, 20 * sound), 28, 2)
    return Answer(
        media=media,
        question=question,
        answer=answer,
        tokens=tokens,
        budget=0.1,
        sieve="cs2",
        latency=StageTimes(decode=0.1, sieve=0.05, prefill=0.02, generate=0.01, total=0.5),
        peak_memory=PeakMemory(host_resident=2**28),
        model=ModelFacts("tiny", "echopix 0", 7_760_897, "float32", "cpu", demonstration=True),
        audio=AudioStatus.USED if sound else AudioStatus.ABSENT,
        sampling=Sampling(
            fps=2.0 if picture else None,
            frames=16 if picture else 0,
            height=112 if picture else None,
            width=112 if picture else None,
            second_per_grid=1.0 if picture else None,
            start=start,
            end=end,
            audio_seconds=8.0 if sound else 0.0,
        ),
        finish_reason="stop",
        moments=moments,
        kept_tokens=kept_tokens,
        notices=notices,
    )
