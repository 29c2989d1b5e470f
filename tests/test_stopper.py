"""A Stopper live: what it takes in, what it refuses, whose best it keeps, what a saved run holds."""

import copy
import json
import math
import tracemalloc
import warnings
from itertools import count

import numpy as np
import pytest

from convergence import (
    Best,
    Budget,
    Decision,
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


def on_m(rule=None, mode="min"):
    return Stopper(rule or Patience(3), monitor="m", mode=mode)


def verdicts(stopper, updates, **context):
    return "".join("S" if stopper.update(update, **context).stop else "." for update in updates)


# monitor and mode


@pytest.mark.parametrize(
    ("rule", "given", "missing"),
    [
        (Patience(3), {}, "monitor and mode"),
        (Patience(3), {"monitor": "m"}, "mode"),
        (Patience(3), {"mode": "min"}, "monitor"),
        (Patience(3).on("m") | NonFinite(), {}, "monitor and mode"),
        (Patience(3).on("m") & Patience(3).on("other"), {}, "monitor and mode"),
        (WarmUp(Patience(3), 2), {"mode": "min"}, "monitor"),
    ],
)
def test_monitor_and_mode_are_required_unless_all_parts_are_bound_to_one_metric(rule, given, missing):
    with pytest.raises(ValueError, match=f"^{missing} missing"):
        Stopper(rule, **given)


@pytest.mark.parametrize(
    "rule",
    [
        Patience(3).on("acc", mode="max"),
        (Patience(3) | NonFinite()).on("acc", mode="max"),
        Rearm(WarmUp(Patience(3), 5)).on("acc", mode="max") & NonFinite().on("acc", mode="max"),
    ],
)
def test_a_rule_bound_to_one_metric_says_monitor_and_mode(rule):
    stopper = Stopper(rule)
    assert (stopper.monitor, stopper.mode) == ("acc", "max")
    stopper.update(0.5, lr=0.1)
    stopper.update({"acc": 0.7, "loss": 0.1})
    assert stopper.best == Best(step=1, value=0.7)


@pytest.mark.parametrize("mode", ["MIN", "lower", "auto", "", 1])
def test_a_mode_that_is_neither_min_nor_max_is_refused(mode):
    with pytest.raises(ValueError, match="mode must be 'min' or 'max'"):
        on_m(mode=mode)


def test_a_monitor_that_is_no_name_and_a_rule_that_is_no_rule_are_refused():
    with pytest.raises(TypeError, match="monitor"):
        Stopper(Patience(3), monitor=3, mode="min")
    with pytest.raises(ValueError, match="monitor"):
        Stopper(Patience(3), monitor="", mode="min")
    with pytest.raises(TypeError, match="rule"):
        Stopper("Patience(3)", monitor="m", mode="min")


def test_a_bound_part_never_inherits_the_stoppers_mode():
    stopper = Stopper(Patience(1).on("acc") & Target(0.7), monitor="acc", mode="max")
    assert verdicts(stopper, [0.5, 0.6, 0.7, 0.1]) == "..S."
    assert stopper.best == Best(2, 0.7)


def test_binding_a_combination_binds_what_is_unbound_once():
    rule = WarmUp(Patience(1).on("a") & (Patience(1) | NonFinite()), 0).on("b", mode="max")
    stopper = Stopper(rule, monitor="a", mode="min")
    assert verdicts(stopper, [{"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 2, "b": 1}, {"a": 2, "b": 3}]) == "..S."
    with pytest.raises(ValueError, match="bound"):
        rule.on("c")


def test_unbound_parts_read_the_monitor_and_best_is_the_monitors():
    rule = Patience(1).on("loss") & Patience(1)
    stopper = Stopper(rule, monitor="acc", mode="max")
    rows = [(1.0, 0.1), (2.0, 0.2), (3.0, 0.1), (0.5, 0.1), (0.6, 0.3)]
    assert verdicts(stopper, [{"loss": loss, "acc": acc} for loss, acc in rows]) == "..S.."
    assert stopper.best == Best(4, 0.3)


# what a decision is


def test_a_decision_has_a_verdict_a_reason_a_message_and_numbers():
    stopper = Stopper(Patience(2), monitor="val_loss", mode="min")
    going_on, _, stop = (stopper.update(v) for v in (0.5, 0.6, 0.7))
    assert isinstance(stop, Decision)
    assert (bool(going_on), going_on.stop, going_on.reason) == (False, False, "improving")
    assert (bool(stop), stop.stop, stop.reason) == (True, True, "plateaued")
    assert isinstance(stop.reason, Reason)
    assert isinstance(stop.reason, str)
    assert all(word in stop.message for word in ("val_loss", "0.5", "0.7", "2"))
    assert all(isinstance(name, str) for name in stop.evidence)
    assert all(isinstance(number, int | float) for number in stop.evidence.values())
    with pytest.raises(TypeError):
        stop.evidence["wait"] = 5
    assert stop.causes == ()


def test_reasons_are_those_of_the_public_face():
    going_on = {"improving", "warming_up", "waiting"}
    stopped = {"plateaued", "converged", "overfitting", "diverged", "not_learning", "non_finite", "target_reached"}
    assert {str(reason) for reason in Reason} == going_on | stopped | {"budget_exhausted"}


def test_a_decision_reads_the_same_after_later_updates():
    stopper = on_m(Patience(1) | NonFinite())
    decision = [stopper.update(v) for v in (2.0, 3.0)][-1]
    for value in (1.0, NAN, 7.0):
        stopper.update(value)
    assert decision.reason is Reason.PLATEAUED
    assert decision.evidence["value"] == 3
    assert "3" in decision.message


# values


def test_a_float_a_mapping_and_other_metrics_beside_it_are_the_same():
    values = [3.0, 2.0, 2.5, NAN, 2.0, 1.0]
    expected = verdicts(on_m(), values)
    assert verdicts(on_m(), [{"m": v} for v in values]) == expected
    assert verdicts(on_m(), [{"other": "text", "m": v, "x": None} for v in values]) == expected
    assert expected == "....S."


@pytest.mark.parametrize(
    "make",
    [
        float,
        int,
        np.float64,
        np.float32,
        np.float16,
        np.int64,
        np.uint8,
        np.array,
        lambda v: np.array([v]),
        lambda v: np.array([[v]], np.float32),
    ],
)
def test_numbers_of_python_and_numpy_are_values(make):
    stopper = on_m(Patience(2))
    assert verdicts(stopper, map(make, [3.0, 2.0, 4.0, 5.0])) == "...S"
    assert verdicts(on_m(Patience(2)), ({"m": make(v)} for v in [3.0, 2.0, 4.0, 5.0])) == "...S"
    assert stopper.best == (1, 2.0)
    assert type(stopper.best.value) is float


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int64"])
def test_tensors_of_one_element_are_values(dtype):
    torch = pytest.importorskip("torch")
    stopper = on_m(Patience(2))
    tensors = [torch.tensor(v, dtype=getattr(torch, dtype)) for v in (3, 2, 4, 5)]
    assert verdicts(stopper, tensors) == "...S"
    assert verdicts(on_m(Patience(2)), [t.reshape(1) for t in tensors]) == "...S"
    assert stopper.best == (1, 2.0)
    json.dumps(stopper.state_dict())


def test_a_loss_that_still_has_its_graph_is_a_value():
    torch = pytest.importorskip("torch")
    weight = torch.tensor(2.0, requires_grad=True)
    stopper = on_m()
    stopper.update(weight)
    stopper.update({"m": weight * 0.5})
    assert stopper.best == (1, 1.0)


@pytest.mark.parametrize(
    "value", ["0.5", b"1", True, False, np.True_, 1j, [1.0], (1.0,), {1.0}, None.__class__], ids=repr
)
def test_what_is_no_number_is_refused_by_name(value):
    stopper = on_m()
    for update in (value, {"m": value}):
        with pytest.raises(TypeError, match="'m' must be a number"):
            stopper.update(update)
    assert stopper.update(1.0).stop is False
    assert stopper.best == (0, 1.0)


def test_arrays_and_tensors_that_hold_no_single_number_are_refused_by_name():
    torch = pytest.importorskip("torch")
    values = [np.array([1.0, 2.0]), np.array([]), np.array("x"), np.array(True), np.array([True])]
    values += [torch.tensor([1.0, 2.0]), torch.tensor([]), torch.tensor(True), torch.tensor(1j)]
    for value in values:
        with pytest.raises(TypeError, match="'m' must be a number"):
            on_m().update(value)


def test_none_is_no_news():
    stopper = on_m(Patience(2))
    assert verdicts(stopper, [1.0, None, {"m": None}, 2.0, None, 2.0, None, 0.5]) == ".....SS."
    assert stopper.best == (7, 0.5)


def test_no_news_of_a_metric_leaves_its_verdict():
    stopper = on_m(Patience(1), "max")
    assert verdicts(stopper, [0.5, {"m": 0.5, "x": 1.0}, {"m": None, "x": 2.0}, 0.6]) == ".SS."


# which metrics there are


def test_a_mapping_with_none_of_the_metrics_lists_what_there_is():
    stopper = Stopper(Patience(3), monitor="val_loss", mode="min")
    for wrong in ({"train_loss": 0.3, "val-loss": 0.5}, {}):
        with pytest.raises(ValueError, match="'val_loss'") as caught:
            stopper.update(wrong)
        assert all(repr(name) in str(caught.value) for name in wrong)


def test_a_float_for_a_rule_over_several_metrics_is_refused_by_their_names():
    stopper = Stopper(Patience(3).on("a") & Patience(3).on("b"), monitor="a", mode="min")
    with pytest.raises(TypeError, match=r"'a'.*'b'"):
        stopper.update(0.5)


def test_a_metric_unseen_after_ten_updates_raises_by_name():
    rule = Patience(3).on("a") | Patience(3).on("b")
    stopper = Stopper(rule, monitor="a", mode="min")
    for i in range(10):
        stopper.update({"a": 1.0 / (i + 1), "c": 2.0, "b": None})
    with pytest.raises(ValueError, match=r"'b'.*10.*'c'"):
        stopper.update({"a": 0.01, "c": 2.0})
    in_time = Stopper(rule, monitor="a", mode="min")
    for i in range(9):
        in_time.update({"a": 1.0 / (i + 1)})
    in_time.update({"b": 1.0})
    for i in range(20):
        in_time.update({"a": 0.01 / (i + 1)})


def test_a_monitor_of_nothing_but_none_raises_after_ten_updates():
    stopper = on_m()
    for _ in range(10):
        stopper.update(None)
    with pytest.raises(ValueError, match=r"'m'.*10"):
        stopper.update(None)


def test_a_resumed_run_still_knows_which_metrics_are_unseen():
    rule = Patience(3).on("a") | Patience(3).on("b")
    stopper = Stopper(rule, monitor="a", mode="min")
    for i in range(6):
        stopper.update({"a": 1.0 / (i + 1)})
    resumed = Stopper(rule, monitor="a", mode="min")
    resumed.load_state_dict(json.loads(json.dumps(stopper.state_dict())))
    for i in range(4):
        resumed.update({"a": 0.1 / (i + 1)})
    with pytest.raises(ValueError, match="'b'"):
        resumed.update({"a": 0.01})


@pytest.mark.parametrize(
    ("rule", "what", "given"),
    [
        (Budget(seconds=60), "elapsed", {"elapsed": 1.0}),
        (Budget(steps=10, seconds=60) | Patience(3), "elapsed", {"elapsed": 1.0}),
        (Rearm(Patience(3)), "lr", {"lr": 0.1}),
        (WarmUp(Rearm(Patience(3)) | NonFinite(), 3), "lr", {"lr": 0.1}),
    ],
    ids=repr,
)
def test_what_a_rule_needs_and_is_not_given_raises_at_the_first_update(rule, what, given):
    stopper = on_m(rule)
    with pytest.raises(ValueError, match=f"{what}="):
        stopper.update(1.0)
    with pytest.raises(ValueError, match=f"{what}="):
        stopper.update({"m": 1.0}, step=3, progress=0.1)
    stopper.update(1.0, **given)
    assert stopper.best == (0, 1.0)


def test_progress_quotient_without_its_training_metric_raises_at_the_first_update():
    stopper = on_m(ProgressQuotient(1, train="train_loss") | Patience(3))
    for update in ({"m": 1.0}, {"m": 1.0, "train": 1.0}, {"m": 1.0, "train_loss": None}):
        with pytest.raises(ValueError, match="'train_loss'"):
            stopper.update(update)
    stopper.update({"m": 1.0, "train_loss": 1.0})
    stopper.update({"m": 1.0})


# steps and context


def test_steps_count_up_from_0_and_go_on_from_a_given_one():
    stopper = on_m()
    found = []
    for i, step in enumerate([None, None, 10, None, 11.5, None, 12.5]):
        stopper.update(-float(i), step=step)
        found.append(stopper.best.step)
    assert found == [0, 1, 10, 11, 11.5, 12.5, 12.5]


def test_a_step_may_repeat_but_not_decrease_and_a_refused_update_changes_nothing():
    stopper = on_m(Patience(2))
    stopper.update(1.0, step=5)
    stopper.update(2.0, step=5)
    before = stopper.state_dict()
    with pytest.raises(ValueError, match=r"step.*4.*5"):
        stopper.update(0.5, step=4)
    for wrong in ("6", True, NAN, INF, [6]):
        with pytest.raises((TypeError, ValueError), match="step"):
            stopper.update(0.5, step=wrong)
    assert stopper.state_dict() == before
    assert stopper.update(3.0, step=6).stop


def test_steps_may_be_floats_numpy_or_negative_at_first():
    stopper = on_m()
    for i, step in enumerate([-3, np.int64(-2), 0.5, np.float32(2.5), np.int32(7)]):
        stopper.update(-float(i), step=step)
        assert stopper.best.step == step
    json.dumps(stopper.state_dict())


def test_a_fraction_of_a_step_is_not_cut_off_whatever_holds_it():
    torch = pytest.importorskip("torch")
    for step in (np.array(3.75), torch.tensor(3.75)):
        stopper = on_m()
        try:
            stopper.update(1.0, step=step)
        except (TypeError, ValueError):
            continue
        assert stopper.best.step == 3.75


@pytest.mark.parametrize("name", ["lr", "lr_ahead", "progress", "elapsed"])
@pytest.mark.parametrize("value", ["0.1", True, NAN, -0.1])
def test_context_that_is_no_number_is_refused_by_name(name, value):
    stopper = on_m()
    stopper.update(1.0)
    with pytest.raises((TypeError, ValueError), match=name):
        stopper.update(0.5, **{name: value})
    assert stopper.best == (0, 1.0)


def test_progress_is_at_most_1():
    on_m().update(1.0, progress=1.0)
    with pytest.raises(ValueError, match=r"progress must be at most 1, got 1\.5"):
        on_m().update(1.0, progress=1.5)


# best


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("min", [3, 2, 2, 3, 2], (1, 2)),
        ("max", [3, 4, 4, 3, 4], (1, 4)),
        ("min", [NAN, 5, NAN], (1, 5)),
        ("max", [INF, 5, INF, -INF], (1, 5)),
        ("min", [INF, -INF, 5, 4, -INF], (3, 4)),
        ("min", [0.0, -0.0], (0, 0)),
        ("max", [-1e308, -1.5e308], (0, -1e308)),
    ],
)
def test_best_is_the_first_of_ties_and_finite(mode, values, best):
    stopper = on_m(Patience(100), mode)
    assert stopper.best is None
    for value in values:
        stopper.update(value)
    assert stopper.best == best
    assert isinstance(stopper.best, Best)


def test_best_is_none_without_a_finite_value():
    stopper = on_m(Patience(100))
    for value in (NAN, INF, -INF):
        stopper.update(value)
    assert stopper.best is None
    assert stopper.state_dict()["best"] is None


def test_best_ignores_min_delta_and_moves_on_after_a_stop():
    stopper = on_m(Patience(2, min_delta=1))
    assert verdicts(stopper, [5.0, 4.5, 4.25, 4.125, 2.0, 3.0, 3.0]) == "..SS..S"
    assert stopper.best == (4, 2.0)
    stopper.update(1.75)
    assert stopper.best == (7, 1.75)


# combinations


def test_causes_are_the_members_whose_verdict_it_is():
    either = on_m(Patience(2) | NonFinite() | Target(0.5))
    both = on_m(Patience(2) & Target(3))
    seen = [(either.update(v), both.update(v)) for v in (2.0, 2.5, 3.0, NAN, 0.25)]
    assert [a.stop for a, _ in seen] == [False, False, True, True, True]
    assert [[cause.reason for cause in a.causes] for a, _ in seen[2:]] == [
        ["plateaued"],
        ["non_finite", "non_finite"],
        ["target_reached"],
    ]
    assert [b.stop for _, b in seen] == [False, False, True, False, False]
    assert [[cause.stop for cause in b.causes] for _, b in seen] == [[False], [False], [True, True], [False], [False]]
    for a, b in seen:
        assert all(cause.message in a.message for cause in a.causes)
        assert all(cause.message in b.message for cause in b.causes)


def test_causes_nest_and_combinations_never_short_circuit():
    stopper = on_m((Patience(1) & Target(1)) | NonFinite())
    decision = [stopper.update(v) for v in (0.5, 1.0)][-1]
    assert [cause.reason for cause in decision.causes] == ["plateaued"]
    assert [cause.reason for cause in decision.causes[0].causes] == ["plateaued", "target_reached"]
    # Patience counted while NonFinite had decided, and before Target held
    assert verdicts(on_m(NonFinite() | Patience(3)), [1, NAN, NAN, 2]) == ".SSS"
    assert verdicts(on_m(Target(2) & Patience(3)), [3, 3, 3, 2.5, 2, 2, 2, 2]) == ".......S"


def test_both_holds_only_while_both_hold_at_once():
    assert verdicts(on_m(Patience(2) & Divergence(5)), [1, 9, 2, 9, 9, 3, 0]) == "...SS.."


def test_both_of_metrics_at_different_frequencies():
    rule = Patience(2).on("a") & Patience(2).on("b", mode="max")
    stopper = Stopper(rule, monitor="a", mode="min")
    a = [1, 1, 1, 1, 1, 1, 1, 0.5, 1, 1, 1]
    b = {0: 0.5, 3: 0.5, 6: 0.4, 9: 0.3, 10: 0.6}
    updates = [{"a": v} | ({"b": b[i]} if i in b else {}) for i, v in enumerate(a)]
    # a misses from 1 on and holds from 2; b holds from 6; a improves at 7 and holds again at 9; b improves at 10
    assert verdicts(stopper, updates) == "......S..S."


def test_both_of_metrics_that_never_come_together():
    rule = Patience(1).on("a") & Patience(1).on("b")
    stopper = Stopper(rule, monitor="a", mode="min")
    updates = [{"a": 1}, {"b": 1}, {"a": 1}, {"b": 1}, {"a": 0.5}, {"a": 2}, {"b": 0}]
    assert verdicts(stopper, updates) == "...S.S."


def test_either_of_metrics_at_different_frequencies():
    rule = Patience(2).on("a") | NonFinite().on("b")
    stopper = Stopper(rule, monitor="a", mode="min")
    updates = [{"a": 2, "b": 0}, {"b": NAN}, {"a": 1}, {"b": 1}, {"a": 1}, {"b": 1}, {"a": 1}, {"b": 1}, {"a": 0}]
    assert verdicts(stopper, updates) == ".SS...SS."


# state

BIG = (
    WarmUp(Patience(3, min_delta=0.1) | NonFinite(), 2)
    & Rearm(SmoothedSlope(4, tol=0.9, smoothing=0.5) | SuccessiveRises(1, k=2))
    & (Lookahead(2) | GeneralizationLoss(50) | Budget(steps=5, seconds=2))
    & ProgressQuotient(0.01, 2, train="train").on("val", mode="max")
)


def big(updates=13):
    stopper = on_m(BIG)
    for i in range(updates):
        row = {"m": 5.0 / (i + 1) if i % 4 else NAN, "val": 0.1 * i, "train": 0.2 * i + 1}
        stopper.update(row, step=3 * i, lr=0.5**i, lr_ahead=0.5**12, elapsed=float(i))
    return stopper


@pytest.mark.parametrize("updates", [0, 1, 5, 13])
def test_a_state_goes_through_json(updates):
    stopper, resumed = big(updates), on_m(BIG)
    state = json.loads(json.dumps(stopper.state_dict(), allow_nan=False))
    assert resumed.load_state_dict(state) == ()
    assert resumed.state_dict() == stopper.state_dict() == state
    assert resumed.best == stopper.best
    assert resumed.decision == stopper.decision


def test_a_state_loads_with_weights_only(tmp_path):
    torch = pytest.importorskip("torch")
    stopper = big()
    stopper.update({"m": np.float32(0.25), "val": torch.tensor(0.5), "train": np.int64(1)}, step=np.int64(99))
    torch.save(stopper.state_dict(), tmp_path / "state.pt")
    resumed = on_m(BIG)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.best == stopper.best
    assert resumed.state_dict() == stopper.state_dict()


def test_a_saved_state_does_not_move_with_the_run():
    stopper = big(3)
    state = stopper.state_dict()
    kept = copy.deepcopy(state)
    for i in range(5):
        stopper.update({"m": -1.0 * i, "val": 0.3, "train": 0.3}, lr=0.01)
    assert state == kept
    resumed = on_m(BIG)
    resumed.load_state_dict(state)
    for i in range(5):
        resumed.update({"m": -1.0 * i, "val": 0.3, "train": 0.3}, lr=0.01)
    assert state == kept
    assert resumed.state_dict() == stopper.state_dict()


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_a_state_goes_through_json_when_parameters_and_values_are_numpys(kind):
    rule = WarmUp(Patience(np.int64(3), min_delta=kind(0.25)) | SmoothedSlope(np.uint8(3), tol=kind(0.5)), np.int32(2))
    stopper = on_m(rule)
    for step in range(5):
        stopper.update({"m": kind(step)}, step=np.int64(step), progress=kind(0.5))
    state = json.loads(json.dumps(stopper.state_dict()))
    assert on_m(rule).load_state_dict(state) == ()


@pytest.mark.parametrize(
    ("saved", "other"),
    [
        (on_m(Patience(3)), on_m(Lookahead(3))),
        (on_m(Patience(3)), on_m(Patience(3) | NonFinite())),
        (on_m(Patience(3) | NonFinite()), on_m(Patience(3))),
        (on_m(Patience(3) | NonFinite()), on_m(Patience(3) & NonFinite())),
        (on_m(Patience(3) | NonFinite()), on_m(NonFinite() | Patience(3))),
        (on_m(Patience(3) | NonFinite()), on_m(Patience(3) | NonFinite() | Target(0))),
        (on_m(Patience(3)), on_m(WarmUp(Patience(3), 3))),
        (on_m(WarmUp(Patience(3), 3)), on_m(Patience(3))),
        (on_m(Target(3)), on_m(Target(3), mode="max")),
        (on_m(Patience(3)), Stopper(Patience(3), monitor="other", mode="min")),
        (on_m(Patience(3)), on_m(Patience(3).on("other"))),
        (on_m(Patience(3)), on_m(Patience(3).on("m", mode="max"))),
        (on_m(ProgressQuotient(1, train="t")), on_m(ProgressQuotient(1, train="u"))),
    ],
)
def test_a_state_of_other_classes_metrics_or_modes_is_refused(saved, other):
    saved.update({"m": 1.0, "t": 1.0})
    other.update({"m": 2.0, "other": 2.0, "u": 2.0})
    before, decision = other.state_dict(), other.decision
    with pytest.raises(ValueError, match=r"state"):
        other.load_state_dict(saved.state_dict())
    assert other.state_dict() == before
    assert other.decision == decision


def places(data, path=()):
    """Every path into nested dicts and lists."""
    yield path
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield from places(data[key], (*path, key))


def at(data, path):
    for key in path:
        data = data[key]
    return data


def with_value(data, path, value):
    changed = copy.deepcopy(data)
    at(changed, path[:-1])[path[-1]] = value
    return changed


def damaged(state):
    """A good state, damaged at one place: (what was done, the damaged state)."""
    for path in places(state):
        if not path:
            continue
        value = at(state, path)
        if "parameters" not in path[:-1]:  # a parameter's value may be another, and is then reported
            wrong = ["bogus", [["a"]], {"a": 1}]
            if value not in ("nan", "inf", "-inf") and path != ("version",):
                wrong.append(2.5 if isinstance(value, str | bool) else True)
            if "memory" not in path[:-1] and value is not None:
                wrong.append(None)
            for bad in wrong:
                yield f"{path} = {bad!r}", with_value(state, path, bad)
        if isinstance(path[-1], str):
            without = copy.deepcopy(state)
            del at(without, path[:-1])[path[-1]]
            yield f"{path} dropped", without
        if isinstance(value, list) and path[-1] != "unseen":
            yield f"{path} longer", with_value(state, path, [*value, value[-1] if value else 0.0])
            if value:
                yield f"{path} shorter", with_value(state, path, value[:-1])


def test_damage_anywhere_is_refused_and_changes_nothing():
    state, stopper = big().state_dict(), big(7)
    before, best, decision = stopper.state_dict(), stopper.best, stopper.decision
    problems, tried = [], 0
    for what, bad in damaged(state):
        tried += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stopper.load_state_dict(bad)
            problems.append(f"accepted: {what}")
        except ValueError:
            pass
        except Exception as error:
            problems.append(f"{type(error).__name__}: {what}")
        if (stopper.state_dict(), stopper.best, stopper.decision) != (before, best, decision):
            problems.append(f"changed the stopper: {what}")
            stopper = big(7)
    assert tried > 500
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("state", [None, [], {}, "state", 5, {"version": 2}, {"version": 1}, {"rule": {}}], ids=repr)
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match="state"):
        on_m().load_state_dict(state)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("last_step", "inf"),
        ("last_step", None),
        ("best", "nan"),
        ("best", None),
        ("best_step", None),
        ("early", -1),
    ],
)
def test_a_state_that_no_run_can_have_is_refused(key, value):
    stopper = on_m()
    stopper.update(1.0)
    with pytest.raises(ValueError, match="state"):
        on_m().load_state_dict(stopper.state_dict() | {key: value})


