"""A whole history, finished or still running, in one verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from convergence.decision import Unit
from convergence.lanes import FloatArray
from convergence.parameters import check_mode
from convergence.series import run_of
from convergence.stats.course import Course, features, take
from convergence.stats.remaining import shipped, with_plan
from convergence.stats.trend import falling_p, mann_kendall, noise

FEWEST = 8
"""Finite values below which a history is too short to judge."""

TOLERANCE = 0.01
"""Share of the whole gain that may be still to come in a converged run."""

TREND = 0.05
"""Level of the one-sided trend tests."""


class State(StrEnum):
    """What a history looks like.

    Examples
    --------
    >>> State.CONVERGED == "converged"
    True
    """

    CONVERGED = "converged"
    IMPROVING = "improving"
    OVERFITTING = "overfitting"
    DIVERGED = "diverged"
    NOT_LEARNING = "not_learning"
    UNSTABLE = "unstable"
    TOO_SHORT = "too_short"


@dataclass(frozen=True)
class Verdict:
    """What `judge` says of a history.

    Attributes
    ----------
    state : State
        converged, improving, overfitting, diverged, not_learning, unstable or too_short.
    message : str
        One sentence with the numbers.
    points : int
        Observations, NaN included.
    converged_at : int or None
        Of a converged history: the first observation whose best so far lies within 1 % of the whole gain of the best.
    best_index : int or None
        Observation of the first best value; None if nothing is finite.
    best_value : float or None
        Its value, in the metric's own unit.
    remaining_gain : float
        Expected gain still to come by the end of the run, as a fraction of its whole gain, from the first value to
        the final best; what `Auto` is built on. Given in every state; nan before two finite values.
    done : float
        Chance that at most 1 % of the whole gain is still to come; nan as well.
    """

    state: State
    message: str
    points: int
    converged_at: int | None
    best_index: int | None
    best_value: float | None
    remaining_gain: float
    done: float


def judge(
    series: Any,
    *,
    mode: str,
    monitor: str | None = None,
    train: Any = None,
    steps: Any = None,
    lr: Any = None,
    progress: Any = None,
) -> Verdict:
    """Say whether a training run has converged, from its recorded metric.

    Tests in this order, each on the metric oriented so that lower is better, after a median of three:

    1. *too_short*: fewer than 8 finite values.
    2. *diverged*: the last value is not finite; or the run ends worse than it began by more than it had gained.
    3. *not_learning*: no gain beyond noise, and no falling trend (Mann-Kendall) over the run.
    4. *overfitting*: since the best, a rising trend to a level that gives back more than noise and 5 % of the gain;
       not while a training metric given as `train` rises as well: then *unstable*.
    5. *unstable*: recent noise of more than a quarter of the gain, or at the end 25 % of the gain lost without trend.
    6. *improving* if more than 1 % of the gain is more likely than not still to come, or the last quarter still falls
       by more than that; or a planned drop of the learning rate is still ahead; else *converged*.

    What is still to come is estimated by the networks of `Auto`, which know the plan where `progress` is given, and
    else expect what recorded runs had before them.

    Parameters
    ----------
    series : sequence of float, or mapping of str to sequence of float
        The metric, or several of which `monitor` is judged; None and masked entries are gaps.
    mode : {"min", "max"}
        Whether lower or higher is better.
    monitor : str, optional
        Name of the metric; required for a mapping.
    train : sequence of float, or str, optional
        The training metric in the same direction, or its name in the mapping.
    steps, lr, progress : sequence of float, optional
        In the shape of the series. With `progress` below 1 at the end and a learning rate that is still at its
        highest, a run is not called converged: its schedule is still to come.

    Raises
    ------
    TypeError, ValueError
        As `replay`.

    Examples
    --------
    >>> verdict = judge([3.0 * 0.7**i + 1 for i in range(40)], mode="min")
    >>> verdict.state, verdict.converged_at, verdict.best_index
    (<State.CONVERGED: 'converged'>, 13, 39)
    >>> verdict.remaining_gain < 0.01 < verdict.done
    True
    """
    check_mode(mode)
    if isinstance(series, Mapping):
        if monitor is None or monitor not in series:
            there = ", ".join(map(repr, series))
            raise ValueError(f"monitor must name one of the series ({there}), got {monitor!r}")
        if isinstance(train, str):
            if train not in series:
                raise ValueError(f"train must name one of the series ({', '.join(map(repr, series))}), got {train!r}")
            train = series[train]
        series = series[monitor]
    unit = Unit(monitor or "value", mode)
    metrics = {unit.metric: series}
    side = f"training {unit.metric}"
    if train is not None:
        metrics[side] = train
    run = run_of(metrics, unit.metric, {"step": steps, "lr": lr, "progress": progress})
    losses = run.metrics[unit.metric] * unit.sign
    known = run.known
    if unit.metric in run.gaps:
        kept = ~run.gaps[unit.metric]
        losses = losses[kept]
        known = {name: part[kept] for name, part in known.items()}
    training = run.metrics[side] * unit.sign if train is not None else None
    with np.errstate(all="ignore"):  # values near the largest float overflow into comparisons that are false
        return _History(losses, training, known, unit).verdict()


class _History:
    """The numbers that the tests of `judge` look at."""

    def __init__(self, losses: FloatArray, train: FloatArray | None, known: dict[str, FloatArray], unit: Unit) -> None:
        self.losses, self.train, self.known, self.unit = losses, train, known, unit
        self.index = np.flatnonzero(np.isfinite(losses))
        self.finite = losses[self.index]
        self.remaining = self.done = math.nan
        self._ask()

    def verdict(self) -> Verdict:
        if len(self.finite) < FEWEST:
            if len(self.losses) >= FEWEST and not math.isfinite(self.losses[-1]):
                return self._said(*self._ends_non_finite())
            return self._said(
                State.TOO_SHORT, f"too short to judge: {len(self.finite)} finite value(s), {FEWEST} are needed"
            )
        self._measure()
        for test in (self._diverged, self._not_learning, self._overfitting, self._unstable):
            found = test()
            if found is not None:
                return self._said(*found)
        return self._said(*self._converged_or_improving())

    def _measure(self) -> None:
        y = self.finite
        n = len(y)
        # A median of three takes out single spikes and lucky minima, and keeps steps and trends.
        padded = np.concatenate((y[:1], y, y[-1:]))
        self.smooth = np.median(np.stack((padded[:-2], padded[1:-1], padded[2:])), axis=0)
        self.smooth[0], self.smooth[-1] = y[0], np.median(y[-2:])
        self.best_at = int(np.argmin(y))
        self.low = float(self.smooth.min())
        self.gain = max(float(y[0]) - self.low, 0.0)
        self.recent = self.smooth[-max(3, n // 10) :]
        self.level = float(np.median(self.recent))
        self.noise = noise(y[n // 2 :])

    def _ask(self) -> None:
        """Let the networks say what is still to come."""
        if len(self.finite) < 2:
            return
        course = Course()
        for loss in self.losses.tolist():
            take(course, loss)
        seen, progress = features(course)[:, None], self.known.get("progress")
        network = shipped().unplanned
        if progress is not None and len(progress) and np.isfinite(progress[-1]):
            network, seen = shipped().planned, with_plan(seen, course.count, progress[-1:])
            if progress[-1] >= 1:  # the plan is over
                self.remaining, self.done = 0.0, 1.0
                return
        odds = float(network.outputs(seen)[1, 0])
        self.remaining, self.done = network.expected(odds), 1 / (1 + math.exp(odds))

    def _diverged(self) -> tuple[State, str] | None:
        if not math.isfinite(self.losses[-1]):
            return self._ends_non_finite()
        lost = self.level - float(self.finite[0])
        if lost > max(self.gain, 5 * self.noise) and lost > 0:
            began, low, ended = (self._text(loss) for loss in (self.finite[0], self.low, self.level))
            return State.DIVERGED, f"diverged: began at {began}, reached {low}, ended at {ended}"
        return None

    def _ends_non_finite(self) -> tuple[State, str]:
        last = int(self.index[-1]) if len(self.index) else -1
        return State.DIVERGED, f"diverged: the last {len(self.losses) - last - 1} value(s) are not finite"

    def _not_learning(self) -> tuple[State, str] | None:
        spread = float(np.ptp(self.finite))
        if spread == 0:
            return State.NOT_LEARNING, f"not learning: constant at {self._text(self.low)}"
        if self.gain <= 0:
            return State.NOT_LEARNING, f"not learning: its first value {self._text(self.finite[0])} was never bettered"
        if self.gain > 4 * self.noise and self.gain > 0.02 * spread:
            return None
        p = falling_p(self.finite)
        if p < TREND:
            return None
        return State.NOT_LEARNING, (
            f"not learning: gain {self.gain:.3g} against noise {self.noise:.3g} per value, no falling trend (p={p:.2g})"
        )

    def _overfitting(self) -> tuple[State, str] | None:
        after = self.smooth[self.best_at :]
        given_back = self.level - self.low
        if len(after) < 5 or given_back <= max(2 * self.noise, 0.05 * self.gain):
            return None
        rising = mann_kendall(after)
        if rising < 1.645:
            return None
        if self.train is not None:
            train = self.train[np.isfinite(self.train)]
            if mann_kendall(train[len(train) * self.best_at // len(self.finite) :]) > 1.645:
                return (
                    State.UNSTABLE,
                    f"unstable: {self.unit.metric} and the training metric both get worse since the best",
                )
        return State.OVERFITTING, (
            f"overfitting: since its best {self._text(self.finite[self.best_at])} at observation "
            f"{int(self.index[self.best_at])} it rose to {self._text(self.level)}, "
            f"{100 * given_back / max(self.gain, given_back):.3g} % of its gain (Z={rising:.2g})"
        )

    def _unstable(self) -> tuple[State, str] | None:
        if self.noise > 0.25 * self.gain:
            return State.UNSTABLE, f"unstable: noise {self.noise:.3g} per value against a gain of {self.gain:.3g}"
        if self.level - self.low > 0.25 * self.gain:
            lost = 100 * (self.level - self.low) / self.gain
            return (
                State.UNSTABLE,
                f"unstable: ended at {self._text(self.level)}, {lost:.3g} % of its gain from its best",
            )
        return None

    def _converged_or_improving(self) -> tuple[State, str]:
        n = len(self.smooth)
        quarter = self.smooth[-max(5, n // 4) :]
        half = len(quarter) // 2
        fall = float(np.median(quarter[:half]) - np.median(quarter[half:])) / self.gain
        falling = falling_p(quarter) < TREND and fall > TOLERANCE / 2
        best = f"best {self._text(self.finite[self.best_at])} at observation {int(self.index[self.best_at])}"
        if self._schedule_ahead():
            return State.IMPROVING, f"improving: the learning rate is still to fall; {best}"
        chance = (
            f"{100 * self.remaining:.2g} % of its gain is expected still to come, at most 1 % with a chance of "
            f"{100 * self.done:.0f} %"
        )
        if self.done < 0.5 or falling:
            still = f", the last quarter still gained {fall:.2g}" if falling else ""
            return State.IMPROVING, f"improving: {chance}{still}; {best}"
        return State.CONVERGED, f"converged at observation {self.converged_at}: {chance}, {best}"

    def _schedule_ahead(self) -> bool:
        lr, progress = self.known.get("lr"), self.known.get("progress")
        if lr is None or progress is None or not len(lr) or not np.isfinite((lr[-1], progress[-1])).all():
            return False
        return bool(progress[-1] < 1 and lr[-1] >= np.nanmax(lr))

    @property
    def converged_at(self) -> int:
        lowest = np.minimum.accumulate(self.finite)
        close = lowest <= lowest[-1] + TOLERANCE * (lowest[0] - lowest[-1])
        return int(self.index[int(np.argmax(close))])

    def _text(self, loss: float) -> str:
        return self.unit.text(float(loss))

    def _said(self, state: State, message: str) -> Verdict:
        best = int(np.argmin(self.finite)) if len(self.finite) else None
        return Verdict(
            state=state,
            message=message,
            points=len(self.losses),
            converged_at=self.converged_at if state is State.CONVERGED else None,
            best_index=None if best is None else int(self.index[best]),
            best_value=None if best is None else self.unit.value(float(self.finite[best])),
            remaining_gain=self.remaining,
            done=self.done,
        )
