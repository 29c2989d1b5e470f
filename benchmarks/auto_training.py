"""Fit the networks of `Auto` to recorded curves: what a stop costs, put straight into the loss.

Each curve is stopped softly: at every observation the network's score sets the chance of stopping there, and the loss
is the regret that these stops are expected to have, plus a price for the share of the run that they use, at several
prices at once. Beside it the score learns to be the logit of the regret, and a second output that of the chance that
more than a hundredth of the gain is still to come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.families import regret_so_far
from benchmarks.suite import Curve
from convergence import score
from convergence.stats import course as courses
from convergence.stats.course import FEATURES
from convergence.stats.remaining import PLAN_FEATURES, with_plan

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

PRICES = (0.4, 0.2, 0.1, 0.05, 0.025, 0.0125, 0.006)
"""Regret that one whole run's length of training is worth."""

ROWS = 64
"""Observations of a curve that it is fitted to, evenly spaced."""

PAST = {"planned": 0.6, "unplanned": 0.5}
"""Weight of earlier scores in a run's score."""

SMALL = 0.01
"""Remaining gain above which the second output speaks of more to come."""

_TOGETHER = 300
_HIDDEN = (48, 24)
_LEVELS = (-1.5, -5.5)


@dataclass(frozen=True)
class Options:
    """How the networks are fitted.

    Attributes
    ----------
    epochs, batch : int
        Passes over the curves, and curves per step.
    rate, decay, dropout : float
        Of AdamW, its weight decay, and dropout of the hidden units.
    sharpness : float
        Steepness of the chance of stopping against the score.
    beside : float
        Weight of the two logits beside the cost of the stops.
    evenness : float
        Power of a curve's weight in the macro-average that it gets: 1 is that weight, 0 none.
    members : int
        Networks, from different seeds, whose scores are averaged.
    """

    epochs: int = 20
    batch: int = 256
    rate: float = 2e-3
    decay: float = 1e-3
    dropout: float = 0.3
    sharpness: float = 2.0
    beside: float = 0.5
    evenness: float = 0.5
    members: int = 3


@dataclass(frozen=True, eq=False)
class Prepared:
    """Curves as features with a plan, at every observation, and what stopping there would cost.

    Attributes
    ----------
    curves : sequence of Curve
        The curves.
    features : list of float32 array, each of shape (n, features)
        Those of the course, then those of the plan, which is taken to be the recorded length.
    regrets : list of float array, each of shape (n,)
        Of stopping at each observation.
    """

    curves: Sequence[Curve]
    features: list[Float32Array]
    regrets: list[FloatArray]

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> "Prepared":
        """Return the curves prepared."""
        return cls(curves, _features([curve.loss for curve in curves]), [regret_so_far(c.loss) for c in curves])


def _features(losses: Sequence[FloatArray]) -> list[Float32Array]:
    lengths = np.array([len(loss) for loss in losses])
    order = np.argsort(-lengths, kind="stable")
    found: list[Any] = [None] * len(losses)
    for start in range(0, len(order), _TOGETHER):
        at = order[start : start + _TOGETHER]
        padded = np.full((lengths[at[0]], len(at)), np.nan)
        for lane, i in enumerate(at):
            padded[: lengths[i], lane] = np.where(np.isfinite(losses[i]), losses[i], np.nan)
        rows = np.empty((*padded.shape, len(FEATURES) + len(PLAN_FEATURES)), np.float32)
        lanes = courses.begin_many(len(at))
        for t, values in enumerate(padded):
            courses.take_many(lanes, values)
            progress = np.minimum((t + 1) / lengths[at], 1.0)
            rows[t] = with_plan(courses.features_many(lanes), t + 1, progress).T
        for lane, i in enumerate(at):
            found[i] = rows[: lengths[i], lane].copy()
    return found


def curve_weights(curves: Sequence[Curve], among: BoolArray, evenness: float) -> FloatArray:
    """Return the weight of each curve: a power of its weight in the mean over sources, tasks, groups and runs."""
    levels = [[getattr(curve, name) for curve in curves] for name in ("source", "task", "group", "run")]
    weight = np.where(among, score.weights(*levels, among=among) ** evenness, 0.0)
    even: FloatArray = weight / weight[among].mean()
    return even


