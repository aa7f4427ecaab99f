"""95 % intervals of shares, of their mean over families, and of paired differences. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959963984540054  # the normal distribution's 97.5 % point: 95 % two-sided


@dataclass(frozen=True)
class Interval:
    """A value, and the two ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


def wider(one: Interval, other: Interval) -> Interval:
    """A value's interval that holds both."""
    return Interval(one.value, min(one.low, other.low), max(one.high, other.high))


def wilson(right: int, total: int) -> Interval:
    """The score interval of a share; it never collapses, not even at 0 or ``total``.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    Raises:
        ValueError: nothing was counted, or more were right than there are.
    """
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} of {total} is no share")
    share, z2 = right / total, Z * Z
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    # The ends meet 0 and 1 exactly where every item is wrong or right; rounding alone would miss them.
    low = 0.0 if right == 0 else centre - half
    return Interval(share, low, 1.0 if right == total else centre + half)


def mean_of(counts: Sequence[tuple[int, int]]) -> Interval:
    """The plain mean of independent shares (right, total), each weighing the same however many items it has.

    A normal approximation with two right and two wrong items added, spread evenly over the shares. The usual one,
    without them, claims certainty about every family that happens to be all right or all wrong: with two items a
    family it held the true mean 60 to 80 times in a hundred where this one did so 90 to 98 times. The value
    itself is the plain mean; of a single share the interval is Wilson's.

    Source: R. M. Price and D. G. Bonett, An improved confidence interval for a linear function of binomial
    proportions, 2004.

    Raises:
        ValueError: there are no shares, or one of nothing.
    """
    shares = [wilson(right, total) for right, total in counts]
    if not shares:
        raise ValueError("the mean of nothing")
    if len(shares) == 1:
        return shares[0]
    families, added = len(counts), 2 / len(counts)
    value = math.fsum(share.value for share in shares) / families
    moved = [((right + added) / (total + 2 * added), total + 2 * added) for right, total in counts]
    centre = math.fsum(share for share, _ in moved) / families
    half = Z * math.sqrt(math.fsum(share * (1 - share) / total for share, total in moved)) / families
    # Pulled towards the middle, the interval of an extreme mean could miss the very mean it belongs to.
    return Interval(value, min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half)))


def paired_difference(ours: Sequence[bool], theirs: Sequence[bool]) -> Interval:
    """The difference of two shares of the same items, ours − theirs, in [-1, 1].

    The interval is a normal approximation of the paired differences with one item added to each kind of
    disagreement, so that it does not collapse where the two never disagree. The value itself is the plain difference.

    Source: D. G. Bonett and R. M. Price, Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data, 2012.

    Raises:
        ValueError: unequal lengths, or no items.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} items cannot be paired")
    gained = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    lost = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    count = len(ours) + 2
    up, down = (gained + 1) / count, (lost + 1) / count
    half = Z * math.sqrt((up + down - (up - down) ** 2) / count)
    return Interval((gained - lost) / len(ours), max(-1.0, up - down - half), min(1.0, up - down + half))
