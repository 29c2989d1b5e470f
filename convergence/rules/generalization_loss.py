"""GeneralizationLoss: too far above the best so far (Prechelt's GL)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_amount
from convergence.rule import MetricRule
from convergence.stats.excess import excess


@dataclass(slots=True)
class GeneralizationLossMemory:
    """`best` is the lowest finite loss so far, `high` the highest."""

    best: float | None = None
    high: float = -math.inf
    loss: float | None = None
    step: float | None = None


@final
@dataclass(frozen=True, repr=False)
class GeneralizationLoss(MetricRule):
    """Stop when the newest value is more than `alpha` percent worse than the best so far.

    GL(t) = 100 * (E(t) / E_opt(t) - 1) > alpha, with E_opt(t) the lowest loss up to t. Written as
    100 * (E(t) - E_opt(t)) / abs(E_opt(t)) it also serves metrics below zero and metrics that grow; for a metric
    that touches or crosses zero, where a ratio has no meaning, the range seen so far takes the place of abs(E_opt).

    Parameters
    ----------
    alpha : float
        Percent; at least 0. Prechelt uses 1 to 5.

    Notes
    -----
    The trap: GL depends on the zero of the scale and explodes as a loss approaches it; one noisy value can stop it.
    A value that is not finite does not stop it. O(1) per observation. Rearming keeps the best.

    Prechelt (1998), "Early stopping - but when?", class GL.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(GeneralizationLoss(5), [2.0, 1.0, 1.04, 1.06], mode="min").stop_index
    3
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset()

    alpha: float

    def __post_init__(self) -> None:
        check_amount(self, "alpha", least=0)

    def start(self) -> GeneralizationLossMemory:
        return GeneralizationLossMemory()

    def observe(self, memory: GeneralizationLossMemory, loss: float, observation: Observation) -> None:
        if -math.inf < loss < math.inf:
            if memory.best is None or loss < memory.best:
                memory.best = loss
            memory.high = max(loss, memory.high)
        memory.loss = loss
        memory.step = observation.step

    def decide(self, memory: GeneralizationLossMemory) -> Verdict:
        loss, best = memory.loss, memory.best
        if loss is None or best is None or not math.isfinite(loss):
            return False, math.nan, best, loss, memory.step
        loss_percent = 100 * excess(loss, best, best, memory.high)
        return loss_percent > self.alpha, loss_percent, best, loss, memory.step

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, loss_percent, best, loss, step = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"alpha": self.alpha})
        evidence = {
            "generalization_loss": loss_percent,
            "alpha": self.alpha,
            "best": unit.value(best),
            "value": unit.value(loss),
            "step": step,
        }
        if math.isnan(loss_percent):
            return Told(Reason.WAITING, f"{unit.metric} is {unit.text(loss)}: no generalization loss", evidence)
        message = (
            f"{unit.metric} {unit.text(loss)} is {loss_percent:.3g} % worse than its best {unit.text(best)} "
            f"({'more than' if stop else 'at most'} {self.alpha:g} %)"
        )
        going_on = Reason.IMPROVING if loss == best else Reason.WAITING
        return Told(Reason.OVERFITTING if stop else going_on, message, evidence)

    def shared(self) -> tuple[Any, int | None]:
        return GeneralizationLoss(0), None

    def start_many(self, count: int) -> Lanes:
        return Lanes(best=np.full(count, np.inf), high=np.full(count, -np.inf), percent=np.full(count, np.nan))

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        np.fmin(lanes.best, loss, out=lanes.best)
        np.fmax(lanes.high, loss, out=lanes.high)
        crosses = (lanes.best <= 0) & (lanes.high >= 0)
        size = np.where(crosses, lanes.high - lanes.best, np.abs(lanes.best))
        lanes.percent = 100 * np.where(size > 0, (loss - lanes.best) / size, loss * 0.0)

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops: BoolArray = lanes.percent > self.alpha
        return stops
