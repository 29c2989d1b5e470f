"""Lookahead: an observation that the next k did not reach."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, IntArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_count
from convergence.rule import MetricRule


@dataclass(slots=True)
class LookaheadMemory:
    """`n` is the index of the last observation that attains the best, `after` the best loss since."""

    count: int = 0
    wait: int = 0
    n: int | None = None
    n_step: float | None = None
    best: float | None = None
    after: float | None = None
    loss: float | None = None
    step: float | None = None


@final
@dataclass(frozen=True, repr=False)
class Lookahead(MetricRule):
    """Stop when some observation n was better than each of the next k.

    With higher as better: M(n) > max(M(n+1), ..., M(n+k)). Decided first at n + k, it holds until a value at or
    above M(n) arrives; a value equal to M(n) is as good and takes its place.

    Parameters
    ----------
    k : int
        Observations that have to stay below; at least 1.

    Notes
    -----
    The first stop is that of `Patience(k, ties="improve")`: the first n that satisfies the inequality is the last
    observation that attains the best so far, since a better or equal earlier one would have satisfied it before.
    The trap: n is the last of ties, while `Stopper.best` is the first; both are best. A value that is not finite
    reaches nothing. O(1) per observation. Rearming clears the count and keeps n.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(Lookahead(2), [0.5, 0.7, 0.6, 0.7, 0.6, 0.5], mode="max").stop_index
    5
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset()

    k: int

    def __post_init__(self) -> None:
        check_count(self, "k")

    @property
    def span(self) -> int:
        return self.k

    def start(self) -> LookaheadMemory:
        return LookaheadMemory()

    def observe(self, memory: LookaheadMemory, loss: float, observation: Observation) -> None:
        finite = -math.inf < loss < math.inf
        if finite and (memory.best is None or loss <= memory.best):
            memory.n = memory.count
            memory.n_step = observation.step
            memory.best = loss
            memory.after = None
            memory.wait = 0
        else:
            memory.wait += 1
            if finite and (memory.after is None or loss < memory.after):
                memory.after = loss
        memory.count += 1
        memory.loss = loss
        memory.step = observation.step

    def decide(self, memory: LookaheadMemory) -> Verdict:
        m = memory
        return m.wait >= self.k, m.wait, m.count, m.n, m.n_step, m.best, m.after, m.loss, m.step

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, wait, count, n, n_step, best, after, loss, step = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"k": self.k})
        evidence = {
            "n": math.nan if n is None else n,
            "n_step": math.nan if n_step is None else n_step,
            "k": self.k,
            "wait": wait,
            "value_at_n": unit.value(best),
            "best_after_n": unit.value(after),
            "value": unit.value(loss),
            "step": step,
        }
        if wait == 0:
            return Told(Reason.IMPROVING, f"{unit.metric} reached {unit.text(loss)} (observation {n})", evidence)
        if n is None:
            message = f"{unit.metric} was not finite in the first {wait} observation(s)"
        else:
            reached = "none is finite" if after is None else f"the best of them is {unit.text(after)}"
            message = (
                f"{unit.metric} at observation n={n} was {unit.text(best)}, "
                f"and the {count - 1 - n} observation(s) after it stayed worse ({reached}); k={self.k}"
            )
        if not stop:
            return Told(Reason.WAITING, message, evidence)
        return Told(Reason.PLATEAUED if math.isfinite(loss) else Reason.NON_FINITE, message, evidence)

    def clear(self, memory: LookaheadMemory) -> None:
        memory.wait = 0

    def revive(self, memory: LookaheadMemory) -> None:
        if not (memory.n is None) is (memory.n_step is None) is (memory.best is None):
            raise ValueError("the state of Lookahead is damaged: n, n_step and best must come together")

    def shared(self) -> tuple[Any, int | None]:
        return Lookahead(1), self.k

    def start_many(self, count: int) -> Lanes:
        return Lanes(wait=np.zeros(count, np.int32), best=np.full(count, np.inf))

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        lanes.wait += 1
        lanes.wait *= ~(loss <= lanes.best)  # "not <=", so that NaN is a miss
        np.fmin(lanes.best, loss, out=lanes.best)

    def level_many(self, lanes: Lanes) -> IntArray:
        wait: IntArray = lanes.wait
        return wait

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops: BoolArray = lanes.wait >= self.k
        return stops

    def clear_many(self, lanes: Lanes, where: BoolArray) -> None:
        lanes.wait[where] = 0
