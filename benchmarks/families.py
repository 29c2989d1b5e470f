"""The families of stopping rules that are measured, each swept over its parameter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.suite import FLOOR, Curve, FloatArray
from convergence import (
    GeneralizationLoss,
    Lookahead,
    Patience,
    ProgressQuotient,
    Rearm,
    SmoothedSlope,
    SuccessiveRises,
    replay_many,
)
from convergence.rule import Bound, Rule
from convergence.score import clairvoyant, regret

IntArray = npt.NDArray[np.int64]
Curves = Sequence[Curve]

COUNTS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500)
PEER_COUNTS = (1, 2, 3, 5, 10, 20, 50, 100)
"""Those that peers are run with; a coarser sweep interpolates over wider steps."""
SHARES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

PATIENCE = "Patience"
"""The family that the others are measured against."""

NAIVE = "fixed fraction"
CLAIRVOYANT = "clairvoyant"
LIMIT = "limit in hindsight"

Needs = frozenset[str]
NOTHING: Needs = frozenset()
PLANNED: Needs = frozenset({"full"})


@dataclass(frozen=True)
class Family:
    """Members of a family, and where each of them stops.

    Attributes
    ----------
    name : str
        What tables call it.
    members : tuple of str
        One for each value of the parameter.
    stops : callable
        From the curves to int array (members, curves): index of the first stop, -1 for never.
    needs : frozenset of str
        What a curve must have for the family to be measured on it: "lr", "train", or "full", a known planned length.
    """

    name: str
    members: tuple[str, ...]
    stops: Callable[[Curves], IntArray]
    needs: Needs = NOTHING

    def applies(self, curve: Curve) -> bool:
        """Return whether a curve has what the family needs."""
        there = {"lr": curve.lr is not None, "train": curve.train is not None, "full": curve.full}
        return all(there[need] for need in self.needs)


def family(name: str, rules: Sequence[Rule]) -> Family:
    """Return the family of some rules, replayed all at once.

    Parameters
    ----------
    name : str
        What tables call it.
    rules : sequence of Rule
        Its members, not bound to metrics; a second metric that they read is taken to be the training curve.

    Raises
    ------
    ValueError
        A rule that recorded curves cannot be put to: bound to a metric, in need of times, or of several side metrics.
    """
    needs = NOTHING.union(*(_needs(rule) for rule in rules))
    return Family(name, tuple(map(repr, rules)), lambda curves: rule_stops(rules, curves), needs)


def _sides(rule: Rule) -> list[str]:
    return list(dict.fromkeys(name for leaf in rule.leaves() for name in leaf.side_metrics()))  # type: ignore[union-attr]


def _needs(rule: Rule) -> Needs:
    if any(isinstance(leaf, Bound) for leaf in rule.leaves()):
        raise ValueError(f"{rule!r} is bound to a metric: write it without .on(...), it is put to every curve")
    if "elapsed" in rule.needs:
        raise ValueError(f"{rule!r} needs elapsed seconds, which recorded curves are not replayed with")
    sides = _sides(rule)
    if len(sides) > 1:
        raise ValueError(f"{rule!r} reads {' and '.join(map(repr, sides))}: only one training curve is known")
    return frozenset(
        {*rule.needs & {"lr"}, *(["train"] if sides else []), *(["full"] if "progress" in rule.needs else [])}
    )


def rule_stops(rules: Sequence[Rule], curves: Curves) -> IntArray:
    """Return where rules first stop on curves that have what they need, shape (rules, curves); -1 for never."""
    alike: dict[tuple[Needs, tuple[str, ...]], list[int]] = {}
    for row, rule in enumerate(rules):
        alike.setdefault((_needs(rule), tuple(_sides(rule))), []).append(row)
    stops = np.full((len(rules), len(curves)), -1, np.int64)
    for mode in ("min", "max"):
        at = [i for i, curve in enumerate(curves) if curve.mode == mode]
        for (needs, sides), rows in alike.items() if at else ():
            series, context = series_of([curves[i] for i in at], needs, sides, 1.0 if mode == "min" else -1.0)
            table = replay_many([rules[row] for row in rows], series, mode=mode, **context)
            stops[np.ix_(rows, at)] = table.stop_index
    return stops


def series_of(curves: Curves, needs: Needs, sides: tuple[str, ...], sign: float) -> tuple[Any, dict[str, Any]]:
    """Return what `replay_many` takes for these curves: the values, and what the rules need beside them."""
    values: Any = [sign * curve.loss for curve in curves]
    context: dict[str, Any] = {"steps": [curve.steps for curve in curves]}
    if "lr" in needs:
        # The plan is known, as it is to a live run: the lowest rate still to come.
        context["lr"] = [_known(curve.lr) for curve in curves]
        context["lr_ahead"] = [_ahead(rate) for rate in context["lr"]]
    if "full" in needs:
        context["progress"] = [np.arange(1, len(one) + 1) / len(one) for one in values]
    if sides:
        monitor = f"not {sides[0]}"
        values = {monitor: values, sides[0]: [sign * _known(curve.train) for curve in curves]}
        context["monitor"] = monitor
    return values, context


def _known(values: FloatArray | None) -> FloatArray:
    assert values is not None
    return values


def _ahead(rates: FloatArray) -> FloatArray:
    """Return the lowest rate still to come after each value; after the last, the last."""
    return np.append(np.minimum.accumulate(rates[:0:-1])[::-1], rates[-1:])


def best_so_far(loss: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return the best value up to each one and where it first was; infinite and -1 before a finite one."""
    finite = np.where(np.isfinite(loss), loss, np.inf)
    kept = np.minimum.accumulate(finite)
    gains = np.concatenate(([kept[0] < np.inf], kept[1:] < kept[:-1]))
    at: IntArray = np.maximum.accumulate(np.where(gains, np.arange(len(loss)), -1))
    return kept, at


