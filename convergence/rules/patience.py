"""Patience: too long without improvement."""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, final

import numpy as np

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, IntArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_amount, check_count
from convergence.rule import MetricRule

_LOWEST, _HIGHEST = -math.inf, math.inf


@dataclass(slots=True)
class PatienceMemory:
    """`wait` counts observations since the reference `best` last moved; `_bar` is what has to be beaten."""

    wait: int = 0
    best: float | None = None
    best_step: float | None = None
    loss: float | None = None
    step: float | None = None
    _bar: float = math.inf


@final
@dataclass(frozen=True, repr=False)
class Patience(MetricRule):
    """Stop when `patience` observations in a row did not improve on the best by more than `min_delta`.

    With lower as better, an observation y improves if y < best - min_delta (with `relative=True`,
    y < best - min_delta * abs(best)), and only then becomes the best: gains too small to count add up.

    Parameters
    ----------
    patience : int
        Observations in a row without improvement at which to stop; at least 1.
    min_delta : float
        Gain that an observation has to exceed to count, in the metric's unit, or as a fraction of abs(best) with
        `relative=True`; at least 0.
    relative : bool
        Whether min_delta is a fraction of abs(best); right for negative metrics too.
    ties : {"miss", "improve"}
        Whether a value exactly at the bar counts as a miss or as an improvement.

    Notes
    -----
    The trap: improvement often arrives when the learning rate drops, after a plateau longer than any patience that
    saves much; see `Rearm`. A value that is not finite is a miss. Counts observations, whatever their steps.
    O(1) per observation. Rearming clears the wait and keeps the best.

    Folklore; Prechelt (1998), "Early stopping - but when?", treats the family.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(Patience(2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset()

    patience: int
    _: KW_ONLY
    min_delta: float = 0.0
    relative: bool = False
    ties: str = "miss"

    def __post_init__(self) -> None:
        advice = "; to stop at the first value that does not improve use Patience(1), for no patience rule leave it out"
        check_count(self, "patience", advice=advice)
        check_amount(self, "min_delta", least=0)
        if not isinstance(self.relative, bool):
            raise TypeError(f"relative must be True or False, got {self.relative!r}")
        if self.ties not in ("miss", "improve"):
            raise ValueError(f"ties must be 'miss' or 'improve', got {self.ties!r}")

    @property
    def span(self) -> int:
        return self.patience

    def start(self) -> PatienceMemory:
        return PatienceMemory()

    def observe(self, memory: PatienceMemory, loss: float, observation: Observation) -> None:
        bar = memory._bar
        if _LOWEST < loss < _HIGHEST and (loss < bar or (loss == bar and self.ties == "improve")):
            memory.best = loss
            memory.best_step = observation.step
            memory.wait = 0
            memory._bar = loss - (self.min_delta * abs(loss) if self.relative else self.min_delta)
        else:
            memory.wait += 1
        memory.loss = loss
        memory.step = observation.step

    def decide(self, memory: PatienceMemory) -> Verdict:
        wait = memory.wait
        return wait >= self.patience, wait, memory.best, memory.best_step, memory.loss, memory.step

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, wait, best, best_step, loss, step = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"wait": 0, "patience": self.patience})
        evidence = {
            "wait": wait,
            "patience": self.patience,
            "min_delta": self.min_delta,
            "best": unit.value(best),
            "best_step": math.nan if best_step is None else best_step,
            "value": unit.value(loss),
            "step": step,
        }
        if wait == 0:
            return Told(Reason.IMPROVING, f"{unit.metric} improved to {unit.text(loss)} (step {step:.12g})", evidence)
        delta = f" by more than {self.min_delta:g}{' of its size' if self.relative else ''}" if self.min_delta else ""
        on = (
            "was never finite"
            if best is None
            else f"did not improve on {unit.text(best)} (step {best_step:.12g}){delta}"
        )
        message = f"{unit.metric} {on} in the last {wait} observation(s); newest {unit.text(loss)} (step {step:.12g})"
        if not stop:
            return Told(Reason.WAITING, f"{message}; patience is {self.patience}", evidence)
        return Told(Reason.PLATEAUED if math.isfinite(loss) else Reason.NON_FINITE, message, evidence)

    def clear(self, memory: PatienceMemory) -> None:
        memory.wait = 0

    def revive(self, memory: PatienceMemory) -> None:
        if (memory.best is None) is not (memory.best_step is None):
            raise ValueError("the state of Patience is damaged: best and best_step must come together")
        if memory.best is not None:
            delta = self.min_delta * abs(memory.best) if self.relative else self.min_delta
            memory._bar = memory.best - delta

    def shared(self) -> tuple[Any, int | None]:
        return replace(self, patience=1), self.patience

    def start_many(self, count: int) -> Lanes:
        return Lanes(wait=np.zeros(count, np.int32), bar=np.full(count, np.inf))

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        improved = loss <= lanes.bar if self.ties == "improve" else loss < lanes.bar
        lanes.wait += 1
        lanes.wait *= ~improved
        if self.min_delta:
            bar = loss - (self.min_delta * np.abs(loss) if self.relative else self.min_delta)
            np.copyto(lanes.bar, bar, where=improved)
        else:
            np.fmin(lanes.bar, loss, out=lanes.bar)

    def level_many(self, lanes: Lanes) -> IntArray:
        wait: IntArray = lanes.wait
        return wait

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops: BoolArray = lanes.wait >= self.patience
        return stops

    def clear_many(self, lanes: Lanes, where: BoolArray) -> None:
        lanes.wait[where] = 0
