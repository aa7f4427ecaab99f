"""A film: more than one window holds.

Every window is sieved with the question, in positions that begin anew; what ranks highest over all of them, at most
as many rows as one window has, forms one last prompt for sieve and decoder. A long film's picture is glanced at first,
some frames a window; the windows that hold most of the score are read again at the full rate. The sound is always heard
whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from echopix_cli.media import DecodePlan, MediaInfo
from echopix_cli.times import clock

FAMILY_WINDOW = 60.0  # seconds, where a checkpoint does not say what it was trained on
_GLANCES = 10  # frames of a whole film, in units of the plan's most for one clip; but one a window at least
_REST = 0.1  # of a window; a last one that is shorter belongs to the one before it
_OVER = 0.1  # of a window; so much longer than the header says may the last one be,
_LEAST_OVER = 1.0  # but not less, in seconds: what a file lacks at its end is judged by half a second


@dataclass(frozen=True)
class Film:
    """How a file is read as windows.

    Attributes:
        spans: (start, end) of each window in seconds of media time.
        plan: for a window's full rate.
        glance: frames a window when the film is glanced at; None where it is read at the full rate at once.
    """

    spans: tuple[tuple[float, float], ...]
    plan: DecodePlan
    glance: int | None

    def words(self, info: MediaInfo, look: int) -> str:
        """What will be taken of it, in words: of the picture, and of the sound."""
        start, end = self.spans[0]
        taken = [f"{len(self.spans)} windows of {clock(end - start)}"]
        if self.plan.video and info.of_kind("video"):
            full = frames_of(self.plan, end - start)
            every = (end - start) / (self.glance or full)
            spaced = f"1 frame every {f'{every:.3g} s' if every < 60 else clock(every)}"
            if self.glance == 1 and len(self.spans) > _GLANCES * self.plan.max_frames:
                spaced += f" (1 a window, though {len(self.spans)} are more than {_GLANCES} times --max-frames)"
            taken.append(spaced)
            if self.glance is not None and look:
                again = "all" if look >= len(self.spans) else f"{look} of them"
                taken.append(f"then {again} at {full / (end - start):.3g} frames a second")
        if self.plan.audio and info.of_kind("audio"):
            taken.append("all of the sound")
        return ", ".join(taken)

    def window(self, number: int, full: bool) -> DecodePlan:
        """What to read of a window: at the full rate, or some frames of it, keyframes where there are any nearby."""
        start, end = self.spans[number]
        if number + 1 == len(self.spans):
            end = min(
                end + max(_LEAST_OVER, _OVER * (self.spans[0][1] - self.spans[0][0])),
                math.inf if self.plan.end is None else self.plan.end,
            )
        plan = replace(self.plan, start=start, end=end)
        if full or self.glance is None:
            return plan
        return replace(plan, keyframes=True, max_frames=self.glance, min_frames=min(plan.min_frames, self.glance))


def frames_of(plan: DecodePlan, seconds: float) -> int:
    """How many frames are sampled from a window of a length at the full rate."""
    return min(plan.max_frames, max(plan.min_frames, math.ceil(seconds * plan.fps)))


def outgrown(plan: DecodePlan, end: float | None, window: float) -> bool:
    """Whether media that end at a time, in seconds, are longer than a clip that they were read as.

    Args:
        plan: that they were read by.
        end: None where that is not known.
        window: seconds.
    """
    return end is not None and end - plan.from_time > window * (1 + _REST + _OVER)


def film_of(plan: DecodePlan, duration: float | None, window: float) -> Film | None:
    """How to read a file of a length; None where one window holds it, or where its length is not known.

    Args:
        plan: from :meth:`~.engine.Engine.plan`.
        duration: seconds, as the container says.
        window: seconds.
    """
    if duration is None or not 0 < duration < math.inf:
        return None
    begin, end = plan.from_time, min(duration, math.inf if plan.end is None else plan.end)
    count = max(1, math.ceil((end - begin) / window - _REST))
    if count == 1:
        return None
    edges = [begin + window * number for number in range(count)] + [end]
    frames = frames_of(plan, window)
    few = _GLANCES * plan.max_frames // count
    # Two frames make one step of the picture. One makes one too, at half the work.
    glance = None if not plan.video or few >= frames else max(1, few // 2 * 2)
    return Film(tuple(pairwise(edges)), replace(plan, max_audio_seconds=None), glance)