def _waits(loss: FloatArray) -> IntArray:
    """Return the longest wait up to each value: observations since the best of then, or all before a finite one."""
    waits: IntArray = np.maximum.accumulate(np.arange(len(loss)) - best_so_far(loss)[1])
    return waits


def _share_of_plan(curves: Curves) -> IntArray:
    """Patience of a share of the planned length, at which these runs ended."""
    stops = np.full((len(SHARES), len(curves)), -1, np.int64)
    for i, curve in enumerate(curves):
        waits = _waits(curve.loss)
        patience = np.maximum(1, np.ceil(np.array(SHARES) * len(waits) - 1e-9).astype(np.int64))
        at = np.searchsorted(waits, patience)
        stops[:, i] = np.where(at < len(waits), at, -1)
    return stops


def _fixed(curves: Curves) -> IntArray:
    lengths = np.array([len(curve.loss) for curve in curves])
    ends: IntArray = np.ceil(np.outer(SHARES, lengths) - 1e-9).astype(np.int64) - 1
    return np.maximum(ends, 0)


TOLERANCES = (0.0, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)


def _clairvoyant(curves: Curves) -> IntArray:
    found = [[clairvoyant(curve.loss, tolerance, floor=FLOOR) for curve in curves] for tolerance in TOLERANCES]
    return np.maximum(np.array(found, np.int64), 0)  # where nothing is finite, at once


PRICES = tuple(float(f"{10**power:.3g}") for power in np.arange(-3.5, 1.01, 0.375))


def _hindsight(curves: Curves) -> IntArray:
    """Stop each curve where regret + price * budget is least: no other stops have both less."""
    stops = np.zeros((len(PRICES), len(curves)), np.int64)
    for i, curve in enumerate(curves):
        lost = regret_so_far(curve.loss)
        used = np.arange(1, len(lost) + 1) / len(lost)
        stops[:, i] = (lost + np.array(PRICES)[:, None] * used).argmin(axis=1)
    return stops


def regret_so_far(loss: FloatArray) -> FloatArray:
    """Return the regret of stopping at each value; 0 throughout where nothing is finite, since nothing can be lost."""
    finite = np.isfinite(loss)
    if not finite.any():
        return np.zeros(len(loss))
    kept, at = best_so_far(loss)
    kept[at < 0] = np.nan
    return regret(kept, loss[np.argmax(finite)], kept[-1], floor=FLOOR)


def _slopes() -> list[Rule]:
    windows, tols = (5, 10, 20, 50, 100), (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    return [SmoothedSlope(window, tol=tol) for window in windows for tol in tols]


def families() -> list[Family]:
    """Return our own families; those of the peers come from `benchmarks.live_peers`."""
    from convergence import presets

    growing = [(0.1, 2), (0.2, 5), (0.3, 10), (0.5, 10), (0.5, 20), (1.0, 10), (1.0, 20), (2.0, 20), (3.0, 30)]
    return [
        family(PATIENCE, [Patience(count) for count in COUNTS]),
        family("Patience, min_delta 0.1 %", [Patience(count, min_delta=0.001, relative=True) for count in COUNTS]),
        family("Patience, min_delta 1 %", [Patience(count, min_delta=0.01, relative=True) for count in COUNTS]),
        Family(
            "Patience, share of plan",
            tuple(f"Patience({share:g} of plan)" for share in SHARES),
            _share_of_plan,
            PLANNED,
        ),
        family("Patience, growing", [presets.autogluon(rate, offset) for rate, offset in growing]),
        family("Lookahead", [Lookahead(count) for count in COUNTS]),
        family("Rearm(Patience)", [Rearm(Patience(count)) for count in COUNTS]),
        family("SmoothedSlope", _slopes()),
        family("GeneralizationLoss", [GeneralizationLoss(alpha) for alpha in (0.5, 1, 2, 3, 5, 10, 20, 50, 100)]),
        family("SuccessiveRises", [SuccessiveRises(s, k) for k in (1, 5) for s in (1, 2, 3, 4, 5, 6, 8)]),
        family(
            "ProgressQuotient", [ProgressQuotient(alpha, train="train") for alpha in (0.1, 0.2, 0.5, 0.75, 1, 2, 3, 5)]
        ),
        Family(NAIVE, tuple(f"{share:g} of plan" for share in SHARES), _fixed, PLANNED),
        Family(CLAIRVOYANT, tuple(f"first within {e:g}" for e in TOLERANCES), _clairvoyant),
        Family(LIMIT, tuple(f"price {price:g}" for price in PRICES), _hindsight),
    ]