@pytest.mark.parametrize(("memory", "value"), [("best", "nan"), ("best", "-inf"), ("wait", -3), ("best_step", None)])
def test_a_memory_that_no_run_can_have_is_refused(memory, value):
    stopper = on_m()
    stopper.update(1.0)
    state = stopper.state_dict()
    state["rule"]["memory"][memory] = value
    with pytest.raises(ValueError, match="state"):
        on_m().load_state_dict(state)


def loaded(rule, state, mode="min"):
    """A stopper of another recipe that took in the state, and what it reported."""
    stopper = on_m(rule, mode)
    with pytest.warns(UserWarning, match=r".") as caught:
        changes = stopper.load_state_dict(state)
    assert len(caught) == len(changes) > 0
    for warning, change in zip(caught, changes, strict=True):
        assert change in str(warning.message)
    return stopper, " ".join(changes)


def saved(rule, values, mode="min"):
    stopper = on_m(rule, mode)
    for value in values:
        stopper.update(value)
    return stopper.state_dict()


def test_a_changed_patience_is_reported_and_goes_on_counting():
    stopper, said = loaded(Patience(5), saved(Patience(3), [1.0, 2.0, 2.0]))
    assert all(word in said for word in ("patience", "3", "5"))
    assert stopper.best == (0, 1.0)
    assert verdicts(stopper, [2.0, 2.0, 2.0]) == "..S"


