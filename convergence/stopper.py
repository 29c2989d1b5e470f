"""Stopper: one rule at work on one run."""

import copy
import math
import sys
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from convergence import memory as memories
from convergence.decision import Decision
from convergence.observation import Observation
from convergence.parameters import check_finite, check_mode, check_name, is_number, is_whole
from convergence.rule import Bound, Node, Rule

_UNSEEN_LIMIT = 10
"""Updates after which a metric that was never seen is an error."""
_LOWEST = -math.inf
_LARGEST = sys.float_info.max
_PLAIN_NUMBERS = (int, float)


class Best(NamedTuple):
    """The best value so far and where it was: the first of ties, never one that is not finite.

    Examples
    --------
    >>> Best(step=12, value=0.31).value
    0.31
    """

    step: float
    value: float


class Stopper:
    """A rule at work on one run: hand it each new value, it says stop or go on, why, and which step was best.

    Parameters
    ----------
    rule : Rule
        The rule; parts that are not bound with `.on(...)` read `monitor`.
    monitor : str, optional
        The metric whose best is kept. Required, with `mode`, unless every part of the rule is bound to one and the
        same metric in one mode.
    mode : {"min", "max"}, optional
        Whether lower or higher is better.

    unseen_limit : int, optional
        Updates after which a metric of the rule that was never seen is an error; None for never.

    Raises
    ------
    TypeError
        If rule is not a rule.
    ValueError
        If monitor or mode are missing, or mode is neither "min" nor "max".

    Examples
    --------
    >>> from convergence import NonFinite, Patience
    >>> stopper = Stopper(Patience(2) | NonFinite(), monitor="val_loss", mode="min")
    >>> for loss in [0.9, 0.5, 0.6, 0.5]:
    ...     if stopper.update(loss).stop:
    ...         print(stopper.decision.message)
    val_loss did not improve on 0.5 (step 1) in the last 2 observation(s); newest 0.5 (step 3)
    >>> stopper.best
    Best(step=1, value=0.5)
    """

    __slots__ = (
        "_best",
        "_best_step",
        "_decision",
        "_early",
        "_last_step",
        "_leaf",
        "_lower_is_better",
        "_memory",
        "_metrics",
        "_plain",
        "_reads",
        "_rich",
        "_sides",
        "_tree",
        "_unseen",
        "_usual",
        "mode",
        "monitor",
        "rule",
        "unseen_limit",
    )

    def __init__(
        self,
        rule: Rule,
        *,
        monitor: str | None = None,
        mode: str | None = None,
        unseen_limit: int | None = _UNSEEN_LIMIT,
    ) -> None:
        if not isinstance(rule, Rule):
            raise TypeError(f"rule must be a rule such as Patience(5), got {rule!r}")
        self.rule = rule
        self.unseen_limit = unseen_limit
        self.monitor, self.mode = _resolved(rule, monitor, mode)
        self._tree: Node = rule.bind(self.monitor, self.mode)
        bound = [leaf for leaf in self._tree.leaves() if isinstance(leaf, Bound)]
        names = [self.monitor, *(name for leaf in bound for name in (leaf.metric, *leaf.sides))]
        self._metrics = tuple(dict.fromkeys(names))
        # Rearm, the only one to need `lr`, looks at `lr_ahead` too.
        ahead = {"lr_ahead"} if "lr" in self._tree.needs else set()
        self._reads = self._tree.needs.union(ahead, *(leaf.rule.reads for leaf in bound))
        self._sides = tuple((leaf.metric, side) for leaf in bound for side in leaf.sides)
        self._lower_is_better = self.mode == "min"
        # A part may be bound to the monitored metric in the other mode: then its losses are not those of `best`.
        same = isinstance(self._tree, Bound) and (self._tree.metric, self._tree.mode) == (self.monitor, self.mode)
        self._leaf = self._tree.facing if isinstance(self._tree, Bound) and same else None
        self.reset()

    def reset(self) -> None:
        """Forget the run: as if just made."""
        self._memory = self._tree.begin()
        self._plain = Observation(-1, {self.monitor: math.nan})
        self._rich = Observation(-1, {self.monitor: math.nan})
        self._last_step: float = -1
        self._usual = False
        self._best = math.inf
        self._best_step: float | None = None
        # Updates so far while a metric had yet to be seen; at least 1 once the run has begun.
        self._early = 0
        self._unseen = set(self._metrics)
        self._decision: Decision | None = None

    @property
    def tree(self) -> Node:
        """The rule with every part bound."""
        return self._tree

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that it reads, the monitored one first."""
        return self._metrics

    @property
    def sides(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a metric and another that has to be seen before it is, such as ProgressQuotient's training loss."""
        return self._sides

    @property
    def needs(self) -> frozenset[str]:
        """What must come with the first update beside metrics: any of "lr", "elapsed", "progress"."""
        return self._tree.needs

    @property
    def reads(self) -> frozenset[str]:
        """What the rule may look at beside metrics: any of "lr", "lr_ahead", "elapsed", "progress"."""
        return self._reads

    @property
    def best(self) -> Best | None:
        """The best of the monitored metric so far, first of ties; None before a finite value."""
        return None if self._best_step is None else Best(self._best_step, self._own_unit(self._best))

    @property
    def best_value(self) -> float | None:
        """The value of `best` alone, for those who ask at every step."""
        return None if self._best_step is None else self._best if self._lower_is_better else -self._best

    @property
    def decision(self) -> Decision:
        """The verdict as of the newest update."""
        if self._decision is None:
            self._decision = Decision.of(self._tree, self._tree.decide(self._memory))
        return self._decision

    def update(
        self,
        value: float | Mapping[str, float | None] | None,
        *,
        step: float | None = None,
        lr: float | None = None,
        lr_ahead: float | None = None,
        progress: float | None = None,
        elapsed: float | None = None,
    ) -> Decision:
        """Take in the newest value, or the newest values of several metrics, and judge.

        Parameters
        ----------
        value : float or mapping of str to float
            A number for a rule that reads one metric, else a mapping. Metrics absent from the mapping, or None,
            have no news; others than the rule's are ignored. NaN and infinities are values.
        step : float, optional
            Position in training, not decreasing; counts up from 0 when left out.
        lr : float, optional
            Learning rate with which this value was trained (the largest over parameter groups).
        lr_ahead : float, optional
            Lowest learning rate still to come in the plan.
        progress : float, optional
            Used fraction of the planned training, 0 to 1.
        elapsed : float, optional
            Seconds since training began.

        Raises
        ------
        TypeError
            A value that is not a number, or a single number for a rule over several metrics.
        ValueError
            None of the rule's metrics in the mapping; a metric still unseen after 10 updates; a step that
            decreases; something the rule needs that is missing. The run is then unchanged.
        """
        last = self._last_step
        if (
            self._usual
            and value.__class__ is float
            and (step is None or (step.__class__ in _PLAIN_NUMBERS and last <= step <= _LARGEST))
            and (lr is lr_ahead is progress is elapsed is None or _plain_context(lr, lr_ahead, progress, elapsed))
        ):
            # The usual call, kept short: one plain number for a rule about one metric.
            observation = self._plain
            if not lr is lr_ahead is progress is elapsed is None:
                observation = self._rich
                observation.lr, observation.lr_ahead = lr, lr_ahead
                observation.progress, observation.elapsed = progress, elapsed
            observation.metrics[self.monitor] = value  # type: ignore[index]
            observation.step = self._last_step = step = last + 1 if step is None else step
            loss: float = value if self._lower_is_better else -value
            if _LOWEST < loss < self._best:
                self._best = loss
                self._best_step = step
            memory, leaf = self._memory, self._leaf
            if leaf is None:
                self._tree.feed(memory, observation)
                verdict = self._tree.decide(memory)
            else:
                leaf.observe(memory, loss, observation)
                verdict = leaf.decide(memory)
            self._decision = decision = Decision()
            decision.stop = verdict[0]
            decision._teller = self._tree
            decision._verdict = verdict
            return decision
        step = last + 1 if step is None else self._checked_step(step)
        if self._early == 0 or not lr is lr_ahead is progress is elapsed is None:
            lr, lr_ahead, progress, elapsed = self._checked_context(lr, lr_ahead, progress, elapsed)
        news = self._news(value)
        observation = Observation(step, news, lr, lr_ahead, progress, elapsed)
        self._last_step = step
        own = news.get(self.monitor)
        if own is not None:
            loss = own if self._lower_is_better else -own
            if _LOWEST < loss < self._best:
                self._best = loss
                self._best_step = step
        self._tree.feed(self._memory, observation)
        self._decision = decision = Decision.of(self._tree, self._tree.decide(self._memory))
        self._usual = not self._unseen and len(self._metrics) == 1
        return decision

    def note_best(self, value: float, step: float) -> None:
        """Let the best know of a value of the monitored metric that the rule is not given, or not yet."""
        loss = value if self._lower_is_better else -value
        if _LOWEST < loss < self._best:
            self._best, self._best_step = loss, step

    def forget_best(self) -> None:
        """Let the best start again, for one whose model is lost; the rule remembers what it saw."""
        self._best = math.inf
        self._best_step = None

    def __copy__(self) -> "Stopper":
        """Return a copy that goes its own way: a run is not shared."""
        return copy.deepcopy(self)

    def state_dict(self) -> dict[str, Any]:
        """Return the run so far as JSON-able data (finite numbers, text, lists and dicts)."""
        return {
            "version": 1,
            "monitor": self.monitor,
            "mode": self.mode,
            "early": self._early,
            "last_step": memories.plain(self._last_step),
            "best_step": memories.plain(self._best_step),
            "best": None if self._best_step is None else memories.plain(self._own_unit(self._best)),
            "unseen": sorted(self._unseen),
            "rule": self._tree.dump(self._memory),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> tuple[str, ...]:
        """Go on from a saved state.

        Parameters that differ from the state's are accepted and reported, as a warning and in the return value;
        where memory depends on them (window, smoothing, strip length) it starts afresh and best is kept.

        Returns
        -------
        tuple of str
            A sentence for each change.

        Raises
        ------
        ValueError
            If the state is damaged, or was saved by a rule of other classes, metrics or modes; nothing is loaded.
        """
        if not isinstance(state, Mapping) or state.get("version") != 1:
            raise ValueError(f"not a Stopper state of version 1: {str(state)[:80]}")
        if (state.get("monitor"), state.get("mode")) != (self.monitor, self.mode):
            raise ValueError(
                f"the state monitors {state.get('monitor')!r} (mode {state.get('mode')!r}), "
                f"this Stopper {self.monitor!r} (mode {self.mode!r})"
            )
        changes: list[str] = []
        try:
            memory = self._tree.load(state.get("rule"), changes)
            last_step, best_step, best = (state.get(name) for name in ("last_step", "best_step", "best"))
            early, unseen = state["early"], list(state["unseen"])
            finite = all(n is None or (is_number(n) and math.isfinite(n)) for n in (last_step, best_step, best))
            counted = is_whole(early) and early >= 0 and last_step is not None
            if not (finite and counted and (best is None) is (best_step is None)):
                raise ValueError("the state is damaged: early, last_step, best_step or best")
            if not set(unseen) <= set(self._metrics):
                raise ValueError("the state is damaged: unseen must hold metrics of the rule")
        except (TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"the state is damaged: {type(error).__name__} while reading it") from None
        for change in changes:
            warnings.warn(f"resumed with a changed rule: {change}", UserWarning, stacklevel=2)
        self.reset()
        self._memory = memory
        self._early = early
        self._unseen = set(unseen)
        self._last_step = last_step  # type: ignore[assignment]
        if best is not None:
            self._best, self._best_step = self._own_unit(best), best_step
        return tuple(changes)

    def _own_unit(self, loss: float) -> float:
        return loss if self._lower_is_better else -loss

    def _news(self, value: Any) -> dict[str, float]:
        """Return the metrics that have news, as floats."""
        if value is None or not isinstance(value, Mapping):
            if len(self._metrics) > 1:
                names = ", ".join(map(repr, self._metrics))
                raise TypeError(f"the rule reads several metrics ({names}): pass a mapping, got {value!r}")
            value = {self.monitor: value}
        news, known = {}, False
        for name in self._metrics:
            if name in value:
                known = True
                number = value[name]
                if number is not None:
                    news[name] = number if number.__class__ is float else as_float(name, number)
        if not known:
            there = ", ".join(map(repr, value)) or "nothing"
            raise ValueError(f"none of the rule's metrics ({', '.join(map(repr, self._metrics))}) is among: {there}")
        unseen = self._unseen.difference(news) if self._unseen else self._unseen
        for metric, side in self._sides:
            if metric in news and side in unseen:
                raise ValueError(f"the rule needs {side!r} beside {metric!r}, and it has not been given yet")
        if unseen and self.unseen_limit is not None and self._early >= self.unseen_limit:
            there = ", ".join(map(repr, value))
            raise ValueError(f"{sorted(unseen)[0]!r} has not been seen in {self._early} updates; there is: {there}")
        self._early += 1 if self._unseen else 0
        self._unseen = unseen
        return news

    def _checked_step(self, step: Any) -> float:
        check_finite("step", step)
        if self._early and step < self._last_step:
            raise ValueError(f"step must not decrease, got {step} after {self._last_step}")
        return int(step) if is_whole(step) else float(step)

    def _checked_context(self, *given: Any) -> tuple[float | None, ...]:
        names = ("lr", "lr_ahead", "progress", "elapsed")
        for name, number in zip(names, given, strict=True):
            if number is None:
                continue
            check_finite(name, number)
            if number < 0:
                raise ValueError(f"{name} must be at least 0, got {number}")
            if name == "progress" and number > 1:
                raise ValueError(f"progress must be at most 1, got {number}")
        if self._early == 0:
            known = dict(zip(names, given, strict=True))
            missing = sorted(name for name in self.needs if known[name] is None)
            if missing:
                raise ValueError(f"{self.rule!r} needs {' and '.join(missing)}: pass {missing[0]}= with each update")
        return tuple(None if number is None else float(number) for number in given)


def _plain_context(lr: Any, lr_ahead: Any, progress: Any, elapsed: Any) -> bool:
    """Whether these are floats in range, or None: what needs no checking."""
    return (
        (lr is None or (lr.__class__ is float and 0.0 <= lr <= _LARGEST))
        and (lr_ahead is None or (lr_ahead.__class__ is float and 0.0 <= lr_ahead <= _LARGEST))
        and (progress is None or (progress.__class__ is float and 0.0 <= progress <= 1.0))
        and (elapsed is None or (elapsed.__class__ is float and 0.0 <= elapsed <= _LARGEST))
    )


def as_float(name: str, value: Any) -> float:
    """Return a metric's value as a float.

    Numbers of Python, numpy and arrays or tensors of one element are accepted.

    Raises
    ------
    TypeError
        For strings, bools, and anything else that is not one number.
    ValueError
        For whole numbers beyond the range of a float.

    Examples
    --------
    >>> as_float("val_loss", 1)
    1.0
    """
    number = value
    # Arrays and tensors of one element; those of numpy only if of numbers, since `item` makes whole numbers of dates.
    if not is_number(value) and hasattr(value, "item") and getattr(value, "dtype", None) is not None:
        kind = getattr(value.dtype, "kind", "f")
        value = value if kind in "fiu" else str(value)
    if not is_number(value) and hasattr(value, "item"):
        try:
            number = value.item()
        except (TypeError, ValueError, RuntimeError):
            number = None
    if not is_number(number):
        raise TypeError(f"{name!r} must be a number, got {value!r:.200}")
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"{name!r} must fit a float, got a whole number of {number.bit_length()} bits") from None


def _resolved(rule: Rule, monitor: str | None, mode: str | None) -> tuple[str, str]:
    """Return monitor and mode, taken from the rule where it says them all."""
    leaves = list(rule.leaves())
    said = {(leaf.metric, leaf.mode) for leaf in leaves if isinstance(leaf, Bound)}
    if all(isinstance(leaf, Bound) for leaf in leaves) and len(said) == 1:
        (metric, direction) = said.pop()
        if monitor is None or monitor == metric:
            monitor, mode = metric, direction if mode is None else mode
    if monitor is None or mode is None:
        what = " and ".join(name for name, given in (("monitor", monitor), ("mode", mode)) if given is None)
        raise ValueError(f"{what} missing: give monitor= and mode=, or bind all of {rule!r} to one metric by .on(...)")
    check_name("monitor", monitor)
    check_mode(mode)
    return monitor, mode
