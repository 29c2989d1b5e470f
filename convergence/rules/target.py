"""Target: good enough."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, final

import numpy as np

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_amount
from convergence.rule import MetricRule


@dataclass(slots=True)
class TargetMemory:
    """The newest value."""

    loss: float | None = None
    step: float | None = None


@final
@dataclass(frozen=True, repr=False)
class Target(MetricRule):
    """Stop when the newest value is at the target or better.

    Parameters
    ----------
    value : float
        The target, in the metric's own unit: with mode "max", at or above it.

    Notes
    -----
    The trap: a single lucky value reaches it. A value that is not finite does not. O(1) per observation.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(Target(0.9), [0.5, 0.85, 0.9, 0.95], mode="max").stop_index
    2
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset()

    value: float

    def __post_init__(self) -> None:
        check_amount(self, "value")

    def facing(self, mode: str) -> Self:
        return self if mode == "min" else replace(self, value=-self.value)

    def start(self) -> TargetMemory:
        return TargetMemory()

    def observe(self, memory: TargetMemory, loss: float, observation: Observation) -> None:
        memory.loss = loss
        memory.step = observation.step

    def decide(self, memory: TargetMemory) -> Verdict:
        loss = memory.loss
        return loss is not None and -math.inf < loss <= self.value, loss, memory.step

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, loss, step = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"target": self.value})
        evidence = {"value": unit.value(loss), "target": self.value, "step": step}
        relation = "reached" if stop else "has not reached"
        message = f"{unit.metric} {unit.text(loss)} (step {step:.12g}) {relation} the target {self.value:g}"
        return Told(Reason.TARGET_REACHED if stop else Reason.WAITING, message, evidence)

    def shared(self) -> tuple[Any, int | None]:
        return Target(0.0), None

    def start_many(self, count: int) -> Lanes:
        return Lanes(loss=np.full(count, np.nan))

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        lanes.loss = loss

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops: BoolArray = lanes.loss <= self.value
        return stops
