"""Lightning's EarlyStopping."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

from convergence.decision import Reason
from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, check_flag, single


@final
@dataclass(frozen=True, repr=False)
class Lightning(PeerRule):
    """Stop where Lightning's EarlyStopping stops; made by `presets.lightning`."""

    peer: ClassVar[str] = "Lightning's EarlyStopping"
    preset: ClassVar[str] = "lightning"

    patience: int = 3
    min_delta: float = 0.0
    check_finite: bool = True
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta")
        check_flag("check_finite", self.check_finite)
        for name in ("stopping_threshold", "divergence_threshold"):
            if getattr(self, name) is not None:
                check_amount(self, name)

    @property
    def span(self) -> int:
        return max(1, self.patience)

    def check(self, memory: CheckMemory, loss: float) -> bool:
        loss = single(loss)
        if self._outside(loss) is not None:
            return True
        if single(loss + single(self.min_delta)) < memory.best:
            memory.keep(loss)
            memory.wait = 0
            return False
        return memory.missed() >= self.patience

    def why(self, wait: int, loss: float) -> Reason:
        return self._outside(single(loss)) or super().why(wait, loss)

    def _outside(self, loss: float) -> Reason | None:
        """Return why a single value stops, whatever came before."""
        if self.check_finite and not math.isfinite(loss):
            return Reason.NON_FINITE
        if self.stopping_threshold is not None and loss < single(self.sign * self.stopping_threshold):
            return Reason.TARGET_REACHED
        if self.divergence_threshold is not None and loss > single(self.sign * self.divergence_threshold):
            return Reason.DIVERGED
        return None


def lightning(
    patience: int = 3,
    min_delta: float = 0.0,
    *,
    check_finite: bool = True,
    stopping_threshold: float | None = None,
    divergence_threshold: float | None = None,
) -> Lightning:
    """Stop where `EarlyStopping` of Lightning stops: `patience` checks in a row without a gain beyond `min_delta`.

    Parameters
    ----------
    patience : int
        Checks without improvement at which to stop; 0 is the same as 1.
    min_delta : float
        Gain over the best, in the metric's unit, that a check has to exceed. The best moves only on such a gain, so
        small ones add up. A negative one is accepted, as by Lightning.
    check_finite : bool
        Stop at NaN or infinity; without it they are misses.
    stopping_threshold, divergence_threshold : float, optional
        Stop at a value better, or worse, than this, in the metric's own unit.

    Notes
    -----
    Computes in single precision, because Lightning hands its callback float32 tensors: 1 + 1e-9 is a tie with 1, and
    1e39 is infinite. A metric that is logged as float64 keeps its precision in Lightning and not here. The trap: a tie
    is a miss, and one NaN ends the run. O(1) per observation.

    Source: pytorch-lightning and lightning 2.6.6, `EarlyStopping._evaluate_stopping_criteria`, read and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.lightning(patience=2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return Lightning(patience, min_delta, check_finite, stopping_threshold, divergence_threshold)
