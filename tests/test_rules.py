"""Tables per rule: verdicts worked out by hand from the texts, and literal formulas as witnesses."""

import math
from collections import deque

import numpy as np
import pytest

from convergence import (
    Budget,
    Divergence,
    GeneralizationLoss,
    Lookahead,
    NonFinite,
    Patience,
    ProgressQuotient,
    Rearm,
    Reason,
    SmoothedSlope,
    Stopper,
    SuccessiveRises,
    Target,
    WarmUp,
)

NAN, INF = math.nan, math.inf


def feed(rule, values, mode="min", **context):
    """All decisions; context such as steps=[...] goes with the values one by one."""
    names = {"steps": "step", "elapsed": "elapsed", "lr": "lr"}
    stopper, in_mappings = (Stopper(rule, monitor="m", mode=mode) for _ in range(2))
    decisions = []
    for i, value in enumerate(values):
        now = {names[name]: series[i] for name, series in context.items()}
        decisions.append(stopper.update(float(value), **now))
        # a mapping takes another way through the Stopper than a plain float
        assert in_mappings.update({"m": value, "x": None}, **now).stop is decisions[-1].stop
    assert in_mappings.decision == stopper.decision
    return decisions


def verdicts(rule, values, mode="min", **context):
    """One letter per observation: S stop, . go on."""
    return "".join("S" if d.stop else "." for d in feed(rule, values, mode, **context))


def first_stop(rule, values, mode="min"):
    index = verdicts(rule, values, mode).find("S")
    return None if index < 0 else index


# Patience

PATIENCE = [
    (Patience(3), "min", [1, 2, 3, 4, 5, 6], "...SSS"),
    (Patience(3), "max", [6, 5, 4, 3, 2, 1], "...SSS"),
    (Patience(1), "max", [1, 2, 3, 4, 5, 6], "......"),
    # ties
    (Patience(2), "min", [1, 1, 1, 1], "..SS"),
    (Patience(2, ties="improve"), "min", [1, 1, 1, 1], "...."),
    (Patience(1), "max", [0.5, 0.6, 0.6], "..S"),
    (Patience(1, ties="improve"), "max", [0.5, 0.6, 0.6, 0.5], "...S"),
    # a gain of exactly min_delta is none, small gains add up
    (Patience(2, min_delta=0.25), "min", [4, 3.75, 3.75], "..S"),
    (Patience(2, min_delta=0.25), "min", [4, 3.75, 3.5, 3.25, 3], "....."),
    (Patience(2, min_delta=0.25), "min", [4, 3.5, 3.25, 3.25], "...S"),
    (Patience(2, min_delta=0.25), "max", [4, 4.25, 4.25, 4.5], "..S."),
    (Patience(1, min_delta=0.25, ties="improve"), "min", [4, 3.75, 3.5, 3.25, 3.125], "....S"),
    # relative: a fraction of abs(best)
    (Patience(1, min_delta=0.5, relative=True), "min", [8, 4, 3.5], ".S."),
    (Patience(1, min_delta=0.5, relative=True), "min", [-8, -12, -12.5], ".S."),
    (Patience(1, min_delta=0.5, relative=True), "max", [-8, -4, -3.5], ".S."),
    (Patience(1, min_delta=0.5, relative=True), "max", [8, 12, 12.5], ".S."),
    (Patience(1, min_delta=0.5, relative=True), "min", [0, 0, -1e-9, -1e-9], ".S.S"),
    (Patience(1, min_delta=0.5, relative=True, ties="improve"), "min", [8, 4, 2, 1.5], "...S"),
    # an improvement starts the count again, and lifts a verdict
    (Patience(2), "min", [3, 4, 2, 3, 4], "....S"),
    (Patience(2), "min", [1, 2, 3, 0, 1, 2, 0, -1], "..S..SS."),
    # NaN and infinity are misses
    (Patience(3), "min", [NAN, 5, 4, 3, 2], "....."),
    (Patience(2), "min", [5, NAN, NAN, 4, 5], "..S.."),
    (Patience(1), "max", [4, 5, NAN], "..S"),
    (Patience(3), "min", [5, 4, NAN, NAN, NAN, NAN], "....SS"),
    (Patience(2), "min", [NAN, NAN, NAN, 1], ".SS."),
    (Patience(1), "min", [5, 4, INF, 3], "..S."),
    (Patience(1), "min", [5, -INF, 4], ".S."),
    (Patience(1), "max", [4, INF, 5], ".S."),
    (Patience(2), "min", [INF, 5, 4], "..."),
    (Patience(2, ties="improve"), "min", [INF, INF, INF], ".SS"),
]


@pytest.mark.parametrize(("rule", "mode", "values", "expected"), PATIENCE)
def test_patience_stops_after_so_many_misses_in_a_row(rule, mode, values, expected):
    assert verdicts(rule, values, mode) == expected


def test_relative_patience_stops_a_negative_metric_that_gets_worse():
    values = [-1 + 0.05 * i for i in range(18)]
    assert verdicts(Patience(3, min_delta=0.1, relative=True), values) == "..." + 15 * "S"


