"""The contract of every rule, on streams with ties, NaN, infinities, unequal steps and moving learning rates."""

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from catalog import CATALOG, LEAVES, SCALE_FREE
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import runs

import convergence
from convergence import (
    Divergence,
    Lookahead,
    NonFinite,
    Patience,
    Reason,
    Stopper,
    SuccessiveRises,
    Target,
    parse_rule,
    replay,
    replay_many,
)
from convergence import rules as registry

every_rule = pytest.mark.parametrize("rule", CATALOG, ids=repr)
GOING_ON = {Reason.IMPROVING, Reason.WARMING_UP, Reason.WAITING}


def stopper_of(rule, mode="min"):
    return Stopper(rule, monitor="m", mode=mode)


def same(a, b):
    """Two decisions are the same to the last bit of their evidence."""
    assert a == b
    assert {k: repr(float(v)) for k, v in a.evidence.items()} == {k: repr(float(v)) for k, v in b.evidence.items()}


def series_of(run):
    return {
        "steps": [u.step for u in run],
        "lr": [u.lr for u in run],
        "lr_ahead": [u.lr_ahead for u in run],
        "elapsed": [u.elapsed for u in run],
    }


def test_catalog_holds_every_rule():
    named = {type(rule).__name__ for rule in LEAVES}
    assert named == set(registry.__all__)
    assert named | {"WarmUp", "Rearm"} <= set(convergence.__all__)


@every_rule
def test_fresh_rules_do_not_stop(rule):
    decision = stopper_of(rule).decision
    assert not decision.stop
    assert decision.reason in GOING_ON
    assert decision.message


@every_rule
def test_a_rule_is_a_value(rule):
    assert rule == copy.deepcopy(rule) == pickle.loads(pickle.dumps(rule))
    assert hash(rule) == hash(copy.deepcopy(rule))
    with pytest.raises(FrozenInstanceError):
        rule.anything = 1


@every_rule
def test_repr_reads_back(rule):
    assert parse_rule(repr(rule)) == rule
    bound = rule.on("val/loss 'x'", mode="max")
    assert parse_rule(repr(bound)) == bound
    assert repr(parse_rule(repr(bound))) == repr(bound)


@every_rule
def test_binding_twice_raises(rule):
    with pytest.raises(ValueError, match="bound"):
        rule.on("a").on("b")


@every_rule
@given(run=runs())
def test_reason_and_evidence_agree_with_the_verdict(rule, run):
    stopper = stopper_of(rule)
    for update in run:
        decision = update.feed(stopper)
        assert (decision.reason not in GOING_ON) == decision.stop == bool(decision)
        assert all(isinstance(float(number), float) for number in decision.evidence.values())
        assert all(cause.stop == decision.stop for cause in decision.causes) or len(decision.causes) == 1


@every_rule
@given(run=runs(), data=st.data())
def test_saved_and_resumed_is_never_interrupted(rule, run, data):
    whole, resumed = stopper_of(rule), stopper_of(rule)
    at = data.draw(st.integers(0, len(run) - 1))
    for i, update in enumerate(run):
        if i == at:
            state = json.loads(json.dumps(resumed.state_dict(), allow_nan=False))
            resumed = stopper_of(rule)
            assert resumed.load_state_dict(state) == ()
            same(whole.decision, resumed.decision)
        same(update.feed(whole), update.feed(resumed))
        assert whole.best == resumed.best


@every_rule
@given(run=runs())
def test_reset_is_a_fresh_start(rule, run):
    used, fresh = stopper_of(rule), stopper_of(rule)
    for update in run:
        update.feed(used)
    used.reset()
    for update in run:
        same(update.feed(used), update.feed(fresh))


@every_rule
@given(run=runs(most=20))
def test_no_news_changes_nothing(rule, run):
    quiet, plain = stopper_of(rule), stopper_of(rule)
    for update in run:
        decision = update.feed(plain)
        same(update.feed(quiet), decision)
        state = quiet.state_dict()["rule"]
        again = quiet.update(
            {"m": None, "other": 2.0}, step=update.step, lr=update.lr / 100, lr_ahead=0.0, elapsed=update.elapsed
        )
        same(again, decision)
        assert quiet.state_dict()["rule"] == state
        assert quiet.best == plain.best


@every_rule
@given(run=runs())
def test_an_earlier_decision_does_not_change(rule, run):
    stopper = stopper_of(rule)
    noted, kept = [], []
    for update in run:
        kept.append(update.feed(stopper))
        twin = stopper_of(rule)
        twin.load_state_dict(stopper.state_dict())
        noted.append(twin.decision.message)
    assert [decision.message for decision in kept] == noted