def test_a_changed_min_delta_counts_from_the_kept_best():
    stopper, said = loaded(Patience(1, min_delta=0.5), saved(Patience(1), [1.0]))
    assert "min_delta" in said
    assert verdicts(stopper, [0.75, 0.5, 0.25]) == "SS."


def test_every_change_is_reported():
    state = saved(WarmUp(Patience(3) | Target(0.5), 2), [1.0])
    _, said = loaded(WarmUp(Patience(4, ties="improve") | Target(0.25), 3), state)
    assert all(word in said for word in ("patience", "ties", "value", "observations"))


@pytest.mark.parametrize(
    "changed", [SmoothedSlope(4, tol=0.3), SmoothedSlope(2, tol=0.3), SmoothedSlope(3, tol=0.3, smoothing=0.5)]
)
def test_a_changed_window_or_smoothing_starts_afresh_and_keeps_best_and_range(changed):
    state = saved(SmoothedSlope(3, tol=0.3), [11.0, 1.0, 5.0, 5.0])
    stopper, said = loaded(changed, state)
    assert "afresh" in said
    assert stopper.best == (1, 1.0)
    # a gain of 2 per observation is below 0.3 of the kept range, 10, and above it of the new values' own
    expected = "." * (changed.window - 1) + "S"
    assert verdicts(stopper, [9.0, 7.0, 5.0, 3.0][: changed.window]) == expected


