"""What stops cost and save on a suite of curves, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.families import best_so_far, regret_so_far
from benchmarks.suite import FLOOR, Curve
from convergence import score
from convergence.score import Frontier

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

GOOD = 0.01
"""Regret up to which a stop counts as having lost nothing that matters."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the stops of some rules mean on each curve: arrays (rules, curves).

    Attributes
    ----------
    stop_index : int array
        -1 for never.
    budget, regret : float array
        Regret with a floor of 2 % of the first value's size; 0 where nothing is finite, since nothing can be lost.
    test_regret : float array
        What selecting up to the stop costs on test data against selecting over the whole run, as a share of the
        gain on test data; negative where stopping chose better; nan without a test curve.
    early : float array
        1 where a rule stopped before the first drop of the learning rate, 0 where it did not, nan without a drop.
    """

    stop_index: IntArray
    budget: FloatArray
    regret: FloatArray
    test_regret: FloatArray
    early: FloatArray


def outcomes(stops: IntArray, curves: Sequence[Curve]) -> Outcomes:
    """Return what stops mean.

    Parameters
    ----------
    stops : int array, shape (rules, curves)
        Index of the first stop; -1 for never.
    curves : sequence of Curve
        The curves.
    """
    lost, on_test, early = (np.full(stops.shape, np.nan) for _ in range(3))
    for i, curve in enumerate(curves):
        at = best_so_far(curve.loss)[1]
        ends = np.where(stops[:, i] < 0, len(at) - 1, stops[:, i])
        lost[:, i] = regret_so_far(curve.loss)[ends]
        if curve.test is not None:
            on_test[:, i] = _test_regret(curve.test, at[ends], int(at[-1]))
        if curve.first_drop >= 0:
            early[:, i] = (stops[:, i] >= 0) & (stops[:, i] < curve.first_drop)
    used = score.budget(stops, np.array([len(curve.loss) for curve in curves]))
    return Outcomes(stops, used, lost, on_test, early)


def _test_regret(test: FloatArray, chosen: IntArray, best: int) -> FloatArray:
    """Return the loss on test data of choosing one index instead of another, between -1 and 1."""
    known = np.flatnonzero(np.isfinite(test))
    if best < 0 or not known.size or not np.isfinite(test[best]):
        return np.full(len(chosen), np.nan)
    gain = max(test[known[0]] - test[best], FLOOR * abs(test[known[0]]))
    picked = np.where(chosen < 0, np.nan, test[chosen])
    difference = picked - test[best]
    with np.errstate(all="ignore"):
        share = np.where(difference == 0, 0.0, difference / gain)
    return np.clip(share, -1, 1)


class Averages:
    """Means over curves that are taken within run, group, task and source first.

    Parameters
    ----------
    curves : sequence of Curve
        The curves.
    among : bool array, shape (curves,), optional
        Curves that take part.
    resamples : int
        Bootstrap resamples, of groups within each source.
    seed : int
        Of the bootstrap.
    """

    def __init__(
        self, curves: Sequence[Curve], among: BoolArray | None = None, resamples: int = 0, seed: int = 0
    ) -> None:
        self.among = np.ones(len(curves), np.bool_) if among is None else among
        names = ("source", "task", "group", "run")
        self.levels = [
            np.unique(np.array([getattr(curve, name) for curve in curves], np.str_), return_inverse=True)[1]
            for name in names
        ]
        self._weights: dict[bytes, FloatArray] = {}
        self.weight = self._weight(self.among)
        self.resamples = resamples
        if resamples and self.among.any():
            self._bootstrap(resamples, np.random.default_rng(seed))

    def _weight(self, among: BoolArray) -> FloatArray:
        key = among.tobytes()
        if key not in self._weights:
            self._weights[key] = score.weights(*self.levels, among=among)
        return self._weights[key]

    def _bootstrap(self, resamples: int, rng: np.random.Generator) -> None:
        """Draw groups within each source; keep the weight of each group in each resample."""
        names = np.stack([level[self.among] for level in self.levels[:3]])
        groups, self.member = np.unique(names, axis=1, return_inverse=True)
        self.member = self.member.ravel()
        self.within = score.weights(self.member, self.levels[3][self.among]) * groups.shape[1]
        # Groups come sorted by source and task, so that those of one lie side by side.
        of_source, of_task = groups[0], groups[:2]
        sources = np.flatnonzero(np.concatenate(([True], of_source[1:] != of_source[:-1])))
        tasks = np.flatnonzero(np.concatenate(([True], (of_task[:, 1:] != of_task[:, :-1]).any(axis=0))))
        counts = np.empty((resamples, groups.shape[1]))
        for start, end in zip(sources, [*sources[1:], groups.shape[1]], strict=True):
            counts[:, start:end] = rng.multinomial(end - start, np.full(end - start, 1 / (end - start)), resamples)
        in_task = np.add.reduceat(counts, tasks, axis=1)
        tasks_there = np.add.reduceat(in_task > 0, np.searchsorted(tasks, sources), axis=1, dtype=np.float64)
        task = np.searchsorted(tasks, np.arange(groups.shape[1]), side="right") - 1
        source = np.searchsorted(sources, np.arange(groups.shape[1]), side="right") - 1
        shares = counts / np.maximum(in_task[:, task], 1) / tasks_there[:, source]
        self.resampled: FloatArray = shares / len(sources)

    def mean(self, values: FloatArray) -> FloatArray:
        """Return the means of values (rules, curves), where known; nan for a rule of which nothing is."""
        return np.array([self._mean(row) for row in np.atleast_2d(values)])

    def _mean(self, row: FloatArray) -> float:
        known = ~np.isnan(row) & self.among
        if not known.any():
            return float("nan")
        return float(np.sum(row[known] * self._weight(known)[known]))

    def quantile(self, values: FloatArray, share: float) -> FloatArray:
        """Return the weighted quantile of each rule's values."""
        return np.array([score.quantile(row, share, self.weight) for row in np.atleast_2d(values)])

    def resampled_means(self, values: FloatArray) -> FloatArray:
        """Return the means in every resample, shape (rules, resamples); the values must all be known."""
        if not self.resamples:
            return np.empty((len(np.atleast_2d(values)), 0))
        rows = np.atleast_2d(values)[:, self.among]
        means = [np.bincount(self.member, self.within * row) for row in rows]
        return np.array(means) @ self.resampled.T

    def interval(self, values: FloatArray) -> list[list[float]]:
        """Return the central 95 % of the resampled means of each rule."""
        return [central(row) for row in self.resampled_means(values)]

    def frontier(self, outcome: Outcomes) -> Frontier:
        """Return the frontier of a family's means."""
        return Frontier.of(self.mean(outcome.budget), self.mean(outcome.regret))

    def resampled_frontiers(self, outcome: Outcomes) -> list[Frontier]:
        """Return the frontier of a family's means in every resample."""
        means = (self.resampled_means(values).T for values in (outcome.budget, outcome.regret))
        return [Frontier.of(budget, regret) for budget, regret in zip(*means, strict=True)]

    def ratio(self, outcome: Outcomes, reference: Outcomes) -> tuple[float, list[float]]:
        """Return the ratio of regret at equal budget between two families, and its central 95 % over the resamples."""
        ratio = self.frontier(outcome).ratio(self.frontier(reference))
        ours, theirs = (self.resampled_frontiers(of) for of in (outcome, reference))
        ratios = [mine.ratio(other, points=50) for mine, other in zip(ours, theirs, strict=True)]
        return ratio, central(np.array(ratios))


def central(values: FloatArray) -> list[float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return [float("nan"), float("nan")]
    low, high = np.quantile(known, (0.025, 0.975))
    return [float(low), float(high)]


def measures(outcome: Outcomes, averages: Averages) -> list[dict[str, Any]]:
    """Return for each rule the figures of the protocol.

    Parameters
    ----------
    outcome : Outcomes
        Of the rules, on all curves.
    averages : Averages
        How to average, and over which.
    """
    regret = averages.mean(outcome.regret)
    columns: dict[str, Any] = {
        "budget": averages.mean(outcome.budget),
        "regret": regret,
        "regret_interval": averages.interval(outcome.regret),
        "regret_p95": averages.quantile(outcome.regret, 0.95),
        "within_1_percent": averages.mean((outcome.regret <= GOOD).astype(np.float64)),
        "never_stops": averages.mean((outcome.stop_index < 0).astype(np.float64)),
        "before_first_drop": averages.mean(outcome.early),
        "test_regret": averages.mean(outcome.test_regret),
    }
    return [
        {name: value[i] if isinstance(value, list) else float(value[i]) for name, value in columns.items()}
        for i in range(len(regret))
    ]
