"""Auto: what it looks at, when it stops, what it says, and that nothing about unit, length or path changes that."""

import hashlib
import json
import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convergence import Auto, Patience, Reason, Stopper, replay, replay_many
from convergence.rules.auto import FEWEST, LEAST_WAKE, MISSES
from convergence.stats.course import (
    FEATURES,
    ROWS,
    Course,
    begin_many,
    features,
    features_many,
    take,
    take_many,
    width_of,
)
from convergence.stats.remaining import COEFFICIENTS, PLAN_FEATURES, Network, shipped, with_plan

RNG = np.random.default_rng(0)
T = np.arange(300)
FALL = 3 * np.exp(-T / 12) + 0.5
NOISY = FALL + 0.01 * RNG.standard_normal(300)
DYADIC = st.integers(-(2**12), 2**12).map(lambda n: n / 2**6)
VALUES = DYADIC | st.sampled_from([math.nan, math.inf, -math.inf])


def course_of(losses):
    course = Course()
    for loss in losses:
        take(course, float(loss))
    return course


def seen(losses):
    return dict(zip(FEATURES, features(course_of(losses)).tolist(), strict=True))


# What it looks at


@given(batch=st.lists(st.lists(VALUES, min_size=150, max_size=150), min_size=1, max_size=4))
@settings(max_examples=25)
def test_many_courses_look_as_each_one_does(batch):
    lanes, single = begin_many(len(batch)), [Course() for _ in batch]
    for t, row in enumerate(np.array(batch).T):
        take_many(lanes, np.where(np.isfinite(row), row, np.nan))
        for course, value in zip(single, row.tolist(), strict=True):
            take(course, value)
        if t % 7 == 0 or 60 < t < 70:
            np.testing.assert_array_equal(features_many(lanes).T, [features(course) for course in single])


@given(losses=st.lists(DYADIC, min_size=1, max_size=200))
def test_scale_and_offset_change_no_feature(losses):
    np.testing.assert_array_equal(
        features(course_of(losses)), features(course_of([1024 * loss + 7 for loss in losses]))
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 31, 32, 33, 63, 64, 65, 127, 128, 300, 1000, 5000])
def test_rows_hold_the_run(count):
    losses = np.round(RNG.standard_normal(count), 3)
    course, width = course_of(losses), width_of(count)
    differences = losses - losses[0]
    blocks = [differences[start : start + width] for start in range(0, count, width)]
    assert len(course.sums) == len(blocks) <= ROWS
    assert count < ROWS or len(blocks) >= ROWS // 2
    np.testing.assert_allclose(course.sums, [block.sum() for block in blocks], atol=1e-9)
    np.testing.assert_array_equal(course.lows, [block.min() for block in blocks])
    best = np.minimum.accumulate(differences)
    np.testing.assert_array_equal(
        course.bests, best[np.minimum(np.arange(width - 1, width * len(blocks), width), count - 1)]
    )
    changes = np.abs(np.diff(differences, prepend=0.0))
    np.testing.assert_allclose(
        course.changes, [changes[s : s + width].sum() for s in range(0, count, width)], atol=1e-9
    )
    records = np.concatenate(([False], best[1:] < best[:-1]))
    np.testing.assert_array_equal(course.records, [records[s : s + width].sum() for s in range(0, count, width)])


