"""Time to target: when a run first was good enough, and which of many runs was so first."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convergence.parameters import check_finite, check_mode
from convergence.series import run_of


@dataclass(frozen=True)
class Reached:
    """Where a run reached a target.

    Attributes
    ----------
    index : int
        Observation, counted from 0, gaps not counted.
    step : float
        Its step; the index where no steps were given.
    seconds : float
        Its time since the start of the run; nan where it is not known.
    value : float
        Its value, in the metric's own unit.
    """

    index: int
    step: float
    seconds: float
    value: float


def time_to_target(
    values: Any, target: float, *, mode: str, steps: Any | None = None, seconds: Any | None = None
) -> Reached | None:
    """Return the first observation at the target or beyond, None if there is none.

    Parameters
    ----------
    values : sequence of float, shape (n,)
        The metric, one value for each observation. None and masked entries are gaps; NaN and infinities never reach.
    target : float
        In the metric's own unit: with mode "max" a value at or above it reaches it, with "min" one at or below.
    mode : {"min", "max"}
        Whether lower or higher is better.
    steps : sequence of float, shape (n,), optional
        Step of each observation, not decreasing.
    seconds : sequence of float, shape (n,), optional
        Time since the start of the run at each observation, at least 0, not decreasing; NaN and None where unknown.

    Raises
    ------
    TypeError
        A value that is not a number.
    ValueError
        A target that is not finite, an unknown mode, lengths that differ, steps or seconds that cannot be.

    Notes
    -----
    The trap: a single lucky value reaches the target. The end of a run that was stopped at its target says nothing
    about the budget it was planned with. O(n).

    Coleman et al., "DAWNBench: An End-to-End Deep Learning Benchmark and Competition", 2017, section 3: training
    time to a specified validation accuracy.

    Examples
    --------
    >>> time_to_target([0.5, 0.93, 0.92, 0.95], 0.93, mode="max", steps=[1, 2, 3, 4], seconds=[9.0, 18.5, 28.0, 37.5])
    Reached(index=1, step=2, seconds=18.5, value=0.93)
    >>> time_to_target([0.9, float("nan"), None, 0.3], 0.4, mode="min")
    Reached(index=2, step=2, seconds=nan, value=0.3)
    >>> time_to_target([0.9, 0.5], 0.4, mode="min") is None
    True
    """
    check_mode(mode)
    check_finite("target", target)
    run = run_of({"values": values}, "values", {"step": steps, "seconds": seconds})
    clock = run.known.get("seconds", np.full(run.count, np.nan))
    read = clock[~np.isnan(clock)]
    falls = np.flatnonzero(np.diff(read) < 0)
    if falls.size:
        i = int(falls[0])
        raise ValueError(f"seconds must not decrease, got {read[i + 1]:.12g} after {read[i]:.12g}")
    found = run.metrics["values"]
    there = np.flatnonzero(np.isfinite(found) & (found >= target if mode == "max" else found <= target))
    if not there.size:
        return None
    i = int(there[0])
    return Reached(i, run.step(i), float(clock[i]), float(found[i]))


def rank(times: Iterable[float | None]) -> list[int | None]:
    """Return the rank of each time, from 1 for the shortest; equal times share a rank, and the next ranks are left out.

    Parameters
    ----------
    times : iterable of float or None
        Time to target of each run, all in one unit: seconds, or steps. None or nan where the target was not reached, or
        nobody knows when.

    Returns
    -------
    list of int or None
        As many as times: 1 + the number of shorter times; None where there is no time.

    Examples
    --------
    >>> rank([30.0, None, 10.0, 30.0, 40.0])
    [2, None, 1, 2, 4]
    """
    known = [None if time is None or np.isnan(time) else time for time in times]
    shortest_first = sorted(time for time in known if time is not None)
    return [None if time is None else bisect_left(shortest_first, time) + 1 for time in known]
