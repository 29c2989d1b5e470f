"""Many runs in lockstep: arrays in which each column (lane) is one run, and the moment they all are at."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Lanes:
    """A rule's memory of many runs.

    Attributes are arrays whose last axis is the run, further Lanes, or tuples or lists of either.

    Examples
    --------
    >>> lanes = Lanes(wait=np.array([1, 2, 3]))
    >>> lanes.keep(np.array([0, 2]))
    >>> lanes.wait
    array([1, 3])
    """

    def __init__(self, **arrays: Any) -> None:
        self.__dict__.update(arrays)

    if TYPE_CHECKING:
        # Each rule names its own arrays.
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def keep(self, index: IntArray) -> None:
        """Keep only the runs at these positions."""
        for name, value in self.__dict__.items():
            self.__dict__[name] = _kept(value, index)


def _kept(value: Any, index: IntArray) -> Any:
    if isinstance(value, np.ndarray):
        return value[..., index]
    if isinstance(value, tuple | list):
        return type(value)(_kept(part, index) for part in value)
    value.keep(index)
    return value


class Moment:
    """One observation of each of many runs: a row of values, and of what else is known.

    Values that are not finite are NaN here, since no rule tells them apart.
    """

    __slots__ = ("_negated", "elapsed", "lr", "lr_ahead", "progress", "step", "value")

    def __init__(
        self,
        value: FloatArray,
        step: FloatArray,
        lr: FloatArray | None = None,
        lr_ahead: FloatArray | None = None,
        progress: FloatArray | None = None,
        elapsed: FloatArray | None = None,
    ) -> None:
        self.value = value
        self.step = step
        self.lr = lr
        self.lr_ahead = lr_ahead
        self.progress = progress
        self.elapsed = elapsed
        self._negated: FloatArray | None = None

    def loss(self, mode: str) -> FloatArray:
        """Return the values oriented so that lower is better."""
        if mode == "min":
            return self.value
        if self._negated is None:
            self._negated = -self.value
        return self._negated