def noisy(seed, length):
    """A falling stream with ties, NaN and infinities."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(0, 2, length) - 0.1 * np.arange(length)).astype(float)
    odd = rng.random(length) < 0.15
    values[odd] = rng.choice([NAN, INF, -INF], odd.sum())
    return values.tolist()


def test_patience_equals_an_obvious_loop():
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        patience, delta = int(rng.integers(1, 6)), float(rng.choice([0, 1, 1.5]))
        values, wait, best, expected = noisy(seed, 30), 0, None, ""
        for y in values:
            if math.isfinite(y) and (best is None or y < best - delta):
                best, wait = y, 0
            else:
                wait += 1
            expected += "S" if wait >= patience else "."
        assert verdicts(Patience(patience, min_delta=delta), values) == expected


STREAMS = {
    "A": ([1, 2, 3, 4, 5, 6, 7, 8], 3, 0),
    "C": ([1, 2, 3, 4, 5], 1, 0),
    "D": ([1.0] * 12, 3, 0),
    "E": ([4 - 0.25 * i for i in range(12)], 3, 0.25),
    "F": ([1 - 0.004 * i for i in range(40)], 3, 0.01),
    "G": ([1 - 0.004 * i for i in range(40)], 2, 0.01),
    "H": ([5, 4, NAN, 3, 2.5, 2, 1.5, 1, 0.9, 0.8], 3, 0),
    "I": ([NAN, 5, 4, 3, 2, 1, 0.9, 0.8, 0.7, 0.6], 3, 0),
    "J": ([5, 4] + 12 * [NAN], 3, 0),
    "K": ([5, 4, INF, 3, 2.5, 2, 1.5], 3, 0),
    "L": ([1 + 0.05 * i for i in range(14)], 3, 0.2),
    "M": ((1 + 0.02 * np.random.default_rng(0).standard_normal(60)).tolist(), 3, 0),
    "N": ((1 / np.sqrt(np.arange(1, 201)) + 0.03 * np.random.default_rng(1).standard_normal(200)).tolist(), 5, 0),
}
CONFORMANCE = [  # stop indices that peers were measured to have
    ("lightning without check_finite", Patience, [3, 1, 3, None, None, 2, None, None, 4, None, 3, 7, 29]),
    ("lightning", lambda p, **k: Patience(p, **k) | NonFinite(), [3, 1, 3, None, None, 2, 2, 0, 2, 2, 3, 7, 29]),
    (
        "torch, which stops one later",
        lambda p, **k: Patience(p + 1, **k),
        [4, 2, 4, None, None, None, None, None, 5, None, 4, 16, 30],
    ),
    ("lookahead", lambda p, min_delta: Lookahead(p), [3, 1, *6 * [None], 4, None, 3, 7, 29]),
]


@pytest.mark.parametrize(("peer", "make", "expected"), CONFORMANCE, ids=[row[0] for row in CONFORMANCE])
def test_streams_of_the_conformance_table_stop_where_peers_do(peer, make, expected):
    found = [first_stop(make(p, min_delta=d), values) for values, p, d in STREAMS.values()]
    assert dict(zip(STREAMS, found, strict=True)) == dict(zip(STREAMS, expected, strict=True))


# Lookahead

LOOKAHEAD = [
    (Lookahead(2), "max", [0.5, 0.7, 0.6, 0.7, 0.6, 0.5], ".....S"),
    (Lookahead(1), "min", [1, 2, 3], ".SS"),
    (Lookahead(3), "max", [1, 2, 3, 4, 5], "....."),
    (Lookahead(1), "min", [1, 1, 1, 1], "...."),
    # holds until a value at or above M(n)
    (Lookahead(2), "max", [3, 2, 1, 2, 3, 2, 2], "..SS..S"),
    (Lookahead(2), "max", [3, 2, 1, 4, 5, 4], "..S..."),
    (Lookahead(2), "max", [3, 1, 1, 2, 1, 1], "..SSSS"),
    # a value that is not finite reaches nothing
    (Lookahead(2), "min", [1, NAN, NAN, 1, NAN, 2], "..S..S"),
    (Lookahead(3), "min", [NAN, 5, 4, 3], "...."),
    (Lookahead(3), "max", [4, 5, NAN, NAN, NAN, NAN], "....SS"),
    (Lookahead(1), "min", [1, -INF, 1], ".S."),
    (Lookahead(1), "max", [1, INF, 1], ".S."),
    (Lookahead(2), "min", [NAN, NAN, NAN], ".SS"),
    (Lookahead(2), "min", [INF, INF, 1, INF, 1], ".S..."),
]


@pytest.mark.parametrize(("rule", "mode", "values", "expected"), LOOKAHEAD)
def test_lookahead_holds_while_the_next_k_stay_below(rule, mode, values, expected):
    assert verdicts(rule, values, mode) == expected


def test_lookahead_says_both_sides_of_its_inequality():
    decision = feed(Lookahead(2), [0.5, 0.7, 0.6, 0.7, 0.65, 0.5], "max", steps=[0, 10, 20, 30, 40, 50])[-1]
    assert decision.stop
    said = dict(decision.evidence)
    assert (said["n"], said["n_step"], said["k"]) == (3, 30, 2)
    assert (said["value_at_n"], said["best_after_n"]) == (0.7, 0.65)


def test_lookahead_is_patience_with_ties_and_its_formula():
    rng = np.random.default_rng(0)
    for _ in range(10_000):
        k, length, levels = int(rng.integers(1, 7)), int(rng.integers(1, 31)), int(rng.choice([3, 5, 20, 1001]))
        values = [float(v) for v in rng.integers(0, levels, length)]
        witness = next(
            (n + k for n in range(length - k) if values[n] > max(values[n + 1 : n + k + 1])),
            None,
        )
        assert first_stop(Lookahead(k), values, "max") == witness
        assert first_stop(Patience(k, ties="improve"), values, "max") == witness


def test_lookahead_is_patience_with_ties_on_streams_with_nan_verdict_by_verdict():
    for seed in range(500):
        values, k = noisy(seed, 30), 1 + seed % 5
        assert verdicts(Lookahead(k), values) == verdicts(Patience(k, ties="improve"), values)


# SmoothedSlope

SLOPE = [
    # silent until the window is full; a constant metric stops
    (SmoothedSlope(4, tol=0), "min", [5, 5, 5, 5, 5], "...SS"),
    (SmoothedSlope(2, tol=0.1, smoothing=0.9), "max", [0, 0, 0], ".SS"),
    (SmoothedSlope(2, tol=0), "min", [3, 2, 1, 2, 1, 1], "...S.S"),
    (SmoothedSlope(2, tol=0), "max", [3, 2, 1, 2, 3, 3], ".SS..S"),
    # gain of exactly tol times the range
    (SmoothedSlope(2, tol=0.25), "min", [8, 0, 4, 2], "..SS"),
    (SmoothedSlope(2, tol=0.25), "min", [8, 0, 4, 1.75], "..S."),
    (SmoothedSlope(2, tol=0.25), "max", [0, 8, 4, 6], "..SS"),
    (SmoothedSlope(2, tol=0.25), "max", [0, 8, 4, 6.25], "..S."),
    # least squares of three is half the difference of the ends: gains 4, -4, 2; range 16
    (SmoothedSlope(3, tol=0.125), "min", [16, 0, 8, 8, 4], "...SS"),
    (SmoothedSlope(3, tol=0.0625), "min", [16, 0, 8, 8, 4], "...S."),
    # NaN enters neither window nor range; `window` of them in a row stop
    (SmoothedSlope(3, tol=0), "min", [3, NAN, 2, 1, 1, 1], ".....S"),
    (SmoothedSlope(2, tol=0), "min", [3, 2, NAN, NAN, 1], "...S."),
    (SmoothedSlope(2, tol=0), "min", [3, 2, NAN, 1, NAN, 0, INF, INF], ".......S"),
    (SmoothedSlope(2, tol=0), "min", [NAN, 3, 2], "..."),
    (SmoothedSlope(2, tol=0), "min", [NAN, -INF, NAN], ".SS"),
    (SmoothedSlope(2, tol=0.25), "min", [8, 0, 4, INF, 1.75], "..SS."),
    (SmoothedSlope(2, tol=0), "min", [1, 1, NAN, 0], ".SS."),
]


@pytest.mark.parametrize(("rule", "mode", "values", "expected"), SLOPE)
def test_smoothed_slope_stops_when_the_trend_no_longer_improves(rule, mode, values, expected):
    assert verdicts(rule, values, mode) == expected


def test_smoothed_slope_is_per_observation_whatever_the_unit_of_steps():
    values = [8, 0, 4, 2, 1, 0.5, 0.25, 0.25]
    for factor in (1, 10, 1000, 0.5):
        steps = [factor * i for i in range(len(values))]
        rule = SmoothedSlope(3, tol=0.125)
        assert verdicts(rule, values, steps=steps) == verdicts(rule, values)
        assert feed(rule, values, steps=steps)[-1].evidence["trend_gain"] == pytest.approx(0.125)


def test_smoothed_slope_without_a_spread_of_steps_has_no_verdict():
    assert verdicts(SmoothedSlope(3, tol=0), [1, 1, 1, 1, 1], steps=[7, 7, 7, 7, 8]) == "....S"


def literal_slopes(values, steps, window, smoothing, every=1):
    """Slope, mean gap and range after each value, from arrays; None where the window is not full."""
    x, y, found = np.asarray(steps, float), np.asarray(values, float), []
    smoothed, above, below = np.empty_like(y), 0.0, 0.0
    for i, value in enumerate(y):
        above, below = smoothing * above + value, smoothing * below + 1
        smoothed[i] = above / below
    for end in range(1, len(y) + 1):
        if end < window:
            found.append(None)
            continue
        xs, ys = x[end - window : end], smoothed[end - window : end]
        slope = np.polyfit(xs - xs.mean(), ys - ys.mean(), 1)[0]
        found.append((slope, np.diff(xs).mean(), np.ptp(y[:end])))
    return found


@pytest.mark.parametrize("offset", [0, 1e6])
@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("window", [2, 7, 40])
def test_smoothed_slope_equals_polyfit_on_every_window(window, smoothing, offset):
    rng = np.random.default_rng(window)
    steps = np.cumsum(rng.choice([1, 1, 2, 5, 100], 200)).tolist()
    values = (offset + 20 / np.sqrt(1 + np.arange(200)) + rng.normal(0, 0.5, 200)).tolist()
    tol = 0.003
    decisions = feed(SmoothedSlope(window, tol=tol, smoothing=smoothing), values, steps=steps)
    stops = 0
    for decision, literal in zip(decisions, literal_slopes(values, steps, window, smoothing), strict=True):
        if literal is None:
            assert not decision.stop
            continue
        slope, gap, spread = literal
        assert decision.evidence["slope"] == pytest.approx(slope, rel=1e-6)
        assert decision.evidence["trend_gain"] == pytest.approx(-slope * gap, rel=1e-6)
        assert decision.stop == (-slope * gap <= tol * spread)
        stops += decision.stop
    assert 0 < stops < 200


def test_smoothed_slope_stops_a_metric_that_became_constant_once_it_fills_the_window():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        window, before = int(rng.integers(2, 20)), int(rng.integers(0, 40))
        values = [*rng.normal(1e3, 5, before), *[float(rng.normal())] * (window + 20)]
        steps = np.cumsum(rng.choice([0.1, 1, 3.3, 7], len(values))).tolist()
        found = verdicts(SmoothedSlope(window, tol=0), values, steps=steps)
        assert set(found[before + window - 1 :]) == {"S"}


def test_smoothed_slope_is_exact_after_a_million_unequal_steps():
    rng, window, count = np.random.default_rng(5), 50, 1_000_000
    steps = np.cumsum(rng.choice([1, 2, 7, 0.5], count)).tolist()
    values = (3 + 1e3 / (1 + np.arange(count) / 10) + rng.normal(0, 0.1, count)).tolist()
    stopper = Stopper(SmoothedSlope(window, tol=1e-6), monitor="m", mode="min")
    update = stopper.update
    for i in range(count - 30):
        update(values[i], step=steps[i])
    for end in range(count - 29, count + 1):
        decision = update(values[end - 1], step=steps[end - 1])
        xs, ys = np.array(steps[end - window : end]), np.array(values[end - window : end])
        slope = np.polyfit(xs - xs.mean(), ys - ys.mean(), 1)[0]
        assert decision.evidence["slope"] == pytest.approx(slope, rel=1e-6)
        assert decision.stop == (-slope * np.diff(xs).mean() <= 1e-6 * (max(values) - min(values)))


def test_smoothed_slope_in_max_mode_is_in_the_metrics_own_direction():
    rising = feed(SmoothedSlope(3, tol=0), [0.5, 0.6, 0.7], "max")[-1]
    falling = feed(SmoothedSlope(3, tol=0), [0.7, 0.6, 0.5], "max")[-1]
    assert not rising.stop
    assert falling.stop
    assert rising.evidence["slope"] == pytest.approx(0.1) == rising.evidence["trend_gain"]
    assert falling.evidence["slope"] == pytest.approx(-0.1) == falling.evidence["trend_gain"]


# Prechelt

LOSSES = [
    (GeneralizationLoss(5), "min", [2, 1, 1.04, 1.06], "...S"),
    (GeneralizationLoss(50), "min", [1, 1.5, 1.501, 1], "..S."),
    (GeneralizationLoss(0), "min", [1, 1, 1.0001, 1, 0.5], "..S.."),
    (GeneralizationLoss(5), "max", [0.8, 0.9, 0.86, 0.85, 0.95], "...S."),
    # one sign: a fraction of abs(best)
    (GeneralizationLoss(5), "min", [-1, -2, -1.95, -1.5], "...S"),
    # touching or crossing zero: a fraction of the range so far
    (GeneralizationLoss(12), "min", [3, -1, -0.5], "..S"),
    (GeneralizationLoss(13), "min", [3, -1, -0.5], "..."),
    (GeneralizationLoss(4), "min", [1, 0, 0.05], "..S"),
    (GeneralizationLoss(6), "min", [1, 0, 0.05], "..."),
    (GeneralizationLoss(4), "max", [-1, 0, -0.05], "..S"),
    (GeneralizationLoss(0), "min", [0, 0, 0], "..."),
    # NaN and infinity do not stop it and are no best
    (GeneralizationLoss(5), "min", [NAN, 1, NAN, 2, NAN, 2], "...S.S"),
    (GeneralizationLoss(5), "min", [1, INF, -INF, 1, 1.01], "....."),
    (GeneralizationLoss(5), "min", [NAN, NAN, INF], "..."),
]


@pytest.mark.parametrize(("rule", "mode", "values", "expected"), LOSSES)
def test_generalization_loss_judges_the_newest_value_against_the_best(rule, mode, values, expected):
    assert verdicts(rule, values, mode) == expected


def test_generalization_loss_is_prechelts_formula_for_positive_losses():
    rng = np.random.default_rng(3)
    for _ in range(200):
        values = np.exp(rng.normal(0, 0.3, 30)).tolist()
        alpha = float(rng.uniform(1, 60))
        for t, decision in enumerate(feed(GeneralizationLoss(alpha), values)):
            literal = 100 * (values[t] / min(values[: t + 1]) - 1)
            assert decision.evidence["generalization_loss"] == pytest.approx(literal, abs=1e-9)
            assert decision.stop == (literal > alpha)


def pq(alpha, k, updates, mode="min"):
    """Verdicts of ProgressQuotient, one letter per update."""
    stopper = Stopper(ProgressQuotient(alpha, k, train="train"), monitor="val", mode=mode)
    return "".join("S" if stopper.update(update).stop else "." for update in updates)


def together(val, train):
    return [{"val": v, "train": t} for v, t in zip(val, train, strict=True)]


TRAIN = [1.0, 0.9, 0.85, 0.84, 0.83, 0.829]
QUOTIENTS = [
    # strip 2: GL 25 %, P 1000 (0.845 / 0.84 - 1) = 5.95, quotient 4.2; its verdict stands until the next strip end
    (1, 2, "min", [1, 0.8, 0.9, 1, 1.1, 1.2], TRAIN, "...SSS"),
    (4.1, 2, "min", [1, 0.8, 0.9, 1, 0.7, 0.6], TRAIN, "...SS."),
    (4.3, 2, "min", [1, 0.8, 0.9, 1, 0.7, 0.6], TRAIN, "......"),
    # without progress any generalization loss stops and none does not
    (3, 1, "min", [1, 0.5, 0.50001, 0.5], [4, 3, 2, 1], "..S."),
    (3, 2, "min", [1, 1, 1, 1], [2, 2, 2, 2], "...."),
    # GL 16.7 %, P 1000 * 0.05 / 0.8 = 62.5, quotient 0.267
    (0.26, 2, "max", [0.5, 0.6, 0.5, 0.5], [0.5, 0.6, 0.7, 0.8], "...S"),
    (0.27, 2, "max", [0.5, 0.6, 0.5, 0.5], [0.5, 0.6, 0.7, 0.8], "...."),
    # a strip that ends in NaN, or has no finite training value, does not stop
    (1, 2, "min", [1, 0.8, 0.9, NAN, 1, 1.2], TRAIN, ".....S"),
    (1, 2, "min", [1, 0.8, 0.9, 1, 1.1, 1.2], [1, 1, NAN, INF, 0.83, 0.829], ".....S"),
    (1, 2, "min", [NAN, 0.8, NAN, 1, 1.1, NAN], [NAN, 0.9, NAN, 0.84, 0.83, 0.8], "...SS."),
]


@pytest.mark.parametrize(("alpha", "k", "mode", "val", "train", "expected"), QUOTIENTS)
def test_progress_quotient_judges_at_strip_ends(alpha, k, mode, val, train, expected):
    assert pq(alpha, k, together(val, train), mode) == expected


def literal_quotients(alpha, k, val, strips):
    """Verdicts from Prechelt's formulas; strips holds the training values of each strip."""
    stop, found = False, ""
    for t, value in enumerate(val):
        if (t + 1) % k == 0:
            strip = strips[t // k]
            loss = 100 * (value / min(val[: t + 1]) - 1)
            progress = 1000 * (sum(strip) / (len(strip) * min(strip)) - 1)
            stop = loss > alpha * progress
        found += "S" if stop else "."
    return found


def curves(seed, length=30):
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    val = 1 / (1 + t) + 0.02 * t + rng.uniform(0.1, 0.2, length)
    return val.tolist(), (1 / (1 + t) + rng.uniform(0.05, 0.1, length)).tolist()


def test_progress_quotient_is_prechelts_formula():
    stops = 0
    for seed in range(200):
        val, train = curves(seed)
        k, alpha = 2 + seed % 5, 0.3 + 0.01 * seed
        strips = [train[i : i + k] for i in range(0, len(train), k)]
        expected = literal_quotients(alpha, k, val, strips)
        assert pq(alpha, k, together(val, train)) == expected
        stops += "S" in expected
    assert 20 < stops < 200


def test_progress_quotient_takes_train_and_val_in_different_updates():
    for seed in range(50):
        val, train = curves(seed)
        k, alpha = 2 + seed % 4, 0.3 + 0.05 * seed
        separate = [update for v, t in zip(val, train, strict=True) for update in ({"train": t}, {"val": v})]
        found = pq(alpha, k, separate)
        assert found[1::2] == pq(alpha, k, together(val, train))
        # the training value alone is no news: the verdict stands
        assert found[2::2] == found[1:-1:2]


@pytest.mark.parametrize("as_mapping", [False, True])
def test_progress_quotient_of_a_metric_and_itself_works_or_is_refused(as_mapping):
    # GL 20 %, P 1000 * 0.05 / 0.7 = 71.4, quotient 0.28
    rule = ProgressQuotient(0.25, 2, train="m")
    try:
        stopper = Stopper(rule, monitor="m", mode="max")
    except ValueError:
        return
    found = [stopper.update({"m": value} if as_mapping else value).stop for value in [0.6, 0.75, 0.7, 0.6]]
    assert found == [False, False, False, True]


def test_progress_quotient_takes_several_training_values_per_observation():
    val, train = curves(1)
    val, strips = val[:10], [train[i : i + 6] for i in range(0, 30, 6)]
    updates = [u for i, v in enumerate(val) for u in (*({"train": t} for t in train[3 * i : 3 * i + 3]), {"val": v})]
    for alpha in (0.01, 0.05, 0.1, 0.3, 1):
        assert pq(alpha, 2, updates)[3::4] == literal_quotients(alpha, 2, val, strips)


RISES = [
    (SuccessiveRises(1, k=2), "min", [9, 5, 9, 6], "...S"),
    (SuccessiveRises(1, k=2), "max", [0, 5, 0, 4], "...S"),
    (SuccessiveRises(2, k=2), "min", [9, 5, 9, 6, 9, 7], ".....S"),
    # the verdict of a strip end stands until the next
    (SuccessiveRises(1, k=2), "min", [9, 5, 9, 6, 1, 5], "...SS."),
    (SuccessiveRises(1, k=3), "min", [0, 0, 1, 0, 0, 2, 0, 0, 2], ".....SSS."),
    # equal ends are no rise, and break the row
    (SuccessiveRises(2, k=1), "min", [1, 2, 2, 3, 4], "....S"),
    (SuccessiveRises(2, k=1), "min", [1, 2, 3, 2, 3, 4], "..S..S"),
    (SuccessiveRises(1), "min", [1, 1, 1, 1, 1, 1, 1, 1, 1, 2], ".........S"),
    # within a strip NaN is nothing; at its end a miss, and the comparison goes on with the last finite end
    (SuccessiveRises(1, k=2), "min", [NAN, 5, INF, 4, NAN, 5], ".....S"),
    (SuccessiveRises(1, k=1), "min", [1, NAN, 2, NAN, 0.5], ".SSS."),
    (SuccessiveRises(2, k=1), "min", [1, NAN, NAN, 0], "..S."),
    (SuccessiveRises(1, k=1), "min", [NAN, 5, 4], "..."),
    (SuccessiveRises(1, k=1), "max", [1, INF, 2], ".S."),
]


@pytest.mark.parametrize(("rule", "mode", "values", "expected"), RISES)
def test_successive_rises_compares_strip_ends(rule, mode, values, expected):
    assert verdicts(rule, values, mode) == expected


def test_successive_rises_is_prechelts_definition():
    def stopped(values, s, k, t):
        """UP_s at the end of strip t, counted from 1."""
        if s == 0:
            return True
        return t > k and values[t - 1] > values[t - k - 1] and stopped(values, s - 1, k, t - k)

    rng = np.random.default_rng(4)
    for _ in range(500):
        s, k = int(rng.integers(1, 4)), int(rng.integers(1, 5))
        values = rng.integers(0, 6, 24).astype(float).tolist()
        found = verdicts(SuccessiveRises(s, k=k), values)
        for t in range(k, len(values) + 1, k):
            assert set(found[t - 1 : t - 1 + k]) == {"S" if stopped(values, s, k, t) else "."}
        assert set(found[: k - 1]) <= {"."}


# bounds

BOUNDS = [
    (Target(1), "min", [2, 1, 0.5, 3], ".SS."),
    (Target(0.9), "max", [0.5, 0.9, 0.95, 0.8], ".SS."),
    (Target(-2), "min", [-1, -2, -3, -1.9], ".SS."),
    (Target(0), "max", [-1, 0, 1], ".SS"),
    (Target(1), "min", [NAN, -INF, INF, 1], "...S"),
    (Target(1), "max", [NAN, -INF, INF, 1], "...S"),
    (Divergence(10), "min", [2, 10, 11, 3], ".SS."),
    (Divergence(0.1), "max", [0.5, 0.1, 0.05, 0.3], ".SS."),
    (Divergence(-1), "max", [-0.5, -1, -2], ".SS"),
    (Divergence(10), "min", [NAN, INF, -INF, 10], "...S"),
    (Divergence(-10), "max", [NAN, INF, -INF, -10], "...S"),
    (NonFinite(), "min", [1, NAN, 1, INF, -INF, 1], ".S.SS."),
    (NonFinite(), "max", [NAN, 1, INF], "S.S"),
    (Budget(steps=3), "min", [1, 1, 1, 1], "..SS"),
    (Budget(steps=1), "min", [1, 1], "SS"),
    (Budget(steps=2), "max", [NAN, NAN], ".S"),
]


@pytest.mark.parametrize(("rule", "mode", "values", "expected"), BOUNDS)
def test_bounds_judge_the_newest_value(rule, mode, values, expected):
    assert verdicts(rule, values, mode) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Budget(steps=11), ".SSS"),  # 20 - 10 + 1 = 11
        (Budget(steps=12), "..SS"),
        (Budget(seconds=2.5), ".SSS"),
        (Budget(seconds=2.6), "..SS"),
        (Budget(seconds=0), "SSSS"),
        (Budget(steps=100, seconds=7), "...S"),
        (Budget(steps=21, seconds=100), "..SS"),
    ],
)
def test_budget_counts_steps_from_the_first_and_seconds(rule, expected):
    assert verdicts(rule, [1, 1, 1, 1], steps=[10, 20, 30, 40], elapsed=[1, 2.5, 6, 7]) == expected


