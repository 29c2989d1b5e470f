"""Recorded curves to measure rules on: a folder of tidy Parquet files with a table of its runs."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.run_tables import MANIFEST, RUNS, Row, rows_of
from convergence.histories import History, NotALog, Series, find, load

FloatArray = npt.NDArray[np.float64]

FEWEST = 3
"""Evaluations below which there is nothing to stop."""

FLOOR = 0.02
"""Least denominator of the regret, as a share of the first value's size."""

_SPLIT_WORDS = re.compile(
    r"(?<![a-z])(validation|valid|val|dev|evaluation|eval|test|train|training)(?![a-z])", re.IGNORECASE
)


@dataclass(frozen=True, eq=False)
class Curve:
    """One metric of one run on held-out data, and what it needs to be judged.

    Attributes
    ----------
    source, task, group, run, metric : str
        Where it belongs; the runs of a group share task and set-up.
    mode : {"min", "max"}
        Whether lower or higher is better.
    regime : str
        What the run does: the label it was recorded under, else what `regime_of` sees.
    full : bool
        Whether the recorded end is the planned end.
    loss, steps : float array, shape (n,)
        Values so that lower is better, and their steps.
    lr, train, test : float array, shape (n,), or None
        Learning rate; the same metric on training and on test data (lower is better), NaN where not logged.
    note : str
        What there is to say of it, if anything.
    """

    source: str
    task: str
    group: str
    run: str
    metric: str
    mode: str
    regime: str
    full: bool
    loss: FloatArray
    steps: FloatArray
    lr: FloatArray | None = None
    train: FloatArray | None = None
    test: FloatArray | None = None
    note: str = ""

    @property
    def first_drop(self) -> int:
        """Index of the first value trained with a rate 10 % below the highest so far; -1 if there is none."""
        if self.lr is None:
            return -1
        highest = np.maximum.accumulate(self.lr)
        fallen = (highest > 0) & (self.lr <= 0.9 * (1 + 1e-9) * highest)
        return int(np.argmax(fallen)) if fallen.any() else -1


