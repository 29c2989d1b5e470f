"""AutoGluon's adaptive early stopping."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule


@final
@dataclass(frozen=True, repr=False)
class AutoGluon(PeerRule):
    """Stop where AutoGluon's AdaptiveES stops; made by `presets.autogluon`."""

    peer: ClassVar[str] = "AutoGluon's AdaptiveES"
    preset: ClassVar[str] = "autogluon"

    adaptive_rate: float = 0.3
    adaptive_offset: float = 10
    min_patience: int | None = None
    max_patience: int | None = None

    def __post_init__(self) -> None:
        check_amount(self, "adaptive_rate")
        check_amount(self, "adaptive_offset")
        for name in ("min_patience", "max_patience"):
            if getattr(self, name) is not None:
                check_count(self, name, least=0)

    def check(self, memory: CheckMemory, loss: float) -> bool:
        if loss < memory.best:
            memory.keep(loss)
            memory.wait = 0
        elif memory.checks > 1:
            memory.wait += 1
        best_round = memory.checks - 1 - memory.wait
        patience = self.adaptive_rate * best_round + self.adaptive_offset
        patience = round(patience) if math.isfinite(patience) else patience
        if self.max_patience is not None:
            patience = min(patience, self.max_patience)
        if self.min_patience is not None:
            patience = max(patience, self.min_patience)
        return memory.wait >= patience


def autogluon(
    adaptive_rate: float = 0.3,
    adaptive_offset: float = 10,
    *,
    min_patience: int | None = None,
    max_patience: int | None = None,
) -> AutoGluon:
    """Stop where `AdaptiveES` of AutoGluon stops: a patience that grows with the round of the best.

    Stops when rounds since the best >= round(adaptive_rate * round of the best + adaptive_offset), counted from 0.

    Parameters
    ----------
    adaptive_rate : float
        Rounds of patience for each round up to the best. AutoGluon's torch MLP has 0.5.
    adaptive_offset : float
        Rounds of patience at the start. AutoGluon's torch MLP has 20.
    min_patience, max_patience : int, optional
        Bounds of the patience.

    Notes
    -----
    AutoGluon's class takes only whether a round is the best; here that is a value strictly better than all before, and
    NaN is not. The trap: after a late best the patience is long. O(1) per observation.

    Source: autogluon 1.6.3, `AdaptiveES`: its formula and a recorded stop, not a run beside it.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.autogluon(0.5, 2), [5.0, 4.0, 3.0, 3.5, 3.5, 3.5, 3.5], mode="min").stop_index
    5
    """
    return AutoGluon(adaptive_rate, adaptive_offset, min_patience, max_patience)
