"""fastai's EarlyStoppingCallback."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule


@final
@dataclass(frozen=True, repr=False)
class Fastai(PeerRule):
    """Stop where fastai's EarlyStoppingCallback stops; made by `presets.fastai`."""

    peer: ClassVar[str] = "fastai's EarlyStoppingCallback"
    preset: ClassVar[str] = "fastai"

    patience: int = 1
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta")

    @property
    def span(self) -> int:
        return max(1, self.patience)

    def check(self, memory: CheckMemory, loss: float) -> bool:
        if loss + self.min_delta < memory.best:
            memory.keep(loss)
            memory.wait = 0
            return False
        return memory.missed() >= self.patience


def fastai(patience: int = 1, min_delta: float = 0.0) -> Fastai:
    """Stop where `EarlyStoppingCallback` of fastai stops: `patience` epochs without a gain beyond `min_delta`.

    Parameters
    ----------
    patience : int
        Epochs without improvement at which to stop; 0 is the same as 1.
    min_delta : float
        Gain over the best, in the metric's unit, that an epoch has to exceed. The best moves only on such a gain.

    Notes
    -----
    NaN is a miss. The trap: fastai takes the direction from the metric's name, here you give the mode; and its
    parameters come in another order (min_delta, patience). O(1) per observation.

    Source: fastai 2.8.12, `TrackerCallback` and `EarlyStoppingCallback`: its recorded stops, not a run beside it.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.fastai(patience=2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return Fastai(patience, min_delta)
