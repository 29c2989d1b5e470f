"""What was found on a suite of curves: the figures of every family, by regime too, as JSON-able data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.families import CLAIRVOYANT, COUNTS, LIMIT, NAIVE, PEER_COUNTS, Family
from benchmarks.outcomes import Averages, BoolArray, Outcomes, measures, outcomes
from benchmarks.suite import FLOOR, Curve, Suite, summary
from convergence.score import LEAST_REGRET, Frontier

BUDGETS = (0.25, 0.5, 0.75)
"""Budgets at which the tables show a family's regret."""

REGIMES = ("learns", "overfits", "flat", "diverges", "scheduled", "slow_start")
"""Those that every suite may have, in the order of the tables; others follow."""

SHOWN = (
    "Patience(3)",
    "Patience(10)",
    "Patience(50)",
    "Patience(0.1 of plan)",
    "presets.autogluon(adaptive_rate=0.3)",
    "Lookahead(10)",
    "Rearm(Patience(10))",
    "SmoothedSlope(20, tol=0.001)",
    "GeneralizationLoss(5)",
    "SuccessiveRises(2, k=5)",
    "ProgressQuotient(0.75, train='train')",
    "0.5 of plan",
    "first within 0.01",
)
"""Members that the tables of rules show, a usual one of each family."""

OWN = "--rules "
"""How the families begin that the user asked for."""

PROTOCOL = {
    "floor": FLOOR,
    "regret": "gain that stopping lost / (first value - best of the run), the latter at least `floor` of the first "
    "value's size; 0 where nothing is finite",
    "means": "within run, group, task, then source",
    "bootstrap": "groups drawn again within each source, central 95 %; a source of one group adds no width, nor does "
    "the choice of sources, nor that a family of many members has its best ones picked on the same curves",
    "ratio": "geometric mean of regret / regret of Patience on the same curves, at equal budgets between those that "
    f"both families reach with a regret above {LEAST_REGRET:g}, interpolated in log regret; peers are compared with "
    "Patience at fewer values, those that most of them were run with: a coarser sweep interpolates over wider steps",
    "to_patience": "regret of a rule / regret of Patience, at every value of it, at the same budget and on the same "
    f"curves; nothing where Patience does not reach that budget or either regret is at most {LEAST_REGRET:g}",
    "regret_p95": "the regret below which 95 % of the weight of the runs lies; far below the mean where a few lose all",
    "planned": "what needs the planned length is measured on runs that were recorded to their planned end",
    "test_regret": "share of the gain on test data that is lost by selecting on validation up to the stop and not "
    "over the whole run; below 0 where the earlier choice was better",
    CLAIRVOYANT: "the first value within some regret of the run's best: known only afterwards",
    LIMIT: "each run stopped where regret + price * budget is least: no stops have both less regret and less budget",
    NAIVE: "every run stopped at one share of its planned length",
}


@dataclass(frozen=True, eq=False)
class Measured:
    """A family on the curves that have what it needs.

    Attributes
    ----------
    name, members : str, tuple of str
        The family and its members.
    on : bool array, shape (curves,)
        The curves that it was measured on.
    outcome : Outcomes
        On all curves; nan and -1 where it was not measured.
    peer : dict, optional
        Of a peer: package and version, default, and how its preset compared.
    """

    name: str
    members: tuple[str, ...]
    on: BoolArray
    outcome: Outcomes
    peer: dict[str, Any] | None = None


def spread(outcome: Outcomes, on: BoolArray) -> Outcomes:
    """Return an outcome on some curves as one on all of them."""
    wide = {}
    for name, values in vars(outcome).items():
        whole = np.full((len(values), len(on)), -1 if values.dtype.kind == "i" else np.nan, values.dtype)
        whole[:, on] = values
        wide[name] = whole
    return Outcomes(**wide)


def measure(one: Family, curves: Sequence[Curve]) -> Measured | None:
    """Return a family's outcomes; None if no curve has what it needs.

    Parameters
    ----------
    one : Family
        The family.
    curves : sequence of Curve
        The curves.
    """
    on = np.array([one.applies(curve) for curve in curves])
    if not on.any():
        return None
    having = [curve for curve, good in zip(curves, on, strict=True) if good]
    return Measured(one.name, one.members, on, spread(outcomes(one.stops(having), having), on))


def findings(
    suite: Suite, measured: Sequence[Measured], absent: Mapping[str, str], resamples: int, *, show_curves: bool
) -> dict[str, Any]:
    """Return everything that was found.

    Parameters
    ----------
    suite : Suite
        The curves.
    measured : sequence of Measured
        The families, that of Patience first.
    absent : mapping
        What was not measured, and why.
    resamples : int
        Of the bootstrap.
    show_curves : bool
        Whether to put curves on which rules disagree into it.
    """
    reference = measured[0]
    coarse = _at_the_counts_of_peers(reference)
    return {
        "suite": summary(suite),
        "protocol": {**PROTOCOL, "resamples": resamples},
        "versions": peers.versions(),
        "families": {
            one.name: _entry(one, coarse if one.peer else reference, reference, suite.curves, resamples)
            for one in measured
        },
        "regimes": _by_regime(measured, reference, coarse, suite),
        "absent": dict(absent),
        "left_out": list(suite.left_out),
        "notes": suite.notes,
        "nowhere_finite": suite.nowhere_finite,
        "gallery": _gallery(measured, suite) if show_curves else [],
    }


