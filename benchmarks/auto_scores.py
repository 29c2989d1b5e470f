"""How good `Auto` is on sources that its networks have not seen: against every family, against its promise, by kind."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.auto_folds import PROMISED, TOLERANCES, auto_family, held_out_model
from benchmarks.auto_training import SMALL, Prepared
from benchmarks.families import (
    CLAIRVOYANT,
    LIMIT,
    NAIVE,
    NOTHING,
    PATIENCE,
    PLANNED,
    Family,
    regret_so_far,
)
from benchmarks.findings import OWN, Measured
from benchmarks.outcomes import Averages, central
from benchmarks.suite import Curve, Suite
from convergence.score import LEAST_REGRET, Frontier

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

BUDGETS = np.arange(0.5, 0.901, 0.05)
MANY = 50
"""Runs of a source from which its own mean is held against the promise."""

CUTS = (0.25, 0.5, 0.75)
USUAL = "Patience(10)"

PLAIN, WITH_PROGRESS, WITH_PLAN = "Auto", "Auto, progress", "Auto, progress to a planned end"
WITH_RATE, WITH_SCHEDULE = "Auto, lr", "Auto, lr and lr_ahead"
WITH_ALL = "Auto, progress, lr and lr_ahead"
"""What the Lightning callback tells it."""

NAMES = (PLAIN, WITH_PROGRESS, WITH_PLAN, WITH_RATE, WITH_SCHEDULE, WITH_ALL)


def auto_families() -> list[Family]:
    """Return Auto over its tolerance, told nothing, the progress, and the learning rate."""
    progress, rate = frozenset({"progress"}), frozenset({"lr"})
    return [
        auto_family(PLAIN, NOTHING, NOTHING),
        auto_family(WITH_PROGRESS, NOTHING, progress),
        auto_family(WITH_PLAN, PLANNED, progress),
        auto_family(WITH_RATE, rate, rate),
        auto_family(WITH_SCHEDULE, rate, rate | {"lr_ahead"}),
        auto_family(WITH_ALL, rate | PLANNED, rate | {"lr_ahead", "progress"}),
    ]


def auto_findings(measured: Sequence[Measured], suite: Suite, resamples: int) -> dict[str, Any]:
    """Return what is asked of Auto, as JSON-able data.

    Parameters
    ----------
    measured : sequence of Measured
        Every family, those of `auto_families` among them.
    suite : Suite
        The curves.
    resamples : int
        Of the bootstrap.
    """
    by_name = {one.name: one for one in measured}
    ours = [by_name[name] for name in NAMES if name in by_name]
    return {
        "budgets": BUDGETS.round(2).tolist(),
        "against": {one.name: _against(one, measured, suite.curves, resamples) for one in ours},
        "promise": {one.name: _promise(one, suite.curves, resamples) for one in ours},
        "scheduled": {
            one.name: _scheduled(one, suite.curves) for one in ours if one.name in (WITH_RATE, WITH_SCHEDULE)
        },
        "prefixes": _prefixes(suite.curves),
        "regimes": {one.name: _beside_patience(one, by_name[PATIENCE], suite) for one in ours},
    }


def is_peer(name: str) -> bool:
    """Return whether a family is one that people use: it knows neither the plan nor the end."""
    return name not in (NAIVE, CLAIRVOYANT, LIMIT, "Patience, share of plan") and not name.startswith(("Auto", OWN))


def _against(one: Measured, measured: Sequence[Measured], curves: Sequence[Curve], resamples: int) -> dict[str, Any]:
    """Return the ratios of regret at equal budgets to Patience and to the best of the peers' families."""
    averages = Averages(curves, one.on, resamples)
    front = averages.frontier(one.outcome)
    tolerance = averages.mean(one.outcome.budget)[TOLERANCES.index(SMALL)]
    found: dict[str, Any] = {
        "curves": int(one.on.sum()),
        "reach": [float(front.budget[0]), float(front.budget[-1])] if len(front.budget) else None,
        "budget_at_0.01": float(tolerance),
    }
    # Peers that were run on some curves only are left out: they have no frontier on these.
    peers = {
        other.name: _mean_ratio(front, averages.frontier(other.outcome))
        for other in measured
        if is_peer(other.name) and not (one.on & ~other.on).any()
    }
    known = {name: ratio for name, (ratio, budgets) in peers.items() if budgets >= len(BUDGETS) - 2}
    best = max(known, key=lambda name: known[name], default=None)
    outcomes = {other.name: other.outcome for other in measured}
    for label, name in (("patience", PATIENCE), ("best_peer", best)):
        if name is None:
            continue
        ratio, budgets = peers[name]
        found[label] = {
            "family": name,
            "ratio": ratio,
            "budgets": budgets,
            "interval": _interval(averages, one, outcomes[name]),
            "at": (front.at(BUDGETS) / averages.frontier(outcomes[name]).at(BUDGETS)).tolist(),
        }
    return found


