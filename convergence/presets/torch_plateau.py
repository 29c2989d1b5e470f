"""torch's ReduceLROnPlateau, as a stopper."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, also_called, check_threshold_mode


@final
@dataclass(frozen=True, repr=False)
class TorchPlateau(PeerRule):
    """Stop where torch's ReduceLROnPlateau first lowers the rate; made by `presets.torch_plateau`."""

    peer: ClassVar[str] = "torch's ReduceLROnPlateau"
    preset: ClassVar[str] = "torch_plateau"

    patience: int = 10
    min_delta: float = 1e-4
    threshold_mode: str = "rel"

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta")
        check_threshold_mode(self.threshold_mode)

    @property
    def span(self) -> int:
        return self.patience + 1

    def check(self, memory: CheckMemory, loss: float) -> bool:
        best, delta = memory.best, self.min_delta
        if loss < (best * (1 - self.sign * delta) if self.threshold_mode == "rel" else best - delta):
            memory.keep(loss)
            memory.wait = 0
            return False
        return memory.missed() > self.patience


@also_called(min_delta="threshold")
def torch_plateau(
    patience: int = 10, min_delta: float = 1e-4, *, threshold_mode: str = "rel", threshold: float | None = None
) -> TorchPlateau:
    """Stop where `ReduceLROnPlateau` of torch first lowers the rate: more than `patience` checks without a gain.

    Parameters
    ----------
    patience : int
        Checks in a row without improvement that are tolerated: it stops at the next.
    min_delta : float
        Gain that a check has to exceed, as a factor of the best, or in the metric's unit with "abs".
    threshold_mode : {"rel", "abs"}
        How `min_delta` is meant.
    threshold : float, optional
        torch's name for `min_delta`.

    Notes
    -----
    NaN is a miss. The traps: it acts one check later than most; the default is relative, and with a negative metric
    the bar is on the wrong side of the best, so that a run that gets worse goes on. Cooldown and later reductions are
    not part of it. O(1) per observation.

    Source: torch 2.13.0, `ReduceLROnPlateau.step`, read and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.torch_plateau(patience=2), [3.0, 2.0, 2.5, 2.0, 2.1, 1.0], mode="min").stop_index
    4
    """
    return TorchPlateau(patience, min_delta, threshold_mode)
