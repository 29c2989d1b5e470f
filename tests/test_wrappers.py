"""WarmUp and Rearm: tables worked out by hand from the texts, and a literal Rearm as witness."""

import math
from itertools import pairwise

import numpy as np
import pytest

from convergence import (
    Best,
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

NAN = math.nan


def feed(rule, values, mode="min", lr=None, lr_ahead=None):
    """All decisions; lr and lr_ahead are series that go with the values, or one number for all."""
    stopper = Stopper(rule, monitor="m", mode=mode)
    count = len(values)
    rates = lr if isinstance(lr, list) else [lr] * count
    ahead = lr_ahead if isinstance(lr_ahead, list) else [lr_ahead] * count
    return [stopper.update(v, lr=r, lr_ahead=a) for v, r, a in zip(values, rates, ahead, strict=True)]


def verdicts(*arguments, **context):
    """One letter per observation: S stop, . go on."""
    return "".join("S" if d.stop else "." for d in feed(*arguments, **context))


# WarmUp

WARM_UPS = [
    (WarmUp(Patience(1), 4), "min", [1, 2, 3, 4, 5, 6], "....SS"),
    (WarmUp(Patience(1), 0), "min", [1, 2, 3], ".SS"),
    (WarmUp(Patience(3), 2), "min", [1, 1, 1, 1, 1], "...SS"),
    # the values count: best and wait of the warm-up live on
    (WarmUp(Patience(2), 3), "min", [1, 2, 2, 2, 2], "...SS"),
    (WarmUp(Patience(2), 3), "max", [9, 2, 3, 4, 5], "...SS"),
    (WarmUp(SmoothedSlope(3, tol=0), 4), "min", [1, 1, 1, 1, 1, 0, -1], "....S.."),
    # NaN is a value
    (WarmUp(NonFinite(), 2), "min", [NAN, NAN, NAN, 1, NAN], "..S.S"),
    # it latches nothing
    (WarmUp(Target(5), 2), "min", [4, 4, 6, 4], "...S"),
    (WarmUp(WarmUp(Patience(1), 2), 3), "min", [1, 1, 1, 1, 1], "...SS"),
    (WarmUp(Patience(1), 3) | NonFinite(), "min", [1, NAN, 1, 1], ".S.S"),
    (WarmUp(Patience(1) | Divergence(9), 2), "min", [1, 9, 0, 9], "...S"),
]


@pytest.mark.parametrize(("rule", "mode", "values", "expected"), WARM_UPS)
def test_warm_up_withholds_the_first_verdicts(rule, mode, values, expected):
    assert verdicts(rule, values, mode) == expected


def test_warm_up_counts_the_values_of_its_own_metric():
    stopper = Stopper(WarmUp(Patience(1).on("a"), 2), monitor="b", mode="min")
    updates = [{"a": 1, "b": 1}, {"b": 1}, {"b": 1}, {"a": 2}, {"b": 1}, {"a": 3}, {"b": 1}, {"a": 0}]
    assert [stopper.update(u).stop for u in updates] == [False, False, False, False, False, True, True, False]


def test_warm_up_of_several_metrics_waits_for_each():
    rule = WarmUp(Patience(1).on("a") | Patience(1).on("b"), 1)
    stopper = Stopper(rule, monitor="a", mode="min")
    updates = [{"a": 1}, {"a": 1}, {"b": 1}, {"a": 1}, {"b": 0}, {"a": 0}]
    assert [stopper.update(u).stop for u in updates] == [False, False, False, False, True, False]


def test_warm_up_says_that_it_warms_up_and_best_is_kept_from_it():
    stopper = Stopper(WarmUp(Patience(1), 3), monitor="m", mode="max")
    decisions = [stopper.update(v) for v in (0.9, 0.5, 0.6, 0.7)]
    assert [d.reason for d in decisions] == [*3 * [Reason.WARMING_UP], Reason.PLATEAUED]
    assert "2" in decisions[1].message
    assert "3" in decisions[1].message
    assert decisions[1].evidence["best"] == decisions[3].evidence["best"] == 0.9
    assert stopper.best == Best(0, 0.9)


# Rearm: the rate rises

FLAT = [2.0] * 8


def test_rearm_withholds_the_verdict_while_the_rate_rises():
    assert verdicts(Rearm(Patience(1)), FLAT, lr=[0.1, 0.2, 0.3, 0.3, 0.3, 0.4, 0.4, 0.4]) == "...SS.SS"
    assert verdicts(Rearm(Patience(2)), FLAT, lr=[0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4]) == "....SSSS"


def test_rearm_under_a_constant_rate_is_the_rule_itself():
    values = [3, 2, 2.5, 2.5, 1, 1, NAN, 1, 1, 0.5]
    for rule in (Patience(2), Lookahead(2), SmoothedSlope(3, tol=0.1), GeneralizationLoss(10), Target(2), NonFinite()):
        for lr_ahead in (None, 0.1):
            assert verdicts(Rearm(rule), values, lr=0.1, lr_ahead=lr_ahead) == verdicts(rule, values)


# Rearm: the rate falls

DROPS = [
    # counts start again before the value trained with the lower rate is taken in
    (Rearm(Patience(2)), [2, 2, 2, 2, 2], [1, 1, 0.1, 0.1, 0.1], "...SS"),
    (Rearm(Patience(2)), [3, 2, 2, 2, 1, 1, 1], [1, 1, 1, 0.1, 0.1, 0.1, 0.1], "......S"),
    (Rearm(Lookahead(2)), [2, 3, 3, 3, 3], [1, 1, 0.1, 0.1, 0.1], "...SS"),
    (Rearm(SuccessiveRises(1, k=2)), [1, 1, 2, 2, 3, 3, 4], [1, 1, 1, 0.1, 0.1, 0.1, 0.1], "......S"),
    # best is kept: 4 and 3 are no improvements on 1
    (Rearm(Patience(2)), [1, 5, 4, 3, 0.5], [1, 1, 0.1, 0.1, 0.1], "...S."),
    (Rearm(GeneralizationLoss(50)), [1, 1.2, 1.6, 1.4], [1, 1, 0.1, 0.1], "..S."),
    # windows start again, the range is kept: 0.3 per observation is below 0.01 of 90, not of 0.6
    (Rearm(SmoothedSlope(3, tol=0.01)), [100, 50, 10, 10, 9.7, 9.4], [1, 1, 1, 0.1, 0.1, 0.1], ".....S"),
    # a verdict that held is lifted by a drop
    (Rearm(Patience(2)), [2, 2, 2, 2, 2], [1, 1, 1, 0.1, 0.1], "..S.S"),
    # exactly `drop` is a drop, less is none
    (Rearm(Patience(2), 0.5), [2, 2, 2, 2], [1, 1, 0.5, 0.5], "...S"),
    (Rearm(Patience(2), 0.5), [2, 2, 2, 2], [1, 1, 0.51, 0.51], "..SS"),
    (Rearm(Patience(2)), [2, 2, 2, 2], [1, 1, 0.9, 0.9], "...S"),
    (Rearm(Patience(2)), [2, 2, 2, 2], [0.001, 0.001, 0.0009, 0.0009], "...S"),
    # slow decay adds up: 0.97 ** 4 = 0.885 restarts at 4; the next may only come a span, 5, later
    (Rearm(Patience(5)), [2] * 9, [0.97**i for i in range(9)], "........S"),
    (Rearm(Patience(4)), [2] * 9, [0.97**i for i in range(9)], ".......S."),
    (Rearm(Patience(3)), [2] * 9, [0.97**i for i in range(9)], "...S..SS."),
    # from the highest since the last restart: after a rise to 1 the fall to 0.8 is a drop, though 0.8 > 0.5
    (Rearm(Patience(2)), [2] * 6, [0.5, 0.5, 1, 0.8, 0.8, 0.8], "....SS"),
    # a second drop within a span waits for the span to end
    (Rearm(Patience(4)), [2] * 9, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25], ".....S..."),
    # to zero
    (Rearm(Patience(2)), [2] * 6, [1, 1, 0, 0, 0, 0], "...SSS"),
    (Rearm(Patience(2)), [2] * 3, [0, 0, 0], "..S"),
]


