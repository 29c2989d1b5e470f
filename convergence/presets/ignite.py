"""Ignite's EarlyStopping."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, also_called, check_flag, check_threshold_mode


@final
@dataclass(frozen=True, repr=False)
class Ignite(PeerRule):
    """Stop where Ignite's EarlyStopping stops; made by `presets.ignite`."""

    peer: ClassVar[str] = "Ignite's EarlyStopping"
    preset: ClassVar[str] = "ignite"

    patience: int
    min_delta: float = 0.0
    cumulative: bool = False
    threshold_mode: str = "abs"

    def __post_init__(self) -> None:
        check_count(self, "patience")
        check_amount(self, "min_delta", least=0)
        check_flag("cumulative", self.cumulative)
        check_threshold_mode(self.threshold_mode)

    @property
    def span(self) -> int:
        return self.patience

    def check(self, memory: CheckMemory, loss: float) -> bool:
        if memory.best_step is None:
            memory.keep(loss)
            return False
        best, delta = memory.best, self.min_delta
        if loss >= (best - delta if self.threshold_mode == "abs" else best * (1 - self.sign * delta)):
            if not self.cumulative and loss < best:
                memory.keep(loss)
            return memory.missed() >= self.patience
        # Not only gains come here: NaN is not worse than anything.
        memory.keep(loss)
        memory.wait = 0
        return False


@also_called(min_delta="threshold")
def ignite(
    patience: int,
    min_delta: float = 0.0,
    *,
    cumulative: bool = False,
    threshold_mode: str = "abs",
    threshold: float | None = None,
) -> Ignite:
    """Stop where `EarlyStopping` of Ignite stops: `patience` events in a row without a gain beyond `min_delta`.

    Parameters
    ----------
    patience : int
        Events without improvement at which to stop; at least 1.
    min_delta : float
        Gain that an event has to exceed, in the metric's unit, or as a factor of the best with "rel"; at least 0.
    cumulative : bool
        Measure the gain from where the wait last started again, so that small gains add up; by default it is measured
        from the best, and a slow drip of gains below `min_delta` stops.
    threshold_mode : {"abs", "rel"}
        How `min_delta` is meant.
    threshold : float, optional
        Ignite's name for `min_delta`.

    Notes
    -----
    The traps: NaN counts as an improvement, so that NaN for ever never stops; with "rel" and a negative metric the bar
    is on the wrong side of the best, and a run that gets worse goes on. O(1) per observation.

    Source: pytorch-ignite 0.5.5, `EarlyStopping.__call__`, read and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.ignite(patience=2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return Ignite(patience, min_delta, cumulative, threshold_mode)
