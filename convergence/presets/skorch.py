"""skorch's EarlyStopping."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, also_called, check_threshold_mode


@final
@dataclass(frozen=True, repr=False)
class Skorch(PeerRule):
    """Stop where skorch's EarlyStopping stops; made by `presets.skorch`."""

    peer: ClassVar[str] = "skorch's EarlyStopping"
    preset: ClassVar[str] = "skorch"

    patience: int = 5
    min_delta: float = 1e-4
    threshold_mode: str = "rel"

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta")
        check_threshold_mode(self.threshold_mode)

    @property
    def span(self) -> int:
        return max(1, self.patience)

    def check(self, memory: CheckMemory, loss: float) -> bool:
        best = memory.best
        if memory.best_step is None:
            bar = math.inf
        elif self.threshold_mode == "rel":
            bar = best - self.sign * (self.min_delta * best)
        else:
            bar = best - self.min_delta
        if loss < bar:
            memory.keep(loss)
            memory.wait = 0
        else:
            memory.wait += 1
        return memory.wait == self.patience


@also_called(min_delta="threshold")
def skorch(
    patience: int = 5, min_delta: float = 1e-4, *, threshold_mode: str = "rel", threshold: float | None = None
) -> Skorch:
    """Stop where `EarlyStopping` of skorch stops: `patience` epochs in a row without a gain beyond `min_delta`.

    Parameters
    ----------
    patience : int
        Epochs without improvement at which to stop; with 0 any epoch that improves stops, so the first.
    min_delta : float
        Gain that an epoch has to exceed, as a factor of the best, or in the metric's unit with "abs".
    threshold_mode : {"rel", "abs"}
        How `min_delta` is meant.
    threshold : float, optional
        skorch's name for `min_delta`.

    Notes
    -----
    NaN is a miss. The trap: the default is relative, and with a negative metric the bar is on the wrong side of the
    best, so that a run that gets worse goes on. It stops at exactly `patience` misses, not at more: to go on after a
    stop is to go on until the next gain. O(1) per observation.

    Source: skorch 1.4.0, `EarlyStopping.on_epoch_end`, read and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.skorch(patience=2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return Skorch(patience, min_delta, threshold_mode)
