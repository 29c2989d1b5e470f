"""Replay rules on finished runs: one run with its verdict, or many runs and rules at once over arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convergence import lockstep, score
from convergence.decision import Decision
from convergence.lanes import FloatArray, IntArray
from convergence.parameters import check_finite, is_number
from convergence.rule import Bound, Rule
from convergence.series import Run, check_known, held, run_of
from convergence.stopper import Stopper


@dataclass(frozen=True)
class Replay:
    """Where a rule stopped on a finished run, and what that saved and cost.

    Attributes
    ----------
    rule : Rule
        The rule.
    observations : int
        Number of observations of the run, gaps not counted.
    stop_index, stop_step
        Observation (from 0) and step of the first stop; None if it never stops.
    best_index, best_step, best_value
        First best up to the stop, in the metric's own unit; None if nothing is finite.
    budget : float
        (stop_index + 1) / observations; 1 if it never stops.
    regret : float
        Share of the run's gain, from the first finite value to its best, that stopping loses; see `score.regret`.
    decision : Decision
        The verdict at the stop, or at the end.
    """

    rule: Rule
    observations: int
    stop_index: int | None
    stop_step: float | None
    best_index: int | None
    best_step: float | None
    best_value: float | None
    budget: float
    regret: float
    decision: Decision


@dataclass(frozen=True)
class ReplayTable:
    """Where many rules stopped on many finished runs: arrays of shape (rules, curves).

    Attributes
    ----------
    rules : tuple of Rule
        The rules, in the order of the first axis.
    stop_index : int array
        Observation of the first stop; -1 if it never stops.
    best_index : int array
        First best up to the stop; -1 if nothing is finite up to there.
    budget, regret : float array
        As in `Replay`; nan where a curve is empty (budget) or nothing of it is finite (regret).
    """

    rules: tuple[Rule, ...]
    stop_index: IntArray
    best_index: IntArray
    budget: FloatArray
    regret: FloatArray


def replay(
    rule: Rule,
    series: Any,
    *,
    monitor: str | None = None,
    mode: str | None = None,
    steps: Any = None,
    lr: Any = None,
    lr_ahead: Any = None,
    progress: Any = None,
    elapsed: Any = None,
    floor: float = 0.0,
) -> Replay:
    """Run a rule over a finished run, up to its first stop.

    Parameters
    ----------
    rule : Rule
        The rule; the same object that works live.
    series : sequence of float, or mapping of str to sequence of float
        The metric, or several of equal length. None and masked entries are gaps: no observation. Indices count
        observations; with several metrics an observation is a row in which one of the rule's metrics has a value.
    monitor, mode : str, optional
        As for `Stopper`; a single series needs no monitor.
    steps, lr, lr_ahead, elapsed : sequence of float, optional
        In the shape of the series; what `Stopper.update` takes. None or NaN in them is "not known here".
    progress : sequence of float or True, optional
        Used fraction of the planned training; True means that the recorded end is the planned end.
    floor : float
        Least denominator of the regret, as a fraction of the first value's size.

    Raises
    ------
    TypeError, ValueError
        As `Stopper` and its `update`; series of different lengths.

    Examples
    --------
    >>> from convergence import Patience
    >>> r = replay(Patience(2), [1.0, 0.5, 0.6, 0.7, 0.1], mode="min")
    >>> r.stop_index, r.best_index, r.budget, round(r.regret, 3)
    (3, 1, 0.8, 0.444)
    """
    _check_floor(floor)
    stopper, run = _taken_in(rule, series, monitor, mode, _context(steps, lr, lr_ahead, progress, elapsed))
    stop = _stream(stopper, run)
    table = _scored([stop], [run], stopper, floor)
    best = int(table.best_index[0, 0])
    return Replay(
        rule=rule,
        observations=run.count,
        stop_index=stop if stop >= 0 else None,
        stop_step=run.step(stop) if stop >= 0 else None,
        best_index=best if best >= 0 else None,
        best_step=run.step(best) if best >= 0 else None,
        best_value=float(run.metrics[stopper.monitor][best]) if best >= 0 else None,
        budget=float(table.budget[0, 0]),
        regret=float(table.regret[0, 0]),
        decision=stopper.decision,
    )


def replay_many(
    rules: Rule | Sequence[Rule],
    curves: Any,
    *,
    monitor: str | None = None,
    mode: str | None = None,
    steps: Any = None,
    lr: Any = None,
    lr_ahead: Any = None,
    progress: Any = None,
    elapsed: Any = None,
    floor: float = 0.0,
) -> ReplayTable:
    """Run many rules over many finished runs: the same decisions as `replay`, curve by curve.

    Rules with a vectorised path take all curves in lockstep, and a sweep over one parameter of a rule shares its
    work; others are streamed. Memory beyond curves and result is bounded.

    Parameters
    ----------
    rules : sequence of Rule
        The rules.
    curves : array (curves, observations), sequence of 1-d arrays, or mapping of str to either
        The metric of each run, of any lengths; or several metrics, which are streamed.
    monitor, mode : str, optional
        As for `replay`.
    steps, lr, lr_ahead, progress, elapsed : optional
        As for `replay`, each in the shape of the curves.
    floor : float
        As for `replay`.

    Raises
    ------
    TypeError, ValueError
        As `replay`.

    Examples
    --------
    >>> from convergence import Patience
    >>> t = replay_many([Patience(1), Patience(2)], [[3.0, 2.0, 2.5, 2.6, 1.0], [1.0, 2.0]], mode="min")
    >>> t.stop_index
    array([[ 2,  1],
           [ 3, -1]])
    >>> t.regret
    array([[0.5, 0. ],
           [0.5, 0. ]])
    """
    _check_floor(floor)
    rules = (rules,) if isinstance(rules, Rule) else tuple(rules)
    context = _context(steps, lr, lr_ahead, progress, elapsed)
    if isinstance(curves, Mapping):
        return _each(rules, curves, monitor, mode, context, floor)
    stoppers = [Stopper(rule, monitor=_monitor(rule, monitor), mode=mode) for rule in rules]
    needed = frozenset[str]().union(*(stopper.needs for stopper in stoppers))
    series, count = _arrays(curves, context, needed)
    for stopper in stoppers:
        if len(stopper.metrics) > 1:
            names = ", ".join(map(repr, stopper.metrics))
            raise ValueError(f"{stopper.rule!r} reads {names}: pass a mapping of metrics to curves")
        missing = sorted(name for name in stopper.needs if name not in series)
        if missing:
            raise ValueError(f"{stopper.rule!r} needs {' and '.join(missing)}: pass {missing[0]}=")
    table = _empty(rules, count)
    # Rules that remember much are given fewer curves at a time.
    most = 4 * lockstep.CELLS // max((lockstep.cells(stopper.tree) for stopper in stoppers), default=1)
    for block in lockstep.blocks(series, most) if rules else ():
        _replay_block(stoppers, block, table, floor)
    return table


def _check_floor(floor: float) -> None:
    check_finite("floor", floor)
    if floor < 0:
        raise ValueError(f"floor must be at least 0, got {floor}")


def _context(steps: Any, lr: Any, lr_ahead: Any, progress: Any, elapsed: Any) -> dict[str, Any]:
    return {"step": steps, "lr": lr, "lr_ahead": lr_ahead, "progress": progress, "elapsed": elapsed}


def _monitor(rule: Rule, monitor: str | None) -> str | None:
    """Name the only series there is, where neither caller nor rule does."""
    if monitor is None and isinstance(rule, Rule) and not all(isinstance(leaf, Bound) for leaf in rule.leaves()):
        return "value"
    return monitor


def _taken_in(
    rule: Rule, series: Any, monitor: str | None, mode: str | None, context: Mapping[str, Any]
) -> tuple[Stopper, Run]:
    if not isinstance(series, Mapping):
        stopper = Stopper(rule, monitor=_monitor(rule, monitor), mode=mode)
        series = {stopper.monitor: series}
    else:
        stopper = Stopper(rule, monitor=monitor, mode=mode)
    absent = [name for name in stopper.metrics if name not in series]
    if absent:
        there = ", ".join(map(repr, series)) or "nothing"
        raise ValueError(f"the rule reads {absent[0]!r}, which is not among the series: {there}")
    return stopper, run_of({name: series[name] for name in stopper.metrics}, stopper.monitor, context)


def _stream(stopper: Stopper, run: Run) -> int:
    """Return the index of the first stop, -1 for never."""
    stopper.reset()
    update = stopper.update
    for i, (news, known) in enumerate(run.updates()):
        if update(news, **known).stop:
            return i
    return -1


def _empty(rules: tuple[Rule, ...], count: int) -> ReplayTable:
    shape = (len(rules), count)
    indices, shares = np.full((2, *shape), -1, np.int64), np.full((2, *shape), np.nan)
    return ReplayTable(rules, indices[0], indices[1], shares[0], shares[1])


def _score(
    block: lockstep.Block, stops: IntArray, mode: str, floor: float, table: ReplayTable, rows: list[int]
) -> None:
    index, kept, first, best = lockstep.bests(block, stops, mode)
    used, lost = score.budget(stops, block.lengths), score.regret(kept, first, best, floor=floor)
    for of_table, of_block in zip(
        (table.stop_index, table.best_index, table.budget, table.regret), (stops, index, used, lost), strict=True
    ):
        for row, values in zip(rows, of_block, strict=True):
            of_table[row, block.lanes] = values


def _scored(stops: list[int], runs: list[Run], stopper: Stopper, floor: float) -> ReplayTable:
    """Return the table of one rule on runs that were streamed."""
    table = _empty((stopper.rule,), len(runs))
    for block in lockstep.blocks({"value": [run.metrics[stopper.monitor] for run in runs]}):
        _score(block, np.array([stops])[:, block.lanes], stopper.mode, floor, table, [0])
    return table


def _replay_block(stoppers: list[Stopper], block: lockstep.Block, table: ReplayTable, floor: float) -> None:
    count = len(block.lengths)
    stops = np.full((len(stoppers), count), -1, np.int64)
    fast = [
        i
        for i, s in enumerate(stoppers)
        if s.tree.vectorised and count >= lockstep.FEWEST_LANES and lockstep.cells(s.tree) * count <= 4 * lockstep.CELLS
    ]
    if fast:
        stops[fast] = lockstep.first_stops([stoppers[i].tree for i in fast], block)
    for i in sorted(set(range(len(stoppers))).difference(fast)):
        for lane in range(count):
            known = block.lane(lane)
            values = known.pop("value")
            stops[i, lane] = _stream(stoppers[i], Run({stoppers[i].monitor: values}, {}, known, len(values)))
    for mode in {s.mode for s in stoppers}:
        rows = [i for i, s in enumerate(stoppers) if s.mode == mode]
        _score(block, stops[rows], mode, floor, table, rows)


def _arrays(curves: Any, context: Mapping[str, Any], needed: frozenset[str]) -> tuple[dict[str, Any], int]:
    """Return curves and context as arrays without gaps, by name; 2-d where they come so."""
    given = {name: value for name, value in context.items() if value is not None and value is not False}
    if _is_matrix(curves) and all(_is_matrix(value) and value.shape == curves.shape for value in given.values()):
        for name, part in given.items():
            for values in part:
                check_known(name, np.asarray(values, np.float64))
        series: dict[str, Any] = {"value": curves, **given}
    else:
        if isinstance(curves, str | bytes) or not hasattr(curves, "__len__"):
            raise TypeError(f"curves must be a 2-d array or a sequence of 1-d series, got {curves!r:.80}")
        if len(curves) and is_number(curves[0]):
            raise TypeError("curves must be a 2-d array or a sequence of 1-d series, got one series: use replay for it")
        for name, value in given.items():
            _check_curves(name, value, len(curves))
        runs = [
            run_of({"value": curve}, "value", {n: v if v is True else v[i] for n, v in given.items()})
            for i, curve in enumerate(curves)
        ]
        series = {"value": [run.metrics["value"] for run in runs]}
        series |= {name: [run.known[name] for run in runs] for name in given}
    for name in ("lr", "elapsed"):
        if name in series:
            series[name] = [held(name, np.asarray(part, np.float64), needed=name in needed) for part in series[name]]
    if isinstance(curves, np.ndarray) and len(series) > 1 and isinstance(series["value"], np.ndarray):
        series = {name: np.asarray(part) for name, part in series.items()}
    return series, len(curves)


def _check_curves(name: str, value: Any, count: int) -> None:
    """Refuse context that has not one series for each curve."""
    if name == "progress" and isinstance(value, bool):
        return
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__len__"):
        raise TypeError(f"{name} must be given in the shape of the curves, got {value!r:.80}")
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} curves, the metric {count}")


def _is_matrix(curves: Any) -> bool:
    return type(curves) is np.ndarray and curves.ndim == 2 and curves.dtype.kind in "fiu"


def _each(
    rules: tuple[Rule, ...],
    curves: Mapping[str, Any],
    monitor: str | None,
    mode: str | None,
    context: Mapping[str, Any],
    floor: float,
) -> ReplayTable:
    """Stream runs of several metrics one by one."""
    counts = {name: len(of_metric) for name, of_metric in curves.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"metrics must have equally many curves, got {counts}")
    count = next(iter(counts.values()))
    for name, value in context.items():
        if value is not None:
            _check_curves(name, value, count)
    table = _empty(rules, count)
    for row, rule in enumerate(rules):
        stops, runs = [], []
        for i in range(count):
            known = {name: v[i] if v is not None and not isinstance(v, bool) else v for name, v in context.items()}
            stopper, run = _taken_in(rule, {name: v[i] for name, v in curves.items()}, monitor, mode, known)
            stops.append(_stream(stopper, run))
            runs.append(run)
        if count:
            scored = _scored(stops, runs, stopper, floor)
            for into, part in zip(
                (table.stop_index, table.best_index, table.budget, table.regret),
                (scored.stop_index, scored.best_index, scored.budget, scored.regret),
                strict=True,
            ):
                into[row] = part[0]
    return table