def test_features_are_what_they_are_called():
    losses = np.concatenate((np.linspace(8, 4, 16), 4 + 0.1 * RNG.standard_normal(16)))
    found, gain, best = seen(losses), losses[0] - losses.min(), losses.min()
    for share in (1, 0.5, 0.25, 0.125):
        tail = losses[round(32 * (1 - share)) :]
        assert found[f"level {share:g}"] == pytest.approx(np.arcsinh((tail.mean() - best) / gain / 0.01))
        slope, error = slope_and_error(tail)
        assert found[f"slope {share:g}"] == pytest.approx(np.arcsinh(slope * (len(tail) - 1) / gain / 0.01))
        t = slope * (len(tail) - 1) / gain / (error * (len(tail) - 1) / gain + 1e-6)
        assert found[f"trend {share:g}"] == pytest.approx(np.arcsinh(np.clip(t, -100, 100)), rel=1e-6)
        before = losses[: round(32 * (1 - share))]
        if share < 1:
            assert found[f"low {share:g}"] == pytest.approx(np.arcsinh((tail.min() - best) / gain / 0.01))
            lost = max((before.min() - best) / gain, 1e-5)
            assert found[f"gain {share:g}"] == pytest.approx(np.log10(lost))
            earlier = losses[round(32 * (1 - 2 * share)) : round(32 * (1 - share))]
            assert found[f"drift {share:g}"] == pytest.approx(np.arcsinh((earlier.mean() - tail.mean()) / gain / 0.01))
    assert found["last"] == pytest.approx(np.arcsinh((losses[-1] - best) / gain / 0.01))
    assert found["since best"] == (31 - losses.argmin()) / 32
    assert found["log count"] == 5
    assert found["change 1"] == pytest.approx(np.log10(np.abs(np.diff(losses)).sum() / 32 / gain))
    assert found["early 0.1"] == pytest.approx((losses[0] - losses[:3].min()) / gain)


def slope_and_error(tail):
    from scipy.stats import linregress

    fit = linregress(np.arange(len(tail)), tail)
    return fit.slope, fit.stderr


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [math.nan] * 5,
        [math.nan, 1.0],
        [1.0],
        [1.0] * 100,
        [1e308, -1e308] * 50,
        [5e-324] * 10 + [0.0],
        [math.inf, 2.0, 1.0],
    ],
)
def test_every_course_has_finite_features(losses):
    if losses:
        assert np.isfinite(features(course_of(losses))).all()


# When it stops


@settings(max_examples=60)
@given(
    losses=st.lists(DYADIC, min_size=4, max_size=120),
    planned=st.booleans(),
    tolerance=st.sampled_from([0.01, 0.1, 0.3]),
)
def test_scale_and_offset_change_no_decision(losses, planned, tolerance):
    stoppers = [Stopper(Auto(tolerance), monitor="m", mode=mode) for mode in ("min", "min", "max")]
    for i, loss in enumerate(losses):
        progress = (i + 1) / len(losses) if planned else None
        values = (loss, 1024 * loss + 7, 7 - loss)
        plain, moved, flipped = (s.update(v, progress=progress) for s, v in zip(stoppers, values, strict=True))
        for other in (moved, flipped):
            assert (plain.stop, plain.reason) == (other.stop, other.reason)
            assert plain.evidence["expected_gain"] == other.evidence["expected_gain"]


@given(batch=st.lists(st.lists(VALUES, min_size=30, max_size=30), min_size=8, max_size=12), data=st.data())
@settings(max_examples=25)
def test_many_with_a_plan_equal_one_by_one(batch, data):
    progress = np.linspace(1 / 30, 1, 30) * np.ones((len(batch), 1))
    progress[: data.draw(st.integers(0, 3)), ::3] = np.nan
    table = replay_many([Auto(0.3), Auto(0.05)], np.array(batch), mode="min", progress=progress)
    for row, rule in enumerate(table.rules):
        for i, losses in enumerate(batch):
            known = [None if math.isnan(p) else p for p in progress[i]]
            single = replay(rule, losses, mode="min", progress=known).stop_index
            assert table.stop_index[row, i] == (-1 if single is None else single)


@pytest.mark.parametrize("progress", [None, True])
def test_a_larger_tolerance_never_stops_later(progress):
    curves = [NOISY, FALL, NOISY[::-1].copy(), np.full(300, 2.0), RNG.standard_normal(300)]
    rules = [Auto(tolerance) for tolerance in (0.0, 0.001, 0.01, 0.05, 0.1, 0.3)]
    stops = replay_many(rules, curves, mode="min", progress=progress).stop_index
    assert (np.diff(np.where(stops < 0, 300, stops), axis=0) <= 0).all()
    assert (stops[0] == -1).all()


def test_it_stops_a_converged_run_and_keeps_nearly_all_of_its_gain():
    for curve in (FALL, NOISY):
        found = replay(Auto(), curve, mode="min")
        assert 30 < found.stop_index < 200
        assert found.regret < 0.02
        assert found.decision.reason == Reason.CONVERGED


