"""`Auto` with networks that were fitted without the source that it is put to, and what their scores are worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.auto_training import Float32Array, spaced
from benchmarks.families import Curves, Family, IntArray, Needs, series_of
from convergence import score
from convergence.replay import replay_many
from convergence.rules.auto import FEWEST, Auto
from convergence.stats.remaining import Network, Remaining, shipped

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

HELD_OUT = Path(__file__).resolve().parent / "results" / "auto_held_out.npz"
"""Networks for each source, fitted to all the others; `benchmarks.fit_auto` writes them."""

TOLERANCES = (
    0.0003, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2,
    0.3, 0.5,
)  # fmt: skip

PROMISED = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Tolerances at which the mean regret is held against them."""

_KNOTS = 40
_LEAST_GAIN = 2e-4


@cache
def held_out() -> dict[str, Remaining]:
    """Return the networks by the source that they have not seen."""
    with np.load(HELD_OUT, allow_pickle=False) as arrays:
        sources = dict.fromkeys(name.rpartition("/")[0] for name in arrays.files)
        return {
            source: Remaining(*(Network.of(arrays, f"{source}/{prefix}_") for prefix in ("planned", "unplanned")))
            for source in sources
        }


def held_out_model(source: str) -> Remaining:
    """Return the networks that have not seen a source: the shipped ones if none has."""
    return held_out().get(source) or shipped()


@dataclass(frozen=True, repr=False)
class HeldOutAuto(Auto):
    """Auto with the networks that have not seen a source; the shipped ones for a source that none has seen."""

    source: str = ""

    @property
    def model(self) -> Remaining:
        return held_out_model(self.source)


def auto_family(name: str, needs: Needs, given: frozenset[str]) -> Family:
    """Return Auto as a family over its tolerance, each source judged by networks that have not seen it.

    Parameters
    ----------
    name : str
        What tables call it.
    needs : frozenset of str
        What a curve must have, as for `Family`.
    given : frozenset of str
        What it is told: any of "lr", "lr_ahead", "progress".
    """

    def stops(curves: Curves) -> IntArray:
        found = np.full((len(TOLERANCES), len(curves)), -1, np.int64)
        kinds: dict[tuple[str, str], list[int]] = {}
        for i, curve in enumerate(curves):
            kinds.setdefault((curve.source, curve.mode), []).append(i)
        for (source, mode), at in kinds.items():
            wanted = frozenset({"lr"} if "lr" in given else ()) | frozenset({"full"} if "progress" in given else ())
            series, context = series_of([curves[i] for i in at], wanted, (), 1.0 if mode == "min" else -1.0)
            if "lr_ahead" not in given:
                context.pop("lr_ahead", None)
            rules = [HeldOutAuto(tolerance, source) for tolerance in TOLERANCES]
            found[:, at] = replay_many(rules, series, mode=mode, **context).stop_index
        return found

    return Family(
        name, tuple(f"Auto({tolerance:g}){name.removeprefix('Auto')}" for tolerance in TOLERANCES), stops, needs
    )


def faded(newest: FloatArray, past: float) -> FloatArray:
    """Return the scores that Auto goes by, in which earlier ones fade."""
    scores = newest.copy()
    for t in range(1, len(scores)):
        scores[t] = past * scores[t - 1] + (1 - past) * newest[t]
    return scores


def outputs_of(network: Network, features: Float32Array) -> FloatArray:
    """Return what Auto goes by, and the odds, at every observation of a run, shape (2, n).

    Features beyond those that the network takes are left out.
    """
    newest, odds = network.outputs(features[:, : len(network.mean)].T.astype(np.float64))
    return np.stack((faded(newest, float(network.past)), odds))


def first_below(scores: FloatArray, levels: FloatArray) -> IntArray:
    """Return where a run's score first lies below each level, from the observation on from which Auto may stop.

    -1 where it never does.
    """
    lowest = np.minimum.accumulate(scores[FEWEST - 1 :])
    at = np.searchsorted(-lowest, -np.asarray(levels), side="right")
    stops: IntArray = np.where(at < len(lowest), at + FEWEST - 1, -1)
    return stops


