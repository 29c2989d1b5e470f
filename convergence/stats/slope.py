"""Least-squares slope over the last points of a stream, without cancellation, in O(1) amortised.

The window is cut where a block of `window` points ends: sums over the tails of the finished block are prepared
once per block, a running sum covers the new points, and the two are merged. Nothing is ever subtracted, so a huge
value leaves no trace once it has left the window. Sums are kept as means and centred products, updated and merged
as in Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", section 1.
"""

from typing import Any

import numpy as np

from convergence.lanes import FloatArray, IntArray

Moments = tuple[Any, Any, Any, Any]
"""Mean of x, mean of y, centred sums of x*x and of x*y; floats, or arrays with a run per column."""

EMPTY: Moments = (0.0, 0.0, 0.0, 0.0)


def add(moments: Moments, count: Any, x: Any, y: Any) -> Moments:
    """Return the moments with the point (x, y) added, which makes them `count` points.

    Examples
    --------
    >>> add(add(EMPTY, 1, 0.0, 5.0), 2, 2.0, 9.0)
    (1.0, 7.0, 2.0, 4.0)
    """
    mean_x, mean_y, xx, xy = moments
    dx = x - mean_x
    mean_x = mean_x + dx / count
    mean_y = mean_y + (y - mean_y) / count
    return mean_x, mean_y, xx + dx * (x - mean_x), xy + dx * (y - mean_y)


def merged(a: Moments, a_count: Any, b: Moments, b_count: Any, shift: Any = 0.0) -> tuple[Any, Any]:
    """Return the centred sums of x*x and of x*y of both sets of points together.

    The y of b may be counted from another origin than those of a, by `shift` above it.

    Examples
    --------
    >>> merged(add(EMPTY, 1, 0.0, 5.0), 1, add(EMPTY, 1, 2.0, 9.0), 1)
    (2.0, 4.0)
    """
    a_x, a_y, a_xx, a_xy = a
    b_x, b_y, b_xx, b_xy = b
    dx = b_x - a_x
    both = dx * (a_count * (b_count / (a_count + b_count)))
    return a_xx + b_xx + both * dx, a_xy + b_xy + both * (b_y - a_y + shift)


def tails(xs: list[float], ys: list[float]) -> list[Moments]:
    """Return for each j the moments of the points from j to the last, and of none after the last.

    Examples
    --------
    >>> [mean_x for mean_x, *_ in tails([0.0, 2.0], [5.0, 9.0])]
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
    later: Moments = tuple(part[window, columns] for part in into)
    for count, j in enumerate(range(window - 1, -1, -1), start=1):
        later = add(later, count, xs[j, columns], ys[j, columns])
        for part, value in zip(into, later, strict=True):
            part[j, columns] = value


def rows_of(count: IntArray, window: int, columns: Any) -> tuple[Any, Any]:
    """Return the row that each run's next point goes to, and the columns to use it with.

    Runs that have seen equally many points share a row, which is then one number, and columns stay a slice.
    """
    row = count % window
    if isinstance(columns, slice) and row.min() == row.max():
        return int(row[0]), columns
    if isinstance(columns, slice):
        columns = np.arange(len(count))
    return row[columns], columns
