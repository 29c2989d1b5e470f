"""The course of a run so far, kept in at most 64 rows, and what it looks like whatever its unit and its length.

Each row sums up as many observations as fit: one while there are fewer than 64, then two, four, and so on, so that
any share of the run can be looked at with a resolution of a thirty-second of it, in constant memory.

The same functions take the numbers of one run, or arrays with a run per column that are at the same observation.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from convergence.lanes import FloatArray, Lanes

ROWS = 64
_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
FARTHEST = 1e150
"""Distance from the first value beyond which all are alike; its square is still a number."""


@dataclass(slots=True)
class Course:
    """One run: losses counted from its first finite one, in rows of equally many observations.

    Attributes
    ----------
    count : int
        Observations, those that were not finite included.
    origin : float or None
        First finite loss; all other losses are differences from it.
    last, best, top : float
        Newest, lowest and highest finite loss.
    best_at, earlier_best_at : int
        Observation of the best, and of the best before it.
    gained : float
        By how much the best bettered the one before it.
    ties : int
        Observations equal to the one before, the first among them.
    sums, lows, bests, changes, records : list of float
        For each row: sum and lowest of its losses, best of the run at its end, sum of absolute changes from one
        observation to the next, number of new bests.
    """

    count: int = 0
    origin: float | None = None
    last: float = 0.0
    best: float = 0.0
    top: float = 0.0
    best_at: int = 0
    earlier_best_at: int = 0
    gained: float = 0.0
    ties: int = 0
    sums: list[float] = field(default_factory=list)
    lows: list[float] = field(default_factory=list)
    bests: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    records: list[float] = field(default_factory=list)


def width_of(count: int) -> int:
    """Return how many observations a row holds in a run of `count`: the least power of two that gives under 64 rows.

    Examples
    --------
    >>> [width_of(count) for count in (1, 63, 64, 127, 128, 1000)]
    [1, 1, 2, 2, 4, 16]
    """
    return 1 << max(0, count.bit_length() - 6)


def take(course: Course, loss: float) -> None:
    """Take in a loss; one that is not finite counts as no change."""
    c = course
    if math.isfinite(loss):
        if c.origin is None:
            c.origin = loss
            c.earlier_best_at = c.best_at = c.count
        loss = min(max(loss - c.origin, -FARTHEST), FARTHEST)
    else:
        loss = c.last
    change = abs(loss - c.last)
    better = loss < c.best
    if better:
        c.gained = c.best - loss
        c.earlier_best_at, c.best_at = c.best_at, c.count
        c.best = loss
    elif loss > c.top:
        c.top = loss
    if change == 0:
        c.ties += 1
    c.last = loss
    if c.count % width_of(c.count):
        c.sums[-1] += loss
        c.lows[-1] = min(c.lows[-1], loss)
        c.bests[-1] = c.best
        c.changes[-1] += change
        c.records[-1] += better
    else:
        c.sums.append(loss)
        c.lows.append(loss)
        c.bests.append(c.best)
        c.changes.append(change)
        c.records.append(float(better))
    c.count += 1
    if c.count == ROWS * width_of(c.count - 1):
        for rows in (c.sums, c.changes, c.records):
            rows[:] = [a + b for a, b in zip(rows[::2], rows[1::2], strict=True)]
        c.lows[:] = [min(a, b) for a, b in zip(c.lows[::2], c.lows[1::2], strict=True)]
        c.bests[:] = c.bests[1::2]


def begin_many(count: int) -> Lanes:
    """Return the courses of `count` runs that go in lockstep."""
    rows = {name: np.zeros((ROWS, count)) for name in ("sums", "lows", "bests", "changes", "records")}
    numbers = {name: np.zeros(count) for name in ("last", "best", "top", "gained")}
    counts = {name: np.zeros(count, np.int64) for name in ("count", "best_at", "earlier_best_at", "ties")}
    return Lanes(origin=np.full(count, np.nan), **numbers, **counts, **rows)


def take_many(courses: Lanes, losses: FloatArray) -> None:
    """Take in one loss of each run, as `take` does; NaN for those that are not finite."""
    c, count = courses, int(courses.count[0])
    new = np.isnan(c.origin) & ~np.isnan(losses)
    c.origin[new] = losses[new]
    c.best_at[new] = c.earlier_best_at[new] = count
    loss = np.clip(losses - c.origin, -FARTHEST, FARTHEST)
    loss = np.where(np.isnan(loss), c.last, loss)
    change = np.abs(loss - c.last)
    better = loss < c.best
    np.copyto(c.gained, c.best - loss, where=better)
    np.copyto(c.earlier_best_at, c.best_at, where=better)
    c.best_at[better] = count
    c.best = np.minimum(c.best, loss)
    c.top = np.maximum(c.top, loss)
    c.ties += change == 0
    c.last = loss
    row, place = divmod(count, width_of(count))
    if place:
        c.sums[row] += loss
        np.minimum(c.lows[row], loss, out=c.lows[row])
        c.changes[row] += change
        c.records[row] += better
    else:
        c.sums[row], c.lows[row], c.changes[row], c.records[row] = loss, loss, change, better
    c.bests[row] = c.best
    c.count += 1
    if count + 1 == ROWS * width_of(count):
        half = ROWS // 2
        for rows in (c.sums, c.changes, c.records):
            rows[:half] = rows[::2] + rows[1::2]
        c.lows[:half] = np.minimum(c.lows[::2], c.lows[1::2])
        c.bests[:half] = c.bests[1::2]


@lru_cache(maxsize=256)
def _cuts(count: int) -> tuple[int, int, tuple[int, ...]]:
    """Return width and number of the rows, and the first row of each share of the run, counted from its end."""
    width = width_of(count)
    rows = -(-count // width)
    return width, rows, tuple(min(round(count * (1 - share) / width), rows - 1) for share in _SHARES)


FEATURES = (
    *(f"level {share:g}" for share in _SHARES[:5]),
    *(f"low {share:g}" for share in _SHARES[1:5]),
    *(f"drift {share:g}" for share in _SHARES[1:5]),
    *(f"slope {share:g}" for share in _SHARES[:4]),
    *("last", "start"),
    *(f"change {share:g}" for share in _SHARES[:4]),
    *(f"gain {share:g}" for share in (0.75, *_SHARES[1:])),
    "newest gain",
    *("early 0.1", "early 0.03"),
    *(f"trend {share:g}" for share in _SHARES[:4]),
    *(f"records {share:g}" for share in _SHARES[:4]),
    *("learning", "range", "since best", "ties"),
    *("log count", "log since best", "log between bests"),
)
"""Names of the features, in their order; the number after a name is the share of the run, from its end, or for
"early" from its start.