def test_a_changed_tol_keeps_the_window():
    state = saved(SmoothedSlope(3, tol=0), [11.0, 1.0, 5.0, 4.0, 3.0])
    stopper, said = loaded(SmoothedSlope(3, tol=0.5), state)
    assert "afresh" not in said
    assert stopper.decision.stop


def test_a_changed_strip_length_starts_a_new_first_strip():
    stopper, said = loaded(SuccessiveRises(1, k=3), saved(SuccessiveRises(1, k=2), [1.0, 1.0, 2.0, 2.0, 2.0]))
    assert "afresh" in said
    assert stopper.best == (0, 1.0)
    assert verdicts(stopper, [1.0, 1.0, 3.0, 0.0, 0.0, 4.0]) == ".....S"
    stopper, _ = loaded(SuccessiveRises(2, k=2), saved(SuccessiveRises(1, k=2), [1.0, 1.0, 2.0, 2.0, 2.0]))
    assert verdicts(stopper, [3.0]) == "S"


def test_an_unchanged_rule_reports_nothing():
    rule = Rearm(Patience(3, min_delta=np.float64(0.1)))
    stopper = on_m(rule)
    stopper.update(1.0, lr=0.1)
    state = json.loads(json.dumps(stopper.state_dict()))
    assert on_m(rule).load_state_dict(state) == ()