@pytest.mark.parametrize(("rule", "values", "lr", "expected"), DROPS)
def test_rearm_starts_again_when_the_rate_has_fallen(rule, values, lr, expected):
    assert verdicts(rule, values, lr=lr) == expected


def test_rearm_keeps_the_stoppers_best():
    stopper = Stopper(Rearm(Patience(2)), monitor="m", mode="max")
    for value, lr in [(0.9, 1), (0.5, 1), (0.6, 0.1), (0.7, 0.1)]:
        stopper.update(value, lr=lr)
    assert stopper.decision.stop
    assert stopper.decision.evidence["best"] == 0.9
    assert stopper.best == Best(0, 0.9)


def test_rearm_starts_a_new_strip_of_progress_quotient():
    rule = Rearm(ProgressQuotient(0.1, 2, train="t"))
    rows = [(1, 1.0), (1, 0.9), (2, 0.9), (2, 0.89), (2, 0.89), (0.5, 0.8)]
    rates = [1, 1, 1, 0.1, 0.1, 0.1]
    stopper = Stopper(rule, monitor="m", mode="min")
    found = [stopper.update({"m": v, "t": t}, lr=lr).stop for (v, t), lr in zip(rows, rates, strict=True)]
    # strips 0-1, 2 cut short by the drop, 3-4 (GL 100 %)
    assert found == [False, False, False, False, True, True]