def worth(scores: Sequence[FloatArray], regrets: Sequence[FloatArray], weight: FloatArray) -> dict[str, Float32Array]:
    """Return what scores are worth: the mean regret of runs that stop as soon as their score is below some level.

    Parameters
    ----------
    scores, regrets : sequence of float array
        Of each run, at every observation.
    weight : float array, shape (runs,)
        Of the runs in the mean.
    """
    lowest = np.array([s[FEWEST - 1 :].min() if len(s) >= FEWEST else np.inf for s in scores])
    highest = np.array([s[FEWEST - 1] if len(s) >= FEWEST else np.inf for s in scores])
    known = np.isfinite(lowest)
    if not known.any():
        raise ValueError(f"nothing to learn from: none of the {len(scores)} runs has {FEWEST} observations")
    low, high = np.quantile(lowest[known], 0.02), np.quantile(highest[known], 0.98)
    levels = np.linspace(low, high, 4 * _KNOTS)
    lost = np.zeros((len(levels), len(scores)))
    stopped = np.zeros(lost.shape, np.bool_)
    for i, (one, regret) in enumerate(zip(scores, regrets, strict=True)):
        stops = first_below(one, levels)
        stopped[:, i] = stops >= 0
        lost[:, i] = np.where(stops >= 0, regret[np.maximum(stops, 0)], 0.0)
    # A stop at a higher level comes no later, so that no run loses less by it.
    mean, there = lost @ weight, stopped.any(axis=1)
    usable = np.flatnonzero((mean > _LEAST_GAIN) & there)
    rising = usable[np.diff(mean[usable], prepend=0.0) > 0]
    if len(rising) < 2:
        raise ValueError(f"nothing to learn from: in none of the {len(scores)} runs stopping early loses anything")
    wanted = np.geomspace(mean[rising[0]], mean[rising[-1]], _KNOTS)
    at_levels = np.interp(np.log(wanted), np.log(mean[rising]), levels[rising])
    rows = [(row[here], weight[here]) for row, here in zip(lost, stopped, strict=True) if here.any()]
    to_come = {
        "means": [float(row @ heavy / heavy.sum()) for row, heavy in rows],
        "low": [score.quantile(row, 0.1, heavy) for row, heavy in rows],
        "high": [score.quantile(row, 0.9, heavy) for row, heavy in rows],
    }
    table = {"scores": at_levels, "log_gains": np.log(wanted)}
    table |= {name: np.interp(at_levels, levels[there], np.maximum.accumulate(part)) for name, part in to_come.items()}
    return {name: part.astype(np.float32) for name, part in table.items()}


def expected(odds: Sequence[FloatArray], regrets: Sequence[FloatArray], weight: FloatArray) -> dict[str, Float32Array]:
    """Return the mean remaining gain at odds, over observations evenly spaced in each run.

    Parameters
    ----------
    odds, regrets : sequence of float array
        Of each run, at every observation.
    weight : float array, shape (runs,)
        Of the runs in the mean.
    """
    from sklearn.isotonic import isotonic_regression

    kept = [spaced(len(one)) for one in odds]
    x = np.concatenate([one[at] for one, at in zip(odds, kept, strict=True)])
    y = np.concatenate([one[at] for one, at in zip(regrets, kept, strict=True)])
    w = np.concatenate([np.full(len(at), heavy / len(at)) for at, heavy in zip(kept, weight, strict=True)])
    order = np.argsort(x, kind="stable")
    x, y, w = x[order], y[order], w[order]
    bins = np.minimum((np.cumsum(w) / w.sum() * _KNOTS).astype(np.int64), _KNOTS - 1)
    mass = np.bincount(bins, w, _KNOTS)
    there = mass > 0
    middles, means = (np.bincount(bins, w * part, _KNOTS)[there] / mass[there] for part in (x, y))
    gains = isotonic_regression(means, sample_weight=mass[there])
    odds32, first = np.unique(middles.astype(np.float32), return_index=True)
    return {"odds": odds32, "gains": gains[first].astype(np.float32)}
