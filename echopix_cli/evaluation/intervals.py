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


def mean_of(shares: Sequence[Interval]) -> Interval:
    """The plain mean of independent shares, each weighing the same however many items it has.

    Square-and-add: the distances of each share from its own Wilson limits are added as variances are. Unlike
    the normal approximation this claims no certainty about a family that happens to be all right or all wrong,
    and of a single share it is Wilson's interval itself.

    Source: R. G. Newcombe, 1998, on differences; G. Zou and A. Donner, 2008 (MOVER), on any linear combination.

    Raises:
        ValueError: there are no shares.
    """
    if not shares:
        raise ValueError("the mean of nothing")
    count = len(shares)
    value = math.fsum(share.value for share in shares) / count
    below = math.sqrt(math.fsum((share.value - share.low) ** 2 for share in shares)) / count
    above = math.sqrt(math.fsum((share.high - share.value) ** 2 for share in shares)) / count
    return Interval(value, value - below, value + above)


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
