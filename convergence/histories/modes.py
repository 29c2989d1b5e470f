"""Whether lower or higher is better: what the user says about a metric, else what its log says; never a guess."""

import fnmatch
from collections.abc import Iterable

from convergence.histories.history import Series

_MODES = ("min", "max")


class Modes:
    """What a user said about modes.

    Parameters
    ----------
    told : iterable of str
        Each `min` or `max`, for metrics whose log does not say, or `NAME=min` or `NAME=max`, where NAME may be a
        glob, for metrics of that name whatever their log says. An exact name goes before a glob, a later glob
        before an earlier one.

    Raises
    ------
    ValueError
        A text of another form, or both `min` and `max` for all.

    Examples
    --------
    >>> import numpy as np
    >>> modes = Modes(["min", "*acc*=max"])
    >>> none = np.array([])
    >>> [modes.of(Series(name, "", None, none, none)) for name in ("loss", "val_acc")]
    ['min', 'max']
    """

    def __init__(self, told: Iterable[str]) -> None:
        self._named: dict[str, str] = {}
        self._other: str | None = None
        for text in told:
            name, equals, mode = text.rpartition("=")
            if mode not in _MODES or (equals and not name):
                raise ValueError(f"--mode must be min, max, NAME=min or NAME=max, got {text!r}")
            if equals:
                self._named.pop(name, None)
                self._named[name] = mode
            elif self._other not in (None, mode):
                raise ValueError("--mode min and --mode max for all metrics contradict each other")
            else:
                self._other = mode

    def of(self, series: Series) -> str | None:
        """Return the mode of a series; None if neither the user nor its log says."""
        name = next((name for name in reversed(self._named) if matches(series.metric, name)), None)
        if series.metric in self._named:
            name = series.metric
        return self._named[name] if name is not None else series.mode or self._other

    def unused(self, metrics: Iterable[str]) -> list[str]:
        """Return the names and globs that match none of the metrics: most likely misspelt."""
        there = set(metrics)
        return [name for name in self._named if not any(matches(metric, name) for metric in there)]


def matches(metric: str, pattern: str) -> bool:
    """Say whether a metric has this name, or one that this glob describes; case counts.

    Examples
    --------
    >>> matches("val/loss[0]", "val/loss[0]"), matches("val/loss", "val/*"), matches("val/loss", "loss")
    (True, True, False)
    """
    return metric == pattern or fnmatch.fnmatchcase(metric, pattern)
