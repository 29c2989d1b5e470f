"""EarlyStopping of ultralytics."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_count
from convergence.presets.peer import CheckMemory, PeerRule


@final
@dataclass(frozen=True, repr=False)
class Ultralytics(PeerRule):
    """Stop where EarlyStopping of ultralytics stops; made by `presets.ultralytics`."""

    peer: ClassVar[str] = "EarlyStopping of ultralytics"
    preset: ClassVar[str] = "ultralytics"

    patience: int | None = 50

    def __post_init__(self) -> None:
        if self.patience is not None:
            check_count(self, "patience", least=0)

    @property
    def span(self) -> int:
        return self.patience or 1

    def check(self, memory: CheckMemory, loss: float) -> bool:
        # A best of exactly zero is taken for none.
        if memory.best_step is None or loss < memory.best or memory.best == 0:
            memory.keep(loss)
            memory.wait = 0
        else:
            memory.wait += 1
        return bool(self.patience) and memory.wait >= (self.patience or 0)


def ultralytics(patience: int | None = 50) -> Ultralytics:
    """Stop where `EarlyStopping` of ultralytics stops: `patience` epochs since the best fitness.

    Parameters
    ----------
    patience : int or None
        Epochs since the best at which to stop; 0 and None never stop. The class has 50, the default configuration 100.

    Notes
    -----
    A tie is a miss. The traps: while the best is exactly 0 every value replaces it, so that a metric that starts at 0
    is waited for and one that has fallen to 0 is lost; the first value is always the best, so that after a NaN at first
    nothing ever improves. O(1) per observation.

    Source: ultralytics 8.4.190, `EarlyStopping.__call__`: its recorded stops, not a run beside it.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.ultralytics(patience=2), [0.1, 0.5, 0.4, 0.5, 0.9], mode="max").stop_index
    3
    """
    return Ultralytics(patience)
