"""Two versions on the same clicks: the candidate's change in MRR and how sure it is; no verdict.

A window is what one user clicked in one learning step. Its clicks share their session and are not
independent, so the error counts windows, not clicks: it is that of a ratio of sums over windows,
linearised. Sums are all it needs, where a bootstrap would keep every window; from some hundreds of
clicks on both say the same. Shapes: M predictions, B windows.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from trainer.evaluate import Score, reciprocals, score
from trainer.windows import Int64

_LEAST_WINDOWS: Final = 30  # with fewer the spread of the windows says nothing about its error


@dataclass(frozen=True, slots=True)
class Products:
    """Sums over windows of products of the versions' reciprocal ranks, summed in each window."""

    num: int = 0
    candidate_squared: float = 0.0
    mixed: float = 0.0
    serving_squared: float = 0.0

    def __add__(self, other: "Products") -> "Products":
        return Products(
            self.num + other.num,
            self.candidate_squared + other.candidate_squared,
            self.mixed + other.mixed,
            self.serving_squared + other.serving_squared,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """The candidate's MRR minus the serving version's, as a share of the latter."""

    mean: float
    error: float  # one standard error


@dataclass
class Comparison:
    """Prequential scores of both versions on the same clicks, since the last candidate."""

    candidate: Score = field(default_factory=Score)
    serving: Score = field(default_factory=Score)
    products: Products = field(default_factory=Products)

    def add(self, own_M: Int64, theirs_M: Int64 | None, sizes_B: Int64) -> None:
        """Add the ranks of targets, window by window; `theirs_M` is None while nothing serves."""
        self.candidate += score(own_M)
        if theirs_M is None or not len(sizes_B):
            return
        self.serving += score(theirs_M)
        starts_B = np.cumsum(sizes_B) - sizes_B
        own_B = np.add.reduceat(reciprocals(own_M), starts_B)
        theirs_B = np.add.reduceat(reciprocals(theirs_M), starts_B)
        self.products += Products(
            len(sizes_B), float(own_B @ own_B), float(own_B @ theirs_B), float(theirs_B @ theirs_B)
        )

    def change(self) -> Change:
        """Return the change; its error is infinite while there are too few windows to tell."""
        sums, served = self.products, self.serving.reciprocal
        if sums.num < _LEAST_WINDOWS:
            return Change(0.0, math.inf)
        if not served:
            return Change(0.0, 0.0)  # nothing can be worse than no hit at all
        ratio = self.candidate.reciprocal / served
        residuals = (
            sums.candidate_squared - 2 * ratio * sums.mixed + ratio**2 * sums.serving_squared
        )
        spread = max(residuals, 0.0) * sums.num / (sums.num - 1)
        return Change(ratio - 1, math.sqrt(spread) / served)