def negated(rule):
    """The rule for the negated metric: bounds in the metric's unit change sign."""
    if isinstance(rule, Target | Divergence):
        return replace(rule, value=-rule.value)
    if hasattr(rule, "members"):
        return replace(rule, members=tuple(negated(member) for member in rule.members))
    return replace(rule, rule=negated(rule.rule)) if hasattr(rule, "rule") else rule


@every_rule
@given(run=runs())
def test_negating_metric_mode_and_bounds_changes_nothing(rule, run):
    low, high = stopper_of(rule), stopper_of(negated(rule), mode="max")
    for update in run:
        mirrored = replace(update, value=-update.value, train=-update.train)
        a, b = update.feed(low), mirrored.feed(high)
        assert (a.stop, a.reason) == (b.stop, b.reason)
        assert {k: v for k, v in a.evidence.items() if k.endswith("_gain") and v == v} == {
            k: v for k, v in b.evidence.items() if k.endswith("_gain") and v == v
        }
        if low.best:
            assert low.best == (high.best.step, -high.best.value)


@pytest.mark.parametrize("rule", SCALE_FREE, ids=repr)
@given(run=runs(), power=st.sampled_from([-20, -3, 5, 20]))
def test_scale_by_a_power_of_two_changes_nothing(rule, run, power):
    plain, scaled = stopper_of(rule), stopper_of(rule)
    for update in run:
        factor = 2.0**power
        larger = replace(update, value=update.value * factor, train=update.train * factor)
        a, b = update.feed(plain), larger.feed(scaled)
        assert (a.stop, a.reason) == (b.stop, b.reason)


@every_rule
@settings(max_examples=10)
@given(batch=st.lists(runs(), min_size=8, max_size=20), mode=st.sampled_from(["min", "max"]))
def test_many_curves_at_once_equal_one_by_one(rule, batch, mode):
    if "train" in Stopper(rule, monitor="m", mode=mode).metrics:
        curves = {"m": [[u.value for u in run] for run in batch], "train": [[u.train for u in run] for run in batch]}
    else:
        curves = [[u.value for u in run] for run in batch]
    context = {name: [series_of(run)[name] for run in batch] for name in series_of(batch[0])}
    table = replay_many([rule], curves, monitor="m", mode=mode, **context)
    for i, run in enumerate(batch):
        series = {name: part[i] for name, part in curves.items()} if isinstance(curves, dict) else curves[i]
        one = replay(rule, series, monitor="m", mode=mode, **series_of(run))
        assert table.stop_index[0, i] == (-1 if one.stop_index is None else one.stop_index)
        assert table.best_index[0, i] == (-1 if one.best_index is None else one.best_index)
        np.testing.assert_equal(table.budget[0, i], one.budget)
        np.testing.assert_equal(table.regret[0, i], one.regret)
        stopper, stops = stopper_of(rule, mode), None
        for j, update in enumerate(run):
            if update.feed(stopper).stop:
                stops = j
                break
        assert one.stop_index == stops


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bound", ["min", "max"])
@given(run=runs())
def test_a_number_and_a_mapping_are_the_same_news(mode, bound, run):
    """Also where a part is bound to the monitored metric in the other mode."""
    rule = Patience(2).on("m", mode=bound)
    numbers, mappings = stopper_of(rule, mode), stopper_of(rule, mode)
    for update in run:
        same(numbers.update(update.value), mappings.update({"m": update.value}))
        assert numbers.best == mappings.best
        assert numbers.state_dict() == mappings.state_dict()


@given(run=runs(), kind=st.sampled_from([Patience, Lookahead, lambda k: SuccessiveRises(k, k=2)]))
def test_stop_index_never_falls_when_patience_grows(run, kind):
    stops = [replay(kind(k), [u.value for u in run], mode="min").stop_index for k in range(1, 12)]
    numbers = [math.inf if stop is None else stop for stop in stops]
    assert numbers == sorted(numbers)


@given(run=runs())
def test_a_sweep_equals_its_members(run):
    curves = [[u.value for u in run]] * 8
    for family in (
        [Patience(k) for k in (5, 1, 3, 1, 8)],
        [Lookahead(k) for k in (2, 7, 2)],
        [SuccessiveRises(s, k=2) for s in (2, 1)],
        [Target(v) for v in (-1.0, 0.5)],
        [NonFinite(), Patience(2) | NonFinite(), Patience(2)],
    ):
        together = replay_many(family, curves, mode="min").stop_index[:, 0]
        alone = [replay_many([rule], curves, mode="min").stop_index[0, 0] for rule in family]
        assert together.tolist() == alone