# what every stop says

STOPS = [
    (Patience(2), [0.6, 0.75, 0.7, 0.65], Reason.PLATEAUED, ["0.75", "0.65"]),
    (Lookahead(2), [0.6, 0.75, 0.7, 0.65], Reason.PLATEAUED, ["0.75", "0.7", "n=1", "k=2"]),
    (SmoothedSlope(3, tol=0.01), [0.25, 0.75, 0.75, 0.75], Reason.PLATEAUED, ["0.01", "0.5"]),
    (GeneralizationLoss(10), [0.6, 0.75, 0.7, 0.6], Reason.OVERFITTING, ["0.75", "0.6", "20 %", "10 %"]),
    (ProgressQuotient(0.25, 2, train="t"), [0.6, 0.75, 0.7, 0.6], Reason.OVERFITTING, ["20 %", "62.5", "0.32", "0.25"]),
    (SuccessiveRises(2, k=1), [0.6, 0.75, 0.7, 0.65], Reason.OVERFITTING, ["2", "0.65"]),
    (Target(0.75), [0.6, 0.7, 0.8], Reason.TARGET_REACHED, ["0.75", "0.8"]),
    (Divergence(0.25), [0.6, 0.7, 0.125], Reason.DIVERGED, ["0.25", "0.125"]),
    (NonFinite(), [0.6, INF], Reason.NON_FINITE, ["inf"]),
    (Budget(steps=3), [0.6, 0.7, 0.8], Reason.BUDGET_EXHAUSTED, ["3"]),
]


