"""Budget: long enough."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, final

import numpy as np

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_amount, check_count
from convergence.rule import MetricRule


@dataclass(slots=True)
class BudgetMemory:
    """First and newest step, and the newest elapsed time."""

    first: float | None = None
    step: float | None = None
    elapsed: float | None = None


@final
@dataclass(frozen=True, repr=False)
class Budget(MetricRule):
    """Stop when the run has taken so many steps or seconds.

    step - first step + 1 >= steps, or elapsed >= seconds.

    Parameters
    ----------
    steps : int, optional
        Steps in the caller's unit; at least 1.
    seconds : float, optional
        Seconds; at least 0; needs `elapsed` with the observations.

    Notes
    -----
    The trap: judged when its metric has news, so a budget can be overdrawn by one gap between values. At least one
    bound must be given. O(1) per observation. Rearming changes nothing: a budget is a total.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(Budget(steps=3), [5.0, 4.0, 3.0, 2.0], mode="min").stop_index
    2
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset({"elapsed"})

    _: KW_ONLY
    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("Budget needs steps or seconds, got neither")
        if self.steps is not None:
            check_count(self, "steps")
        if self.seconds is not None:
            check_amount(self, "seconds", least=0)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.seconds is None else frozenset({"elapsed"})

    def start(self) -> BudgetMemory:
        return BudgetMemory()

    def observe(self, memory: BudgetMemory, loss: float, observation: Observation) -> None:
        if memory.first is None:
            memory.first = observation.step
        memory.step = observation.step
        if observation.elapsed is not None:
            memory.elapsed = observation.elapsed

    def decide(self, memory: BudgetMemory) -> Verdict:
        used = 0 if memory.step is None or memory.first is None else memory.step - memory.first + 1
        out_of_steps = self.steps is not None and used >= self.steps
        out_of_time = self.seconds is not None and memory.elapsed is not None and memory.elapsed >= self.seconds
        return out_of_steps or out_of_time, used, memory.elapsed

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, used, elapsed = verdict
        evidence: dict[str, float] = {}
        parts = []
        if self.steps is not None:
            evidence |= {"steps_used": used, "steps": self.steps}
            parts.append(f"{used:.12g} of {self.steps} steps")
        if self.seconds is not None:
            evidence |= {"elapsed": math.nan if elapsed is None else elapsed, "seconds": self.seconds}
            parts.append(f"{'no' if elapsed is None else f'{elapsed:.6g}'} of {self.seconds:g} seconds")
        return Told(Reason.BUDGET_EXHAUSTED if stop else Reason.WAITING, f"used {' and '.join(parts)}", evidence)

    def start_many(self, count: int) -> Lanes:
        return Lanes(first=np.full(count, np.nan), used=np.zeros(count), elapsed=np.full(count, -np.inf))

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        lanes.first = np.where(np.isnan(lanes.first), moment.step, lanes.first)
        lanes.used = moment.step - lanes.first + 1
        if moment.elapsed is not None:
            lanes.elapsed = moment.elapsed

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops = np.zeros(len(lanes.used), np.bool_)
        if self.steps is not None:
            stops |= lanes.used >= self.steps
        if self.seconds is not None:
            stops |= lanes.elapsed >= self.seconds
        return stops
