"""Has the stream changed under the model? A falling prequential hit rate in, an alarm out.

Page's cumulative sum (Biometrika 1954; Page-Hinkley in stream mining) over shares of 128
predictions, in standard errors of such a share, so that one threshold fits every hit rate. The mean
follows slowly: what a day brings is no drift. Shape: M predictions.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SHARE: Final = 128
_WARM_UP: Final = 30  # shares before the first alarm
_MEMORY: Final = 200  # shares that the mean is taken over
_SLACK: Final = 0.5  # standard errors that a share may be below the mean
_THRESHOLD: Final = 15.0  # without drift once in some millions of predictions
_LEAST_ERROR: Final = 1e-3


@dataclass
class DriftWatch:
    """Hit rate of late against the latest shares; its fields are its whole state."""

    num: int = 0
    hits: int = 0
    shares: int = 0
    mean: float = 0.0
    fall: float = 0.0

    def add(self, hits_M: NDArray[np.bool_]) -> bool:
        """Take predictions in order, whether each was a hit; tell whether the rate has fallen.

        After an alarm the watch begins anew: the rate from there on is the one to compare with.
        """
        alarm = False
        for start in range(0, len(hits_M), _SHARE):
            part_M = hits_M[start : start + _SHARE]
            self.num += len(part_M)
            self.hits += int(part_M.sum())
            if self.num >= _SHARE:
                alarm |= self._close()
        return alarm

    def _close(self) -> bool:
        """End a share: it may be a little larger than another, where a step's clicks ran over."""
        rate, num = self.hits / self.num, self.num
        self.num = self.hits = 0
        if self.shares >= _WARM_UP:
            error = max(math.sqrt(self.mean * (1 - self.mean) / num), _LEAST_ERROR)
            self.fall = max(0.0, self.fall + (self.mean - rate) / error - _SLACK)
            if self.fall > _THRESHOLD:
                self.shares, self.mean, self.fall = 0, 0.0, 0.0
                return True
        self.shares = min(self.shares + 1, _MEMORY)
        self.mean += (rate - self.mean) / self.shares
        return False