@pytest.mark.parametrize(("rule", "values", "reason", "numbers"), STOPS, ids=[repr(row[0]) for row in STOPS])
def test_a_stop_says_why_in_the_metrics_own_unit(rule, values, reason, numbers):
    stopper = Stopper(rule, monitor="m", mode="max")
    train = [0.5, 0.6, 0.7, 0.8]
    decision = [stopper.update({"m": value, "t": t}) for value, t in zip(values, train, strict=False)][-1]
    assert decision.stop
    assert decision.reason is reason
    assert "-0." not in decision.message
    assert "-inf" not in decision.message
    assert all(number in decision.message for number in numbers), decision.message
    assert "m" in decision.message.split() or reason is Reason.BUDGET_EXHAUSTED
    if "value" in decision.evidence:
        assert decision.evidence["value"] == values[-1]
    for bound in ("best", "target", "bound"):
        assert decision.evidence.get(bound, 1) > 0


@pytest.mark.parametrize(
    "rule", [Patience(2), Lookahead(2), SuccessiveRises(2, k=1), SmoothedSlope(2, tol=0)], ids=repr
)
def test_a_stop_on_a_value_that_is_not_finite_says_so(rule):
    decisions = feed(rule, [5, 4, NAN, INF])
    assert [d.stop for d in decisions] == [False, False, False, True]
    assert decisions[-1].reason is Reason.NON_FINITE
    assert feed(rule, [5, 4, NAN, 9, 10])[-1].reason is not Reason.NON_FINITE


