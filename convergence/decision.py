"""Decision and Reason: the verdict, its kind, its numbers and its sentence."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol


class Reason(StrEnum):
    """Why training goes on (the first three) or stops (the others).

    Examples
    --------
    >>> Reason.PLATEAUED == "plateaued"
    True
    """

    IMPROVING = "improving"
    WARMING_UP = "warming_up"
    WAITING = "waiting"
    PLATEAUED = "plateaued"
    CONVERGED = "converged"
    OVERFITTING = "overfitting"
    DIVERGED = "diverged"
    NOT_LEARNING = "not_learning"
    NON_FINITE = "non_finite"
    TARGET_REACHED = "target_reached"
    BUDGET_EXHAUSTED = "budget_exhausted"


class Unit(NamedTuple):
    """A metric's name and direction: turns a loss (lower is better) back into what the user logs.

    Examples
    --------
    >>> Unit("val_acc", "max").value(-0.9)
    0.9
    """

    metric: str
    mode: str

    @property
    def sign(self) -> float:
        """+1 where lower is better, -1 where higher is."""
        return 1.0 if self.mode == "min" else -1.0

    def value(self, loss: float | None) -> float:
        """Return the value in the metric's own unit; nan where there is none."""
        return float("nan") if loss is None else loss * self.sign

    def text(self, loss: float | None) -> str:
        """Return the value in the metric's own unit as text of six digits."""
        return "none" if loss is None else f"{loss * self.sign:.6g}"


class Told(NamedTuple):
    """A verdict in words: what a Decision shows once somebody asks."""

    reason: Reason
    message: str
    evidence: Mapping[str, float]
    causes: tuple["Decision", ...] = ()


Verdict = tuple[Any, ...]
"""What a rule decides: first whether to stop, then the numbers that its words need."""


class Teller(Protocol):
    """Puts verdicts into words."""

    def tell(self, verdict: Verdict, /) -> Told:
        """Return the words for a verdict."""
        ...


class Decision:
    """Stop or go on, why, and with which numbers.

    A value: later observations do not change it. `bool(decision)` is `decision.stop`. Reason, message and evidence
    come from numbers noted at the verdict and are put into words when first read.

    Attributes
    ----------
    stop : bool
        Whether the rule's condition holds as of the newest value.
    reason : Reason
        The kind of verdict.
    message : str
        One sentence with the numbers.
    evidence : mapping of str to float
        The numbers, in the metric's own unit; keys that end in `_gain` are positive when better.
    causes : tuple of Decision
        Of a combination: the members whose verdict is the combination's own.

    Examples
    --------
    >>> from convergence import Patience, Stopper
    >>> stopper = Stopper(Patience(1), monitor="val_loss", mode="min")
    >>> stopper.update(1.0).reason
    <Reason.IMPROVING: 'improving'>
    >>> print(stopper.update(2.0).message)
    val_loss did not improve on 1 (step 0) in the last 1 observation(s); newest 2 (step 1)
    """

    __slots__ = ("_teller", "_told", "_verdict", "stop")

    stop: bool
    _teller: Teller
    _verdict: Verdict
    _told: Told

    # No __init__: filling a bare object costs half as much, and every update makes a Decision.
    @classmethod
    def of(cls, teller: Teller, verdict: Verdict) -> "Decision":
        """Return the decision for a verdict that `teller` will put into words."""
        decision = cls()
        decision.stop = bool(verdict[0])
        decision._teller = teller
        decision._verdict = verdict
        return decision

    def _tell(self) -> Told:
        try:
            return self._told
        except AttributeError:
            self._told = self._teller.tell(self._verdict)
            return self._told

    @property
    def reason(self) -> Reason:
        """The kind of verdict."""
        return self._tell().reason

    @property
    def message(self) -> str:
        """One sentence with the numbers."""
        return self._tell().message

    @property
    def evidence(self) -> Mapping[str, float]:
        """The numbers behind the verdict, in the metric's own unit."""
        return MappingProxyType(dict(self._tell().evidence))

    @property
    def causes(self) -> tuple["Decision", ...]:
        """Of a combination: the members whose verdict is the combination's own."""
        return self._tell().causes

    def __bool__(self) -> bool:
        return self.stop

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Decision):
            return NotImplemented
        return self.stop == other.stop and self.reason == other.reason and self.message == other.message

    def __hash__(self) -> int:
        return hash((self.stop, self.message))

    def __repr__(self) -> str:
        return f"Decision(stop={self.stop}, reason={self.reason.value!r}, message={self.message!r})"
