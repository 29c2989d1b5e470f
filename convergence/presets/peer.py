"""What all presets share: the memory of a peer's checks, the words of its verdict, the peer's own parameter names."""

import copy
import functools
import inspect
import math
from abc import abstractmethod
from collections.abc import Callable
from ctypes import c_float
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

from convergence import memory as memories
from convergence.decision import Reason, Told, Unit, Verdict
from convergence.observation import Observation
from convergence.rule import MetricRule

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class CheckMemory:
    """`wait` counts checks as the peer does, `best` is its reference, `stop` the verdict of the newest check."""

    checks: int = 0
    wait: int = 0
    # Infinite until kept, so that a state may hold whatever the peer takes for its best, NaN too.
    best: float = math.inf
    best_step: float | None = None
    loss: float | None = None
    step: float | None = None
    stop: bool = False

    def keep(self, loss: float) -> None:
        """Let the reference be the newest value."""
        self.best = loss
        self.best_step = self.step

    def missed(self) -> int:
        """Count a check without improvement, and return the wait."""
        self.wait += 1
        return self.wait


@dataclass(slots=True)
class WindowMemory:
    """The newest values are in `loss`; best and wait are those of the finite values, for who asks."""

    checks: int = 0
    wait: int = 0
    best: float = math.inf
    best_step: float | None = None
    loss: list[float] = field(default_factory=list)
    step: float | None = None
    stop: bool = False


class PeerRule(MetricRule):
    """A rule that stops at the index at which a peer stops.

    A subclass writes the peer's own test in `check`, in losses: floating point is exact under negation, so what holds
    for lower holds for higher too. Where a peer is not symmetric, `sign` (-1 where higher is better) says so.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    peer: ClassVar[str]
    """The peer's name, for messages."""
    preset: ClassVar[str]
    """The function in `convergence.presets` that makes it."""
    sign: ClassVar[float] = 1.0

    @abstractmethod
    def check(self, memory: Any, loss: float) -> bool:
        """Do what the peer does with its newest value, and return whether it stops."""

    def facing(self, mode: str) -> Self:
        if mode == "min":
            return self
        turned = copy.copy(self)
        # No field: the direction is the metric's, and no parameter of the rule.
        object.__setattr__(turned, "sign", -1.0)
        return turned

    def start(self) -> Any:
        return CheckMemory()

    def observe(self, memory: Any, loss: float, observation: Observation) -> None:
        memory.checks += 1
        memory.loss = loss
        memory.step = observation.step
        memory.stop = self.check(memory, loss)

    def decide(self, memory: Any) -> Verdict:
        return memory.stop, memory.wait, memory.best, memory.best_step, memory.loss, memory.step

    def why(self, wait: int, loss: float) -> Reason:
        """Return the kind of a stop."""
        return Reason.PLATEAUED if math.isfinite(loss) else Reason.NON_FINITE

    def explain(self, verdict: Verdict, unit: Unit) -> Told:
        stop, wait, best, best_step, loss, step = verdict
        if loss is None:
            return Told(Reason.WAITING, f"no value of {unit.metric} yet", {"wait": 0})
        evidence = {
            "wait": wait,
            "best": math.nan if best_step is None else unit.value(best),
            "best_step": math.nan if best_step is None else best_step,
            "value": unit.value(loss),
            "step": step,
        }
        kept = "nothing kept yet" if best_step is None else f"best {unit.text(best)} (step {best_step:.12g})"
        message = f"{unit.metric} {unit.text(loss)} (step {step:.12g}): wait {wait}, {kept}"
        if not stop:
            reason = Reason.IMPROVING if wait == 0 else Reason.WAITING
            return Told(reason, f"{self.peer} would go on at {message}", evidence)
        facing = self.facing(unit.mode)
        return Told(facing.why(wait, loss), f"{self.peer} would stop at {message}", evidence)

    def clear(self, memory: Any) -> None:
        memory.wait = 0
        memory.stop = False

    def __repr__(self) -> str:
        first, *others = fields(self)  # type: ignore[arg-type]
        given = [first, *(f for f in others if getattr(self, f.name) != f.default)]
        shown = ", ".join(f"{f.name}={memories.plain(getattr(self, f.name))!r}" for f in given)
        return f"presets.{self.preset}({shown})"


class WindowRule(PeerRule):
    """A peer that compares the newest values with each other, not with a best."""

    @property
    @abstractmethod
    def reach(self) -> int:
        """Newest values that it looks at."""

    @abstractmethod
    def judge(self, memory: Any, window: list[float]) -> bool:
        """Return whether the peer stops, given its newest values; fewer than `reach` at first."""

    def start(self) -> Any:
        return WindowMemory()

    def observe(self, memory: Any, loss: float, observation: Observation) -> None:
        memory.step = observation.step
        memory.checks += 1
        memory.stop = self.check(memory, loss)

    def check(self, memory: Any, loss: float) -> bool:
        if -math.inf < loss < memory.best:
            memory.wait, memory.best, memory.best_step = 0, loss, memory.step
        else:
            memory.wait += 1
        memory.loss.append(loss)
        self.forget(memory, memory.loss)
        return self.judge(memory, memory.loss)

    def forget(self, memory: Any, window: list[float]) -> None:
        """Drop what is out of reach; always keep the newest, since it is told."""
        del window[: -max(self.reach, 1)]

    def decide(self, memory: Any) -> Verdict:
        newest = memory.loss[-1] if memory.loss else None
        return memory.stop, memory.wait, memory.best, memory.best_step, newest, memory.step

    def clear(self, memory: Any) -> None:
        memory.wait, memory.checks, memory.stop = 0, 0, False
        memory.loss = []


def single(value: float) -> float:
    """Return the value rounded to single precision; beyond its range infinite, as in torch and numpy."""
    return c_float(value).value


def also_called(**aliases: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a preset take parameters under the peer's own names; its signature must have them, with default None.

    Parameters
    ----------
    **aliases : str
        The peer's name for each of our names.

    Raises
    ------
    TypeError
        At the call, if a parameter is given under both names.
    """

    def wrap(preset: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(preset)

        @functools.wraps(preset)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            for ours, theirs in aliases.items():
                value = bound.arguments.pop(theirs, None)
                if value is None:
                    continue
                if ours in bound.arguments:
                    raise TypeError(f"{preset.__name__} got both {ours} and {theirs}, which are one parameter")
                bound.arguments[ours] = value
            return preset(*bound.args, **bound.kwargs)

        return called

    return wrap


def check_flag(name: str, value: Any) -> None:
    """Refuse anything but True and False.

    Raises
    ------
    TypeError
        Any other value.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_threshold_mode(value: Any) -> None:
    """Refuse anything but 'rel' and 'abs'.

    Raises
    ------
    ValueError
        Any other value.
    """
    if value not in ("rel", "abs"):
        raise ValueError(f"threshold_mode must be 'rel' or 'abs', got {value!r}")
