"""Rules around a rule: WarmUp withholds early verdicts, Rearm knows the learning rate."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast, final

import numpy as np

from convergence import memory as memories
from convergence.decision import Decision, Reason, Told, Verdict
from convergence.lanes import BoolArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_amount, check_count
from convergence.rule import Bound, MetricRule, Node, Rule, expect, parameters, recipe, report_changes

_ROUNDING = 1 + 1e-9  # a rate that a scheduler computed may miss "10 % lower" by a rounding error


class Wrapper(Node):
    """A rule around one other rule, `rule`."""

    rule: Rule

    @property
    def inner(self) -> Node:
        """The wrapped rule, which must be bound."""
        return cast(Node, self.rule)

    @property
    def vectorised(self) -> bool:  # type: ignore[override]
        """Whether many curves can go in lockstep."""
        return self.inner.vectorised

    @property
    def span(self) -> int:
        return self.rule.span

    @property
    def needs(self) -> frozenset[str]:
        return self.rule.needs

    def leaves(self) -> "Iterator[MetricRule | Bound]":
        return self.rule.leaves()

    def bind(self, metric: str, mode: str) -> Node:
        return cast(Node, replace(self, rule=self.rule.bind(metric, mode)))  # type: ignore[type-var]

    @abstractmethod
    def start(self) -> Any:
        """Return the wrapper's own memory; its field `inner` is the wrapped rule's."""

    def begin(self) -> Any:
        memory = self.start()
        memory._inner = self.inner.begin()
        return memory

    def rearm(self, memory: Any) -> None:
        self.inner.rearm(memory._inner)

    def dump(self, memory: Any) -> dict[str, Any]:
        own = {"rule": type(self).__name__, "parameters": parameters(self), "memory": memories.dump(memory)}
        return own | {"inner": self.inner.dump(memory._inner)}

    def load(self, data: Any, changes: list[str]) -> Any:
        expect(data, rule=type(self).__name__)
        memory = self.start()
        memories.load(memory, data.get("memory"), type(self).__name__)
        changes.extend(report_changes(self, data))
        memory._inner = self.inner.load(data.get("inner"), changes)
        return memory

    def rearm_many(self, lanes: Lanes, where: BoolArray) -> None:
        self.inner.rearm_many(lanes.inner, where)

    def __repr__(self) -> str:
        return recipe(self)


def _metrics(rule: Rule) -> dict[str, int]:
    return dict.fromkeys((leaf.metric for leaf in rule.leaves() if isinstance(leaf, Bound)), 0)


@dataclass(slots=True)
class WarmUpMemory:
    """How many values of each metric have come."""

    counts: dict[str, int] = field(default_factory=dict)
    _inner: Any = None


@final
@dataclass(frozen=True, repr=False)
class WarmUp(Wrapper):
    """Withhold the verdict of a rule during the first `observations` values of its metric; they count all the same.

    Parameters
    ----------
    rule : Rule
        The rule whose verdict is withheld.
    observations : int
        Values of its metric, NaN included; at least 0. A rule over several metrics waits for each of them.

    Notes
    -----
    The trap: values count, so a best or a wait from the warm-up lives on; to forget them, begin a Stopper later.
    O(1) per observation. Rearming passes on to the rule; the warm-up is not repeated.

    Examples
    --------
    >>> from convergence import Patience, replay
    >>> replay(WarmUp(Patience(1), 4), [1.0, 2.0, 3.0, 4.0, 5.0], mode="min").stop_index
    4
    """

    rule: Rule
    observations: int

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise TypeError(f"WarmUp needs a rule, got {self.rule!r}")
        check_count(self, "observations", least=0)

    def start(self) -> WarmUpMemory:
        return WarmUpMemory(_metrics(self.rule))

    def feed(self, memory: WarmUpMemory, observation: Observation) -> None:
        for metric in memory.counts:
            if observation.metrics.get(metric) is not None:
                memory.counts[metric] += 1
        self.inner.feed(memory._inner, observation)

    def decide(self, memory: WarmUpMemory) -> Verdict:
        verdict = self.inner.decide(memory._inner)
        seen = min(memory.counts.values())
        return (verdict[0], verdict, None) if seen > self.observations else (False, verdict, seen)

    def tell(self, verdict: Verdict) -> Told:
        _, inner, seen = verdict
        if seen is None:
            return self.inner.tell(inner)
        decision = Decision.of(self.inner, inner)
        message = f"warming up, {seen} of {self.observations} observations: {decision.message}"
        evidence = {**decision.evidence, "warm_up_seen": seen, "warm_up": self.observations}
        return Told(Reason.WARMING_UP, message, evidence, (decision,))

    def begin_many(self, count: int) -> Lanes:
        return Lanes(count=np.zeros(count, np.int64), inner=self.inner.begin_many(count))

    def feed_many(self, lanes: Lanes, moment: Moment) -> None:
        lanes.count += 1
        self.inner.feed_many(lanes.inner, moment)

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops: BoolArray = self.inner.stops_many(lanes.inner) & (lanes.count > self.observations)
        return stops


@dataclass(slots=True)
class RearmMemory:
    """The newest rate, the highest since the last restart, the values since then, and why a verdict is withheld."""

    lr: float | None = None
    highest: float | None = None
    lr_ahead: float | None = None
    since: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    rising: bool = False
    drop_ahead: bool = False
    _inner: Any = None


@final
@dataclass(frozen=True, repr=False)
class Rearm(Wrapper):
    """Make a rule know the learning rate: no verdict before a drop that is planned, none in the wake of one.

    The verdict is withheld while the rate rises, and while lr_ahead <= (1 - drop) * lr. When the rate has fallen to
    (1 - drop) times its highest since the last restart, the rule's counts and windows start again, before the value
    trained with the lower rate is taken in; best and range are kept.

    Parameters
    ----------
    rule : Rule
        The rule to rearm.
    drop : float
        Fall of the learning rate, as a fraction of its highest, that counts as a drop; in (0, 1).

    Notes
    -----
    Slow decay adds up to drops. Restarts are at least one span of the rule (patience, window) apart, in values of
    each of its metrics, so that a cosine tail does not restart it at every step. Needs `lr` with the observations;
    without `lr_ahead` it cannot know of a drop to come, only of those that came. The rate is looked at when one of
    the rule's metrics has news, since it belongs to that value. Learning-rate restarts upward count as rising. O(1)
    per observation. All verdicts are withheld, so write `Rearm(Patience(5)) | NonFinite()`, not
    `Rearm(Patience(5) | NonFinite())`.

    Examples
    --------
    >>> from convergence import Patience, replay
    >>> losses, lr = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0], [0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01]
    >>> replay(Patience(2), losses, mode="min").stop_index
    3
    >>> replay(Rearm(Patience(2)), losses, mode="min", lr=lr).stop_index
    6
    """

    rule: Rule
    drop: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise TypeError(f"Rearm needs a rule, got {self.rule!r}")
        check_amount(self, "drop", least=0, below=1)
        if self.drop == 0:
            raise ValueError("drop must be above 0, got 0: every step of a schedule would restart the rule")

    @property
    def needs(self) -> frozenset[str]:
        return self.rule.needs | {"lr"}

    def start(self) -> RearmMemory:
        return RearmMemory(since=_metrics(self.rule))

    def feed(self, memory: RearmMemory, observation: Observation) -> None:
        news = [metric for metric in memory.since if observation.metrics.get(metric) is not None]
        for metric in news:
            memory.since[metric] += 1
        if news:
            self._follow(memory, observation.lr, observation.lr_ahead)
        self.inner.feed(memory._inner, observation)

    def _follow(self, memory: RearmMemory, lr: float | None, lr_ahead: float | None) -> None:
        m = memory
        if lr is None:
            lr = m.lr
        m.lr_ahead = lr_ahead
        m.rising = lr is not None and m.lr is not None and lr > m.lr
        m.lr = lr
        if lr is None:
            return
        fallen = (1 - self.drop) * _ROUNDING
        m.drop_ahead = lr_ahead is not None and lr_ahead < lr and lr_ahead <= fallen * lr
        if m.highest is None or lr > m.highest:
            m.highest = lr
        settled = not m.restarts or min(m.since.values()) >= self.rule.span
        if settled and lr < m.highest and lr <= fallen * m.highest:
            self.inner.rearm(m._inner)
            m.highest = lr
            m.since = dict.fromkeys(m.since, 0)
            m.restarts += 1

    def decide(self, memory: RearmMemory) -> Verdict:
        verdict = self.inner.decide(memory._inner)
        if verdict[0] and (memory.rising or memory.drop_ahead):
            return False, verdict, (memory.rising, memory.lr, memory.lr_ahead)
        return verdict[0], verdict, None

    def tell(self, verdict: Verdict) -> Told:
        _, inner, withheld = verdict
        if withheld is None:
            return self.inner.tell(inner)
        rising, lr, lr_ahead = withheld
        decision = Decision.of(self.inner, inner)
        why = "is rising" if rising else f"will still fall to {lr_ahead:.4g}"
        evidence = {**decision.evidence, "lr": lr, "lr_ahead": math.nan if lr_ahead is None else lr_ahead}
        message = f"the learning rate {lr:.4g} {why}, so this waits: {decision.message}"
        return Told(Reason.WAITING, message, evidence, (decision,))

    def begin_many(self, count: int) -> Lanes:
        rates = {name: np.full(count, np.nan) for name in ("lr", "highest")}
        flags = {name: np.zeros(count, np.bool_) for name in ("rising", "drop_ahead")}
        # `since` begins beyond any span: the first drop restarts at once.
        since = np.full(count, np.iinfo(np.int64).max // 2)
        return Lanes(since=since, inner=self.inner.begin_many(count), **rates, **flags)

    def feed_many(self, lanes: Lanes, moment: Moment) -> None:
        lr = cast(Any, moment.lr)
        lanes.since += 1
        lanes.rising = lr > lanes.lr
        lanes.lr = lr
        fallen = (1 - self.drop) * _ROUNDING
        if moment.lr_ahead is not None:
            lanes.drop_ahead = (moment.lr_ahead < lr) & (moment.lr_ahead <= fallen * lr)
        lanes.highest = np.fmax(lanes.highest, lr)
        restart = (lr < lanes.highest) & (lr <= fallen * lanes.highest) & (lanes.since >= self.rule.span)
        if restart.any():
            self.inner.rearm_many(lanes.inner, restart)
            np.copyto(lanes.highest, lr, where=restart)
            lanes.since[restart] = 0
        self.inner.feed_many(lanes.inner, moment)

    def stops_many(self, lanes: Lanes) -> BoolArray:
        stops: BoolArray = self.inner.stops_many(lanes.inner) & ~(lanes.rising | lanes.drop_ahead)
        return stops
