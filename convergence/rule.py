"""The contract of a rule, binding it to a metric, and combining rules with `|` and `&`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self, cast, final

from convergence import memory as memories
from convergence.decision import Decision, Reason, Told, Unit, Verdict
from convergence.lanes import BoolArray, FloatArray, IntArray, Lanes, Moment
from convergence.observation import Observation
from convergence.parameters import check_mode, check_name


class Rule(ABC):
    """Anything that judges a run: a rule about one metric, a combination, or a wrapper.

    An immutable recipe: equality, hash, copy, pickle and `repr` follow from its parameters. Its memory of a run is
    a separate object, so one rule can serve any number of runs.
    """

    def __or__(self, other: "Rule") -> "AnyOf":
        """Stop when either does."""
        return AnyOf(_flat(AnyOf, self, other)) if isinstance(other, Rule) else NotImplemented

    def __and__(self, other: "Rule") -> "AllOf":
        """Stop when both hold at once."""
        return AllOf(_flat(AllOf, self, other)) if isinstance(other, Rule) else NotImplemented

    def on(self, metric: str, *, mode: str = "min") -> "Node":
        """Bind every part that is not bound yet to a metric.

        Parameters
        ----------
        metric : str
            Name of the metric to read.
        mode : {"min", "max"}
            Whether lower or higher is better.

        Raises
        ------
        ValueError
            If no part is left to bind, or the mode is neither.

        Examples
        --------
        >>> from convergence import Patience
        >>> Patience(5).on("val_loss") & Patience(5).on("val_miou", mode="max")
        Patience(5).on('val_loss') & Patience(5).on('val_miou', mode='max')
        """
        check_name("metric", metric)
        check_mode(mode)
        if all(isinstance(leaf, Bound) for leaf in self.leaves()):
            raise ValueError(f"{self!r} is bound already: a rule can be bound once")
        return self.bind(str(metric), str(mode))

    @abstractmethod
    def leaves(self) -> "Iterator[MetricRule | Bound]":
        """Yield each part that reads a metric, bound or not."""

    @abstractmethod
    def bind(self, metric: str, mode: str) -> "Node":
        """Return the same rule with its unbound parts bound; no error if there are none."""

    @property
    @abstractmethod
    def span(self) -> int:
        """Observations that the rule needs after a fresh start until it can stop."""

    @property
    @abstractmethod
    def needs(self) -> frozenset[str]:
        """What must come with the observations beside metrics: any of "lr", "elapsed", "progress"."""


class MetricRule(Rule):
    """A rule about the values of one metric: what you subclass to add a rule.

    It sees losses: lower is better, whatever the metric. A subclass is a frozen dataclass that defines `start`,
    `observe`, `decide` and `explain`; one with counts or windows defines `clear` and `span` too; one with a bound
    in the metric's unit defines `facing`. Memory is a slotted dataclass of numbers, None, bools and lists.

    For many curves at once, set `vectorised = True` and define the `*_many` methods with the same operations in
    the same order; without them many curves are streamed one by one.
    """

    vectorised: ClassVar[bool] = False
    reads: ClassVar[frozenset[str]] = frozenset({"lr", "lr_ahead", "progress", "elapsed"})
    """What it may look at in an observation beside metrics; callers need not find out anything else."""
    memory_parameters: ClassVar[frozenset[str]] = frozenset()
    """Parameters that counts or windows in memory depend on: when one changed, loading clears the memory."""

    @abstractmethod
    def start(self) -> Any:
        """Return the memory of a run that has not begun."""

    @abstractmethod
    def observe(self, memory: Any, loss: float, observation: Observation) -> None:
        """Take in one value, possibly NaN or infinite."""

    @abstractmethod
    def decide(self, memory: Any) -> Verdict:
        """Return whether to stop, then the numbers that `explain` needs."""

    @abstractmethod
    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        """Put what `decide` returned into words, in the metric's own unit."""

    def clear(self, memory: Any) -> None:
        """Start counts and windows again; keep best, reference levels, range and totals."""

    def revive(self, memory: Any) -> None:
        """Check a memory that was loaded, and compute what is derived in it; ValueError if it cannot be."""

    @property
    def span(self) -> int:
        """Observations that the rule needs after a fresh start until it can stop."""
        return 1

    @property
    def needs(self) -> frozenset[str]:
        """What must come with the observations beside metrics."""
        return frozenset()

    @property
    def cells(self) -> int:
        """Numbers that the rule keeps for each of many curves in lockstep, roughly."""
        return 8

    def facing(self, mode: str) -> Self:
        """Return the rule with bounds in the metric's unit turned into losses."""
        return self

    def side_metrics(self) -> tuple[str, ...]:
        """Return the names of other metrics that the rule reads."""
        return ()

    def observe_side(self, memory: Any, loss: float) -> None:
        """Take in one value of a side metric."""

    def start_many(self, count: int) -> Lanes:
        """Return the memory of `count` runs that go in lockstep."""
        raise TypeError(f"{type(self).__name__} has no vectorised path")

    def observe_many(self, lanes: Lanes, loss: FloatArray, moment: Moment) -> None:
        """Take in one loss of each run; values that are not finite come as NaN."""
        raise TypeError(f"{type(self).__name__} has no vectorised path")

    def stops_many(self, lanes: Lanes) -> BoolArray:
        """Return for each run whether to stop."""
        raise TypeError(f"{type(self).__name__} has no vectorised path")

    def clear_many(self, lanes: Lanes, where: BoolArray) -> None:
        """Do what `clear` does, for the runs where `where` is true."""

    def shared(self) -> tuple[Any, int | None]:
        """Return a key, equal for rules that can share one memory, and the level at which this one stops.

        A rule that stops as soon as an integer level reaches a parameter returns that parameter, and defines
        `level_many`: a sweep over it then costs little more than one value. Others return None.
        """
        return self, None

    def level_many(self, lanes: Lanes) -> IntArray:
        """Return for each run the level that `shared` speaks of."""
        raise TypeError(f"{type(self).__name__} has no level")

    def leaves(self) -> "Iterator[MetricRule | Bound]":
        yield self

    def bind(self, metric: str, mode: str) -> "Node":
        return Bound(self, metric, mode)

    def __repr__(self) -> str:
        return recipe(self)


