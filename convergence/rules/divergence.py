"""Divergence: worse than a bound."""

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
class DivergenceMemory:
    """The newest value."""

    loss: float | None = None
    step: float | None = None


@final
@dataclass(frozen=True, repr=False)
class Divergence(MetricRule):
    """Stop when the newest value is at the bound or worse.

    Parameters
    ----------
    value : float
        The bound, in the metric's own unit: with mode "max", at or below it.

    Notes
    -----
    The trap: a spike that would have recovered reaches it too. A value that is not finite does not stop it; add
    `| NonFinite()`. O(1) per observation.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(Divergence(10), [2.0, 5.0, 10.0, 3.0], mode="min").stop_index
    2
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset()

    value: float

    def __post_init__(self) -> None:
        check_amount(self, "value")

    def facing(self, mode: str) -> Self:
        return self if mode == "min" else replace(self, value=-self.value)

    def start(self) -> DivergenceMemory:
        return DivergenceMemory()

    def observe(self, memory: DivergenceMemory, loss: float, observation: Observation) -> None:
        memory.loss = loss
        memory.step = observation.step

    def decide(self, memory: DivergenceMemory) -> Verdict:
        loss = memory.loss
        return loss is not None and self.value <= loss < math.inf, loss, memory.step

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, loss, step = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"bound": self.value})
        evidence = {"value": unit.value(loss), "bound": self.value, "step": step}
        relation = "is at or beyond" if stop else "is within"
        message = f"{unit.metric} {unit.text(loss)} (step {step:.12g}) {relation} the bound {self.value:g}"
        return Told(Reason.DIVERGED if stop else Reason.WAITING, message, evidence)

    def shared(self) -> tuple[Any, int | None]:
        return Divergence(0.0), None

    def start_many(self, count: int) -> Lanes:
        return Lanes(loss=np.full(count, np.nan))

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        lanes.loss = loss

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops: BoolArray = lanes.loss >= self.value
        return stops
