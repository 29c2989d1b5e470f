"""Series of a finished run: what users pass as curves, as float arrays without gaps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convergence.lanes import BoolArray, FloatArray
from convergence.stopper import as_float

_PART = 1 << 16  # values that are turned into Python numbers at a time


def to_floats(name: str, series: Any) -> tuple[FloatArray, BoolArray | None]:
    """Return a 1-d series as floats and where its gaps are (None if it has none).

    Parameters
    ----------
    name : str
        What to call the series in an error.
    series : sequence of float
        Array, masked array or sequence; None and masked entries are gaps, NaN and infinities are values.

    Raises
    ------
    TypeError
        A value that is not a number.
    ValueError
        Not one-dimensional.

    Examples
    --------
    >>> to_floats("loss", [1, None, 2.5])
    (array([1. , nan, 2.5]), array([False,  True, False]))
    """
    if hasattr(series, "detach"):
        series = series.detach().cpu().tolist()
    if isinstance(series, str | bytes | Mapping) or not hasattr(series, "__len__") or not hasattr(series, "__iter__"):
        raise TypeError(f"{name} must be a 1-d series of numbers, got {series!r:.80}")
    if not isinstance(series, np.ndarray):
        if hasattr(series, "__array__"):
            series = np.asarray(series)
        else:
            return _from_sequence(name, list(series))
    if series.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got {series.ndim} dimensions")
    if series.dtype.kind in "mM":
        raise TypeError(f"{name!r} must hold numbers, got dates or durations ({series.dtype})")
    if series.dtype.kind not in "fiu":
        return _from_sequence(name, series.tolist() if not isinstance(series, np.ma.MaskedArray) else list(series))
    if isinstance(series, np.ma.MaskedArray):
        gaps = np.ma.getmaskarray(series)
        return np.where(gaps, np.nan, np.ma.getdata(series).astype(np.float64)), gaps if gaps.any() else None
    return series.astype(np.float64, copy=False), None


def _from_sequence(name: str, series: list[Any]) -> tuple[FloatArray, BoolArray | None]:
    if set(map(type, series)) <= {float, int}:
        try:
            return np.array(series, np.float64), None
        except OverflowError:
            pass  # said below, by name
    return _elementwise(name, series)


def _elementwise(name: str, series: Sequence[Any]) -> tuple[FloatArray, BoolArray | None]:
    gaps = np.array([value is None or value is np.ma.masked for value in series], np.bool_)
    values = [np.nan if gap else as_float(name, value) for value, gap in zip(series, gaps, strict=True)]
    return np.array(values, np.float64), gaps if gaps.any() else None


def check_known(name: str, values: FloatArray) -> None:
    """Refuse steps, rates, progress or times that cannot be.

    NaN is "not known here" for all but steps.

    Raises
    ------
    ValueError
        Naming the thing, the law, and the value.
    """
    wrong = np.isinf(values) if name != "step" else ~np.isfinite(values)
    shown = "steps" if name == "step" else name
    if wrong.any():
        raise ValueError(f"{shown} must be finite, got {values[wrong][0]}")
    if name == "step":
        falls = np.flatnonzero(np.diff(values) < 0)
        if falls.size:
            i = int(falls[0])
            now, before = values[i + 1], values[i]
            raise ValueError(f"steps must not decrease, got {now:.12g} after {before:.12g} at index {i + 1}")
        return
    if (values < 0).any():
        raise ValueError(f"{name} must be at least 0, got {values[values < 0][0]}")
    if name == "progress" and (values > 1).any():
        raise ValueError(f"progress must be at most 1, got {values[values > 1][0]}")


def held(name: str, values: FloatArray, *, needed: bool) -> FloatArray:
    """Return the series with each NaN replaced by the value before it, as a Stopper holds what it was told last.

    Raises
    ------
    ValueError
        If the first value is NaN though it is needed: then there is nothing to hold.
    """
    if needed and len(values) and np.isnan(values[0]):
        raise ValueError(f"{name} must be known at the first observation, got nan")
    known = np.where(np.isnan(values), 0, np.arange(len(values)))
    filled: FloatArray = values[np.maximum.accumulate(known)] if len(values) else values
    return filled


@dataclass
class Run:
    """A finished run without gaps: what a Stopper would have been handed, update by update.

    Attributes
    ----------
    metrics : dict of str to float array
        Values, all of one length; NaN at a gap of one metric where another has a value.
    gaps : dict of str to bool array
        Where a metric has no value though another has; absent for a metric without such places.
    known : dict of str to float array
        What else was given of "step", "lr", "lr_ahead", "progress", "elapsed"; NaN where not known.
    count : int
        Observations.
    """

    metrics: dict[str, FloatArray]
    gaps: dict[str, BoolArray]
    known: dict[str, FloatArray]
    count: int

    def step(self, index: int) -> float:
        """Return the step of an observation, as a whole number where it is one."""
        step = float(self.known["step"][index]) if "step" in self.known else float(index)
        return int(step) if step.is_integer() else step

    def updates(self) -> Iterator[tuple[Any, dict[str, float]]]:
        """Yield value or mapping, and keywords, for each `Stopper.update`."""
        single = len(self.metrics) == 1 and not self.gaps
        for start in range(0, self.count, _PART):
            part = slice(start, start + _PART)
            columns = {name: values[part].tolist() for name, values in self.metrics.items()}
            for name, gap in self.gaps.items():
                columns[name] = [None if g else v for g, v in zip(gap[part], columns[name], strict=True)]
            known = [(name, values[part].tolist()) for name, values in self.known.items()]
            rows: list[Any] = next(iter(columns.values()))
            if not single:
                rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            for i, row in enumerate(rows):
                yield row, {name: column[i] for name, column in known if column[i] == column[i]}


def run_of(series: Mapping[str, Any], monitor: str, context: Mapping[str, Any]) -> Run:
    """Return the run that series and context describe, gaps taken out.

    Parameters
    ----------
    series : mapping of str to sequence of float
        The metrics that the rule reads, as `to_floats` takes them.
    monitor : str
        Which of them counts when lengths differ.
    context : mapping of str to sequence of float
        Any of "step", "lr", "lr_ahead", "progress", "elapsed"; None is "not given", progress may be True.

    Raises
    ------
    TypeError, ValueError
        As `to_floats`; lengths that differ; steps that decrease.
    """
    found = {name: to_floats(name, values) for name, values in series.items()}
    length = len(found[monitor][0])
    for name, (values, _) in found.items():
        if len(values) != length:
            raise ValueError(f"{name!r} has {len(values)} values, {monitor!r} has {length}")
    gaps = {name: gap for name, (_, gap) in found.items() if gap is not None}
    keep: Any = slice(None)
    if len(gaps) == len(found):
        keep = ~np.logical_and.reduce(list(gaps.values()))
    metrics = {name: values[keep] for name, (values, _) in found.items()}
    gaps = {name: gap[keep] for name, gap in gaps.items() if gap[keep].any()}
    count = len(metrics[monitor])
    known = {}
    for name, given in context.items():
        if given is None or given is False:
            continue
        if given is True and name == "progress":
            known[name] = np.arange(1, count + 1) / max(count, 1)
            continue
        numbers, _ = to_floats(name, given)
        if len(numbers) != length:
            raise ValueError(f"{name} has {len(numbers)} values, {monitor!r} has {length}")
        known[name] = numbers[keep]
        check_known(name, known[name])
    return Run(metrics, gaps, known, count)
