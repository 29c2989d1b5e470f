"""XGBoost's EarlyStopping."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, also_called


@final
@dataclass(frozen=True, repr=False)
class XGBoost(PeerRule):
    """Stop where XGBoost's EarlyStopping stops; made by `presets.xgboost`."""

    peer: ClassVar[str] = "XGBoost's EarlyStopping"
    preset: ClassVar[str] = "xgboost"

    patience: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta", least=0)

    @property
    def span(self) -> int:
        return max(1, self.patience)

    def check(self, memory: CheckMemory, loss: float) -> bool:
        best, delta = memory.best, self.min_delta
        # XGBoost takes min_delta from the best or from the new score, whichever is larger: that rounds differently.
        gained = loss < best - delta if self.sign > 0 else loss + delta < best
        if memory.best_step is None or gained:
            memory.keep(loss)
            memory.wait = 0
        else:
            memory.wait += 1
        return memory.wait >= self.patience


@also_called(patience="rounds")
def xgboost(patience: int | None = None, min_delta: float = 0.0, *, rounds: int | None = None) -> XGBoost:
    """Stop where `EarlyStopping` of XGBoost stops: `patience` rounds without a gain beyond `min_delta`.

    Parameters
    ----------
    patience : int
        Rounds without improvement at which to stop; with 0 the first round stops. Required.
    min_delta : float
        Gain over the best, in the metric's unit, that a round has to exceed; at least 0.
    rounds : int, optional
        XGBoost's name for `patience`; `early_stopping_rounds` of its estimators is the same.

    Notes
    -----
    The traps: XGBoost looks at the last metric of the last dataset only; the first value is always the best, so that
    after a NaN at first nothing ever improves. O(1) per observation.

    Source: xgboost 3.2.0, `callback.EarlyStopping.after_iteration`, read and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.xgboost(2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return XGBoost(patience, min_delta)  # type: ignore[arg-type]