def spaced(count: int) -> IntArray:
    """Return at most ROWS observations of `count`, evenly spaced, the first and the last among them."""
    return np.unique(np.round(np.linspace(0, count - 1, min(count, ROWS))).astype(np.int64))


def fit(prepared: Prepared, among: BoolArray, *, planned: bool, seed: int, options: Options) -> dict[str, FloatArray]:
    """Return the weights of one network, fitted to some of the curves.

    Parameters
    ----------
    prepared : Prepared
        The curves.
    among : bool array, shape (curves,)
        Those to fit to.
    planned : bool
        Whether it is told the plan.
    seed : int
        Of weights, dropout and order.
    options : Options
        How.
    """
    import torch
    from torch import nn
    from torch.nn import functional as f

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    at = np.flatnonzero(among)
    wide = len(FEATURES) + (len(PLAN_FEATURES) if planned else 0)
    x, lost, used, there = (np.zeros((len(at), ROWS, *more), np.float32) for more in ((wide,), (), (), ()))
    for row, i in enumerate(at):
        kept = spaced(len(prepared.regrets[i]))
        x[row, : len(kept)] = prepared.features[i][kept, :wide]
        lost[row, : len(kept)] = prepared.regrets[i][kept]
        used[row, : len(kept)] = (kept + 1) / len(prepared.regrets[i])
        there[row, : len(kept)] = 1
    mean, deviation = x[there > 0].mean(axis=0), x[there > 0].std(axis=0) + 1e-6
    inputs = torch.from_numpy(np.clip((x - mean) / deviation, -6, 6))
    regret, budget, mask = (torch.from_numpy(part) for part in (lost, used, there))
    weight = torch.from_numpy(curve_weights(prepared.curves, among, options.evenness)[at].astype(np.float32))
    price = torch.tensor(PRICES)
    net = nn.Sequential(
        nn.Linear(wide, _HIDDEN[0]), nn.SiLU(), nn.Dropout(options.dropout),
        nn.Linear(*_HIDDEN), nn.SiLU(), nn.Dropout(options.dropout), nn.Linear(_HIDDEN[1], 2),
    )  # fmt: skip
    levels = nn.Parameter(torch.linspace(*_LEVELS, len(PRICES)))
    parameters = [*net.parameters(), levels]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=options.decay)
    batches = -(-len(at) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.rate, total_steps=options.epochs * batches, pct_start=0.1
    )
    for epoch in range(options.epochs):
        for batch in np.array_split(order.permutation(len(at)), batches):
            out, here, heavy = net(inputs[batch]), mask[batch], weight[batch]
            wanted = torch.stack((regret[batch], (regret[batch] > SMALL).float()), dim=-1)
            logits = f.binary_cross_entropy_with_logits(out, wanted, reduction="none").sum(dim=-1)
            loss = ((logits * here).sum(dim=1) / here.sum(dim=1) * heavy).mean()
            if epoch >= 0.15 * options.epochs:
                pull = options.sharpness * (levels - out[..., :1])
                go_on = torch.cumsum(f.logsigmoid(-pull) * here[..., None], dim=1)
                before = f.pad(go_on[:, :-1], (0, 0, 1, 0))
                stop = torch.exp(before) * torch.sigmoid(pull) * here[..., None]
                cost = (stop * (regret[batch][..., None] + price * budget[batch][..., None])).sum(dim=1)
                cost = cost + torch.exp(go_on[:, -1]) * price
                loss = options.beside * loss + ((cost / price) * heavy[:, None]).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
    weights = [p.detach().numpy().astype(np.float64) for p in net.parameters()]
    return {
        "mean": mean,
        "deviation": deviation,
        **dict(zip(("w1", "b1", "w2", "b2", "w3", "b3"), weights, strict=True)),
    }


def side_by_side(networks: Sequence[dict[str, FloatArray]]) -> dict[str, Float32Array]:
    """Return several networks as the arrays that `remaining.Network` holds, in float32."""
    first = networks[0]
    arrays = {name: first[name] for name in ("mean", "deviation")}
    for name in ("w1", "b1"):
        arrays[name] = np.concatenate([network[name] for network in networks])
    for name in ("w2", "b2", "w3", "b3"):
        arrays[name] = np.stack([network[name] for network in networks])
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}