class Node(Rule):
    """A rule whose parts are bound, so that it can be fed: what a Stopper works with."""

    vectorised: bool

    @abstractmethod
    def begin(self) -> Any:
        """Return the memory of a run that has not begun."""

    @abstractmethod
    def feed(self, memory: Any, observation: Observation) -> None:
        """Take in an observation; without news of its metric nothing changes."""

    @abstractmethod
    def decide(self, memory: Any) -> Verdict:
        """Return whether to stop as of the newest value, then the numbers that `tell` needs."""

    @abstractmethod
    def tell(self, verdict: Verdict) -> Told:
        """Put what `decide` returned into words."""

    @abstractmethod
    def rearm(self, memory: Any) -> None:
        """Start counts and windows again; keep best, reference levels, range and totals."""

    @abstractmethod
    def dump(self, memory: Any) -> dict[str, Any]:
        """Return the memory as JSON-able data, with the classes, metrics, modes and parameters it belongs to."""

    @abstractmethod
    def load(self, data: Any, changes: list[str]) -> Any:
        """Return the memory from `dump`; note changed parameters in `changes`; ValueError if it is another rule's."""

    @abstractmethod
    def begin_many(self, count: int) -> Lanes:
        """Return the memory of `count` runs that go in lockstep."""

    @abstractmethod
    def feed_many(self, lanes: Lanes, moment: Moment) -> None:
        """Take in one observation of each run, by the same arithmetic as `feed`."""

    @abstractmethod
    def stops_many(self, lanes: Lanes) -> BoolArray:
        """Return for each run whether to stop as of its newest value."""

    @abstractmethod
    def rearm_many(self, lanes: Lanes, where: BoolArray) -> None:
        """Do what `rearm` does, for the runs where `where` is true."""