Levels (means), lows, drifts (mean of as long a stretch before - mean), slopes (fitted, over the stretch), the newest
value and the lowest of the first sixteenth are counted from the best; gains are those of the best; changes are mean
absolute differences of neighbours. All these are shares of the gain so far, then taken to arcsinh(100 x) if they
have a sign, log10 if not. Trends are t-values of the slopes, records shares of new bests among the observations.
"""

_SIGNED = slice(0, 19)
_SLOPES = slice(13, 17)
_POSITIVE = slice(19, 30)
_EARLY = slice(30, 32)
_TRENDS = slice(32, 36)
_RECORDS = slice(36, 40)
_LOGS = slice(44, 47)


def features(course: Course) -> FloatArray:
    """Return what a run looks like, shape (len(FEATURES),).

    Unchanged when all losses are multiplied by a positive number or moved by a constant.

    Examples
    --------
    >>> run = Course()
    >>> for loss in (5.0, 3.0, 2.0, 2.5):
    ...     take(run, loss)
    >>> round(float(dict(zip(FEATURES, features(run)))["since best"]), 2)
    0.25
    """
    gain, spread = -course.best, course.top - course.best
    scale = gain if gain > 0 else spread if spread > 0 else 1.0
    return _shaped(course, course.count, min, gain, spread or 1.0, scale, np.empty(len(FEATURES)))


def features_many(courses: Lanes) -> FloatArray:
    """Return what many runs look like, shape (len(FEATURES), runs)."""
    gain, spread = -courses.best, courses.top - courses.best
    scale = np.where(gain > 0, gain, np.where(spread > 0, spread, 1.0))
    spread[spread == 0] = 1.0
    into = np.empty((len(FEATURES), len(gain)))
    return _shaped(courses, int(courses.count[0]), np.minimum, gain, spread, scale, into)


def _shaped(course: Any, count: int, lesser: Any, gain: Any, spread: Any, scale: Any, into: FloatArray) -> FloatArray:
    """Fill in the features, with few calls: every update passes here."""
    amounts, residuals, others = _measured(course, count, lesser)
    since = count - 1 - course.best_at
    with np.errstate(all="ignore"):  # losses near the largest float leave its range, and count as far away
        shares = np.array(amounts) / scale
        errors = np.sqrt(np.fmax(np.array(residuals), 0.0)) / scale
        np.arcsinh(np.fmin(np.fmax(100.0 * shares[_SIGNED], -1e5), 1e5), out=into[_SIGNED])
        np.log10(np.fmin(np.fmax(shares[_POSITIVE], 1e-5), 10.0), out=into[_POSITIVE])
        into[_EARLY] = shares[_EARLY]
        np.arcsinh(np.fmin(np.fmax(shares[_SLOPES] / (errors + 1e-6), -100.0), 100.0), out=into[_TRENDS])
        into[_RECORDS] = others
        into[40] = gain > 0
        into[41] = np.log10(np.fmax(gain / spread, 1e-4))
        into[42] = since / count
        into[43] = course.ties / count
        into[44], into[45], into[46] = count, 1.0 + since, 1.0 + course.best_at - course.earlier_best_at
        np.log2(into[_LOGS], out=into[_LOGS])
    return into


def _measured(course: Any, count: int, lesser: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Return amounts in the metric's unit in the order of FEATURES, squared errors of the slopes, and records."""
    width, rows, cuts = _cuts(count)
    windows = _windows(course, count, lesser)
    best, bests = course.best, course.bests
    none = best * 0.0
    levels = [window.y / window.weight for window in windows]
    drifts = []
    for outer, inner, level in zip(windows, windows[1:5], levels[1:5], strict=False):
        between = outer.weight - inner.weight
        drifts.append((outer.y - inner.y) / between - level if between else none)
    slopes, residuals = [], []
    for cut, window in zip(cuts[:4], windows, strict=False):
        freedom = rows - cut - 2
        if freedom < 1:
            slopes.append(none)
            residuals.append(none)
            continue
        weight, x, xx, y, xy, yy = window[:6]
        span = windows[-1].start - window.start
        xx = xx - x * x / weight
        xy = xy - x * y / weight
        yy = yy - y * y / weight
        slope = xy / xx
        slopes.append(slope * span)
        residuals.append((yy - slope * xy) * (span * span / (freedom * xx)))
    before = (min(round(count * 0.25 / width), rows - 1), *cuts[1:])
    start = course.lows[0]
    for row in range(1, rows // 16):
        start = lesser(start, course.lows[row])
    amounts = [
        *levels[:5],
        *[window.low - best for window in windows[1:5]],
        *drifts,
        *slopes,
        course.last - best,
        start - best,
        *[window.change / window.weight for window in windows[:4]],
        *[(bests[cut - 1] if cut else none) - best for cut in before],
        course.gained,
        *[-bests[max(round(count * share / width), 1) - 1] for share in (0.1, 0.03)],
    ]
    return amounts, residuals, [window.records / window.weight for window in windows[:4]]


class _Window(NamedTuple):
    """Weighted sums over the rows from some row to the newest; x is counted from the end, y from the best."""

    weight: float
    x: float
    xx: float
    y: Any
    xy: Any
    yy: Any
    change: Any
    records: Any
    low: Any
    start: float


def _windows(course: Any, count: int, lesser: Any) -> list[_Window]:
    """Return the sums for each share of the run."""
    width, rows, cuts = _cuts(count)
    best, sums, lows, changes, records = course.best, course.sums, course.lows, course.changes, course.records
    row = rows - 1
    here = count - width * row
    weight = x_sum = xx_sum = 0.0
    y_sum = xy_sum = yy_sum = change = record = best * 0.0
    low = lows[row]
    found: dict[int, _Window] = {}
    for cut in cuts[::-1]:
        while row >= cut:
            # Counted from the newest observation and from the best, so that a long quiet end keeps its digits.
            x = row * width + 0.5 * here - count
            y = sums[row] - here * best
            moment = here * x
            weight += here
            x_sum += moment
            xx_sum += moment * x
            y_sum = y_sum + y
            xy_sum = xy_sum + x * y
            yy_sum = yy_sum + y * y / here
            change = change + changes[row]
            record = record + records[row]
            low = lesser(low, lows[row])
            here = width
            row -= 1
        if cut not in found:
            found[cut] = _Window(weight, x_sum, xx_sum, y_sum, xy_sum, yy_sum, change, record, low, x)
    return [found[cut] for cut in cuts]
