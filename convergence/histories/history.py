"""History: the metrics that one run logged; NotALog: what a file is that holds none."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convergence.lanes import FloatArray


class NotALog(ValueError):
    """A file that cannot be read as a log: one sentence with the file and, where there is one, the line.

    Attributes
    ----------
    path : Path
        The file.
    reason : str
        The sentence without the file.

    Examples
    --------
    >>> print(NotALog("metrics.csv", "a row has 3 cells, the header 2", line=7))
    metrics.csv: line 7: a row has 3 cells, the header 2
    """

    def __init__(self, path: Path | str, reason: str, *, line: int | None = None) -> None:
        self.path = Path(path)
        self.reason = reason if line is None else f"line {line}: {reason}"
        super().__init__(f"{path}: {self.reason}")


@dataclass(frozen=True, eq=False)
class Series:
    """One metric of one run on one split, gaps left out.

    Attributes
    ----------
    metric : str
        Name as in the log.
    split : str
        "train", "val", "test", or "" where the log does not say.
    mode : {"min", "max"} or None
        None where the log does not say; it is never guessed.
    steps, values : float array
        As many of the one as of the other, in the order of the log; steps are finite and do not decrease.
    lr, seconds : float array or None
        Learning rate with which each value was trained, and time since training began; None where not logged.
    """

    metric: str
    split: str
    mode: str | None
    steps: FloatArray
    values: FloatArray
    lr: FloatArray | None = None
    seconds: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class History:
    """What one run logged.

    Attributes
    ----------
    run : str
        Name of the run: the log's own, else that of its file.
    source : Path
        The file.
    series : tuple of Series
        In the order of the log.
    """

    run: str
    source: Path
    series: tuple[Series, ...]


def decrease(metric: str, steps: FloatArray) -> tuple[int, str] | None:
    """Return where a metric's steps first decrease, and the sentence that says so; None if they never do.

    Examples
    --------
    >>> decrease("loss", np.array([0.0, 5.0, 5.0, 3.0]))[0]
    3
    """
    falls = np.flatnonzero(steps[1:] < steps[:-1])
    if not falls.size:
        return None
    i = int(falls[0]) + 1
    return i, (
        f"step {steps[i]:.12g} of {metric!r} comes after step {steps[i - 1]:.12g}; "
        "the file is not judged, because rows are neither sorted nor dropped"
    )