@pytest.mark.parametrize("rule", [Patience(3), Lookahead(3), SmoothedSlope(3, tol=0), GeneralizationLoss(5)], ids=repr)
def test_going_on_has_a_reason_of_going_on(rule):
    for decision in feed(rule, [5, 4, 3, 2.9]):
        assert decision.reason in (Reason.IMPROVING, Reason.WARMING_UP, Reason.WAITING)
        assert decision.message


@pytest.mark.parametrize("mode", ["min", "max"])
def test_gains_are_positive_when_better(mode):
    seen = deque()
    sign = 1 if mode == "min" else -1
    for rule in (SmoothedSlope(3, tol=0), Patience(2), Lookahead(2), GeneralizationLoss(5), SuccessiveRises(1, k=1)):
        for values, better in (([4, 3, 2, 1], True), ([1, 2, 3, 4], False)):
            evidence = feed(rule, [sign * v for v in values], mode)[-1].evidence
            gains = [number for name, number in evidence.items() if name.endswith("_gain")]
            assert all((gain > 0) is better for gain in gains)
            seen.extend(gains)
    assert seen


# constructors

COUNTS = [
    ("patience", lambda v: Patience(v), 1),
    ("k", lambda v: Lookahead(v), 1),
    ("window", lambda v: SmoothedSlope(v, tol=0), 2),
    ("k", lambda v: ProgressQuotient(1, v, train="t"), 1),
    ("s", lambda v: SuccessiveRises(v), 1),
    ("k", lambda v: SuccessiveRises(1, k=v), 1),
    ("steps", lambda v: Budget(steps=v), 1),
    ("observations", lambda v: WarmUp(Patience(1), v), 0),
]
AMOUNTS = [
    ("min_delta", lambda v: Patience(1, min_delta=v), 0),
    ("tol", lambda v: SmoothedSlope(2, tol=v), 0),
    ("smoothing", lambda v: SmoothedSlope(2, tol=0, smoothing=v), 0),
    ("alpha", lambda v: GeneralizationLoss(v), 0),
    ("alpha", lambda v: ProgressQuotient(v, train="t"), 0),
    ("seconds", lambda v: Budget(seconds=v), 0),
    ("value", lambda v: Target(v), None),
    ("value", lambda v: Divergence(v), None),
    ("drop", lambda v: Rearm(Patience(1), v), 0),
]


