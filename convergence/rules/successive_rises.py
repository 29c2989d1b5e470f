"""SuccessiveRises: worse at the end of several strips in a row (Prechelt's UP)."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, IntArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_count
from convergence.rule import MetricRule


@dataclass(slots=True)
class SuccessiveRisesMemory:
    """`reference` is the loss at the last strip end that was finite, `ends` the strip ends so far."""

    count: int = 0
    ends: int = 0
    rises: int = 0
    reference: float | None = None
    loss: float | None = None
    step: float | None = None


@final
@dataclass(frozen=True, repr=False)
class SuccessiveRises(MetricRule):
    """Stop when the metric got worse over each of the last `s` strips of `k` observations.

    UP_s stops at the end of strip t if E(t) > E(t - k) and UP_(s-1) stopped at t - k; UP_1 needs only the
    comparison. The verdict of a strip end stands until the next; the first comparison is at observation 2 k.

    Parameters
    ----------
    s : int
        Strips in a row; at least 1.
    k : int
        Observations per strip; at least 1.

    Notes
    -----
    The trap: on pure noise a strip rises every second time, so s = 1 stops by chance. Equal strip ends are no rise.
    A strip end that is not finite counts as a rise, and the comparison goes on with the last finite one. O(1) per
    observation. Rearming starts a new first strip.

    Prechelt (1998), "Early stopping - but when?", class UP.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(SuccessiveRises(2, k=2), [9.0, 5.0, 9.0, 6.0, 9.0, 7.0], mode="min").stop_index
    5
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset()
    memory_parameters: ClassVar[frozenset[str]] = frozenset({"k"})

    s: int
    k: int = 5

    def __post_init__(self) -> None:
        check_count(self, "s")
        check_count(self, "k")

    @property
    def span(self) -> int:
        return self.k * (self.s + 1)

    def start(self) -> SuccessiveRisesMemory:
        return SuccessiveRisesMemory()

    def observe(self, memory: SuccessiveRisesMemory, loss: float, observation: Observation) -> None:
        memory.loss = loss
        memory.step = observation.step
        memory.count += 1
        if memory.count < self.k:
            return
        memory.count = 0
        memory.ends += 1
        if not math.isfinite(loss):
            memory.rises += memory.ends > 1
            return
        memory.rises = memory.rises + 1 if memory.reference is not None and loss > memory.reference else 0
        memory.reference = loss

    def decide(self, memory: SuccessiveRisesMemory) -> Verdict:
        return memory.rises >= self.s, memory.rises, memory.count, memory.reference, memory.loss, memory.step

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, rises, count, reference, loss, step = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"s": self.s, "k": self.k})
        evidence = {
            "rises": rises,
            "s": self.s,
            "k": self.k,
            "strip_end": unit.value(reference),
            "value": unit.value(loss),
            "step": step,
        }
        message = (
            f"{unit.metric} got worse over {rises} strip(s) of {self.k} observations in a row (s={self.s}); "
            f"{unit.text(reference)} at the last strip end, {count} observation(s) since"
        )
        if not stop:
            return Told(Reason.WAITING, message, evidence)
        return Told(Reason.OVERFITTING if math.isfinite(loss) else Reason.NON_FINITE, message, evidence)

    def clear(self, memory: SuccessiveRisesMemory) -> None:
        memory.count = memory.ends = memory.rises = 0
        memory.reference = None

    def shared(self) -> tuple[Any, int | None]:
        return replace(self, s=1), self.s

    def start_many(self, count: int) -> Lanes:
        zeros = {name: np.zeros(count, np.int32) for name in ("count", "ends", "rises")}
        return Lanes(reference=np.full(count, np.nan), **zeros)

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        lanes.count += 1
        at_end = lanes.count >= self.k
        if not at_end.any():
            return
        lanes.count[at_end] = 0
        lanes.ends += at_end
        finite = ~np.isnan(loss)
        rise = np.where(finite, loss > lanes.reference, lanes.ends > 1)
        lanes.rises = np.where(at_end, np.where(rise, lanes.rises + 1, np.where(finite, 0, lanes.rises)), lanes.rises)
        np.copyto(lanes.reference, loss, where=at_end & finite)

    def level_many(self, lanes: Lanes) -> IntArray:
        rises: IntArray = lanes.rises
        return rises

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops: BoolArray = lanes.rises >= self.s
        return stops

    def clear_many(self, lanes: Lanes, where: BoolArray) -> None:
        for counts in (lanes.count, lanes.ends, lanes.rises):
            counts[where] = 0
        lanes.reference[where] = np.nan