def test_a_falling_run_goes_on():
    assert replay(Auto(), 5 - 0.01 * T, mode="min").stop_index is None


@pytest.mark.parametrize("count", [10, 100, 1000, 100_000])
def test_runs_of_any_length(count):
    t = np.arange(count) / count
    curve = 3 * np.exp(-12 * t) + 0.001 * np.random.default_rng(1).standard_normal(count)
    if count <= 1000:
        found = replay(Auto(), curve, mode="min", progress=True)
        assert found.regret < 0.05
    course = course_of(curve)
    numbers = [getattr(course, field.name) for field in fields(course)]
    assert sum(len(n) if isinstance(n, list) else 1 for n in numbers) < 350


def test_values_that_are_not_finite():
    assert replay(Auto(), [*NOISY[:20], *[math.nan] * MISSES], mode="min").decision.reason == Reason.NON_FINITE
    assert replay(Auto(), [*NOISY[:8], math.nan, math.nan, *NOISY[8:12]], mode="min").stop_index is None
    assert replay(Auto(), [math.inf] * MISSES, mode="min").stop_index == MISSES - 1
    stopper = Stopper(Auto(), monitor="m", mode="min")
    assert stopper.update(math.nan).reason == Reason.WAITING
    assert stopper.update(1.0).evidence["best"] == 1.0


@pytest.mark.parametrize("tolerance", [0.01, 0.1])
def test_without_a_plan_the_wait_is_bounded(tolerance):
    """Whatever the networks think: a constant, noise around it, and what never came back stop in the time it said."""
    for curve in (np.full(1200, 2.0), np.r_[FALL[:40], 9 + RNG.standard_normal(1200)]):
        stopper, bound = Stopper(Auto(tolerance), monitor="m", mode="min"), math.inf
        for i, value in enumerate(curve.tolist()):
            decision = stopper.update(value)
            if decision.stop:
                break
            if decision.evidence["wait"] == 0:
                bound = i + decision.evidence["longest_wait"]
        assert i <= math.ceil(bound)
        assert decision.stop


def test_no_verdict_before_a_planned_drop_nor_in_its_wake():
    flat = np.r_[FALL[:100], np.full(100, FALL[99])]
    assert replay(Auto(0.3), flat, mode="min").stop_index < 90
    rates = np.where(np.arange(200) < 120, 0.1, 0.01)
    ahead = np.full(200, 0.01)
    found = replay(Auto(0.3), flat, mode="min", lr=rates, lr_ahead=ahead)
    assert 120 + LEAST_WAKE <= found.stop_index <= 120 + 40
    early = replay(Auto(0.3), flat, mode="min", lr=np.where(np.arange(200) < 8, 0.1, 0.01))
    assert early.stop_index == 8 + LEAST_WAKE
    rising = replay(Auto(0.3), flat, mode="min", lr=np.linspace(0.1, 0.2, 200))
    assert rising.stop_index is None
    stopper = Stopper(Auto(0.3), monitor="m", mode="min")
    for value in flat[:110].tolist():
        decision = stopper.update(value, lr=0.1, lr_ahead=0.01)
    assert decision.reason == Reason.WAITING
    assert "the learning rate will still fall from 0.1 to 0.01" in decision.message


def test_rates_do_not_hold_up_values_that_are_not_finite():
    rates, ahead = np.full(23, 0.1), np.full(23, 0.01)
    assert replay(Auto(), [*NOISY[:20], *[math.nan] * 3], mode="min", lr=rates, lr_ahead=ahead).stop_index == 22


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        (NOISY, Reason.CONVERGED),
        (np.full(300, 2.3), Reason.NOT_LEARNING),
        (NOISY + 0.03 * np.maximum(T - 40, 0), Reason.OVERFITTING),
        (FALL + np.where(T > 30, np.expm1(np.minimum((T - 30) / 5, 20)), 0), Reason.DIVERGED),
        (2 + 0.05 * T, Reason.DIVERGED),
        (np.where(T > 40, 0.5 + T % 2, FALL), Reason.PLATEAUED),
    ],
    ids=["converged", "constant", "overfitting", "diverged", "worse from the start", "unstable"],
)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_reasons(curve, reason, mode):
    found = replay(Auto(0.02), curve if mode == "min" else -curve, mode=mode)
    assert found.stop_index is not None
    assert found.decision.reason == reason, found.decision.message


