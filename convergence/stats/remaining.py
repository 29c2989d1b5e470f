"""How much of a run's whole gain is still to come, judged from its course so far: a small network, in plain numpy."""

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np

from convergence.lanes import FloatArray
from convergence.stats.course import FEATURES

COEFFICIENTS = Path(__file__).with_name("remaining.npz")
"""What `benchmarks.fit_auto` writes."""

PLAN_FEATURES = ("progress", "log odds", "log remaining")
_LEAST_PROGRESS = 1e-4
_WEIGHTS = ("mean", "deviation", "w1", "b1", "w2", "b2", "w3", "b3")
_WORTH = ("past", "scores", "log_gains", "means", "low", "high", "odds", "gains")


@dataclass(frozen=True, eq=False)
class Network:
    """Several small networks side by side, and what their mean score is worth.

    Attributes
    ----------
    mean, deviation : float array, shape (features,)
        To standardise the features with.
    w1, b1, w2, b2, w3, b3 : float array
        Weights of `e` networks with hidden layers of h and k units and two outputs: (e * h, features), (e * h,),
        (e, k, h), (e, k), (e, 2, k), (e, 2).
    past : float array, shape ()
        Weight of the earlier scores of a run in its score: score = past * score before + (1 - past) * newest.
    scores, log_gains : float array, shape (knots,), rising
        Score, and natural logarithm of the gain that stopping at it lost on average over all runs, those among them
        that never came to it.
    means, low, high : float array, shape (knots,), rising
        Mean, 10th and 90th percentile of the gain that was still to come in the runs that came to it.
    odds, gains : float array, shape (knots,), rising
        Logarithm of the odds that more than a hundredth is still to come, and the mean of what was then to come.
    """

    mean: FloatArray
    deviation: FloatArray
    w1: FloatArray
    b1: FloatArray
    w2: FloatArray
    b2: FloatArray
    w3: FloatArray
    b3: FloatArray
    past: FloatArray
    scores: FloatArray
    log_gains: FloatArray
    means: FloatArray
    low: FloatArray
    high: FloatArray
    odds: FloatArray
    gains: FloatArray

    @classmethod
    def of(cls, arrays: Any, prefix: str) -> Self:
        """Return the network whose arrays bear a prefix."""
        return cls(*(np.asarray(arrays[prefix + name], np.float64) for name in (*_WEIGHTS, *_WORTH)))

    def fits(self, features: int) -> bool:
        """Return whether shapes go together for so many features, and numbers can be used."""
        members, second, first = self.w2.shape if self.w2.ndim == 3 else (0, 0, 0)
        shapes = [
            (self.mean, (features,)), (self.deviation, (features,)), (self.w1, (members * first, features)),
            (self.b1, (members * first,)), (self.b2, (members, second)), (self.w3, (members, 2, second)),
            (self.b3, (members, 2)), (self.log_gains, self.scores.shape), (self.means, self.scores.shape),
            (self.low, self.scores.shape), (self.high, self.scores.shape), (self.gains, self.odds.shape),
        ]  # fmt: skip
        rising = all(np.all(np.diff(part) > 0) for part in (self.scores, self.log_gains, self.odds))
        finite = all(np.isfinite(getattr(self, name)).all() for name in (*_WEIGHTS, *_WORTH))
        usable = finite and rising and members > 0 and self.past.shape == () and 0 <= self.past < 1
        return bool(usable) and all(array.shape == shape for array, shape in shapes)

    def outputs(self, features: FloatArray) -> FloatArray:
        """Return scores and log odds, shape (2, runs), of features (features, runs).

        The higher the score, the more gain is still to come; the odds are those that it is more than a hundredth.
        """
        x = np.clip((features - self.mean[:, None]) / self.deviation[:, None], -6.0, 6.0)
        hidden = _silu(self.w1 @ x + self.b1[:, None]).reshape(len(self.w2), -1, x.shape[1])
        hidden = _silu(self.w2 @ hidden + self.b2[:, :, None])
        outputs: FloatArray = (self.w3 @ hidden + self.b3[:, :, None]).mean(axis=0)
        return outputs

    def gain(self, score: Any) -> Any:
        """Return the gain that stopping at a score loses on average over all runs, at most 1."""
        return np.exp(np.minimum(_along(score, self.scores, self.log_gains), 0.0))

    def expected(self, odds: float) -> float:
        """Return the mean remaining gain at any observation with such odds, not just where a rule would stop."""
        return float(np.interp(odds, self.odds, self.gains))

    @lru_cache(maxsize=64)  # noqa: B019  networks live as long as the program
    def score_at(self, gain: float) -> float:
        """Return the score at which the remaining gain is `gain`; -inf at 0."""
        return float(_along(np.log(gain), self.log_gains, self.scores)) if gain > 0 else -np.inf

    def still_to_come(self, score: float) -> tuple[float, float, float]:
        """Return mean, 10th and 90th percentile of what runs that came to such a score had still to gain."""
        mean, low, high = (float(np.interp(score, self.scores, part)) for part in (self.means, self.low, self.high))
        return mean, low, high


def _silu(x: FloatArray) -> FloatArray:
    silu: FloatArray = x / (1.0 + np.exp(-x))
    return silu


def _along(x: Any, xs: FloatArray, ys: FloatArray) -> Any:
    """Interpolate, and go on straight beyond the ends."""
    below, above = np.minimum(x - xs[0], 0.0), np.maximum(x - xs[-1], 0.0)
    left, right = (ys[1] - ys[0]) / (xs[1] - xs[0]), (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
    return np.interp(x, xs, ys) + below * left + above * right


@dataclass(frozen=True, eq=False)
class Remaining:
    """The networks for runs whose planned length is known, and for those whose is not."""

    planned: Network
    unplanned: Network

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what a file of coefficients holds.

        Raises
        ------
        FileNotFoundError
            No such file.
        ValueError
            Not coefficients, or damaged ones; names the file.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                found = cls(Network.of(arrays, "planned_"), Network.of(arrays, "unplanned_"))
        except (EOFError, BadZipFile, KeyError, ValueError) as error:
            raise ValueError(f"{path}: not the coefficients of Auto, or damaged: {error}") from None
        wide = len(FEATURES)
        if not found.unplanned.fits(wide) or not found.planned.fits(wide + len(PLAN_FEATURES)):
            raise ValueError(f"{path}: its coefficients do not fit the {wide} features of a run")
        return found


@cache
def shipped() -> Remaining:
    """Return the networks that come with the package."""
    return Remaining.read(COEFFICIENTS)


def with_plan(features: FloatArray, count: int, progress: FloatArray) -> FloatArray:
    """Return features (features, runs) with those of the plan added.

    Parameters
    ----------
    features : float array, shape (features, runs)
        As `course.features_many` gives them.
    count : int
        Observations so far.
    progress : float array, shape (runs,)
        Used fraction of the planned training.
    """
    p = np.clip(progress, _LEAST_PROGRESS, 1.0)
    remaining = np.log2(1.0 + count * (1.0 - p) / p)
    odds = np.log(np.maximum(1.0 - p, 1e-3) / p)
    return np.concatenate((features, [p, odds, remaining]))
