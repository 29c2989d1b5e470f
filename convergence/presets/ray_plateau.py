"""Ray Tune's TrialPlateauStopper."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import WindowMemory, WindowRule


@final
@dataclass(frozen=True, repr=False)
class RayPlateau(WindowRule):
    """Stop where Ray's TrialPlateauStopper stops; made by `presets.ray_plateau`."""

    peer: ClassVar[str] = "Ray's TrialPlateauStopper"
    preset: ClassVar[str] = "ray_plateau"
    memory_parameters: ClassVar[frozenset[str]] = frozenset({"num_results"})

    std: float = 0.01
    num_results: int = 4
    grace_period: int = 4
    metric_threshold: float | None = None

    def __post_init__(self) -> None:
        check_amount(self, "std")
        check_count(self, "num_results", least=0)
        check_count(self, "grace_period", least=0)
        if self.metric_threshold is not None:
            check_amount(self, "metric_threshold")

    @property
    def reach(self) -> int:
        return self.num_results

    @property
    def span(self) -> int:
        return max(1, self.num_results, self.grace_period)

    def judge(self, memory: WindowMemory, window: list[float]) -> bool:
        # Over no results the standard deviation is NaN, which is below nothing.
        if memory.checks < self.grace_period or len(window) < self.num_results or not self.num_results:
            return False
        if self.metric_threshold is not None and window[-1] > self.sign * self.metric_threshold:
            return False
        with np.errstate(all="ignore"):
            # numpy's own sum, so that the last bit is Ray's.
            return bool(np.std(window) < self.std)


def ray_plateau(
    std: float = 0.01, num_results: int = 4, grace_period: int = 4, metric_threshold: float | None = None
) -> RayPlateau:
    """Stop where `TrialPlateauStopper` of Ray Tune stops: the last values have a standard deviation below `std`.

    Parameters
    ----------
    std : float
        Standard deviation, in the metric's unit, below which the last values are a plateau.
    num_results : int
        The last values that are looked at; 0 never stops.
    grace_period : int
        Values before which it does not stop.
    metric_threshold : float, optional
        Stop only at this value or better, in the metric's own unit.

    Notes
    -----
    NaN or infinity among the values: never stops. The traps: it is blind to direction and stops a run that improves, or
    worsens, slowly; `std` depends on the metric's scale. Ray ignores the threshold unless it is told a mode; here the
    mode is always known. O(num_results) per observation.

    Source: ray 2.60.0, `TrialPlateauStopper.__call__`, read and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.ray_plateau(num_results=3), [3.0, 2.0, 1.0, 1.0, 1.0, 0.5], mode="min").stop_index
    4
    """
    return RayPlateau(std, num_results, grace_period, metric_threshold)