def _mean_ratio(ours: Frontier, theirs: Frontier) -> tuple[float, int]:
    """Return the geometric mean of the ratio over the budgets that both reach, and how many these are."""
    logs = np.log(ours.at(BUDGETS)) - np.log(theirs.at(BUDGETS))
    known = logs[np.isfinite(logs)]
    return (float(np.exp(known.mean())) if known.size else float("nan")), int(known.size)


def _interval(averages: Averages, one: Measured, theirs: Any) -> list[float]:
    fronts = [averages.resampled_frontiers(outcome) for outcome in (one.outcome, theirs)]
    return central(np.array([_mean_ratio(mine, other)[0] for mine, other in zip(*fronts, strict=True)]))


def _promise(one: Measured, curves: Sequence[Curve], resamples: int) -> list[dict[str, Any]]:
    """Return for each promised tolerance the mean budget and regret, and the source that loses most."""
    averages = Averages(curves, one.on, resamples)
    intervals = averages.interval(one.outcome.regret)
    used, lost = averages.mean(one.outcome.budget), averages.mean(one.outcome.regret)
    sources = np.array([curve.source for curve in curves])
    measured = [curve for curve, on in zip(curves, one.on, strict=True) if on]
    runs = {source: len({curve.run for curve in measured if curve.source == source}) for source in np.unique(sources)}
    by_source = {
        str(source): Averages(curves, one.on & (sources == source)).mean(one.outcome.regret)
        for source in runs
        if (one.on & (sources == source)).any()
    }
    rows = []
    for tolerance in PROMISED:
        at = TOLERANCES.index(tolerance)
        many = {source: float(regret[at]) for source, regret in by_source.items() if runs[source] >= MANY}
        worst = max(many, key=lambda source: many[source], default=None)
        rows.append(
            {
                "tolerance": tolerance,
                "budget": float(used[at]),
                "regret": float(lost[at]),
                "interval": intervals[at],
                "worst_source": worst,
                "worst_regret": many[worst] if worst else None,
            }
        )
    return rows


def last_drop_that_mattered(curve: Curve) -> int:
    """Return the last observation at which the rate had fallen by 10 % after which 1 % of the gain came; -1 if none."""
    assert curve.lr is not None
    regret, highest, found = regret_so_far(curve.loss), curve.lr[0], -1
    for i, rate in enumerate(curve.lr):
        highest = max(highest, rate)
        if rate <= 0.9 * (1 + 1e-9) * highest and rate < highest:
            if i and regret[i - 1] > SMALL:
                found = i
            highest = rate
    return found


