"""Movies: a haystack's windows go through the towers once, for all questions whose needles are put into it.

Nothing is written to files: windows are rendered as they are wanted, and sieved as those of any film are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from echopix_cli.engine import Encoded, Engine
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.opening import film_in, survey, window_of
from echopix_cli.engine.options import AskOptions
from echopix_cli.errors import EchopixError
from echopix_cli.evaluation.asking import Asking, options_of, result_of, scoring_of
from echopix_cli.evaluation.questions import Question
from echopix_cli.evaluation.values import SINGLE_PASS, Condition, Graded, ItemResult, Pool, Rows
from echopix_cli.media import Clip, MediaInfo
from echopix_cli.results import Answer, Moment
from echopix_cli.scenes import DURATION, Evidence, Movie, movie_span


class Haystack:
    """A movie's windows after the towers, kept as long as this is, and those of needles put into it.

    Args:
        engine: with the model.
        movie: any take of the haystack.
        asking: what holds for every question.
    """

    def __init__(self, engine: Engine, movie: Movie, asking: Asking) -> None:
        self._engine, self._asking = engine, asking
        window = window_of(engine, asking.films)
        self.film = film_in(window, MediaInfo("movie", movie.duration, ()), asking.plan)
        self._kept: dict[tuple[int, bool], Encoded] = {}
        self._own: dict[tuple[int, bool], Encoded] = {}  # of the needles of the question at hand

    def answered(self, question: Question, settings: Sequence[Condition]) -> ItemResult:
        """One question, with every setting; what fails with one of them is a failed outcome.

        What a setting chooses from is its own: which windows are read at the full rate depends on the sieve, and a
        single pass has other frames. ``evidence`` counts rows of the windows in which needles lie, and is 0 where the
        answer is no; that of the result, as its pool, is the first setting's.
        """
        movie, outcomes = question.movie, dict[Condition, Graded]()
        assert movie is not None
        self._own = {}
        opened: dict[object, Encoded] = {}
        for setting in settings:
            options = replace(options_of(setting, self._asking, question.index), list_kept=True)
            single = self.film is None or setting.sieve == SINGLE_PASS
            try:
                scoring = scoring_of(self._engine, setting, self._asking).first_layers
                way = SINGLE_PASS if single else (setting.sieve, scoring)
                if way not in opened:
                    opened[way] = self._open(movie, question.prompt, options, single)
                answer = self._engine.ask(opened[way], question.prompt, options)
                evidence = self._rows_on_evidence(question, opened[way], answer)
                outcomes[setting] = _graded(question, answer, evidence)
            except EchopixError as error:
                outcomes[setting] = Graded.failed(error.message)
        first = next((outcome.pool for outcome in outcomes.values() if outcome.pool is not None), Pool(0, 0, 0))
        return result_of(question, first.rows, first.evidence, outcomes, first.audio, opened.values())

    def _open(self, movie: Movie, question: str, options: AskOptions, single: bool) -> Encoded:
        """A movie as something that the question can be put to."""
        plan = self._asking.plan
        if self.film is None or single:
            frames = _frames(movie.duration, plan.fps, plan.max_frames)
            return self._engine.encode(self._clip(movie, 0.0, movie.duration, frames, plan.max_audio_seconds))
        (found,) = survey(
            self._engine,
            movie.name,
            self.film,
            [question],
            lambda number, full: self._fetch(movie, number, full),
            options,
            self._asking.films.look,
        )
        return found

    def _fetch(self, movie: Movie, number: int, full: bool) -> Fetched:
        """A window of the film: the haystack's is encoded once, a needle's once for each question."""
        assert self.film is not None
        start, end = self.film.spans[number]
        whole = full or self.film.glance is None
        holds = any(movie.span(needle.window)[0] < end and movie.span(needle.window)[1] > start
                    for needle in movie.needles)  # fmt: skip
        kept = self._own if holds else self._kept
        if (number, whole) in kept:
            return Fetched(kept[number, whole])
        frames = _frames(end - start, self.film.plan.fps, self.film.plan.max_frames)
        if not whole and self.film.glance is not None:
            frames = min(frames, self.film.glance)
        kept[number, whole] = self._engine.encode(self._clip(movie, start, end, frames, None))
        return Fetched(kept[number, whole])

    def _clip(self, movie: Movie, start: float, end: float, frames: int, heard: float | None) -> Clip:
        own = self._asking
        return movie_span(movie, start, end, frames, own.side, own.without, np.inf if heard is None else heard)

    def _rows_on_evidence(self, question: Question, encoded: Encoded, answer: Answer) -> int:
        """Rows on the evidence, of a movie of one window or of the windows that a needle lies in."""
        if question.answer == "no":
            return 0
        return sum(
            int(on_evidence(question.evidence, "video", content.spans[0], content.boxes).sum())
            + int(on_evidence(question.evidence, "audio", content.spans[1], None).sum())
            for content in self._holding(question, encoded, answer)
        )

    def _holding(self, question: Question, encoded: Encoded, answer: Answer) -> Iterator[Encoded]:
        """What holds the evidence, before any sieve."""
        if self.film is None or answer.film is None or question.movie is None:
            yield encoded
            return
        for number, (start, end) in enumerate(self.film.spans):
            if any(piece.start < end and piece.end > start for piece in question.evidence):
                content = self._fetch(question.movie, number, (start, end) in answer.film.looked).content
                if isinstance(content, Encoded):
                    yield content


def _frames(seconds: float, fps: float, most: int) -> int:
    """Frames of a part of a movie: two at least, and an even number."""
    return 2 * max(1, round(min(most, fps * seconds)) // 2)


def _graded(question: Question, answer: Answer, evidence: int) -> Graded:
    kept = answer.kept_tokens
    on = 0
    for modality in ("video", "audio"):
        own = [token for token in kept if token.modality == modality]
        spans = np.array([(token.start, token.end) for token in own]).reshape(-1, 2)
        boxes = np.array([token.box for token in own]).reshape(-1, 4) if modality == "video" else None
        on += int(on_evidence(question.evidence, modality, spans, boxes).sum())
    tokens, nowhere = answer.tokens, question.answer == "no"
    return Graded(
        answer=answer.answer,
        right=question.is_right(answer.answer),
        rows=Rows(tokens.video.kept, tokens.audio.kept, 0 if nowhere else on),
        seconds=answer.latency.sieve + answer.latency.prefill + answer.latency.generate,
        moment=None if nowhere else moment_right(answer.moments, question.evidence),
        last_prompt=tokens.total if answer.film is None else answer.film.survivors,
        pool=Pool(tokens.total, tokens.audio.total, evidence),
    )


def on_evidence(evidence: Sequence[Evidence], modality: str, spans: np.ndarray, boxes: np.ndarray | None) -> np.ndarray:
    """Which rows of a modality lie on what an answer depends on.

    Args:
        evidence: in seconds of the media.
        modality: ``video`` or ``audio``.
        spans: (n, 2) seconds of the rows.
        boxes: (n, 4) of rows of the picture, left, top, right and bottom in 0..1.

    Returns:
        bool (n,).
    """
    found = np.zeros(len(spans), dtype=bool)
    for piece in evidence:
        if piece.modality != modality:
            continue
        if boxes is None:
            middle = spans.mean(axis=1)
            found |= (middle >= piece.start) & (middle < piece.end)
            continue
        x0, y0, x1, y1 = piece.box or (0.0, 0.0, 1.0, 1.0)
        inside = (boxes[:, 2] > x0) & (boxes[:, 0] < x1) & (boxes[:, 3] > y0) & (boxes[:, 1] < y1)
        found |= inside & (spans[:, 1] > piece.start) & (spans[:, 0] < piece.end)
    return found


def moment_right(moments: Sequence[Moment], evidence: Sequence[Evidence]) -> bool:
    """Whether the top moment lies on the evidence: it overlaps a piece of its own modality, and half of it or more
    lies in scenes that hold evidence.

    Without the second, a moment that reaches over the whole movie, as of tokens kept everywhere, would always be right.
    """
    if not moments:
        return False
    top = moments[0]
    scenes = {int(piece.start // DURATION) for piece in evidence}
    inside = sum(max(0.0, min(top.end, (scene + 1) * DURATION) - max(top.start, scene * DURATION)) for scene in scenes)
    meets = any(
        piece.modality == top.modality and piece.start < top.end and top.start < piece.end for piece in evidence
    )
    return meets and inside >= (top.end - top.start) / 2