@dataclass(frozen=True, eq=False)
class Suite:
    """Curves of a folder, a sentence for each run or file that gives none, and the curves without a finite value."""

    curves: tuple[Curve, ...]
    left_out: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What there is to say of curves that are measured all the same."""
        return [f"{curve.run} ({curve.source}) {curve.metric}: {curve.note}" for curve in self.curves if curve.note]

    @property
    def nowhere_finite(self) -> list[str]:
        """Names of the curves of which no value is finite; there is nothing to lose in them."""
        return [
            f"{curve.run} ({curve.source}) {curve.metric}" for curve in self.curves if not np.isfinite(curve.loss).any()
        ]

    def labels(self, name: str) -> npt.NDArray[np.str_]:
        """Return one attribute of every curve."""
        return np.array([getattr(curve, name) for curve in self.curves], np.str_)


@np.errstate(all="ignore")  # a blown-up run may leave the range of numbers
def regime_of(loss: FloatArray) -> str:
    """Return what a run does, from its held-out losses alone.

    Parameters
    ----------
    loss : float array, shape (n,)
        Lower is better.

    Returns
    -------
    str
        In this order: "diverges" if the last value is not finite, or the median of the last tenth is worse than the
        first value by more than the whole gain; "flat" if there is no gain, or one below 2 % of the first value's
        size; "overfits" if the last tenth gives back more than a tenth of the gain, after a best in the first three
        quarters; "slow_start" if the first tenth, and at least five values, make less than a twentieth of the gain;
        else "learns".

    Examples
    --------
    >>> regime_of(np.array([4.0, 2.0, 1.0, 0.9, 0.8]))
    'learns'
    """
    finite = loss[np.isfinite(loss)]
    if not finite.size or not np.isfinite(loss[-1]):
        return "diverges"
    first, best = finite[0], finite.min()
    gain = max(first - best, FLOOR * abs(first))
    tail = loss[-max(1, len(loss) // 10) :]
    end = float(np.median(tail[np.isfinite(tail)]))
    if end - first > gain:
        return "diverges"
    if first == best or first - best < FLOOR * abs(first):
        return "flat"
    if end - best > 0.1 * gain and np.argmax(loss == best) < 0.75 * len(loss):
        return "overfits"
    started = int(np.argmax(loss <= first - 0.05 * gain))
    return "slow_start" if started >= max(5, 0.1 * len(loss)) else "learns"


def read_suite(folder: Path) -> Suite:
    """Return the curves of a folder.

    The runs come from its ``manifest.json``, as `benchmarks.record` writes it, or its ``runs.csv``
    (`run_tables.COLUMNS`); without either, every series of the split "val" is judged, each run a group of its own.
    A run without a finite value is kept: there is nothing to lose in it, but time.

    Raises
    ------
    NotALog
        No such folder, no Parquet file in it that can be read, or a table of runs that cannot be.
    """
    if not folder.is_dir():
        raise NotALog(folder, "not a folder of recorded curves")
    histories, left_out = _histories(folder)
    rows = rows_of(folder, histories)
    histories = _by_row(rows, histories)
    curves: list[Curve] = []
    for row in rows:
        made = _curves(row, histories.get((row.source, row.run)))
        curves += [curve for curve in made if isinstance(curve, Curve)]
        left_out += [reason for reason in made if isinstance(reason, str)]
    measured = {(curve.source, curve.task, curve.group) for curve in curves}
    named = dict.fromkeys((row.source, row.task, row.group) for row in rows)
    left_out += [f"group {group} ({source}): empty" for source, task, group in named
                 if (source, task, group) not in measured]  # fmt: skip
    listed = {(row.source, row.run) for row in rows}
    left_out += [f"{run}: not in the table of runs" for source, run in histories if (source, run) not in listed]
    if not curves:
        raise NotALog(folder, f"no curve to measure on; {left_out[0] if left_out else 'the table of runs is empty'}")
    return Suite(tuple(curves), tuple(left_out))


def _histories(folder: Path) -> tuple[dict[tuple[str, str], History], list[str]]:
    """Return the runs by source and name; a file's stem is its source."""
    found, skipped = find([folder])
    histories: dict[tuple[str, str], History] = {}
    others: list[str] = []
    left_out = [f"{one.path.relative_to(folder)}: {one.reason}" for one in skipped]
    for file in sorted(found, key=lambda file: file.path):
        name = file.path.relative_to(folder)
        if file.path.suffix != ".parquet":
            if str(name) not in (MANIFEST, RUNS):
                others.append(str(name))
            continue
        loaded = load(file)
        if not isinstance(loaded, list):
            left_out.append(f"{name}: {loaded.reason}")
            continue
        for history in loaded:
            if (file.path.stem, history.run) in histories:
                left_out.append(f"{name}: run {history.run!r} of {file.path.stem!r} was read from another file")
            else:
                histories[file.path.stem, history.run] = history
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        left_out.append(f"{', '.join(others[:5])}{more}: not Parquet")
    if not histories:
        reason = left_out[0] if left_out else "no Parquet file in it"
        raise NotALog(folder, f"no recorded curves: {reason}")
    return histories, left_out


def _by_row(rows: Sequence[Row], histories: dict[tuple[str, str], History]) -> dict[tuple[str, str], History]:
    """Return the runs under the sources of the table, where a file holds more than the one it is named for."""
    sources: dict[str, set[str]] = {}
    for row in rows:
        sources.setdefault(row.run, set()).add(row.source)
    files = Counter(run for _, run in histories)

    def source_of(stem: str, run: str) -> str:
        said = sources.get(run, set())
        return next(iter(said)) if stem not in said and len(said) == files[run] == 1 else stem

    return {(source_of(stem, run), run): history for (stem, run), history in histories.items()}


