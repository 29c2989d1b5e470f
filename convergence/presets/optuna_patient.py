"""Optuna's PatientPruner."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import WindowMemory, WindowRule


@dataclass(slots=True)
class OptunaMemory(WindowMemory):
    """The lowest value before the window, beside the window."""

    before: float = math.inf


@final
@dataclass(frozen=True, repr=False)
class OptunaPatient(WindowRule):
    """Stop where Optuna's PatientPruner prunes; made by `presets.optuna_patient`."""

    peer: ClassVar[str] = "Optuna's PatientPruner"
    preset: ClassVar[str] = "optuna_patient"
    memory_parameters: ClassVar[frozenset[str]] = frozenset({"patience"})

    patience: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta", least=0)

    @property
    def reach(self) -> int:
        return self.patience + 1

    @property
    def span(self) -> int:
        return self.patience + 2

    def start(self) -> OptunaMemory:
        return OptunaMemory()

    def forget(self, memory: OptunaMemory, window: list[float]) -> None:
        if len(window) > self.reach:
            memory.before = min(memory.before, window.pop(0))

    def clear(self, memory: OptunaMemory) -> None:
        super().clear(memory)
        memory.before = math.inf

    def judge(self, memory: OptunaMemory, window: list[float]) -> bool:
        # Nothing is below infinity, so that NaN alone never prunes, before the window or in it.
        lowest = min((loss for loss in window if not math.isnan(loss)), default=-math.inf)
        return memory.before + self.min_delta < lowest


def optuna_patient(patience: int, min_delta: float = 0.0) -> OptunaPatient:
    """Stop where `PatientPruner` of Optuna prunes: the last `patience` + 1 values are all worse than the best before.

    Parameters
    ----------
    patience : int
        The newest values, less one, that have to be worse.
    min_delta : float
        By how much worse, in the metric's unit, they have to be: larger is more lenient, the reverse of all others; at
        least 0.

    Notes
    -----
    Without a wrapped pruner, and with one step between values. NaN is ignored. The trap: a tie with the best never
    prunes, and nothing does before patience + 2 values. O(patience) per observation.

    Source: optuna 5.0.0, `PatientPruner.prune`, read and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.optuna_patient(patience=2), [3.0, 2.0, 2.5, 2.4, 2.1, 1.0], mode="min").stop_index
    4
    """
    return OptunaPatient(patience, min_delta)