def _at_the_counts_of_peers(patience: Measured) -> Measured:
    """Return Patience with the values that peers were run with, so that both are interpolated over the same steps."""
    rows = [row for row, count in enumerate(COUNTS) if count in PEER_COUNTS]
    some = Outcomes(**{name: values[rows] for name, values in vars(patience.outcome).items()})
    return replace(patience, members=tuple(patience.members[row] for row in rows), outcome=some)


def _beside(row: dict[str, Any], patience: Frontier) -> float:
    """Return regret over that of Patience at the same budget; nan where that is out of reach, or next to nothing."""
    reach = patience.budget[patience.regret > LEAST_REGRET]
    if not len(reach) or not reach[0] <= row["budget"] <= reach[-1] or row["regret"] <= LEAST_REGRET:
        return float("nan")
    return float(row["regret"] / patience.at(row["budget"]))


def _entry(
    one: Measured, reference: Measured, finest: Measured, curves: Sequence[Curve], resamples: int
) -> dict[str, Any]:
    averages = Averages(curves, one.on, resamples)
    frontier, patience = averages.frontier(one.outcome), averages.frontier(reference.outcome)
    ratio, interval = averages.ratio(one.outcome, reference.outcome)
    shared = frontier.shared(patience)
    members = [
        {"rule": rule, **row, "to_patience": _beside(row, averages.frontier(finest.outcome))}
        for rule, row in zip(one.members, measures(one.outcome, averages), strict=True)
    ]
    return {
        "curves": int(one.on.sum()),
        "ratio_to_patience": ratio,
        "ratio_interval": interval,
        "ratio_budgets": list(shared) if shared else None,
        "regret_at": frontier.at(BUDGETS).tolist(),
        "frontier": {"budget": frontier.budget.tolist(), "regret": frontier.regret.tolist()},
        "members": members,
        **({"peer": one.peer} if one.peer else {}),
    }


def is_shown(name: str, rule: str) -> bool:
    """Return whether the tables of rules show a member of a family."""
    return rule in SHOWN or name.startswith(OWN) or (name.startswith("Auto") and rule.startswith("Auto(0.01)"))


def _by_regime(measured: Sequence[Measured], reference: Measured, coarse: Measured, suite: Suite) -> dict[str, Any]:
    labels = suite.labels("regime")
    names = [name for name in REGIMES if (labels == name).any()]
    names += sorted(set(labels.tolist()) - set(names))
    tables = {}
    for name in names:
        among = labels == name
        rules: dict[str, Any] = {}
        ratios: dict[str, float] = {}
        for one in measured:
            here = among & one.on
            if not here.any():
                continue
            averages = Averages(suite.curves, here)
            used, lost = averages.mean(one.outcome.budget), averages.mean(one.outcome.regret)
            against = coarse if one.peer else reference
            ratios[one.name] = Frontier.of(used, lost).ratio(averages.frontier(against.outcome))
            rules |= {
                rule: {"curves": int(here.sum()), "budget": float(used[row]), "regret": float(lost[row])}
                for row, rule in enumerate(one.members)
                if is_shown(one.name, rule)
            }
        tables[name] = {"curves": int(among.sum()), "rules": rules, "ratio_to_patience": ratios}
    return tables


def _gallery(measured: Sequence[Measured], suite: Suite, count: int = 9) -> list[dict[str, Any]]:
    """Return curves on which the shown rules disagree most, of different set-ups, as even over regimes as can be."""
    shown = [(one, row, rule) for one in measured for row, rule in enumerate(one.members) if rule in SHOWN]
    stops = np.stack([np.where(one.on, one.outcome.stop_index[row], -2) for one, row, _ in shown])
    lengths = np.array([len(curve.loss) for curve in suite.curves])
    shares = np.where(stops < 0, 1.0, (stops + 1) / lengths)
    lost = np.stack([one.outcome.regret[row] for one, row, _ in shown])
    # Disagreement that matters: rules stop at different times, and some of them lose by it.
    disagreement = shares.std(axis=0) * np.nan_to_num(lost).max(axis=0)
    waiting: dict[str, list[int]] = {}
    for i in np.argsort(-disagreement, kind="stable").tolist():
        if suite.curves[i].metric == "loss":
            waiting.setdefault(suite.curves[i].regime, []).append(i)
    picked: list[int] = []
    while len(picked) < count and any(waiting.values()):
        for candidates in waiting.values():
            fresh = [i for i in candidates if suite.curves[i].group not in {suite.curves[p].group for p in picked}]
            candidates[:] = fresh[1:]
            picked += fresh[:1]
    return [
        {
            "run": suite.curves[i].run,
            "regime": suite.curves[i].regime,
            "loss": suite.curves[i].loss.tolist(),
            "lr": None if (rates := suite.curves[i].lr) is None else rates.tolist(),
            "stops": {rule: int(stops[k, i]) for k, (_, _, rule) in enumerate(shown) if stops[k, i] >= -1},
        }
        for i in picked[:count]
    ]


def jsonable(value: Any) -> Any:
    """Return numbers that are not finite as None and the others with six digits.

    Examples
    --------
    >>> jsonable({"regret": (0.123456789, float("nan"))})
    {'regret': [0.123457, None]}
    """
    if isinstance(value, dict):
        return {str(key): jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