def _scheduled(one: Measured, curves: Sequence[Curve]) -> dict[str, Any]:
    """Return what became of the runs whose rate drops, at the usual tolerance."""
    row = TOLERANCES.index(SMALL)
    on = one.on & np.array([curve.first_drop >= 0 for curve in curves])
    if not on.any():
        return {"curves": 0}
    stops, averages = one.outcome.stop_index[row], Averages(curves, on)
    early, wake = np.full(len(curves), np.nan), np.full(len(curves), np.nan)
    for i in np.flatnonzero(on).tolist():
        early[i] = 0 <= stops[i] < last_drop_that_mattered(curves[i])
        wake[i] = stops[i] >= 0 and _since_drop(curves[i], int(stops[i])) < 5
    return {
        "curves": int(on.sum()),
        "budget": float(averages.mean(one.outcome.budget)[row]),
        "regret": float(averages.mean(one.outcome.regret)[row]),
        "before_the_last_drop_that_mattered": float(np.nanmean(early)),
        "within_5_of_a_drop": float(np.nanmean(wake)),
    }


def _since_drop(curve: Curve, stop: int) -> int:
    """Return how many observations before a stop the rate had last fallen by 10 %."""
    assert curve.lr is not None
    highest, since = curve.lr[0], len(curve.lr)
    for rate in curve.lr[: stop + 1]:
        since += 1
        highest = max(highest, rate)
        if rate < highest and rate <= 0.9 * (1 + 1e-9) * highest:
            since, highest = 0, rate
    return since


def _prefixes(curves: Sequence[Curve]) -> dict[str, Any]:
    """Return how well the odds tell runs that are done from those that are not, at shares of their length."""
    prepared = Prepared.of(curves)
    sources = np.array([curve.source for curve in curves])
    found: dict[str, Any] = {}
    for name in ("unplanned", "planned"):
        chances, done, of = [], [], []
        for source in np.unique(sources):
            network = getattr(held_out_model(str(source)), name)
            for i in np.flatnonzero(sources == source).tolist():
                at = np.maximum(np.ceil(np.array(CUTS) * len(curves[i].loss)).astype(np.int64) - 1, 0)
                features = prepared.features[i][at, : len(network.mean)].T.astype(np.float64)
                chances += (1 / (1 + np.exp(network.outputs(features)[1]))).tolist()
                done += (prepared.regrets[i][at] <= SMALL).tolist()
                of += [str(source)] * len(CUTS)
        p, y, s = np.array(chances), np.array(done), np.array(of)
        areas = {source: area_under_roc(p[s == source], y[s == source]) for source in np.unique(s).tolist()}
        areas = {source: area for source, area in areas.items() if np.isfinite(area)}
        bins = np.clip((p * 10).astype(np.int64), 0, 9)
        found[name] = {
            "area": float(np.mean(list(areas.values()))) if areas else None,
            "by_source": areas,
            "reliability": [
                {
                    "said": float(p[bins == k].mean()),
                    "was": float(y[bins == k].mean()),
                    "prefixes": int((bins == k).sum()),
                }
                for k in range(10)
                if (bins == k).any()
            ],
        }
    return found


def area_under_roc(score: FloatArray, positive: BoolArray) -> float:
    """Return the share of pairs of a positive and a negative in which the positive has the higher score.

    Ties count half; nan unless there are both.

    Examples
    --------
    >>> area_under_roc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
    0.875
    """
    from scipy.stats import rankdata

    yes = int(positive.sum())
    no = len(positive) - yes
    if not yes or not no:
        return float("nan")
    return float((rankdata(score)[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def _beside_patience(one: Measured, patience: Measured, suite: Suite) -> dict[str, Any]:
    """Return budget and regret at the usual tolerance and of the usual patience, by regime."""
    row, usual = TOLERANCES.index(SMALL), patience.members.index(USUAL)
    regimes, table = suite.labels("regime"), {}
    for regime in np.unique(regimes).tolist():
        among = one.on & (regimes == regime)
        if not among.any():
            continue
        averages = Averages(suite.curves, among)
        ours = [float(averages.mean(values)[row]) for values in (one.outcome.budget, one.outcome.regret)]
        theirs = [float(averages.mean(values)[usual]) for values in (patience.outcome.budget, patience.outcome.regret)]
        worse = ours[0] > theirs[0] and max(ours[1], LEAST_REGRET) > max(theirs[1], LEAST_REGRET)
        table[regime] = {"curves": int(among.sum()), "auto": ours, "patience": theirs, "worse_in_both": worse}
    return table