def test_rearm_under_a_cosine_stops_in_its_tail():
    lr = [0.5 * (1 + math.cos(math.pi * i / 40)) for i in range(41)]
    assert all(after < 0.9 * before for before, after in pairwise(lr[30:]))
    found = verdicts(Rearm(Patience(5)), [2.0] * 41, lr=lr)
    # the rate is 10 % down at 9, and again at 14, 19, ... 39; after a restart at i the verdict holds from i + 4
    assert [i for i, letter in enumerate(found) if letter == "S"] == [5, 6, 7, 8, 13, 18, 23, 28, 33, 38]


def literal_rearm(values, rates, ahead, patience, drop):
    """Verdicts of Rearm(Patience(patience), drop), written down from its description."""
    best, wait, highest, restarted, found = math.inf, 0, 0, -math.inf, ""
    for i, (y, lr) in enumerate(zip(values, rates, strict=True)):
        highest = max(lr, highest)
        if lr < highest and lr <= (1 - drop) * highest and i - restarted >= patience:
            wait, highest, restarted = 0, lr, i
        best, wait = (y, 0) if y < best else (best, wait + 1)
        rises = i > 0 and lr > rates[i - 1]
        to_come = ahead[i] is not None and ahead[i] <= (1 - drop) * lr
        found += "S" if wait >= patience and not rises and not to_come else "."
    return found


def test_rearm_is_its_description_on_random_schedules():
    seen = ""
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        patience, drop, count = int(rng.integers(1, 6)), float(rng.choice([0.1, 0.3, 0.6])), 40
        rates = np.exp(np.cumsum(rng.choice([0, 0, 0, 0, -0.05, -0.25, -1, 0.5], count))).tolist()
        ahead = [None if seed % 3 == 0 else min(rates[i:]) if seed % 3 == 1 else rates[i] / 2 for i in range(count)]
        values = (rng.integers(0, 9, count) - 0.05 * np.arange(count)).tolist()
        found = verdicts(Rearm(Patience(patience), drop), values, lr=rates, lr_ahead=ahead)
        assert found == literal_rearm(values, rates, ahead, patience, drop)
        seen += found
    assert seen.count("S") > 2000


# Rearm: a drop to come

AHEAD = [
    # withheld until the drop has come, and then counted from there
    ([1, 1, 1, 1, 0.1, 0.1, 0.1], [0.1] * 7, ".....SS"),
    ([1, 1, 1, 1, 0.1, 0.1, 0.1], [0.1] * 4 + [None] * 3, ".....SS"),
    # two drops to come
    ([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01], [0.01] * 8, ".......S"),
    # the rest of the plan falls by less than `drop`: 0.95 > 0.9
    ([1, 1, 1, 1], [0.95] * 4, "..SS"),
    # exactly (1 - drop) * lr is a drop to come
    ([1, 1, 1, 1], [0.9] * 4, "...."),
    # unknown, or the rate goes up from here
    ([1, 1, 1, 1], None, "..SS"),
    ([0.1, 0.1, 0.1, 0.1], [1.0] * 4, "..SS"),
    # a fall to zero to come, and at zero nothing more to come
    ([1, 1, 1, 0, 0, 0], [0.0] * 6, "....SS"),
    # the plan becomes known, or changes
    ([1, 1, 1, 1, 1], [None, None, None, 0.1, 1.0], "..S.S"),
]


