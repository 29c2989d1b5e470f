"""CatBoost's overfitting detector."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import WindowMemory, WindowRule, also_called, single

_FADING, _LEAST = 0.99, 1e-10
_LONGEST = 2000


@dataclass(slots=True)
class CatBoostMemory(WindowMemory):
    """The gain that is still expected, beside the window."""

    expected: float = 0.0


@final
@dataclass(frozen=True, repr=False)
class CatBoost(WindowRule):
    """Stop where CatBoost's overfitting detector stops; made by `presets.catboost`."""

    peer: ClassVar[str] = "CatBoost's overfitting detector"
    preset: ClassVar[str] = "catboost"

    patience: int = 20
    od_pval: float = 0.0
    od_type: str = "IncToDec"

    def __post_init__(self) -> None:
        check_count(self, "patience")
        check_amount(self, "od_pval", least=0)
        if self.od_pval > 1:
            raise ValueError(f"od_pval must be at most 1, got {self.od_pval}")
        if self.od_type not in ("IncToDec", "Iter"):
            raise ValueError(f"od_type must be 'IncToDec' or 'Iter', got {self.od_type!r}")
        if self.od_type == "Iter" and self.od_pval:
            raise ValueError(f"od_pval is not for od_type 'Iter', got {self.od_pval}")

    @property
    def reach(self) -> int:
        return _LONGEST

    @property
    def span(self) -> int:
        return self.patience

    def start(self) -> CatBoostMemory:
        return CatBoostMemory()

    def judge(self, memory: CatBoostMemory, window: list[float]) -> bool:
        loss, expected, fading = window[-1], memory.expected * _FADING, 1.0
        for earlier in reversed(window):
            gain = (earlier - loss) * fading
            if expected < gain < math.inf:
                expected = gain
            fading *= _FADING
        memory.expected = expected
        if not math.isfinite(loss) or memory.wait < self.patience:
            return False
        p_value = math.exp(-0.5 / max(_LEAST, expected / max(_LEAST, loss - memory.best)))
        return p_value < (1.0 if self.od_type == "Iter" else single(self.od_pval))

    def clear(self, memory: CatBoostMemory) -> None:
        super().clear(memory)
        memory.expected = 0.0


@also_called(patience="od_wait")
def catboost(
    patience: int = 20,
    *,
    od_pval: float = 0.0,
    od_type: str = "IncToDec",
    od_wait: int | None = None,
    early_stopping_rounds: int | None = None,
) -> CatBoost:
    """Stop where CatBoost's overfitting detector stops: a fall that is large beside what the run still gains.

    Stops when exp(-0.5 / x) < od_pval, where x is the expected gain (the largest rise between two rounds, fading by
    0.99 a round) over the distance from the best, and `patience` rounds have passed since the best.

    Parameters
    ----------
    patience : int
        Rounds since the best before which it does not stop; at least 1.
    od_pval : float
        Level below which it stops, 0 to 1; useful 1e-10 to 1e-2. CatBoost's default 0 never stops.
    od_type : {"IncToDec", "Iter"}
        With "Iter" the level is 1: it stops `patience` rounds after the best.
    od_wait : int, optional
        CatBoost's name for `patience`.
    early_stopping_rounds : int, optional
        Short for od_type "Iter" and this patience, as in CatBoost.

    Notes
    -----
    CatBoost itself ends with an error at a value that is not finite; here it is a miss that does not stop. The trap:
    after a long plateau the expected gain has faded, and a small fall stops. O(rounds so far) per observation, at most
    2000.

    Source: catboost 1.2.10, `TOverfittingDetectorIncToDec`, compared with real training runs; the
    formula is in CatBoost's documentation.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> losses = [3.0, 2.0, 1.0, 0.9, 1.5, 2.5, 3.0]
    >>> replay(presets.catboost(2, od_pval=0.6), losses, mode="min").stop_index
    6
    >>> replay(presets.catboost(early_stopping_rounds=2), losses, mode="min").stop_index
    5
    """
    if early_stopping_rounds is not None:
        if patience != 20 or od_pval or od_type != "IncToDec":
            raise TypeError("catboost got early_stopping_rounds beside patience, od_pval or od_type, which it replaces")
        return CatBoost(early_stopping_rounds, 0.0, "Iter")
    return CatBoost(patience, od_pval, od_type)