def test_noise_is_never_called_converged():
    curves = [2.3 + 0.01 * np.random.default_rng(seed).standard_normal(300) for seed in range(20)]
    reasons = [replay(Auto(0.02), curve, mode="min").decision.reason for curve in curves]
    assert Reason.CONVERGED not in reasons
    assert reasons.count(Reason.NOT_LEARNING) >= 5


def test_spikes_and_plateaus():
    spiked = NOISY.copy()
    spiked[[25, 60]] = 50
    assert replay(Auto(), spiked, mode="min").regret < 0.02
    late = np.r_[2.3 + 0.001 * RNG.standard_normal(15), 2.3 - 1.8 * (1 - np.exp(-T[:85] / 20))]
    assert replay(Auto(), late, mode="min", progress=True).regret < 0.05


# What it says


def test_message_and_evidence_say_the_same():
    found = replay(Auto(), NOISY, mode="min")
    evidence, message = found.decision.evidence, found.decision.message
    assert evidence["mean_regret"] < evidence["tolerance"] == 0.01
    assert 0 <= evidence["low_gain"] <= evidence["high_gain"] <= 1
    assert evidence["observations"] == found.stop_index + 1
    assert evidence["best"] == NOISY[: found.stop_index + 1].min() == found.best_value
    assert evidence["best_step"] == found.best_index
    assert evidence["wait"] == found.stop_index - found.best_index
    for part in ("has converged", f"{100 * evidence['expected_gain']:.2g} %", "(tolerance 1 %)", "by an unknown end"):
        assert part in message
    going = Stopper(Auto(), monitor="acc", mode="max").update(0.5)
    assert going.reason == Reason.WARMING_UP
    assert f"1 of {FEWEST}" in going.message
    assert "by the planned end" in replay(Auto(), NOISY, mode="min", progress=True).decision.message


def test_a_plan_is_remembered_and_ends():
    known = Stopper(Auto(0.05), monitor="m", mode="min")
    seldom = Stopper(Auto(0.05), monitor="m", mode="min")
    for i, value in enumerate(NOISY[:60].tolist()):
        a = known.update(value, progress=(i + 1) / 300)
        b = seldom.update(value, progress=(i + 1) / 300 if i % 7 == 0 else None)
        assert b.evidence["mean_regret"] == pytest.approx(a.evidence["mean_regret"], rel=1e-6)
        assert b.evidence["longest_wait"] == 299 - i
    over = known.update(0.1, progress=1.0)
    assert over.evidence["mean_regret"] == over.evidence["longest_wait"] == 0


def test_a_run_that_its_plan_ends_is_not_called_converged():
    slow = 2 / np.sqrt(1 + np.arange(50))
    found = replay(Auto(0.01), slow, mode="min", progress=True)
    assert found.stop_index < 49
    assert found.decision.reason == Reason.BUDGET_EXHAUSTED
    assert "too little of its plan is left" in found.decision.message
    assert replay(Auto(0.5), FALL, mode="min").decision.reason == Reason.CONVERGED


def test_parameters():
    assert Auto() == Auto(0.01)
    assert repr(Auto(0.1)) == "Auto(0.1)"
    for bad in (-0.1, 1, 1.5, math.nan):
        with pytest.raises(ValueError, match="tolerance must be"):
            Auto(bad)
    with pytest.raises(TypeError, match="tolerance must be a number, got '1 %'"):
        Auto("1 %")


