"""Keras's EarlyStopping."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, single


@final
@dataclass(frozen=True, repr=False)
class Keras(PeerRule):
    """Stop where Keras's EarlyStopping stops; made by `presets.keras`."""

    peer: ClassVar[str] = "Keras's EarlyStopping"
    preset: ClassVar[str] = "keras"

    patience: int = 0
    min_delta: float = 0.0
    baseline: float | None = None
    start_from_epoch: int = 0

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta")
        if self.baseline is not None:
            check_amount(self, "baseline")
        check_count(self, "start_from_epoch", least=0)

    @property
    def span(self) -> int:
        return max(1, self.patience)

    def check(self, memory: CheckMemory, loss: float) -> bool:
        if memory.checks <= self.start_from_epoch:
            return False
        memory.wait += 1
        # Keras adds in double precision, and its backend rounds both sides to compare.
        needed = single(loss + abs(self.min_delta))
        if memory.best_step is None or needed < single(memory.best):
            memory.keep(loss)
            if self.baseline is None or needed < single(self.sign * self.baseline):
                memory.wait = 0
            return False
        return memory.wait >= self.patience


def keras(
    patience: int = 0, min_delta: float = 0.0, *, baseline: float | None = None, start_from_epoch: int = 0
) -> Keras:
    """Stop where `EarlyStopping` of Keras stops: `patience` epochs in a row without a gain beyond `min_delta`.

    Parameters
    ----------
    patience : int
        Epochs without improvement at which to stop; 0 is the same as 1.
    min_delta : float
        Gain over the best, in the metric's unit, that an epoch has to exceed; its sign is ignored. The best moves only
        on such a gain, so small ones add up.
    baseline : float, optional
        The wait starts again only at a value that beats this too, in the metric's own unit.
    start_from_epoch : int
        Epochs at the start that are not looked at, nor counted for the best.

    Notes
    -----
    Each observation is an epoch. Compares in single precision, as Keras's backends torch, TensorFlow and JAX do: 1
    + 1e-9 is a tie with 1. The trap: the first value is always the best, so that after a NaN at first nothing ever
    improves. O(1) per observation.

    Source: keras 3.15, `EarlyStopping.on_epoch_end`, read and run with the torch backend.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.keras(patience=2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return Keras(patience, min_delta, baseline, start_from_epoch)
