"""What a stop saved and what it cost: budget and regret."""

import numpy as np
import numpy.typing as npt

from convergence.lanes import FloatArray


def budget(stop_index: npt.ArrayLike, count: npt.ArrayLike) -> FloatArray:
    """Return the share of the observations that a stop used: (stop index + 1) / count.

    Parameters
    ----------
    stop_index : array_like of int
        Index of the observation at which the rule stopped; -1 for never, which uses all.
    count : array_like of int
        Observations in the full run; the result is nan where it is 0.

    Examples
    --------
    >>> budget([4, -1], [10, 10])
    array([0.5, 1. ])
    """
    stop, total = np.asarray(stop_index), np.asarray(count)
    used = np.where(stop < 0, total, stop + 1)
    with np.errstate(invalid="ignore"):
        share: FloatArray = used / np.where(total > 0, total, np.nan)
    return share


def regret(kept: npt.ArrayLike, first: npt.ArrayLike, best: npt.ArrayLike, *, floor: float = 0.0) -> FloatArray:
    """Return the share of a run's gain that a stop lost: (kept - best) / (first - best), in [0, 1].

    Parameters
    ----------
    kept : array_like of float
        Best loss (lower is better) up to the stop; nan if none was finite, which loses everything.
    first : array_like of float
        First finite loss of the run.
    best : array_like of float
        Best loss of the run; nan if none is finite, where the regret is nan.
    floor : float
        Least size of the denominator, as a fraction of abs(first).

    Examples
    --------
    >>> regret([0.4, 0.2, 0.2], [1.0, 1.0, 0.2], 0.2)
    array([0.25, 0.  , 0.  ])
    """
    k, f, b = (np.asarray(a, np.float64) for a in (kept, first, best))
    with np.errstate(all="ignore"):
        # Halves where the difference would overflow; scaling by two is exact.
        half = np.where(np.isinf(f - b) & np.isfinite(f) & np.isfinite(b), 0.5, 1.0)
        f, b = f * half, b * half
        gain = np.maximum(f - b, floor * np.abs(f))
        lost = k * half - b
        share = lost / gain
    # Without a loss 0/0 is no regret; a gain of 0 with a loss, or nothing kept, is all of it.
    share = np.where(lost == 0, 0.0, np.where(np.isnan(share) | (share > 1), 1.0, share))
    result: FloatArray = np.where(np.isnan(b), np.nan, share)
    return result
