"""First stops of rules over many curves at once: all curves advance together, one row of values at a time.

Each rule does the same arithmetic in the same order as on a single run, on arrays in place of numbers, so that the
stops are the same. Curves are taken in blocks, sorted by length, and the rows of a block in chunks, so memory beyond
the input is bounded whatever the number and length of curves.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from convergence.lanes import BoolArray, FloatArray, IntArray, Lanes, Moment
from convergence.rule import Bound, Node

LANES = 8192
"""Curves that advance together: many, so that the cost of a numpy call is shared, few enough to fit a cache."""

CELLS = 1 << 21
"""Values of a block that are held transposed at a time."""

MOST_ROWS = 1 << 16
"""Rows of a chunk, however few the curves."""

FEWEST_LANES = 8
"""Fewer curves than this are faster one by one."""

_NEVER = np.iinfo(np.int32).max


class Block:
    """Curves that advance together, longest first.

    Parameters
    ----------
    series : dict of str to 2-d array or list of 1-d arrays
        Of all curves: "value", and what else is known of "step", "lr", "lr_ahead", "progress", "elapsed".
    lanes : slice or int array
        Which curves are in the block.
    lengths : int array
        Observations of each curve of the block, falling.
    """

    def __init__(self, series: dict[str, Any], lanes: slice | IntArray, lengths: IntArray) -> None:
        self.series = series
        self.lanes = lanes
        self.lengths = lengths
        self._held: tuple[int, dict[str, FloatArray]] | None = None

    def lane(self, i: int) -> dict[str, FloatArray]:
        """Return the series of one curve of the block."""
        at = (self.lanes.start + i) if isinstance(self.lanes, slice) else self.lanes[i]
        return {name: curves[at] for name, curves in self.series.items()}

    def chunks(self) -> Iterator[tuple[int, dict[str, FloatArray]]]:
        """Yield the first row's index and arrays of shape (rows, curves), padded with NaN, infinities as NaN."""
        rows = max(1, min(CELLS // (len(self.lengths) * len(self.series)), MOST_ROWS))
        longest = int(self.lengths[0])
        if longest <= rows:
            if self._held is None:
                self._held = 0, self._chunk(0, longest)
            yield self._held
            return
        for start in range(0, longest, rows):
            yield start, self._chunk(start, min(rows, longest - start))

    def _chunk(self, start: int, rows: int) -> dict[str, FloatArray]:
        chunk = {name: self._transposed(curves, start, rows) for name, curves in self.series.items()}
        value = chunk["value"]
        infinite = np.isinf(value)
        if infinite.any():
            value[infinite] = np.nan
        return chunk

    def _transposed(self, curves: Any, start: int, rows: int) -> FloatArray:
        if isinstance(curves, np.ndarray):
            return np.array(curves[self.lanes, start : start + rows].T, np.float64, order="C")
        padded = np.full((len(self.lengths), rows), np.nan)
        picked = curves[self.lanes] if isinstance(self.lanes, slice) else [curves[i] for i in self.lanes]
        for lane, curve in zip(padded, picked, strict=True):
            part = curve[start : start + rows]
            lane[: len(part)] = part
        return np.ascontiguousarray(padded.T)


def cells(tree: Node) -> int:
    """Return how many numbers a rule keeps for each curve, roughly."""
    return sum(leaf.rule.cells for leaf in tree.leaves() if isinstance(leaf, Bound))


def blocks(series: dict[str, Any], most: int = LANES) -> Iterator[Block]:
    """Yield the curves in blocks of similar length and at most so many; curves without observations are left out."""
    values = series["value"]
    lanes_each = max(FEWEST_LANES, min(LANES, most))
    if isinstance(values, np.ndarray):
        count, length = values.shape
        for start in range(0, count if length else 0, lanes_each):
            lanes = slice(start, min(start + lanes_each, count))
            yield Block(series, lanes, np.full(lanes.stop - start, length, np.int64))
        return
    lengths = np.array([len(curve) for curve in values], np.int64)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    for start in range(0, len(order), lanes_each):
        lane_numbers = order[start : start + lanes_each]
        yield Block(series, lane_numbers, lengths[lane_numbers])


def bests(block: Block, stops: IntArray, mode: str) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Return index and loss of the first best up to each stop, and each curve's first and best loss.

    The first two have the shape (rules, curves), as the stops.

    Where nothing is finite the index is -1 and the losses are nan.
    """
    ends = np.where(stops < 0, block.lengths - 1, stops)
    index = np.full(stops.shape, -1, np.int64)
    kept = np.full(stops.shape, np.nan)
    lanes = len(block.lengths)
    first, best, best_at = np.full(lanes, np.nan), np.full(lanes, np.inf), np.full(lanes, -1, np.int64)
    for start, chunk in block.chunks():
        loss = chunk["value"] if mode == "min" else -chunk["value"]
        rows = len(loss)
        lowest, at = _running_best(loss, best, best_at, start)
        best, best_at = lowest[-1].copy(), at[-1].copy()
        here = (ends >= start) & (ends < start + rows)
        cells = ((ends - start) * lanes + np.arange(lanes))[here]
        index[here] = at.ravel().take(cells)
        kept[here] = lowest.ravel().take(cells)
        missing = np.flatnonzero(np.isnan(first))
        if missing.size:
            first[missing] = loss[0, missing]
            missing = missing[np.isnan(first[missing])]
            if missing.size:
                first[missing] = loss[(~np.isnan(loss[:, missing])).argmax(axis=0), missing]
    kept[index < 0] = np.nan
    return index, kept, first, np.where(best_at < 0, np.nan, best)


def _running_best(loss: FloatArray, best: FloatArray, best_at: Any, start: int) -> tuple[FloatArray, Any]:
    """Return lowest loss so far and its first row, for rows that begin at `start` after a best of earlier rows."""
    rows, lanes = loss.shape
    lowest, at = np.empty((rows, lanes)), np.empty((rows, lanes), np.int64)
    if lanes < FEWEST_LANES:
        np.minimum.accumulate(np.fmin(loss, np.inf), axis=0, out=lowest)
        np.minimum(lowest, best, out=lowest)
        before = np.concatenate((best[None], lowest[:-1]))
        gains = np.where(lowest < before, np.arange(start, start + rows)[:, None], best_at)
        return lowest, np.maximum.accumulate(gains, axis=0, out=at)
    # Row by row, since numpy's accumulate along the first axis is several times slower for many lanes.
    for row in range(rows):
        np.fmin(loss[row], best, out=lowest[row])
        at[row] = best_at
        np.copyto(at[row], start + row, where=lowest[row] < best)
        best, best_at = lowest[row], at[row]
    return lowest, at


def first_stops(trees: Sequence[Node], block: Block) -> IntArray:
    """Return the index at which each rule first stops on each curve, shape (rules, curves); -1 for never."""
    stops = np.full((len(trees), len(block.lengths)), -1, np.int64)
    groups: dict[Any, list[tuple[int, int]]] = {}
    for i, tree in enumerate(trees):
        key, threshold = tree.facing.shared() if isinstance(tree, Bound) else (i, None)
        mode = tree.mode if isinstance(tree, Bound) else ""
        groups.setdefault((mode, key, threshold is None), []).append((threshold or 0, i))
    with np.errstate(all="ignore"):
        for (_, _, judged), members in groups.items():
            members.sort()
            rows = [i for _, i in members]
            if judged:
                _Judged([trees[i] for i in rows]).run(block, stops, rows)
            else:
                _Levelled(trees[rows[0]], [threshold for threshold, _ in members]).run(block, stops, rows)
    return stops


class _Pass(ABC):
    """One pass of a memory over a block; subclasses note which of the rules that share it stop where."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def run(self, block: Block, stops: IntArray, rows: list[int]) -> None:
        self.stops, self.rows = stops, np.array(rows)
        lengths = block.lengths
        columns = np.arange(len(lengths))
        lanes = self.node.begin_many(len(lengths))
        self.open(len(lengths))
        compact = False
        steps = np.empty(len(lengths))
        for start, chunk in block.chunks():
            for row in range(len(chunk["value"])):
                t = start + row
                if t % 16 == 0 and t:
                    alive = self.pending() & (lengths[columns] > t)
                    left = np.count_nonzero(alive)
                    if left == 0:
                        return
                    if left < 0.7 * len(columns):
                        index = np.flatnonzero(alive)
                        columns = columns[index]
                        lanes.keep(index)
                        self.keep(index)
                        compact = True
                known = {name: part[row, columns] if compact else part[row] for name, part in chunk.items()}
                if "step" not in known:
                    known["step"] = steps[: len(columns)]
                    steps.fill(t)
                self.node.feed_many(lanes, Moment(**known))
                # Curves that have ended are padded; what a rule says of the padding does not count.
                ended = lengths[columns] <= t if t >= lengths[-1] else None
                self.note(lanes, t, columns, ended)

    @abstractmethod
    def open(self, count: int) -> None:
        """Begin with `count` lanes, none of which has stopped."""

    @abstractmethod
    def keep(self, index: IntArray) -> None:
        """Keep only these lanes."""

    @abstractmethod
    def pending(self) -> BoolArray:
        """Return the lanes in which a rule has not stopped yet."""

    @abstractmethod
    def note(self, lanes: Lanes, t: int, columns: IntArray, ended: BoolArray | None) -> None:
        """Write down the rules that first stop at row t; columns say which curves the lanes are."""


class _Judged(_Pass):
    """Rules that are asked at every row whether they stop."""

    def __init__(self, rules: list[Node]) -> None:
        super().__init__(rules[0])
        self.rules = rules

    def open(self, count: int) -> None:
        self.waiting = np.ones((len(self.rules), count), np.bool_)

    def keep(self, index: IntArray) -> None:
        self.waiting = self.waiting[:, index]

    def pending(self) -> BoolArray:
        pending: BoolArray = np.logical_or.reduce(self.waiting, axis=0)
        return pending

    def note(self, lanes: Lanes, t: int, columns: IntArray, ended: BoolArray | None) -> None:
        for i, rule in enumerate(self.rules):
            fires: BoolArray = rule.stops_many(lanes) & self.waiting[i]
            if ended is not None:
                fires &= ~ended
            if fires.any():
                self.stops[self.rows[i], columns[fires]] = t
                self.waiting[i][fires] = False


class _Levelled(_Pass):
    """Rules that stop when one shared level reaches their threshold: a sweep costs little more than one rule."""

    def __init__(self, node: Node, thresholds: list[int]) -> None:
        super().__init__(node)
        self.thresholds = np.minimum([*thresholds, _NEVER], _NEVER).astype(np.int32)

    def open(self, count: int) -> None:
        self.reached = np.zeros(count, np.int64)
        self.next = np.full(count, self.thresholds[0])

    def keep(self, index: IntArray) -> None:
        self.reached = self.reached[index]
        self.next = self.next[index]

    def pending(self) -> BoolArray:
        pending: BoolArray = self.next < _NEVER
        return pending

    def note(self, lanes: Lanes, t: int, columns: IntArray, ended: BoolArray | None) -> None:
        assert isinstance(self.node, Bound)
        level = self.node.facing.level_many(lanes)
        fires = level >= self.next
        if ended is not None:
            fires &= ~ended
        at = np.flatnonzero(fires) if fires.any() else np.empty(0, np.int64)
        while at.size:
            self.stops[self.rows[self.reached[at]], columns[at]] = t
            self.reached[at] += 1
            self.next[at] = self.thresholds[self.reached[at]]
            at = at[level[at] >= self.next[at]]
