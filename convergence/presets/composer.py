"""Composer's EarlyStopper."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, single


@final
@dataclass(frozen=True, repr=False)
class Composer(PeerRule):
    """Stop where Composer's EarlyStopper stops; made by `presets.composer`."""

    peer: ClassVar[str] = "Composer's EarlyStopper"
    preset: ClassVar[str] = "composer"

    patience: int = 1
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta")

    @property
    def span(self) -> int:
        return self.patience + 1

    def check(self, memory: CheckMemory, loss: float) -> bool:
        loss = single(loss)
        gain = single(abs(loss - memory.best))
        if memory.best_step is None or (loss < memory.best and gain > single(abs(self.min_delta))):
            memory.keep(loss)
            memory.wait = 0
            return False
        return memory.missed() > self.patience


def composer(patience: int = 1, min_delta: float = 0.0) -> Composer:
    """Stop where `EarlyStopper` of Composer stops: more than `patience` evaluations without a gain beyond `min_delta`.

    Parameters
    ----------
    patience : int
        Epochs without improvement that are tolerated, one evaluation in each: it stops at the next.
    min_delta : float
        Gain over the best, in the metric's unit, that an evaluation has to exceed; its sign is ignored.

    Notes
    -----
    Computes in single precision, because Composer's metrics are float32 tensors. The trap: it stops one evaluation
    later than most, and the first value is always the best, so that after a NaN at first nothing ever improves.
    O(1) per observation.

    Source: composer 0.32.1, `EarlyStopper`: its recorded stops, not a run beside it. How it rounds a gain that is
    equal to `min_delta` up to single precision is not among them.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.composer(patience=2), [3.0, 2.0, 2.5, 2.0, 2.1, 1.0], mode="min").stop_index
    4
    """
    return Composer(patience, min_delta)
