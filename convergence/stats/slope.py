"""Least-squares slope over the last points of a stream, without cancellation, in O(1) amortised.

The window is cut where a block of `window` points ends: sums over the tails of the finished block are prepared
once per block, a running sum covers the new points, and the two are merged. Nothing is ever subtracted, so a huge
value leaves no trace once it has left the window. Sums are kept as means and centred products, updated and merged
as in Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", section 1.
"""

from typing import Any, NamedTuple

import numpy as np

from convergence.lanes import FloatArray, IntArray


class Moments(NamedTuple):
    """Means of x and y, and centred sums of x*x and x*y; floats, or arrays with a run per column."""

    x: Any
    y: Any
    xx: Any
    xy: Any


EMPTY = Moments(0.0, 0.0, 0.0, 0.0)


def add(moments: Moments, count: Any, x: Any, y: Any) -> Moments:
    """Return the moments with the point (x, y) added, which makes them `count` points.

    Examples
    --------
    >>> add(add(EMPTY, 1, 0.0, 5.0), 2, 2.0, 9.0)
    Moments(x=1.0, y=7.0, xx=2.0, xy=4.0)
    """
    dx = x - moments.x
    mean_x = moments.x + dx / count
    mean_y = moments.y + (y - moments.y) / count
    return Moments(mean_x, mean_y, moments.xx + dx * (x - mean_x), moments.xy + dx * (y - mean_y))


def merge(a: Moments, a_count: Any, b: Moments, b_count: Any) -> Moments:
    """Return the moments of both sets of points together.

    Examples
    --------
    >>> merge(add(EMPTY, 1, 0.0, 5.0), 1, add(EMPTY, 1, 2.0, 9.0), 1)
    Moments(x=1.0, y=7.0, xx=2.0, xy=4.0)
    """
    count = a_count + b_count
    dx = b.x - a.x
    dy = b.y - a.y
    share = b_count / count
    both = a_count * share
    return Moments(a.x + dx * share, a.y + dy * share, a.xx + b.xx + dx * dx * both, a.xy + b.xy + dx * dy * both)


def tails(xs: list[float], ys: list[float]) -> list[Moments]:
    """Return for each j the moments of the points from j to the last, and of none after the last.

    Examples
    --------
    >>> [t.x for t in tails([0.0, 2.0], [5.0, 9.0])]
    [1.0, 2.0, 0.0]
    """
    found = [EMPTY]
    for count, j in enumerate(range(len(xs) - 1, -1, -1), start=1):
        found.append(add(found[-1], count, xs[j], ys[j]))
    return found[::-1]


def tails_many(xs: FloatArray, ys: FloatArray, columns: Any, into: FloatArray) -> None:
    """Do what `tails` does for blocks of many runs, shape (window, runs), into an array (4, window + 1, runs)."""
    window = len(xs)
    into[:, window, columns] = 0.0
    for count, j in enumerate(range(window - 1, -1, -1), start=1):
        later = Moments(*into[:, j + 1, columns])
        into[:, j, columns] = np.stack(add(later, count, xs[j, columns], ys[j, columns]))


def rows_of(count: IntArray, window: int, columns: Any) -> tuple[Any, Any, bool]:
    """Return the row that each run's next point goes to, the columns to use it with, and whether all rows agree.

    Runs that have seen equally many points share a row, which is then one number, and columns stay a slice.
    """
    row = count % window
    if isinstance(columns, slice) and row.min() == row.max():
        return int(row[0]), columns, True
    if isinstance(columns, slice):
        columns = np.arange(len(count))
    return row[columns], columns, False
