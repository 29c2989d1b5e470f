"""LightGBM's early_stopping callback."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, also_called


@final
@dataclass(frozen=True, repr=False)
class LightGBM(PeerRule):
    """Stop where LightGBM's early_stopping callback stops; made by `presets.lightgbm`."""

    peer: ClassVar[str] = "LightGBM's early_stopping"
    preset: ClassVar[str] = "lightgbm"

    patience: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta", least=0)

    @property
    def span(self) -> int:
        return max(1, self.patience)

    def check(self, memory: CheckMemory, loss: float) -> bool:
        if memory.best_step is None or loss < memory.best - self.min_delta:
            memory.keep(loss)
            memory.wait = 0
        else:
            memory.wait += 1
        return 0 < self.patience <= memory.wait


@also_called(patience="stopping_rounds")
def lightgbm(patience: int | None = None, min_delta: float = 0.0, *, stopping_rounds: int | None = None) -> LightGBM:
    """Stop where `early_stopping` of LightGBM stops: `patience` rounds without a gain beyond `min_delta`.

    Parameters
    ----------
    patience : int
        Rounds without improvement at which to stop; 0 never stops. Required.
    min_delta : float
        Gain over the best, in the metric's unit, that a round has to exceed; at least 0.
    stopping_rounds : int, optional
        LightGBM's name for `patience`.

    Notes
    -----
    About one validation metric; LightGBM stops when any of several does, write those with `|`. The trap: the first
    value is always the best, so that after a NaN at first nothing ever improves. O(1) per observation.

    Source: lightgbm 4.7.0, `early_stopping`, read and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.lightgbm(2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return LightGBM(patience, min_delta)  # type: ignore[arg-type]