@pytest.mark.parametrize(("name", "make", "least"), COUNTS)
def test_a_count_below_its_least_is_refused_with_name_law_and_value(name, make, least):
    for value in (least - 1, -5):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {value}"):
            make(value)
    make(least)
    make(np.int64(least + 3))


@pytest.mark.parametrize(("name", "make", "least"), COUNTS)
@pytest.mark.parametrize("value", ["3", True, False, 3.0, NAN, [3], 1j], ids=repr)
def test_a_count_that_is_no_whole_number_is_refused(name, make, least, value):
    with pytest.raises(TypeError, match=f"{name} must be a whole number, got "):
        make(value)


@pytest.mark.parametrize(("name", "make", "least"), COUNTS)
def test_a_fraction_of_an_observation_is_refused_whatever_holds_it(name, make, least):
    torch = pytest.importorskip("torch")
    for value in (np.float64(3.7), np.array(3.7), torch.tensor(3.7)):
        with pytest.raises((TypeError, ValueError), match=name):
            make(value)


@pytest.mark.parametrize(("name", "make", "least"), AMOUNTS)
def test_an_amount_that_is_negative_or_not_finite_is_refused_with_name_law_and_value(name, make, least):
    for value in (NAN, INF, -INF):
        with pytest.raises(ValueError, match=f"{name} must be finite, got {value}"):
            make(value)
    if least is not None:
        with pytest.raises(ValueError, match=f"{name} must be at least {least}, got -0.5"):
            make(-0.5)


