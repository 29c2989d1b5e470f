"""What a stop saved and what it cost: budget and regret, their means over unequal families of runs, and frontiers."""

from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from convergence.lanes import BoolArray, FloatArray

LEAST_REGRET = 1e-4
"""Regrets below a hundredth of a percent count as that where logarithms are taken: smaller ones differ by chance."""


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


def clairvoyant(losses: npt.ArrayLike, tolerance: float, *, floor: float = 0.0) -> int:
    """Return the first index whose best so far has a regret of at most `tolerance`: no rule can stop earlier for it.

    Parameters
    ----------
    losses : array_like of float, shape (n,)
        Lower is better; NaN and infinities never become best.
    tolerance : float
        Regret that is accepted.
    floor : float
        As for `regret`.

    Returns
    -------
    int
        The index; -1 if nothing is finite.

    Examples
    --------
    >>> clairvoyant([4.0, 2.0, 1.0, 1.5, 0.99], 0.01)
    2
    """
    loss = np.asarray(losses, np.float64)
    if loss.ndim != 1 or not tolerance >= 0:
        raise ValueError(
            f"clairvoyant needs a 1-d series and a tolerance of at least 0, got {loss.ndim}-d, {tolerance}"
        )
    finite = np.isfinite(loss)
    if not finite.any():
        return -1
    kept = np.minimum.accumulate(np.where(finite, loss, np.inf))
    kept[np.isinf(kept)] = np.nan
    return int(np.argmax(regret(kept, loss[np.argmax(finite)], kept[-1], floor=floor) <= tolerance))


def weights(outermost: npt.ArrayLike, *inner: npt.ArrayLike, among: BoolArray | None = None) -> FloatArray:
    """Return the weight of each run in a mean that is taken within the innermost level first, then within the next.

    Runs are not independent: a source with a thousand seeds of one set-up must not outweigh one with ten tasks.

    Parameters
    ----------
    outermost, *inner : array_like, each of shape (n,)
        Labels of each run: source, then task, then group. A label counts within the labels before it.
    among : bool array of shape (n,), optional
        Runs that take part; the others weigh 0.

    Returns
    -------
    float array of shape (n,)
        They add up to 1; all 0 if no run takes part.

    Examples
    --------
    >>> weights(["a", "a", "a", "b"], ["x", "x", "y", "z"])
    array([0.125, 0.125, 0.25 , 0.5  ])
    """
    count = len(np.asarray(outermost))
    taking = np.ones(count, np.bool_) if among is None else np.asarray(among, np.bool_)
    for labels in (*inner, taking):
        if np.shape(labels) != (count,):
            raise ValueError(f"labels must be as many at each level, got shape {np.shape(labels)} beside {count}")
    shares = taking.astype(np.float64)
    within = np.zeros(count, np.int64)
    for labels in (outermost, *inner):
        codes = np.unique(np.asarray(labels), return_inverse=True)[1]
        here = np.unique(within * (count + 1) + codes, return_inverse=True)[1]
        pairs = np.unique(np.stack([within[taking], here[taking]]), axis=1)
        siblings = np.bincount(pairs[0], minlength=count)
        shares[taking] /= siblings[within[taking]]
        within = here
    shares[taking] /= np.bincount(within[taking], minlength=count)[within[taking]]
    return shares


def quantile(values: npt.ArrayLike, share: float, weight: npt.ArrayLike) -> float:
    """Return the least value at or below which `share` of the weight lies; nan without weight.

    Examples
    --------
    >>> quantile([3.0, 1.0, 2.0], 0.5, [1.0, 1.0, 1.0])
    2.0
    """
    numbers, heavy = np.asarray(values, np.float64), np.asarray(weight, np.float64)
    if numbers.shape != heavy.shape or not 0 <= share <= 1:
        raise ValueError(
            f"quantile needs a weight for each value and a share of 0 to 1, "
            f"got {numbers.size} values, {heavy.size} weights, share {share}"
        )
    numbers, heavy = numbers[heavy > 0], heavy[heavy > 0]
    if not numbers.size:
        return float("nan")
    order = np.argsort(numbers, kind="stable")
    reached = np.cumsum(heavy[order])
    return float(numbers[order][np.searchsorted(reached, share * reached[-1] * (1 - 1e-12))])


class Frontier(NamedTuple):
    """The best that a family of rules reaches: budgets that rise and the mean regrets, which fall.

    Examples
    --------
    >>> ours = Frontier.of([0.2, 0.4, 0.3], [0.10, 0.01, 0.2])
    >>> ours
    Frontier(budget=array([0.2, 0.4]), regret=array([0.1 , 0.01]))
    >>> round(float(ours.at(0.3)), 4)
    0.0316
    >>> round(ours.ratio(Frontier.of([0.2, 0.4], [0.2, 0.02])), 4)
    0.5
    """

    budget: FloatArray
    regret: FloatArray

    @classmethod
    def of(cls, budget: npt.ArrayLike, regret: npt.ArrayLike) -> Self:
        """Return the points that no other point beats in budget without losing in regret.

        Parameters
        ----------
        budget, regret : array_like of float, shape (n,)
            Means of each member of the family; points that are not finite are left out.
        """
        b, r = np.asarray(budget, np.float64), np.asarray(regret, np.float64)
        if b.shape != r.shape or b.ndim != 1:
            raise ValueError(f"a frontier needs as many budgets as regrets, got shapes {b.shape} and {r.shape}")
        known = np.isfinite(b) & np.isfinite(r)
        b, r = b[known], r[known]
        order = np.lexsort((r, b))
        b, r = b[order], r[order]
        before = np.concatenate(([np.inf], np.minimum.accumulate(r)[:-1]))
        return cls(b[r < before], r[r < before])

    def at(self, budget: npt.ArrayLike) -> FloatArray:
        """Return the regret at these budgets, interpolated in its logarithm; nan outside the family's reach."""
        wanted = np.asarray(budget, np.float64)
        if not len(self.budget):
            return np.full(wanted.shape, np.nan)
        logs = np.log(np.maximum(self.regret, LEAST_REGRET))
        found: FloatArray = np.exp(np.interp(wanted, self.budget, logs, left=np.nan, right=np.nan))
        return found

    def shared(self, other: "Frontier") -> tuple[float, float] | None:
        """Return the least and the greatest budget that both families reach; None if there is no such stretch.

        Where a family's regret is too small to have a logarithm that means something, it counts as out of reach.
        """
        reach = [front.budget[front.regret > LEAST_REGRET] for front in (self, other)]
        if not all(len(budgets) for budgets in reach):
            return None
        low, high = max(budgets[0] for budgets in reach), min(budgets[-1] for budgets in reach)
        return (float(low), float(high)) if low < high else None

    def ratio(self, other: "Frontier", points: int = 200) -> float:
        """Return the geometric mean of regret / regret of the other at equal budgets; nan if they share none.

        Parameters
        ----------
        other : Frontier
            What it is measured against.
        points : int
            Equally spaced budgets, within those that both reach.
        """
        both = self.shared(other)
        if both is None:
            return float("nan")
        budgets: Any = np.linspace(*both, points)
        return float(np.exp(np.mean(np.log(self.at(budgets)) - np.log(other.at(budgets)))))