def test_a_state_whose_rows_do_not_fit_is_refused():
    stopper = Stopper(Auto(), monitor="m", mode="min")
    for value in NOISY[:70].tolist():
        stopper.update(value)
    damages = [("sums", [1.0]), ("best_at", 70), ("count", 71), ("score", None), ("score", -1e308), ("wake", 2**60),
               ("since_drop", 99), ("progress", 1.5), ("best", 1.0), ("ties", 80), ("step", None)]  # fmt: skip
    rows = stopper.state_dict()["rule"]["memory"]["bests"]
    for name, damage in [*damages, ("bests", [1e308] * len(rows))]:
        state = json.loads(json.dumps(stopper.state_dict()))
        state["rule"]["memory"][name] = damage
        with pytest.raises(ValueError, match="damaged"):
            Stopper(Auto(), monitor="m", mode="min").load_state_dict(state)
    with pytest.warns(UserWarning, match=r"Auto.tolerance on 'm' was 0.01, is now 0.1"):
        Stopper(Auto(0.1), monitor="m", mode="min").load_state_dict(stopper.state_dict())


# The networks


def test_networks_are_what_they_say():
    model = shipped()
    wide = len(FEATURES)
    assert model.unplanned.mean.shape == (wide,)
    assert model.planned.mean.shape == (wide + len(PLAN_FEATURES),)
    for network in (model.planned, model.unplanned):
        for xs, ys in ((network.scores, network.log_gains), (network.odds, network.gains)):
            assert (np.diff(xs) > 0).all()
            assert (np.diff(ys) >= 0).all()
        for gain in (0.001, 0.01, 0.1, 0.5):
            assert network.gain(network.score_at(gain)) == pytest.approx(gain)
        assert network.score_at(0.0) == -math.inf
        assert network.gain(network.scores[-1] + 100) == 1.0
        for score in np.linspace(network.scores[0], network.scores[-1], 9):
            mean, low, high = network.still_to_come(score)
            assert 0 <= low <= high <= 1
            assert network.gain(score) <= mean + 1e-6
            assert 0 <= mean <= 1


def test_a_network_in_numpy_is_the_one_that_was_fitted():
    torch = pytest.importorskip("torch")
    network = shipped().planned
    x = RNG.standard_normal((len(network.mean), 5))
    inputs = torch.tensor(np.clip((x.T - network.mean) / network.deviation, -6, 6))
    outputs, hidden = [], network.w2.shape[2]
    for e in range(len(network.w2)):
        first = torch.nn.functional.silu(
            inputs @ torch.tensor(network.w1[e * hidden : (e + 1) * hidden]).T
            + torch.tensor(network.b1[e * hidden : (e + 1) * hidden])
        )
        second = torch.nn.functional.silu(first @ torch.tensor(network.w2[e]).T + torch.tensor(network.b2[e]))
        outputs.append(second @ torch.tensor(network.w3[e]).T + torch.tensor(network.b3[e]))
    np.testing.assert_allclose(network.outputs(x), torch.stack(outputs).mean(dim=0).numpy().T, atol=1e-10)


def test_features_of_the_plan():
    made = with_plan(np.zeros((2, 3)), 10, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(made[2], [1e-4, 0.5, 1.0])
    np.testing.assert_allclose(made[3], np.log([9999, 1, 1e-3]))
    np.testing.assert_allclose(made[4], np.log2([1 + 10 * 9999, 11, 1]))


def test_the_shipped_coefficients_are_those_of_the_record():
    pytest.importorskip("torch")
    from benchmarks.auto_folds import HELD_OUT, held_out
    from benchmarks.fit_auto import RECORD

    record = json.loads(RECORD.read_text())
    assert record["coefficients"] == hashlib.sha256(COEFFICIENTS.read_bytes()).hexdigest()
    assert record["held_out"] == hashlib.sha256(HELD_OUT.read_bytes()).hexdigest()
    assert set(record["sources"]) == set(held_out())
    assert len(record["sources"]) > 10
    assert {"date", "seed", "options", "versions"} <= set(record)
    assert isinstance(shipped().planned, Network)


def test_it_is_cheaper_to_wait_than_to_guess():
    """Against the usual patience on slow starts, of which it must not call one converged."""
    for seed in range(10):
        noise = np.random.default_rng(seed).standard_normal(120)
        slow = 2.3 - 1.5 / (1 + np.exp(-(np.arange(120) - 60) / 6)) + 0.002 * noise
        auto, usual = (replay(rule, slow, mode="min", progress=True) for rule in (Auto(), Patience(5)))
        assert auto.regret <= max(usual.regret, 0.01)
        assert auto.decision.reason != Reason.CONVERGED or auto.stop_index > 60
