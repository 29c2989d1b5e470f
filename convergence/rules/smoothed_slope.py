"""SmoothedSlope: the trend over a window no longer improves."""

import math
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, cast, final

import numpy as np

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_amount, check_count
from convergence.rule import MetricRule
from convergence.stats.slope import EMPTY, Moments, add, merged, rows_of, tails, tails_many

_INFINITY = math.inf


@dataclass(slots=True)
class SmoothedSlopeMemory:
    """A ring of the last `window` steps and smoothed losses, range, and the slope they give."""

    steps: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    count: int = 0
    misses: int = 0
    origin: float = 0.0
    older_origin: float = 0.0
    level: float = 0.0
    weight: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    slope: float | None = None
    gap: float = 0.0
    loss: float | None = None
    step: float | None = None
    _run: Moments = EMPTY
    _tails: list[Moments] = field(default_factory=list)


@final
@dataclass(frozen=True, repr=False)
class SmoothedSlope(MetricRule):
    """Stop when the smoothed metric improves by at most `tol` of its range per observation over the last `window`.

    With s the exponentially smoothed loss, slope the least-squares slope of s against step over the last `window`
    observations, and gap their mean step gap: -slope * gap <= tol * (highest - lowest loss so far).
    Smoothing is bias-corrected: s(t) = sum_i smoothing^(t-i) y(i) / sum_i smoothing^(t-i).

    Parameters
    ----------
    window : int
        Observations in the fit; at least 2. Silent until the window is full.
    tol : float
        Gain per observation at which to stop, as a fraction of the range seen so far; at least 0. With 0, stop as
        soon as the trend no longer improves; a constant metric always stops.
    smoothing : float
        Weight of the past in the exponential smoothing, in [0, 1); 0 uses the raw values.

    Notes
    -----
    The trap: a plateau before a learning-rate drop has no slope either; see `Rearm`. Values that are not finite
    enter neither window nor range; `window` of them in a row stop it. If all steps of the window are equal there
    is no slope and no stop. O(1) amortised per observation, memory 2 * window numbers. Rearming empties the window
    and starts the smoothing again; the range stays.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(SmoothedSlope(3, tol=0.01), [5.0, 3.0, 2.0, 1.5, 1.5, 1.5], mode="min").stop_index
    5
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset()
    memory_parameters: ClassVar[frozenset[str]] = frozenset({"window", "smoothing"})

    window: int
    _: KW_ONLY
    tol: float
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_count(self, "window", least=2)
        check_amount(self, "tol", least=0)
        check_amount(self, "smoothing", least=0, below=1)

    @property
    def span(self) -> int:
        return self.window

    @property
    def cells(self) -> int:
        return 6 * self.window + 20

    def start(self) -> SmoothedSlopeMemory:
        return SmoothedSlopeMemory()

    def observe(self, memory: SmoothedSlopeMemory, loss: float, observation: Observation) -> None:
        m = memory
        m.loss = loss
        m.step = x = observation.step
        if not -_INFINITY < loss < _INFINITY:
            m.misses += 1
            return
        m.misses = 0
        if loss < m.low:
            m.low = loss
        if loss > m.high:
            m.high = loss
        if m.count == 0:
            m.origin = loss
        beta = self.smoothing
        m.level = beta * m.level + (1 - beta) * (loss - m.origin)
        m.weight = beta * m.weight + (1 - beta)
        y = m.level / m.weight
        window = self.window
        row = m.count % window
        if m.count < window:
            m.steps.append(x)
            m.smoothed.append(y)
        else:
            m.steps[row] = x
            m.smoothed[row] = y
        m.count += 1
        m._run = add(m._run, row + 1, x, y)
        if m.count >= window:
            xx, xy = m._run[2:]
            if m.count > window:
                shift = m.origin - m.older_origin
                xx, xy = merged(m._tails[row + 1], window - 1 - row, m._run, row + 1, shift)
            m.slope = xy / xx if xx > 0 else None
            m.gap = (x - m.steps[(row + 1) % window]) / (window - 1)
        if row == window - 1:
            m._tails = tails(m.steps, m.smoothed)
            m._run = EMPTY
            # Each block counts from an origin near its values, so that neither an offset nor an old spike costs digits.
            m.older_origin, m.origin = m.origin, loss
            m.level += m.weight * (m.older_origin - m.origin)

    def decide(self, memory: SmoothedSlopeMemory) -> Verdict:
        m = memory
        flat = m.slope is not None and -m.slope * m.gap <= self.tol * (m.high - m.low)
        smoothed = m.origin + m.level / m.weight if m.count else None
        return (
            flat or m.misses >= self.window,
            m.slope,
            m.gap,
            m.high - m.low,
            smoothed,
            m.count,
            m.misses,
            m.loss,
            m.step,
        )

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, slope, gap, spread, smoothed, count, misses, loss, step = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"window": self.window, "tol": self.tol})
        gain = math.nan if slope is None else 0.0 - slope * gap
        evidence = {
            "slope": unit.value(slope),
            "smoothed": unit.value(smoothed),
            "trend_gain": gain,
            "range": spread if count else math.nan,
            "tol": self.tol,
            "window": self.window,
            "value": unit.value(loss),
            "step": step,
        }
        if misses >= self.window:
            message = f"the last {misses} values of {unit.metric} were not finite (window {self.window})"
            return Told(Reason.NON_FINITE, message, evidence)
        if slope is None:
            message = f"{unit.metric} has no slope yet: {count} of {self.window} values"
            return Told(Reason.WARMING_UP, message, evidence)
        message = (
            f"{unit.metric} improves by {gain:.3g} per observation over the last {self.window} "
            f"({'at most' if stop else 'more than'} tol {self.tol:g} of its range {spread:.4g})"
        )
        if not stop:
            return Told(Reason.IMPROVING, message, evidence)
        return Told(Reason.PLATEAUED if math.isfinite(loss) else Reason.NON_FINITE, message, evidence)

    def clear(self, memory: SmoothedSlopeMemory) -> None:
        kept = memory.low, memory.high, memory.loss, memory.step
        memory.__init__()  # type: ignore[misc]
        memory.low, memory.high, memory.loss, memory.step = kept

    def revive(self, memory: SmoothedSlopeMemory) -> None:
        m, window = memory, self.window
        if len(m.steps) != len(m.smoothed) or len(m.steps) != min(m.count, window):
            raise ValueError(f"the state of SmoothedSlope is damaged: {len(m.steps)} steps for a count of {m.count}")
        if not 0 <= m.weight <= 1 + 1e-9 or (m.count > 0) is not (m.weight > 0):
            raise ValueError(f"the state of SmoothedSlope is damaged: weight {m.weight} for a count of {m.count}")
        # Rows before the newest belong to the running block, the others to the finished one.
        row = m.count % window
        for i in range(row):
            m._run = add(m._run, i + 1, m.steps[i], m.smoothed[i])
        if m.count >= window:
            m._tails = [EMPTY] * row + tails(m.steps[row:], m.smoothed[row:])

    def shared(self) -> tuple[Any, int | None]:
        return replace(self, tol=0.0), None

    def start_many(self, count: int) -> Lanes:
        window = self.window
        counts = {name: np.zeros(count, np.int64) for name in ("count", "misses")}
        numbers = {name: np.full(count, np.nan) for name in ("slope", "gap")}
        sums = {name: np.zeros(count) for name in ("level", "weight", "origin", "older_origin")}
        return Lanes(
            steps=np.zeros((window, count)),
            smoothed=np.zeros((window, count)),
            tails=np.zeros((4, window + 1, count)),
            run=tuple(np.zeros((4, count))),
            low=np.full(count, np.inf),
            high=np.full(count, -np.inf),
            **counts,
            **numbers,
            **sums,
        )

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        columns: Any = slice(None)
        if math.isfinite(loss.sum()):
            lanes.misses[:] = 0
        else:
            finite = ~np.isnan(loss)
            lanes.misses = np.where(finite, 0, lanes.misses + 1)
            columns = np.flatnonzero(finite)
            if not columns.size:
                return
        row, columns = rows_of(lanes.count, self.window, columns)
        y = loss[columns]
        x = moment.step[columns]
        np.fmin(lanes.low, loss, out=lanes.low)
        np.fmax(lanes.high, loss, out=lanes.high)
        if not lanes.count.all():
            np.copyto(lanes.origin, loss, where=lanes.count == 0)
        y = y - lanes.origin[columns]
        if self.smoothing:
            beta = self.smoothing
            lanes.level[columns] = level = beta * lanes.level[columns] + (1 - beta) * y
            lanes.weight[columns] = weight = beta * lanes.weight[columns] + (1 - beta)
            y = level / weight
        self._fit_many(lanes, x, y, row, columns)
        ended = columns if isinstance(row, int) else columns[row == self.window - 1]
        if row == self.window - 1 if isinstance(row, int) else ended.size:
            self._end_block_many(lanes, loss, ended)

    def _fit_many(self, lanes: Lanes, x: FloatArray, y: FloatArray, row: Any, columns: Any) -> None:
        window = self.window
        lanes.steps[row, columns] = x
        lanes.smoothed[row, columns] = y
        lanes.count[columns] += 1
        if isinstance(columns, slice):
            lanes.run = run = add(lanes.run, row + 1, x, y)
        else:
            run = add(cast(Moments, tuple(part[columns] for part in lanes.run)), row + 1, x, y)
            _put(lanes.run, columns, run)
        filled = lanes.count[columns] >= window
        if np.any(filled):
            shift = lanes.origin[columns] - lanes.older_origin[columns]
            tail = tuple(part[row + 1, columns] for part in lanes.tails)
            xx, xy = merged(cast(Moments, tail), window - 1 - row, run, row + 1, shift)
            slope = xy / xx
            if not filled.all() or not xx.min() > 0:
                slope = np.where(filled & (xx > 0), slope, np.nan)
            lanes.slope[columns] = slope
            # Where the window is not full yet the slope is NaN, so the gap does not matter.
            lanes.gap[columns] = (x - lanes.steps[(row + 1) % window, columns]) / (window - 1)

    def _end_block_many(self, lanes: Lanes, loss: FloatArray, ended: Any) -> None:
        tails_many(lanes.steps, lanes.smoothed, ended, lanes.tails)
        _put(lanes.run, ended, EMPTY)
        lanes.older_origin[ended] = older = lanes.origin[ended].copy()
        lanes.origin[ended] = origin = loss[ended]
        lanes.level[ended] += lanes.weight[ended] * (older - origin)

    def stops_many(self, lanes: Lanes) -> BoolArray:
        flat = -lanes.slope * lanes.gap <= self.tol * (lanes.high - lanes.low)
        stops: BoolArray = flat | (lanes.misses >= self.window)
        return stops

    def clear_many(self, lanes: Lanes, where: BoolArray) -> None:
        for name in ("count", "misses", "level", "weight", "gap"):
            getattr(lanes, name)[where] = 0
        lanes.slope[where] = np.nan
        _put(lanes.run, where, EMPTY)


def _put(moments: Moments, columns: Any, values: Moments) -> None:
    for part, value in zip(moments, values, strict=True):
        part[columns] = value
