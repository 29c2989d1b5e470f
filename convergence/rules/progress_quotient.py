"""ProgressQuotient: generalization loss against training progress (Prechelt's PQ)."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, final

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.observation import Observation
from convergence.parameters import check_amount, check_count, check_name
from convergence.rule import MetricRule
from convergence.stats.excess import excess


@dataclass(slots=True)
class ProgressQuotientMemory:
    """Best and range of both metrics, sums over the running strip, and the verdict of the last strip end."""

    best: float | None = None
    high: float = -math.inf
    train_low: float = math.inf
    train_high: float = -math.inf
    count: int = 0
    strip_sum: float = 0.0
    strip_count: int = 0
    strip_low: float = math.inf
    loss_percent: float | None = None
    progress: float | None = None
    quotient: float | None = None
    loss: float | None = None
    step: float | None = None


@final
@dataclass(frozen=True, repr=False)
class ProgressQuotient(MetricRule):
    """Stop at the end of a strip when generalization loss outweighs training progress.

    GL(t) / P_k(t) > alpha, with GL as in `GeneralizationLoss`, in percent, and P_k(t) how much the mean training
    loss of the strip of k observations exceeds its minimum over the strip, in per mille:
    P_k(t) = 1000 * (mean E_tr / min E_tr - 1). The verdict of a strip end stands until the next.

    Parameters
    ----------
    alpha : float
        Quotient in percent per per mille; at least 0. Prechelt uses 0.5 to 3.
    k : int
        Observations per strip; at least 1.
    train : str
        Name of the training metric; of the same direction as the metric that the rule is bound to.

    Notes
    -----
    A strip is k observations of the bound metric together with all training values that arrived since the strip
    before, so both metrics may be logged at different times. Without progress (P = 0) any generalization loss stops
    and none does not. The trap: dropout and augmentation keep the training loss from showing progress. A strip
    that ends in a value that is not finite, or without a finite training value, does not stop. O(1) per
    observation. Rearming starts a new strip and keeps the best.

    Prechelt (1998), "Early stopping - but when?", class PQ.

    Examples
    --------
    >>> from convergence import replay
    >>> curves = {"val": [1.0, 0.8, 0.9, 1.0, 1.1, 1.2], "train": [1.0, 0.9, 0.85, 0.84, 0.83, 0.829]}
    >>> replay(ProgressQuotient(1.0, k=2, train="train"), curves, monitor="val", mode="min").stop_index
    3
    """

    memory_parameters: ClassVar[frozenset[str]] = frozenset({"k"})

    alpha: float
    k: int = 5
    _: KW_ONLY
    train: str

    def __post_init__(self) -> None:
        check_amount(self, "alpha", least=0)
        check_count(self, "k")
        check_name("train", self.train)

    @property
    def span(self) -> int:
        return self.k

    def side_metrics(self) -> tuple[str, ...]:
        return (self.train,)

    def start(self) -> ProgressQuotientMemory:
        return ProgressQuotientMemory()

    def observe_side(self, memory: ProgressQuotientMemory, loss: float) -> None:
        if not math.isfinite(loss):
            return
        memory.train_low = min(loss, memory.train_low)
        memory.train_high = max(loss, memory.train_high)
        memory.strip_low = min(loss, memory.strip_low)
        memory.strip_sum += loss
        memory.strip_count += 1

    def observe(self, memory: ProgressQuotientMemory, loss: float, observation: Observation) -> None:
        if math.isfinite(loss):
            if memory.best is None or loss < memory.best:
                memory.best = loss
            memory.high = max(loss, memory.high)
        memory.loss = loss
        memory.step = observation.step
        memory.count += 1
        if memory.count == self.k:
            self._end_strip(memory, loss)

    def _end_strip(self, memory: ProgressQuotientMemory, loss: float) -> None:
        memory.loss_percent = memory.progress = memory.quotient = None
        if memory.best is not None and math.isfinite(loss):
            memory.loss_percent = 100 * excess(loss, memory.best, memory.best, memory.high)
            if memory.strip_count:
                mean = memory.strip_sum / memory.strip_count
                progress = 1000 * excess(mean, memory.strip_low, memory.train_low, memory.train_high)
                memory.progress = max(progress, 0.0)
                if memory.progress > 0:
                    memory.quotient = memory.loss_percent / memory.progress
                else:
                    memory.quotient = math.inf if memory.loss_percent > 0 else 0.0
        self._new_strip(memory)

    def _new_strip(self, memory: ProgressQuotientMemory) -> None:
        memory.count = memory.strip_count = 0
        memory.strip_sum = 0.0
        memory.strip_low = math.inf

    def decide(self, memory: ProgressQuotientMemory) -> Verdict:
        m = memory
        stop = m.quotient is not None and m.quotient > self.alpha
        return stop, m.loss_percent, m.progress, m.quotient, m.best, m.loss, m.step, m.count

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, loss_percent, progress, quotient, best, loss, step, count = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"alpha": self.alpha})
        known = {"generalization_loss": loss_percent, "progress": progress, "quotient": quotient}
        evidence = {
            **{name: math.nan if number is None else number for name, number in known.items()},
            "alpha": self.alpha,
            "best": unit.value(best),
            "value": unit.value(loss),
            "step": step,
        }
        if quotient is None:
            message = f"{unit.metric}: no quotient yet, {count} of {self.k} observations of the strip"
        else:
            message = (
                f"at the last strip end {unit.metric} was {loss_percent:.3g} % worse than its best, and {self.train} "
                f"made {progress:.3g} per mille progress: quotient {quotient:.3g}, alpha {self.alpha:g}"
            )
        going_on = Reason.IMPROVING if loss == best else Reason.WAITING
        return Told(Reason.OVERFITTING if stop else going_on, message, evidence)

    def clear(self, memory: ProgressQuotientMemory) -> None:
        self._new_strip(memory)
        memory.loss_percent = memory.progress = memory.quotient = None
