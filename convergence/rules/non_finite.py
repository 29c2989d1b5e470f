"""NonFinite: NaN or infinity."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, Lanes, Moment
from convergence.observation import Observation
from convergence.rule import MetricRule


@dataclass(slots=True)
class NonFiniteMemory:
    """The newest value."""

    loss: float | None = None
    step: float | None = None


@final
@dataclass(frozen=True, repr=False)
class NonFinite(MetricRule):
    """Stop when the newest value is NaN or infinite.

    Notes
    -----
    The trap: mixed precision with loss scaling gives single NaN values in a healthy run; with
    `NonFinite() & Patience(k)` only those that do not recover stop it. O(1) per observation.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(NonFinite(), [2.0, float("nan"), 1.0], mode="min").stop_index
    1
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset()

    def start(self) -> NonFiniteMemory:
        return NonFiniteMemory()

    def observe(self, memory: NonFiniteMemory, loss: float, observation: Observation) -> None:
        memory.loss = loss
        memory.step = observation.step

    def decide(self, memory: NonFiniteMemory) -> Verdict:
        loss = memory.loss
        return loss is not None and not -math.inf < loss < math.inf, loss, memory.step

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, loss, step = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {})
        message = f"{unit.metric} is {'not finite: ' if stop else ''}{unit.text(loss)} (step {step:.12g})"
        return Told(Reason.NON_FINITE if stop else Reason.WAITING, message, {"value": unit.value(loss), "step": step})

    def start_many(self, count: int) -> Lanes:
        return Lanes(bad=np.zeros(count, np.bool_))

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        lanes.bad = np.isnan(loss)

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops: BoolArray = lanes.bad
        return stops
