"""Whole histories: each state on runs made to show it, and what may not change it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import VALUES

from convergence import judge
from convergence.judge import FEWEST

RNG = np.random.default_rng(0)
T = np.arange(100)
FALL = 3 * np.exp(-T / 8) + 0.5
NOISE = RNG.standard_normal(100)

CASES = {
    "converged": FALL + 0.002 * NOISE,
    "converged without noise": FALL,
    "converged with one spike": np.where(T == 80, 9.0, FALL + 0.002 * NOISE),
    "improving": 3 - 0.02 * T + 0.01 * NOISE,
    "improving as a power law": (T + 1.0) ** -0.3 + 0.001 * NOISE,
    "overfitting": FALL + 0.02 * np.maximum(T - 30, 0) + 0.01 * NOISE,
    "diverged to nan": np.where(T > 60, np.nan, FALL),
    "diverged to inf": np.where(T > 60, np.inf, FALL),
    "diverged far above its start": FALL + np.where(T > 50, np.exp((T - 50) / 5), 0),
    "diverged after three values": np.where(T > 2, np.nan, FALL),
    "not_learning": 2.3 + 0.01 * NOISE,
    "not_learning, constant": np.full(100, 2.3),
    "unstable": 1 + 0.5 * NOISE - 0.01 * T,
    "too_short": FALL[: FEWEST - 1],
}


@pytest.mark.parametrize(("name", "curve"), CASES.items())
@pytest.mark.parametrize("mode", ["min", "max"])
def test_states(name, curve, mode):
    verdict = judge(curve if mode == "min" else -curve, mode=mode)
    assert verdict.state == name.split(",")[0].split(" ")[0], verdict.message
    assert verdict.state.replace("_", " ").split()[0] in verdict.message
    assert verdict.points == len(curve)
    assert (verdict.converged_at is not None) == (verdict.state == "converged")
    finite = np.where(np.isfinite(curve), curve, np.inf)
    assert verdict.best_index == int(np.argmin(finite))
    assert verdict.best_value == (curve if mode == "min" else -curve)[verdict.best_index]


@pytest.mark.parametrize(("name", "curve"), CASES.items())
def test_scale_and_offset_do_not_matter(name, curve):
    a, b = judge(curve, mode="min"), judge(curve * 1024 - 7, mode="min")
    assert (a.state, a.converged_at, a.best_index) == (b.state, b.converged_at, b.best_index)


def test_remaining_gain_shrinks_as_the_run_goes_on():
    shares = [judge(FALL[:n], mode="min").remaining_gain for n in (10, 20, 40, 80)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.05
    assert shares[-1] < 0.03
    assert judge(FALL[:80], mode="min", progress=np.arange(1, 81) / 80).remaining_gain < 0.005


def test_a_schedule_still_ahead_is_not_converged():
    flat, lr = np.r_[FALL, np.full(20, FALL[-1])], np.full(120, 0.1)
    assert judge(flat, mode="min").state == "converged"
    assert judge(flat, mode="min", lr=lr, progress=np.linspace(0, 0.5, 120)).state == "improving"
    assert judge(flat, mode="min", lr=lr, progress=np.linspace(0, 1, 120)).state == "converged"
    lr[60:] = 0.01
    assert judge(flat, mode="min", lr=lr, progress=np.linspace(0, 0.5, 120)).state == "converged"


def test_training_that_gets_worse_too_is_not_overfitting():
    rise = CASES["overfitting"]
    assert judge(rise, mode="min", train=FALL).state == "overfitting"
    assert judge({"val": rise, "train": rise + 0.1}, monitor="val", train="train", mode="min").state == "unstable"


def test_gaps_are_no_observations():
    gappy = [x for value in FALL for x in (value, None)]
    assert judge(gappy, mode="min").converged_at == judge(FALL, mode="min").converged_at


def test_bad_input():
    with pytest.raises(ValueError, match="mode must be 'min' or 'max', got 'down'"):
        judge(FALL, mode="down")
    with pytest.raises(ValueError, match="monitor must name one of the series"):
        judge({"a": FALL}, mode="min")
    with pytest.raises(TypeError, match="must be a number, got 'x'"):
        judge(["x"] * 20, mode="min")


@given(values=st.lists(VALUES | st.sampled_from([1e308, -1e308, 5e-324, None]), max_size=60))
def test_any_history_gets_a_verdict(values):
    verdict = judge(values, mode="min")
    assert verdict.message
    assert math.isnan(verdict.remaining_gain) or 0 <= verdict.remaining_gain <= 1


def test_a_metric_called_train_is_not_mixed_up():
    rise = CASES["overfitting"]
    assert judge({"train": rise, "x": FALL}, monitor="train", train="x", mode="min").state == "overfitting"
    with pytest.raises(ValueError, match="train must name one of the series"):
        judge({"a": rise}, monitor="a", train="zz", mode="min")