@final
@dataclass(frozen=True, repr=False)
class Bound(Node):
    """A metric rule that knows its metric and direction; made by `.on(...)` or by a Stopper."""

    rule: MetricRule
    metric: str
    mode: str = "min"
    unit: Unit = field(init=False, compare=False)
    facing: MetricRule = field(init=False, compare=False)
    sides: tuple[str, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if self.metric in self.rule.side_metrics():
            raise ValueError(f"{self.rule!r} needs another metric than the one it is bound to, {self.metric!r}")
        # Derived once, because every observation needs them.
        object.__setattr__(self, "unit", Unit(self.metric, self.mode))
        object.__setattr__(self, "facing", self.rule.facing(self.mode))
        object.__setattr__(self, "sides", self.rule.side_metrics())

    @property
    def vectorised(self) -> bool:  # type: ignore[override]
        """Whether many curves can go in lockstep."""
        return self.rule.vectorised

    @property
    def span(self) -> int:
        return self.rule.span

    @property
    def needs(self) -> frozenset[str]:
        return self.rule.needs

    def leaves(self) -> "Iterator[MetricRule | Bound]":
        yield self

    def bind(self, metric: str, mode: str) -> "Node":
        return self

    def begin(self) -> Any:
        return self.facing.start()

    def feed(self, memory: Any, observation: Observation) -> None:
        for name in self.sides:  # almost always none
            side = observation.metrics.get(name)
            if side is not None:
                self.facing.observe_side(memory, side if self.mode == "min" else -side)
        value = observation.metrics.get(self.metric)
        if value is not None:
            self.facing.observe(memory, value if self.mode == "min" else -value, observation)

    def decide(self, memory: Any) -> Verdict:
        return self.facing.decide(memory)

    def tell(self, verdict: Verdict) -> Told:
        return self.rule.explain(verdict, self.unit)

    def rearm(self, memory: Any) -> None:
        self.facing.clear(memory)

    def dump(self, memory: Any) -> dict[str, Any]:
        return {
            "rule": type(self.rule).__name__,
            "metrics": [self.metric, *self.sides],
            "mode": self.mode,
            "parameters": parameters(self.rule),
            "memory": memories.dump(memory),
        }

    def load(self, data: Any, changes: list[str]) -> Any:
        kind = type(self.rule).__name__
        expect(data, rule=kind, metrics=[self.metric, *self.sides], mode=self.mode)
        loaded = self.facing.start()
        memories.load(loaded, data.get("memory"), kind)
        changed = changed_parameters(self.rule, data)
        if changed & self.rule.memory_parameters:
            self.facing.clear(loaded)
            changes.append(f"{kind} on {self.metric!r} starts its window and counts afresh; its best is kept")
        changes.extend(report_changes(self.rule, data, f" on {self.metric!r}"))
        self.facing.revive(loaded)
        try:
            self.rule.explain(self.facing.decide(loaded), self.unit)
        except (TypeError, ValueError, ArithmeticError):
            raise ValueError(f"the state of {kind} on {self.metric!r} is damaged: its numbers do not fit") from None
        return loaded

    def begin_many(self, count: int) -> Lanes:
        return self.facing.start_many(count)

    def feed_many(self, lanes: Lanes, moment: Moment) -> None:
        self.facing.observe_many(lanes, moment.loss(self.mode), moment)

    def stops_many(self, lanes: Lanes) -> BoolArray:
        return self.facing.stops_many(lanes)

    def rearm_many(self, lanes: Lanes, where: BoolArray) -> None:
        self.facing.clear_many(lanes, where)

    def __repr__(self) -> str:
        mode = "" if self.mode == "min" else f", mode={self.mode!r}"
        return f"{self.rule!r}.on({self.metric!r}{mode})"


@dataclass(frozen=True, repr=False)
class Combination(Node):
    """Several rules judged together. Each sees every observation; none is skipped because another has decided."""

    members: tuple[Rule, ...]

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 members, got {len(self.members)}")
        if any(type(member) is type(self) for member in self.members):
            raise ValueError(f"{type(self).__name__} must be flat: write its members side by side")

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The members, which must be bound."""
        return cast("tuple[Node, ...]", self.members)

    @property
    def vectorised(self) -> bool:  # type: ignore[override]
        """Whether many curves can go in lockstep."""
        return all(node.vectorised for node in self.nodes)

    @property
    def span(self) -> int:
        return max(member.span for member in self.members)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(member.needs for member in self.members))

    def leaves(self) -> "Iterator[MetricRule | Bound]":
        for member in self.members:
            yield from member.leaves()

    def bind(self, metric: str, mode: str) -> Node:
        return type(self)(tuple(member.bind(metric, mode) for member in self.members))

    def begin(self) -> Any:
        return [node.begin() for node in self.nodes]

    def feed(self, memory: Any, observation: Observation) -> None:
        # Written for speed, like `decide`: every update of a combination passes here.
        for node, part in zip(self.members, memory):  # noqa: B905
            node.feed(part, observation)  # type: ignore[attr-defined]

    def rearm(self, memory: Any) -> None:
        for node, part in zip(self.nodes, memory, strict=True):
            node.rearm(part)

    def dump(self, memory: Any) -> dict[str, Any]:
        members = [node.dump(part) for node, part in zip(self.nodes, memory, strict=True)]
        return {"rule": type(self).__name__, "members": members}

    def load(self, data: Any, changes: list[str]) -> Any:
        expect(data, rule=type(self).__name__)
        members = data.get("members")
        if not isinstance(members, list) or len(members) != len(self.members):
            found = len(members) if isinstance(members, list) else 0
            raise ValueError(f"the state's {type(self).__name__} has {found} members, the rule's {len(self.members)}")
        return [node.load(part, changes) for node, part in zip(self.nodes, members, strict=True)]

    def begin_many(self, count: int) -> Lanes:
        return Lanes(members=[node.begin_many(count) for node in self.nodes])

    def feed_many(self, lanes: Lanes, moment: Moment) -> None:
        for node, part in zip(self.nodes, lanes.members, strict=True):
            node.feed_many(part, moment)

    def rearm_many(self, lanes: Lanes, where: BoolArray) -> None:
        for node, part in zip(self.nodes, lanes.members, strict=True):
            node.rearm_many(part, where)

    joint: ClassVar[str]

    def tell(self, verdict: Verdict) -> Told:
        stop, members = verdict
        decisions = [Decision.of(node, part) for node, part in zip(self.nodes, members, strict=True)]
        causes = tuple(d for d in decisions if bool(d) is bool(stop))
        evidence: dict[str, float] = {}
        for i, decision in enumerate(causes):
            prefix = f"{i}." if len(causes) > 1 else ""
            evidence |= {f"{prefix}{name}": number for name, number in decision.evidence.items()}
        reasons = [d.reason for d in causes]
        if not stop:
            # Going on: say the most hopeful of the members' reasons.
            reasons = [r for r in (Reason.IMPROVING, Reason.WARMING_UP) if r in reasons] or reasons
        return Told(reasons[0], self.joint.join(d.message for d in causes), evidence, causes)


@final
@dataclass(frozen=True, repr=False)
class AnyOf(Combination):
    """Stop when any member does: `a | b`."""

    joint: ClassVar[str] = "; "

    def decide(self, memory: Any) -> Verdict:
        members = [node.decide(part) for node, part in zip(self.members, memory)]  # type: ignore[attr-defined]  # noqa: B905
        for verdict in members:
            if verdict[0]:
                return True, members
        return False, members

    def stops_many(self, lanes: Lanes) -> BoolArray:
        first, *others = (node.stops_many(part) for node, part in zip(self.nodes, lanes.members, strict=True))
        for other in others:
            first = first | other
        return first

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.members))


@final
@dataclass(frozen=True, repr=False)
class AllOf(Combination):
    """Stop when all members hold at once: `a & b`."""

    joint: ClassVar[str] = " and "

    def decide(self, memory: Any) -> Verdict:
        members = [node.decide(part) for node, part in zip(self.members, memory)]  # type: ignore[attr-defined]  # noqa: B905
        for verdict in members:
            if not verdict[0]:
                return False, members
        return True, members

    def stops_many(self, lanes: Lanes) -> BoolArray:
        first, *others = (node.stops_many(part) for node, part in zip(self.nodes, lanes.members, strict=True))
        for other in others:
            first = first & other
        return first

    def __repr__(self) -> str:
        return " & ".join(f"({m!r})" if isinstance(m, AnyOf) else repr(m) for m in self.members)


def recipe(rule: Any) -> str:
    """Return the code that makes a rule: its class and the parameters that differ from their defaults."""
    given = []
    for f in fields(rule):
        value = getattr(rule, f.name)
        shown = repr(value if isinstance(value, Rule) else memories.plain(value))
        if f.kw_only:
            if f.default is MISSING or value != f.default:
                given.append(f"{f.name}={shown}")
        elif f.default is MISSING or value != f.default:
            given.append(shown)
    return f"{type(rule).__name__}({', '.join(given)})"


def parameters(rule: Any) -> dict[str, Any]:
    """Return the parameters of a rule, parts that are rules left out, as JSON-able data."""
    return {
        f.name: memories.plain(getattr(rule, f.name))
        for f in fields(rule)
        if not isinstance(getattr(rule, f.name), Rule)
    }


def expect(data: Any, **own: Any) -> None:
    """Refuse a state that does not say of itself what the rule says.

    Raises
    ------
    ValueError
        Naming both.
    """
    found = {name: data.get(name) for name in own} if isinstance(data, dict) else {}
    if found != own:
        raise ValueError(f"the state was saved by another rule: it holds {_named(found)}, not {_named(own)}")


def changed_parameters(rule: Any, data: dict[str, Any]) -> set[str]:
    """Return the names of the parameters that differ from those in a state."""
    then, now = data.get("parameters"), parameters(rule)
    if not isinstance(then, dict) or set(then) != set(now):
        raise ValueError(f"the state of {type(rule).__name__} is damaged: it must hold its parameters")
    return {name for name in now if then[name] != now[name]}


def report_changes(rule: Any, data: dict[str, Any], where: str = "") -> list[str]:
    """Return a sentence for each parameter that differs from the state's."""
    now = parameters(rule)
    return [
        f"{type(rule).__name__}.{name}{where} was {data['parameters'][name]!r}, is now {now[name]!r}"
        for name in sorted(changed_parameters(rule, data))
    ]


def _flat(kind: type[Combination], *rules: Rule) -> tuple[Rule, ...]:
    return tuple(part for rule in rules for part in (rule.members if isinstance(rule, kind) else (rule,)))


def _named(found: dict[str, Any]) -> str:
    if not found or found.get("rule") is None:
        return "no rule"
    names = found.get("metrics")
    metrics = f" on {', '.join(map(repr, names))}" if isinstance(names, list) else ""
    mode = f" (mode {found['mode']!r})" if found.get("mode") else ""
    return f"{found['rule']}{metrics}{mode}"