@pytest.mark.parametrize(("name", "make", "least"), AMOUNTS)
@pytest.mark.parametrize("value", ["0.5", True, False, [0.5], 1j], ids=repr)
def test_an_amount_that_is_no_number_is_refused(name, make, least, value):
    with pytest.raises(TypeError, match=f"{name} must be a number, got "):
        make(value)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_an_amount_of_numpy_judges_as_a_float_does(kind):
    assert verdicts(Patience(2, min_delta=kind(0)), [0.1, 0.1, 0.1]) == "..S"
    assert verdicts(Target(kind(0.5)), [0.500001, 0.5]) == ".S"
    values = (1e6 + np.random.default_rng(0).normal(size=40)).tolist()
    plain, own = (SmoothedSlope(5, tol=make(0.0625), smoothing=make(0.5)) for make in (float, kind))
    for a, b in zip(feed(plain, values), feed(own, values), strict=True):
        assert dict(a.evidence) == pytest.approx(dict(b.evidence), nan_ok=True, rel=1e-12)


@pytest.mark.parametrize(("name", "make", "least"), AMOUNTS)
def test_an_amount_in_an_array_or_tensor_is_kept_or_refused_but_not_cut_off(name, make, least):
    torch = pytest.importorskip("torch")
    for value in (np.float32(0.25), np.array(0.25), torch.tensor(0.25)):
        try:
            rule = make(value)
        except TypeError:
            continue
        assert getattr(rule, name) == 0.25
        assert repr(rule) == repr(make(0.25))


