"""Auto: hardly any of the run's gain is still to come."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from convergence.decision import Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_amount
from convergence.rule import MetricRule
from convergence.stats import course as courses
from convergence.stats.course import Course
from convergence.stats.remaining import Remaining, shipped, with_plan

FEWEST = 4
"""Observations before which it does not stop."""

MISSES = 3
"""Values in a row that are not finite at which it stops."""

DROP = 0.1
"""Fall of the learning rate, as a fraction of its highest since the last one, that counts as a drop."""

STEEP, LAST = 0.5, 0.001
"""A drop counts if it is at least so steep from one observation to the next, or ends above this share of the peak."""

WAKE, WAKE_OF_RUN, LEAST_WAKE = 0.25, 0.1, 5
"""Observations that a verdict waits after a drop: a share of those since the last, of the run, at least so many."""

FAIR_WAIT, LEAST_FAIR_WAIT = 20, 500
"""Without a plan it stops once the best is so many times as long ago as it took, and at least so many observations."""

TREND = 1.65
"""t-value of a slope from which a trend counts: 5 % one-sided."""

UNSTEADY, GIVEN_BACK = 0.2, 0.05
"""Noise, and distance from the best, as shares of the gain so far, from which a run counts as unstable."""

STEADY = 0.5
"""Share of new bests among the last half of the observations from which it does not."""

_ROUNDING = 1 + 1e-9
_LARGEST_SCORE = 1e4


@dataclass(slots=True)
class AutoMemory(Course):
    """The course of the run, its score, and what is known of learning rate and plan."""

    misses: int = 0
    loss: float | None = None
    step: float | None = None
    best_loss: float | None = None
    best_step: float | None = None
    score: float | None = None
    progress: float | None = None
    lr: float | None = None
    lr_ahead: float | None = None
    highest: float | None = None
    peak: float | None = None
    rising: bool = False
    since_drop: int = 0
    wake: int = 0

    _features: Any = None

    @property
    def since_best(self) -> int:
        """Observations since the best."""
        return self.count - 1 - self.best_at


@dataclass(frozen=True, repr=False)
class Auto(MetricRule):
    """Stop when the gain still to come is expected to be below `tolerance` of the run's whole gain.

    The whole gain goes from the first value to the best of the finished run; what is still to come of it is the
    regret of stopping now. A small network estimates it from the course of the run alone, whatever the metric's
    unit and offset and the run's length: levels, slopes, noise and new bests over the last half, quarter, eighth
    and so on; earlier scores fade. It was fitted to recorded runs of many kinds, and what a
    score is worth was measured on kinds that it had not seen: the mean loss over all runs, so that tolerance is kept
    on average, not in each run.

    Parameters
    ----------
    tolerance : float
        Share of the run's whole gain that may be lost, in [0, 1); 0 stops only where nothing is finite any more.

    Notes
    -----
    What it is told beside the metric makes it better. With `progress` it knows how much training is left, also where
    it is not told again; without, it expects the run to last about as much longer as recorded runs did. With `lr`
    and `lr_ahead` it waits for planned drops
    of the learning rate, at least 10 %; with `lr` it waits in the wake of those that came (a quarter of the
    observations since the one before, a tenth of all, at least 5), and while the rate rises. A rate that falls all
    the time drops again and again, so that it waits until a thousandth of the highest rate is left.

    Three values in a row that are not finite stop it; one of them is a repetition of the value before. Without
    `progress` it stops at the latest when the best is 20 times as many observations ago as it took to reach it, and
    at least 500. The trap: without `lr_ahead` a plateau before a drop looks like an end. Steps are not looked at:
    observations count. O(1) per observation, memory of about 350 numbers.

    Its evidence: `mean_regret` is what is compared with `tolerance`: the loss of stopping at such a score, averaged
    over all runs, those among them that never come to it. `expected_gain`, `low_gain`, `high_gain` are mean and central
    80 % of what was still to come in the runs that did. `longest_wait` counts observations without a better one; with a
    plan those to its end.

    Rearming counts as a drop of the learning rate: it waits in its wake, and forgets nothing.

    Examples
    --------
    >>> from convergence import replay
    >>> replay(Auto(), [1.0 + 3.0 * 0.8**i for i in range(200)], mode="min").stop_index < 60
    True
    """

    vectorised: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset({"lr", "lr_ahead", "progress"})

    tolerance: float = 0.01

    def __post_init__(self) -> None:
        check_amount(self, "tolerance", least=0, below=1)
        _ = self.model  # a package without its coefficients fails here, before training

    @property
    def model(self) -> Remaining:
        """The networks that it asks."""
        return shipped()

    @property
    def span(self) -> int:
        return FEWEST

    @property
    def cells(self) -> int:
        return 6 * courses.ROWS + 200

    def start(self) -> AutoMemory:
        return AutoMemory()

    def observe(self, memory: AutoMemory, loss: float, observation: Observation) -> None:
        m = memory
        m.loss, m.step = loss, observation.step
        m.misses = 0 if math.isfinite(loss) else m.misses + 1
        courses.take(m, loss)
        if m.misses == 0 and (m.best_loss is None or loss < m.best_loss):
            m.best_loss, m.best_step = loss, observation.step
        _follow(m, observation.lr, observation.lr_ahead)
        progress = observation.progress
        if progress is None and m.progress is not None:  # the plan is as long as it was
            progress = min(1.0, m.progress * (m.count / (m.count - 1)))
        known = progress is not None
        m._features = features = courses.features(m)
        features = features[:, None]
        if known:
            features = with_plan(features, m.count, np.array([progress]))
        model = self.model.planned if known else self.model.unplanned
        newest = float(model.outputs(features)[0, 0])
        if m.score is not None and known is (m.progress is not None):
            past = float(model.past)
            newest = past * m.score + (1 - past) * newest
        m.score, m.progress = newest, progress

    def decide(self, memory: AutoMemory) -> Verdict:
        m = memory
        if m.score is None:
            return False, None, None, None, None
        stop = m.misses >= MISSES
        if m.misses == 0 and m.count >= FEWEST:
            model = self.model.unplanned if m.progress is None else self.model.planned
            stop = m.score < model.score_at(self.tolerance)
            stop = stop or (m.progress is None and m.since_best >= self._longest(m.best_at))
            stop = stop and not (m.rising or m.since_drop < m.wake or _falls(m.lr, m.lr_ahead))
        return (
            stop,
            m.score,
            m._features,
            (m.count, m.since_best, m.misses, m.loss, m.step, m.best_loss, m.best_step),
            (m.progress, m.lr, m.lr_ahead, m.rising, m.since_drop, m.wake),
        )

    def _longest(self, best_at: Any) -> Any:
        """Return how many observations after the best it stops at the latest, where no plan is known."""
        if not self.tolerance:
            return math.inf
        longest = FAIR_WAIT * (best_at + 1)
        return max(LEAST_FAIR_WAIT, longest) if isinstance(best_at, int) else np.maximum(LEAST_FAIR_WAIT, longest)

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, score, features, run, context = verdict
        if score is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"tolerance": self.tolerance})
        count, since, misses, loss, step, best_loss, best_step = run
        progress, lr, lr_ahead, rising, since_drop, wake = context
        model = self.model.unplanned if progress is None else self.model.planned
        mean_regret, (gain, low, high) = float(model.gain(score)), model.still_to_come(score)
        if progress is not None:
            if progress == 1:
                mean_regret = gain = low = high = 0.0
            longest: float = math.ceil(count * (1 - progress) / progress - 1e-9) if progress else math.inf
        elif rising or _falls(lr, lr_ahead):
            longest = math.inf
        else:
            longest = max(0, self._longest(count - 1 - since) - since, wake - since_drop)
        evidence = {
            "mean_regret": mean_regret,
            "tolerance": self.tolerance,
            "expected_gain": gain,
            "low_gain": low,
            "high_gain": high,
            "value": unit.value(loss),
            "step": step,
            "best": unit.value(best_loss),
            "best_step": math.nan if best_step is None else best_step,
            "observations": count,
            "wait": since,
            "longest_wait": longest,
        }
        if misses >= MISSES:
            return Told(Reason.NON_FINITE, f"the last {misses} values of {unit.metric} were not finite", evidence)
        if best_loss is None:
            return Told(Reason.WAITING, f"no finite value of {unit.metric} yet", evidence)
        seen = f"best {unit.text(best_loss)}, {since} of {count} observation(s) ago"
        if count < FEWEST:
            return Told(Reason.WARMING_UP, f"{unit.metric}: {count} of {FEWEST} observations; {seen}", evidence)
        end = "by an unknown end" if progress is None else "by the planned end"
        what = (
            f"stopping now loses {_percent(mean_regret)} of the gain on average over runs (tolerance "
            f"{_percent(self.tolerance)}); {_percent(gain)} is still to come in those like this one {end} "
            f"(80 % of them: {_percent(low)} to {_percent(high)}); {seen}"
        )
        if stop:
            reason, look = _look(features, count, since)
            if score >= model.score_at(self.tolerance):
                what = f"no better value in the longest time that it waits; {what}"
                if reason is Reason.CONVERGED:
                    reason, look = Reason.PLATEAUED, "has stalled"
            elif progress is not None and reason is Reason.CONVERGED and _newly_gained(features) > self.tolerance:
                reason, look = Reason.BUDGET_EXHAUSTED, "still improves, but too little of its plan is left"
            return Told(reason, f"{unit.metric} {look}: {what}", evidence)
        held = _held(lr, lr_ahead, rising, since_drop, wake)
        if held:
            return Told(Reason.WAITING, f"{unit.metric} waits, since the learning rate {held}: {what}", evidence)
        if progress == 1:
            return Told(Reason.WAITING, f"{unit.metric}: its planned training is over; {seen}", evidence)
        until = "to the planned end" if progress is not None else "without a better one"
        wait = "" if math.isinf(longest) else f"; at most {longest} more {until}"
        return Told(Reason.IMPROVING if since == 0 else Reason.WAITING, f"{unit.metric}: {what}{wait}", evidence)

    def clear(self, memory: AutoMemory) -> None:
        memory.wake = _wake(memory.since_drop, memory.wake, memory.count)
        memory.since_drop = 0

    def revive(self, memory: AutoMemory) -> None:
        m = memory
        rows = -(-m.count // courses.width_of(m.count))
        kept = [m.sums, m.lows, m.bests, m.changes, m.records]
        begun = {value is not None for value in (m.score, m.loss, m.step)}
        if any(len(part) != rows for part in kept) or begun != {m.count > 0}:
            raise ValueError(f"the state of Auto is damaged: its rows do not fit a count of {m.count}")
        counts = (m.best_at, m.earlier_best_at, m.since_drop - 1, m.ties - 1, m.misses - 1, m.wake - LEAST_WAKE)
        if max(counts) >= max(m.count, 1):
            raise ValueError(f"the state of Auto is damaged: it counts more than its {m.count} observations")
        most = courses.FARTHEST * courses.width_of(m.count) * 2
        amounts = (m.last, m.gained, *(number for part in kept for number in part))
        if m.best > 0 or m.top < 0 or any(abs(number) > most for number in (m.best, m.top, *amounts)):
            raise ValueError("the state of Auto is damaged: its losses cannot be")
        if m.score is not None and abs(m.score) > _LARGEST_SCORE:
            raise ValueError(f"the state of Auto is damaged: its score {m.score} cannot be")
        if m.progress is not None and not 0 <= m.progress <= 1:
            raise ValueError(f"the state of Auto is damaged: its progress {m.progress} is not between 0 and 1")
        m._features = courses.features(m) if m.count else None

    def shared(self) -> tuple[Any, int | None]:
        return replace(self, tolerance=0.0), None

    def start_many(self, count: int) -> Lanes:
        numbers = {name: np.full(count, np.nan) for name in ("score", "progress", "lr", "lr_ahead", "highest", "peak")}
        counts = {name: np.zeros(count, np.int64) for name in ("misses", "since_drop", "wake")}
        flags = {name: np.zeros(count, np.bool_) for name in ("rising",)}
        return Lanes(course=courses.begin_many(count), **numbers, **counts, **flags)

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        lanes.misses = np.where(np.isnan(loss), lanes.misses + 1, 0)
        courses.take_many(lanes.course, loss)
        _follow_many(lanes, moment)
        features = courses.features_many(lanes.course)
        count = int(lanes.course.count[0])
        progress = np.minimum(1.0, lanes.progress * (count / max(1, count - 1)))
        if moment.progress is not None:
            progress = np.where(np.isnan(moment.progress), progress, moment.progress)
        known = ~np.isnan(progress)
        newest = np.empty(len(loss))
        if not known.all():
            newest[~known] = self.model.unplanned.outputs(features[:, ~known])[0]
        if known.any():
            newest[known] = self.model.planned.outputs(with_plan(features[:, known], count, progress[known]))[0]
        past = np.where(known, self.model.planned.past, self.model.unplanned.past)
        goes_on = (known == ~np.isnan(lanes.progress)) & ~np.isnan(lanes.score)
        lanes.score = np.where(goes_on, past * lanes.score + (1 - past) * newest, newest)
        lanes.progress = progress

    def stops_many(self, lanes: Lanes) -> BoolArray:
        course, model = lanes.course, self.model
        since = course.count - 1 - course.best_at
        known = ~np.isnan(lanes.progress)
        least = np.where(known, model.planned.score_at(self.tolerance), model.unplanned.score_at(self.tolerance))
        enough = (lanes.score < least) | (~known & (since >= self._longest(course.best_at)))
        held = lanes.rising | _falls_many(lanes.lr, lanes.lr_ahead) | (lanes.since_drop < lanes.wake)
        stops: BoolArray = enough & ~held & (lanes.misses == 0) & (course.count >= FEWEST)
        stops |= lanes.misses >= MISSES
        return stops

    def clear_many(self, lanes: Lanes, where: BoolArray) -> None:
        np.copyto(lanes.wake, _wake(lanes.since_drop, lanes.wake, lanes.course.count), where=where)
        lanes.since_drop[where] = 0


def _wake(since_drop: Any, wake: Any, count: Any) -> Any:
    """Return the observations without a verdict after a drop so long after the last one, and in its wake or not."""
    longest = np.ceil(np.maximum(WAKE * since_drop, WAKE_OF_RUN * count))
    wake = np.maximum(np.maximum(LEAST_WAKE, longest), wake - since_drop).astype(np.int64)
    return wake if wake.ndim else int(wake)


def _falls(lr: float | None, lr_ahead: float | None) -> bool:
    """Whether a drop of the learning rate is still to come."""
    return lr is not None and lr_ahead is not None and lr_ahead < lr and lr_ahead <= (1 - DROP) * _ROUNDING * lr


def _falls_many(lr: FloatArray, lr_ahead: FloatArray) -> BoolArray:
    falls: BoolArray = (lr_ahead < lr) & (lr_ahead <= (1 - DROP) * _ROUNDING * lr)
    return falls


def _follow(memory: AutoMemory, lr: float | None, lr_ahead: float | None) -> None:
    """Note the learning rate of a value, and whether it has dropped."""
    m = memory
    m.since_drop += 1
    m.lr_ahead = lr_ahead
    m.rising = False
    if lr is None:
        return
    before, m.lr = m.lr, lr
    if before is None or m.highest is None or m.peak is None:
        m.highest = m.peak = lr
        return
    m.rising = lr > before
    m.peak, m.highest = max(m.peak, lr), max(m.highest, lr)
    fallen = lr < m.highest and lr <= (1 - DROP) * _ROUNDING * m.highest
    if fallen and (lr <= STEEP * before or lr > LAST * m.peak):
        m.wake = _wake(m.since_drop, m.wake, m.count)
        m.since_drop = 0
        m.highest = lr


def _follow_many(lanes: Lanes, moment: Moment) -> None:
    """Do what `_follow` does."""
    lanes.since_drop += 1
    if moment.lr_ahead is not None:
        lanes.lr_ahead = moment.lr_ahead
    if moment.lr is None:
        return
    before, lr = lanes.lr, moment.lr
    lanes.rising = lr > before
    lanes.lr = np.where(np.isnan(lr), before, lr)
    lanes.peak, lanes.highest = np.fmax(lanes.peak, lr), np.fmax(lanes.highest, lr)
    fallen = (lr < lanes.highest) & (lr <= (1 - DROP) * _ROUNDING * lanes.highest)
    dropped = fallen & ((lr <= STEEP * before) | (lr > LAST * lanes.peak))
    if dropped.any():
        np.copyto(lanes.wake, _wake(lanes.since_drop, lanes.wake, lanes.course.count), where=dropped)
        lanes.since_drop[dropped] = 0
        np.copyto(lanes.highest, lr, where=dropped)


def _held(lr: float | None, lr_ahead: float | None, rising: bool, since_drop: int, wake: int) -> str:
    """Return what the learning rate does that a verdict must wait for; empty if there is no such thing."""
    if rising:
        return f"rises to {lr:.4g}"
    if _falls(lr, lr_ahead):
        return f"will still fall from {lr:.4g} to {lr_ahead:.4g}"
    return f"fell {since_drop} observation(s) ago" if since_drop < wake else ""


def _percent(share: float) -> str:
    if 0 < share < 1e-4:
        return "under 0.01 %"
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _newly_gained(features: FloatArray) -> float:
    """Return the share of the gain so far that was made in the last eighth of the run."""
    return float(10 ** features[courses.FEATURES.index("gain 0.125")])


def _look(features: FloatArray, count: int, since_best: int) -> tuple[Reason, str]:
    """Return what a run that is stopped looks like."""
    seen = dict(zip(courses.FEATURES, features.tolist(), strict=True))
    rising = math.asinh(TREND)
    if not seen["learning"]:
        if seen["trend 1"] > rising:
            return Reason.DIVERGED, "has only become worse"
        return Reason.NOT_LEARNING, "has never bettered its first value"
    # In shares of the gain so far.
    level, half = (0.01 * math.sinh(seen[name]) for name in ("level 0.125", "level 0.5"))
    noise = 10 ** seen["change 0.5"]
    if level - 1 > max(1.0, 5 * noise):
        return Reason.DIVERGED, "has diverged"
    if noise > UNSTEADY and 1 - half < 1.5 * noise and seen["trend 1"] > -rising:
        return Reason.NOT_LEARNING, "has not begun to learn beyond its noise"
    if since_best >= max(5, count / 8) and level > max(3 * noise, GIVEN_BACK):
        share = next(share for share in (0.5, 0.25, 0.125) if share * count <= since_best)
        if seen[f"trend {share:g}"] > rising:
            return Reason.OVERFITTING, "is overfitting"
        return Reason.PLATEAUED, f"is unstable and has lost {_percent(level)} of its gain again"
    if noise > UNSTEADY and seen["records 0.5"] < STEADY:
        return Reason.PLATEAUED, f"is unstable, changing by {_percent(noise)} of its gain each time"
    return Reason.CONVERGED, "has converged"