@pytest.mark.parametrize(("lr", "lr_ahead", "expected"), AHEAD)
def test_rearm_withholds_the_verdict_until_a_planned_drop_has_come(lr, lr_ahead, expected):
    assert verdicts(Rearm(Patience(2)), [2.0] * len(lr), lr=lr, lr_ahead=lr_ahead) == expected


def test_rearm_says_why_it_waits_in_numbers():
    ahead = feed(Rearm(Patience(1)), [0.75, 0.5], "max", lr=0.125, lr_ahead=0.0625)[-1]
    assert (ahead.stop, ahead.reason) == (False, Reason.WAITING)
    assert all(number in ahead.message for number in ("0.125", "0.0625", "0.75", "0.5"))
    rising = feed(Rearm(Patience(1)), [0.75, 0.5], "max", lr=[0.125, 0.25])[-1]
    assert (rising.stop, rising.reason) == (False, Reason.WAITING)
    assert "0.25" in rising.message
    assert rising.evidence["best"] == 0.75


# Rearm: when the rate is looked at


def test_rearm_holds_the_rate_that_was_told_last():
    stopper = Stopper(Rearm(Patience(2)), monitor="m", mode="min")
    rates = [1, None, 0.1, None, None]
    assert [stopper.update(2.0, lr=lr).stop for lr in rates] == [False, False, False, True, True]


def test_rearm_takes_the_rate_with_the_news_of_its_metric():
    stopper = Stopper(Rearm(Patience(2).on("a")), monitor="b", mode="min")
    updates = [({"a": 1}, 1), ({"b": 1}, 1), ({"a": 1}, 1), ({"b": 1}, 0.1), ({"a": 1}, 0.1), ({"a": 1}, 0.1)]
    assert [stopper.update(u, lr=lr).stop for u, lr in updates] == [False] * 5 + [True]


def test_rearm_leaves_other_members_alone():
    values, lr = [2, 2, 2, NAN, 2, 2], [1, 1, 0.1, 0.1, 0.1, 0.1]
    assert verdicts(Rearm(Patience(3)) | NonFinite(), values, lr=lr, lr_ahead=0.1) == "...SSS"
    assert verdicts(Rearm(Patience(4)) | Patience(4), values, lr=lr, lr_ahead=0.1) == "....SS"


def test_rearm_does_not_repeat_a_warm_up_inside_it():
    assert verdicts(Rearm(WarmUp(Patience(1), 3)), [2] * 6, lr=[1, 1, 1, 1, 0.1, 0.1]) == "...SSS"
    assert verdicts(WarmUp(Rearm(Patience(2)), 3), [2] * 6, lr=[1, 1, 1, 0.1, 0.1, 0.1]) == "....SS"


@pytest.mark.parametrize("apart", [False, True])
def test_restarts_leave_each_metric_of_a_rule_a_full_span(apart):
    """A rate that falls at every step must not keep a rule over two metrics from ever stopping."""
    stopper = Stopper(Rearm(Patience(3).on("a") & Patience(3).on("b")), monitor="a", mode="min")
    stops = []
    for epoch in range(40):
        updates = [{"a": 1.0}, {"b": 1.0}] if apart else [{"a": 1.0, "b": 1.0}]
        stops += [stopper.update(u, step=epoch, lr=0.8**epoch).stop for u in updates]
    assert any(stops)


def test_restarts_leave_a_rare_metric_a_full_span():
    stopper = Stopper(Rearm(Patience(3).on("a") & Patience(3).on("b")), monitor="a", mode="min")
    stops = []
    for epoch in range(60):
        news = {"a": 1.0} | ({"b": 1.0} if epoch % 4 == 0 else {})
        stops.append(stopper.update(news, step=epoch, lr=0.8**epoch).stop)
    assert any(stops)
