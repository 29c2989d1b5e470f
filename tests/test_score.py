"""Budget, regret, means over unequal families, frontiers: against the definitions, written out plainly."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergence.score import LEAST_REGRET, Frontier, budget, clairvoyant, quantile, regret, weights


def nested_mean(values, labels):
    """Mean within the innermost label first, by recursion."""
    if not labels[0]:
        return float(np.mean(values))
    outer = [label[0] for label in labels]
    parts = []
    for name in dict.fromkeys(outer):
        at = [i for i, label in enumerate(outer) if label == name]
        parts.append(nested_mean([values[i] for i in at], [labels[i][1:] for i in at]))
    return float(np.mean(parts))


labelled = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("12")), min_size=1)


@given(labels=labelled, data=st.data())
def test_weights_make_the_nested_mean(labels, data):
    values = [data.draw(st.floats(-10, 10)) for _ in labels]
    found = weights(*(np.array(level) for level in zip(*labels, strict=True)))
    assert found.sum() == pytest.approx(1)
    assert float(found @ values) == pytest.approx(nested_mean(values, labels), abs=1e-9)


@given(labels=labelled, data=st.data())
def test_weights_among_some_are_those_of_the_others_left_out(labels, data):
    among = np.array([data.draw(st.booleans()) for _ in labels])
    levels = [np.array(level) for level in zip(*labels, strict=True)]
    found = weights(*levels, among=among)
    assert (found[~among] == 0).all()
    if among.any():
        assert found[among] == pytest.approx(weights(*(level[among] for level in levels)))


def test_a_label_counts_within_the_labels_before_it():
    assert weights(["a", "a", "b"], ["x", "y", "x"]).tolist() == [0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.2, 1.0), (0.21, 2.0), (0.5, 2.0), (0.51, 3.0), (0.95, 4.0), (1.0, 4.0)]
)
def test_weighted_quantile(share, expected):
    assert quantile([3.0, 1.0, 4.0, 2.0, math.nan], share, [0.4, 0.2, 0.1, 0.3, 0.0]) == expected


def test_quantile_of_nothing_is_nan():
    assert math.isnan(quantile([1.0], 0.5, [0.0]))


@pytest.mark.parametrize(
    ("losses", "tolerance", "expected"),
    [
        ([4.0, 3.0, 2.0, 1.0], 0.0, 3),
        ([4.0, 3.0, 1.0, 1.0], 0.0, 2),  # the first of ties
        ([4.0, 3.0, 1.029, 1.0], 0.01, 2),
        ([4.0, 3.0, 1.031, 1.0], 0.01, 3),
        ([math.nan, 4.0, 1.0, 2.0], 0.5, 2),
        ([4.0, 5.0, math.inf], 0.0, 0),  # nothing to gain
        ([math.nan, math.inf], 0.1, -1),
    ],
)
def test_clairvoyant(losses, tolerance, expected):
    assert clairvoyant(losses, tolerance) == expected


def test_clairvoyant_with_a_floor_accepts_what_is_small_beside_the_first_value():
    assert clairvoyant([100.0, 99.995, 99.99], 0.01) == 2
    assert clairvoyant([100.0, 99.995, 99.99], 0.01, floor=0.02) == 0


@given(
    losses=st.lists(st.floats(0, 100) | st.sampled_from([math.nan, math.inf]), min_size=1, max_size=30),
    tolerance=st.sampled_from([0.0, 0.01, 0.1, 0.5]),
    floor=st.sampled_from([0.0, 0.02]),
)
def test_no_earlier_stop_is_within_the_tolerance(losses, tolerance, floor):
    at = clairvoyant(losses, tolerance, floor=floor)
    finite = [value for value in losses if math.isfinite(value)]
    if not finite:
        assert at == -1
        return

    def lost(stop):
        before = [value for value in losses[: stop + 1] if math.isfinite(value)]
        return float(regret(min(before) if before else math.nan, finite[0], min(finite), floor=floor))

    assert lost(at) <= tolerance
    assert all(lost(stop) > tolerance for stop in range(at))


points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1) | st.just(math.nan)), max_size=20)


@given(points=points)
def test_frontier_holds_the_points_that_none_beats(points):
    front = Frontier.of([b for b, _ in points], [r for _, r in points])
    known = [(b, r) for b, r in points if not math.isnan(r)]
    best = {(b, r) for b, r in known if not any((c <= b and s <= r) and (c, s) != (b, r) for c, s in known)}
    assert set(zip(front.budget.tolist(), front.regret.tolist(), strict=True)) == best
    assert (np.diff(front.budget) > 0).all()
    assert (np.diff(front.regret) < 0).all()


def test_interpolation_is_linear_in_the_logarithm_and_ends_at_the_reach():
    front = Frontier.of([0.2, 0.6], [0.1, 0.001])
    assert front.at([0.1, 0.2, 0.4, 0.6, 0.61]) == pytest.approx([math.nan, 0.1, 0.01, 0.001, math.nan], nan_ok=True)


def test_ratio_uses_only_budgets_that_both_reach():
    ours, theirs = Frontier.of([0.0, 0.5], [0.2, 0.02]), Frontier.of([0.25, 1.0], [0.4, 0.004])
    budgets = np.linspace(0.25, 0.5, 200)
    expected = np.exp(np.mean(np.log(ours.at(budgets) / theirs.at(budgets))))
    assert ours.ratio(theirs) == pytest.approx(expected)
    assert ours.ratio(theirs) * theirs.ratio(ours) == pytest.approx(1)
    assert math.isnan(ours.ratio(Frontier.of([0.6, 0.9], [0.1, 0.01])))
    assert math.isnan(ours.ratio(Frontier.of([], [])))


def test_half_the_regret_is_a_ratio_of_one_half():
    budgets = [0.1, 0.3, 0.7]
    assert Frontier.of(budgets, [0.1, 0.05, 0.01]).ratio(Frontier.of(budgets, [0.2, 0.1, 0.02])) == pytest.approx(0.5)


def test_regrets_that_are_too_small_to_matter_count_alike():
    assert Frontier.of([0.1, 0.9], [0.1, 0.0]).at(0.9) == pytest.approx(LEAST_REGRET)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: clairvoyant([[1.0, 2.0]], 0.1), "1-d series"),
        (lambda: clairvoyant([1.0, 2.0], math.nan), "tolerance"),
        (lambda: clairvoyant([1.0, 2.0], -1), "tolerance"),
        (lambda: weights(["a", "b"], ["x"]), "as many at each level"),
        (lambda: weights(["a", "b"], among=np.array([True])), "as many at each level"),
        (lambda: quantile([1.0], 0.5, [1.0, 2.0]), "a weight for each value"),
        (lambda: quantile([1.0], 1.5, [1.0]), "share of 0 to 1"),
        (lambda: Frontier.of([0.1], [0.1, 0.2]), "as many budgets as regrets"),
    ],
)
def test_what_does_not_fit_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_budget_of_no_stop_is_all_and_of_no_observation_unknown():
    assert budget([[-1, 0, 2], [-1, 2, -1]], [3, 3, 0]) == pytest.approx(
        np.array([[1, 1 / 3, math.nan], [1, 1, math.nan]]), nan_ok=True
    )