def test_reset_forgets_the_run():
    stopper = big()
    stopper.reset()
    assert stopper.state_dict() == on_m(BIG).state_dict()
    assert stopper.best is None
    assert not stopper.decision.stop
    with pytest.raises(ValueError, match="elapsed"):
        stopper.update({"m": 1.0})


def test_one_rule_serves_many_runs():
    rule = Patience(2) & SmoothedSlope(2, tol=0)
    first, second = on_m(rule), on_m(rule)
    assert verdicts(first, [1, 2, 3]) == "..S"
    assert verdicts(second, [3, 2, 1]) == "..."


# size


@pytest.mark.parametrize(
    "rule",
    [
        SmoothedSlope(1000, tol=0, smoothing=0.9),
        Rearm(Patience(9)) & WarmUp(Lookahead(9), 50) | SuccessiveRises(9) | GeneralizationLoss(500),
    ],
    ids=repr,
)
def test_memory_does_not_grow_with_the_run(rule):
    values = np.random.default_rng(0).normal(size=100_000).tolist()

    def peak(traced):
        """What the last so many of 100,000 updates allocate and keep at most; tracing all would take a minute."""
        stopper = on_m(rule)
        stopper.update(1.0, lr=0.1)
        for i, value in enumerate(values):
            if i == len(values) - traced:
                tracemalloc.start()
            stopper.update(value)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(12_000) < peak(3_000) + 10_000


def test_a_saved_window_of_1000_is_below_64_kb():
    stopper = on_m(SmoothedSlope(1000, tol=0, smoothing=0.9))
    rng = np.random.default_rng(0)
    for step, value in zip(count(10**6 + 0.123456789, 1.1), rng.normal(1e3, 1, 2500).tolist(), strict=False):
        stopper.update(value, step=step)
    assert len(json.dumps(stopper.state_dict())) < 64_000


def test_a_refused_update_changes_nothing():
    stopper = on_m(Patience(2))
    stopper.update(1.0)
    before = stopper.state_dict()
    for wrong in [{"x": 1.0}, {"m": "1"}, "1"]:
        with pytest.raises((TypeError, ValueError)):
            stopper.update(wrong, step=50)
    assert stopper.state_dict() == before
    assert verdicts(stopper, [1.0, 1.0]) == ".S"