def test_patience_0_says_what_to_use_instead():
    with pytest.raises(ValueError, match=r"patience must be at least 1, got 0\b.*Patience\(1\)"):
        Patience(0)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Patience(1, relative=1), TypeError, "relative.*1"),
        (lambda: Patience(1, relative="yes"), TypeError, "relative.*'yes'"),
        (lambda: Patience(1, ties="hit"), ValueError, "ties must be 'miss' or 'improve', got 'hit'"),
        (lambda: SmoothedSlope(2, tol=0, smoothing=1), ValueError, "smoothing must be below 1, got 1"),
        (lambda: Rearm(Patience(1), 0), ValueError, "drop must be above 0, got 0"),
        (lambda: Rearm(Patience(1), 1), ValueError, "drop must be below 1, got 1"),
        (lambda: Rearm("Patience(1)"), TypeError, "rule"),
        (lambda: WarmUp(5, 5), TypeError, "rule"),
        (lambda: ProgressQuotient(1, train=""), ValueError, "train"),
        (lambda: ProgressQuotient(1, train=3), TypeError, "train must be a string, got 3"),
        (lambda: Budget(), ValueError, "steps or seconds"),
        (lambda: Patience(1).on("m", mode="lower"), ValueError, "mode must be 'min' or 'max', got 'lower'"),
        (lambda: Patience(1).on(3), TypeError, "metric must be a string, got 3"),
        (lambda: Patience(1, 0.5), TypeError, "positional"),
        (lambda: SmoothedSlope(5), TypeError, "tol"),
    ],
)
def test_other_parameters_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_lookahead_speaks_only_of_what_came_after_its_newest_n():
    decisions = feed(Lookahead(2), [5.0, 5.5, 4.0, 6.0, 7.0])
    assert decisions[-1].stop
    assert (decisions[-1].evidence["n"], decisions[-1].evidence["best_after_n"]) == (2, 6.0)


def test_a_combination_that_goes_on_says_the_most_hopeful_reason():
    decisions = feed(WarmUp(Patience(3), 5) | Target(0.1) | Patience(3), [3.0, 2.0])
    assert decisions[-1].reason == "improving"
    assert feed(Target(0.1) | WarmUp(Patience(3), 5), [3.0, 3.0])[-1].reason == "warming_up"