def _curves(row: Row, history: History | None) -> Iterable[Curve | str]:
    """Return the curves of a run, or for each that is none a sentence that says why."""
    if history is None:
        return [f"{row.run} ({row.source}): no row in the curves"]
    by_name = {(one.metric, one.split): one for one in history.series}
    there = [name for name in row.wanted if name in by_name]
    if not there:
        return [f"{row.run} ({row.source}): none of the metrics to judge it by is logged"]
    absent = [f"{row.run} ({row.source}) {metric}: not logged on the split {split!r}"
              for metric, split in row.wanted if row.sure and (metric, split) not in by_name]  # fmt: skip
    return [*absent, *(_curve(row, by_name[name], history.series) for name in there)]


def _told(rates: FloatArray | None) -> bool:
    return rates is not None and not np.isnan(rates).all()


def _usable(rates: FloatArray | None) -> bool:
    return rates is not None and bool((np.isfinite(rates) & (rates >= 0)).all())


def _curve(row: Row, one: Series, siblings: Sequence[Series]) -> Curve | str:
    name = f"{row.run} ({row.source}) {one.metric}"
    if one.mode is None:
        return f"{name}: its mode is not known"
    if len(one.values) < FEWEST:
        return f"{name}: {len(one.values)} evaluation(s), fewer than {FEWEST}"
    sign = 1.0 if one.mode == "min" else -1.0
    loss = sign * one.values
    lr = one.lr if _usable(one.lr) else None
    curve = Curve(
        row.source, row.task, row.group, row.run, one.metric, one.mode, row.regime, row.full, loss, one.steps, lr,
        _beside(one, siblings, "train"), _beside(one, siblings, "test"),
        "its learning rates are passed over: not all are finite and at least 0" if lr is None and _told(one.lr) else "",
    )  # fmt: skip
    return curve if row.regime else _labelled(curve)


def _labelled(curve: Curve) -> Curve:
    seen = regime_of(curve.loss)
    return replace(curve, regime="scheduled" if seen in ("learns", "slow_start") and curve.first_drop >= 0 else seen)


def _key(metric: str) -> str:
    """Return a metric's name without the word for its split: those of one quantity are then equal."""
    return _SPLIT_WORDS.sub("", metric).lower().strip(" /_-.")


def _beside(one: Series, siblings: Sequence[Series], split: str) -> FloatArray | None:
    """Return the same quantity on another split, at the same steps; None unless it is logged at half of them."""
    if one.split == split:
        return None
    for other in siblings:
        if other.split == split and other.mode == one.mode and _key(other.metric) == _key(one.metric):
            at = np.searchsorted(other.steps, one.steps, side="right") - 1
            known = (at >= 0) & (other.steps[np.maximum(at, 0)] == one.steps)
            if 2 * np.count_nonzero(known) >= len(known):
                sign = 1.0 if one.mode == "min" else -1.0
                return np.where(known, sign * other.values[np.maximum(at, 0)], np.nan)
    return None


def summary(suite: Suite) -> dict[str, Any]:
    """Return what the suite holds, in numbers."""
    lengths = [len(curve.loss) for curve in suite.curves]
    return {
        "curves": len(suite.curves),
        "runs": len({(curve.source, curve.run) for curve in suite.curves}),
        "groups": len({(curve.source, curve.task, curve.group) for curve in suite.curves}),
        "tasks": len({(curve.source, curve.task) for curve in suite.curves}),
        "sources": sorted({curve.source for curve in suite.curves}),
        "evaluations": sum(lengths),
        "shortest": min(lengths),
        "longest": max(lengths),
        "regimes": dict(sorted(Counter(curve.regime for curve in suite.curves).items())),
        "with_learning_rate": sum(curve.lr is not None for curve in suite.curves),
        "with_training_curve": sum(curve.train is not None for curve in suite.curves),
        "with_test_curve": sum(curve.test is not None for curve in suite.curves),
        "to_the_planned_end": sum(curve.full for curve in suite.curves),
        "nowhere_finite": len(suite.nowhere_finite),
        "left_out": len(suite.left_out),
    }
