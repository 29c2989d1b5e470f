"""Estimators against numpy and scipy on the whole array."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from convergence.stats.excess import excess
from convergence.stats.slope import EMPTY, add, merged, tails
from convergence.stats.trend import block_medians, falling_p, mann_kendall, noise

NUMBERS = st.lists(st.integers(-40, 40).map(lambda i: i / 4), min_size=3, max_size=60)


@given(values=NUMBERS)
def test_mann_kendall_agrees_with_kendalls_tau(values):
    """Kendall's tau-b against time is S scaled, so sign and zero must agree; the p-value is that of scipy."""
    y = np.array(values)
    z = mann_kendall(y)
    s = sum(np.sign(y[j] - y[i]) for i in range(len(y)) for j in range(i + 1, len(y)))
    if np.ptp(y) == 0:
        assert z == 0
        return
    assert np.sign(z) == (0 if abs(s) <= 1 else np.sign(s))
    n, (_, ties) = len(y), np.unique(y, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - np.sum(ties * (ties - 1) * (2 * ties + 5))) / 18
    assert z == pytest.approx((s - np.sign(s)) / math.sqrt(variance))
    assert falling_p(y) == pytest.approx(stats.norm.cdf(z))
    tau = stats.kendalltau(np.arange(n), y, method="asymptotic")
    # scipy does not correct for continuity: its |z| is larger by 1 / sd.
    assert abs(z) <= stats.norm.isf(tau.pvalue / 2) + 1e-9


def test_mann_kendall_false_alarms_are_as_rare_as_claimed():
    rng = np.random.default_rng(0)
    alarms = [falling_p(rng.standard_normal(30)) < 0.05 for _ in range(2_000)]
    assert 0.03 < np.mean(alarms) < 0.07


def test_long_series_are_taken_by_blocks():
    y = np.random.default_rng(0).standard_normal(100_000) - np.linspace(0, 1, 100_000)
    assert len(block_medians(y, 128)) == 128
    assert falling_p(y) < 1e-6


def test_noise_finds_the_standard_deviation_under_a_trend():
    rng = np.random.default_rng(0)
    y = np.exp(-np.arange(2_000) / 500) * 10 + 0.3 * rng.standard_normal(2_000)
    assert noise(y) == pytest.approx(0.3, rel=0.1)
    assert noise(y * 4) == pytest.approx(4 * noise(y))
    assert noise(np.array([1.0, 2.0])) == 0


@given(points=st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=40), data=st.data())
def test_moments_merge_to_those_of_the_whole(points, data):
    x, y = np.array(points, float).T
    cut = data.draw(st.integers(0, len(points) - 1))
    tail = tails(list(x[:cut]), list(y[:cut]))[0]
    run = EMPTY
    for count, (a, b) in enumerate(zip(x[cut:], y[cut:], strict=True), start=1):
        run = add(run, count, a, b)
    xx, xy = merged(tail, cut, run, len(points) - cut)
    assert xx == pytest.approx(np.sum((x - x.mean()) ** 2), abs=1e-9)
    assert xy == pytest.approx(np.sum((x - x.mean()) * (y - y.mean())), abs=1e-9)


@pytest.mark.parametrize(
    ("value", "floor", "low", "high", "expected"),
    [
        (1.5, 1.0, 1.0, 2.0, 0.5),  # one sign: value / floor - 1
        (-0.5, -1.0, -1.0, -0.2, 0.5),
        (1.0, 0.0, 0.0, 4.0, 0.25),  # touches zero: by the range
        (0.0, -1.0, -1.0, 3.0, 0.25),  # crosses zero
        (0.0, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_excess(value, floor, low, high, expected):
    assert excess(value, floor, low, high) == expected
