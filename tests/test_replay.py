"""Replay: indices, gaps, budget and regret, shapes, and bounded memory."""

import math
import tracemalloc

import numpy as np
import pytest

from convergence import (
    Budget,
    GeneralizationLoss,
    Lookahead,
    NonFinite,
    Patience,
    ProgressQuotient,
    Rearm,
    SmoothedSlope,
    Target,
    lockstep,
    replay,
    replay_many,
    score,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "mode", "stop", "best", "budget", "regret"),
    [
        ([3.0, 2.0, 2.5, 2.5, 1.0], "min", 3, 1, 0.8, 0.5),
        ([0.1, 0.2, 0.1, 0.1, 0.4], "max", 3, 1, 0.8, 2 / 3),
        ([3.0, 2.0, 1.0], "min", None, 2, 1.0, 0.0),
        ([1.0, 1.0, 1.0, 1.0], "min", 2, 0, 0.75, 0.0),  # ties: best is the first
        ([1.0, 2.0, 2.0, 1.0], "min", 2, 0, 0.75, 0.0),  # nothing to gain, nothing lost
        ([NAN, 3.0, 2.0, 2.0, 2.0, 1.0], "min", 4, 2, 5 / 6, 0.5),  # the first finite value counts
        ([NAN, NAN, 3.0, 1.0], "min", 1, None, 0.5, 1.0),  # stopped before anything was kept
        ([NAN, NAN, NAN], "min", 1, None, 2 / 3, NAN),
        ([5.0, INF, -INF, 1.0], "min", 2, 0, 0.75, 1.0),  # infinities are never best
        ([1.0], "min", None, 0, 1.0, 0.0),
        ([], "min", None, None, NAN, NAN),
    ],
)
def test_scores(values, mode, stop, best, budget, regret):
    r = replay(Patience(2), values, mode=mode)
    assert (r.stop_index, r.stop_step, r.best_index, r.best_step) == (stop, stop, best, best)
    assert r.best_value == (None if best is None else values[best])
    assert (r.budget, r.regret) == (pytest.approx(budget, nan_ok=True), pytest.approx(regret, nan_ok=True))
    assert r.observations == len(values)
    assert bool(r.decision) == (stop is not None)
    t = replay_many([Patience(2)], [values] * 9, mode=mode)
    assert set(t.stop_index[0]) == {-1 if stop is None else stop}
    assert set(t.best_index[0]) == {-1 if best is None else best}
    np.testing.assert_array_equal(t.regret, np.full((1, 9), r.regret))
    np.testing.assert_array_equal(t.budget, np.full((1, 9), r.budget))


@pytest.mark.parametrize(
    ("kept", "first", "best", "floor", "regret"),
    [
        (2.0, 3.0, 1.0, 0.0, 0.5),
        (1.0, 1.0, 1.0, 0.0, 0.0),
        (NAN, 1.0, 1.0, 0.0, 1.0),
        (NAN, NAN, NAN, 0.0, NAN),
        (1.001, 1.002, 1.0, 0.0, 0.5),
        (1.001, 1.002, 1.0, 0.02, 0.001 / 0.02004),
        (-1.0, 0.0, -2.0, 0.5, 0.5),
        (0.5e308, 1.5e308, -1.5e308, 0.0, 2 / 3),  # the gain itself is beyond the largest float
    ],
)
def test_regret(kept, first, best, floor, regret):
    assert float(score.regret(kept, first, best, floor=floor)) == pytest.approx(regret, rel=1e-9, nan_ok=True)


def test_floor_is_passed_on():
    curve = [1.002, 1.001, 1.001, 1.001, 1.0]
    assert replay(Patience(2), curve, mode="min").regret == pytest.approx(0.5)
    assert replay(Patience(2), curve, mode="min", floor=0.02).regret == pytest.approx(0.001 / 0.02004)
    assert replay_many(Patience(2), [curve], mode="min", floor=0.02).regret[0, 0] == pytest.approx(0.001 / 0.02004)


class TestGaps:
    def test_none_and_masked_entries_are_no_observations(self):
        full = [3.0, 2.0, NAN, 2.0, 1.0]
        gappy = [None, 3.0, None, 2.0, NAN, 2.0, None, 1.0]
        masked = np.ma.masked_array([9, 3, 9, 2, NAN, 2, 9, 1], mask=[1, 0, 1, 0, 0, 0, 1, 0])
        expected = replay(Patience(2), full, mode="min")
        assert expected.stop_index == 3
        for series in (gappy, masked, np.array(gappy, object)):
            r = replay(Patience(2), series, mode="min")
            assert (r.stop_index, r.best_index, r.budget, r.regret) == (3, 1, 0.8, expected.regret)
            t = replay_many([Patience(2)], [series] * 8, mode="min")
            assert set(t.stop_index[0]) == {3}

    def test_steps_go_with_their_values(self):
        r = replay(Patience(1), [3.0, None, 2.0, 2.5], steps=[10, 20, 30, 40], mode="min")
        assert (r.stop_index, r.stop_step, r.best_step) == (2, 40, 30)

    def test_rows_of_several_metrics(self):
        rule = Patience(2).on("loss") & Patience(1).on("acc", mode="max")
        series = {"loss": [3.0, 2.0, None, 2.0, 2.0], "acc": [None, 0.5, None, None, 0.5], "other": [1, 2, 3, 4, 5]}
        r = replay(rule, series, monitor="loss", mode="min")
        assert (r.observations, r.stop_index, r.best_index) == (4, 3, 1)
        assert [cause.reason for cause in r.decision.causes] == ["plateaued", "plateaued"]


class TestInput:
    @pytest.mark.parametrize(
        ("series", "said"),
        [
            (["0.5", "0.4"], "'value' must be a number, got '0.5'"),
            ([True, False], "must be a number, got True"),
            ([1.0, True], "must be a number, got True"),
            (np.array([True, False]), "must be a number, got True"),
            ("abc", "1-d series"),
            (5.0, "1-d series"),
            ([[1.0, 2.0]], "must be a number"),
        ],
    )
    def test_what_is_not_a_series_of_numbers_is_refused(self, series, said):
        with pytest.raises(TypeError, match=said):
            replay(Patience(1), series, mode="min")

    def test_a_matrix_is_not_a_series(self):
        with pytest.raises(ValueError, match="one-dimensional, got 2"):
            replay(Patience(1), np.zeros((2, 2)), mode="min")

    def test_other_things_that_are_arrays(self):
        import torch

        assert replay(Patience(1), torch.tensor([1.0, 2.0]), mode="min").stop_index == 1
        assert replay(Patience(1), np.array([1, 2], np.int32), mode="min").stop_index == 1
        assert replay(Patience(1), range(3), mode="min").stop_index == 1
        assert replay(Patience(1), np.float32([1, 2]), mode="min").stop_index == 1

    def test_mode_and_monitor(self):
        with pytest.raises(ValueError, match="mode missing"):
            replay(Patience(1), [1.0])
        with pytest.raises(ValueError, match="monitor and mode missing"):
            replay(Patience(1), {"a": [1.0]})
        with pytest.raises(ValueError, match="reads 'b', which is not among the series: 'a'"):
            replay(Patience(1), {"a": [1.0]}, monitor="b", mode="min")
        assert replay(Patience(1).on("a", mode="max"), [1.0, 0.5]).stop_index == 1

    def test_lengths_and_steps(self):
        with pytest.raises(ValueError, match="lr has 1 values"):
            replay(Patience(1), [1.0, 2.0], mode="min", lr=[0.1])
        with pytest.raises(ValueError, match="'b' has 1 values"):
            replay(Patience(1).on("a") & Patience(1).on("b"), {"a": [1.0, 2.0], "b": [1.0]}, monitor="a", mode="min")
        with pytest.raises(ValueError, match="steps must not decrease, got 3 after 5 at index 1"):
            replay(Patience(1), [1.0, 2.0], mode="min", steps=[5, 3])
        with pytest.raises(ValueError, match="steps must not decrease, got 3 after 5 at index 1"):
            replay_many(Patience(1), np.ones((9, 2)), mode="min", steps=np.array([[5, 3]] * 9))

    def test_what_a_rule_needs(self):
        for rule, name in ((Rearm(Patience(1)), "lr"), (Budget(seconds=5), "elapsed")):
            with pytest.raises(ValueError, match=f"needs {name}"):
                replay(rule, [1.0, 2.0], mode="min")
            with pytest.raises(ValueError, match=f"needs {name}"):
                replay_many([rule], np.ones((9, 3)), mode="min")
        with pytest.raises(ValueError, match="the rule reads 'train', which is not among the series: 'val'"):
            replay(ProgressQuotient(1, train="train"), {"val": [1.0]}, monitor="val", mode="min")


class TestMany:
    def test_shapes_and_a_single_rule(self):
        t = replay_many(Patience(1), [[1.0, 2.0], [2.0, 1.0, 3.0]], mode="min")
        assert t.stop_index.tolist() == [[1, 2]]
        assert t.stop_index.dtype.kind == t.best_index.dtype.kind == "i"
        assert replay_many([], [[1.0]], mode="min").stop_index.shape == (0, 1)
        assert replay_many([Patience(1)], [], mode="min").stop_index.shape == (1, 0)
        assert replay_many([Patience(1)], np.empty((3, 0)), mode="min").stop_index.tolist() == [[-1, -1, -1]]

    def test_matrix_and_ragged_agree_whatever_the_blocks(self, monkeypatch):
        rng = np.random.default_rng(0)
        matrix = np.round(rng.standard_normal((40, 90)).cumsum(axis=1), 1)
        matrix[rng.random(matrix.shape) < 0.02] = np.nan
        lr = np.where(np.arange(90) < 45, 0.1, 0.01) * np.ones((40, 1))
        rules = [
            *(Patience(k) for k in (20, 3, 7)),
            Patience(5, min_delta=0.3),
            Lookahead(6),
            SmoothedSlope(8, tol=0.001, smoothing=0.5),
            Rearm(Patience(4)) | NonFinite(),
            GeneralizationLoss(50),
            Target(-3.0),
        ]
        wanted = replay_many(rules, matrix, mode="min", lr=lr)
        for lanes, cells in ((8, 64), (16, 1 << 20), (40, 400)):
            monkeypatch.setattr(lockstep, "LANES", lanes)
            monkeypatch.setattr(lockstep, "CELLS", cells)
            for curves, rates in ((matrix, lr), (list(matrix), list(lr))):
                got = replay_many(rules, curves, mode="min", lr=rates)
                for name in ("stop_index", "best_index", "budget", "regret"):
                    np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))

    def test_curves_of_very_different_lengths(self):
        rng = np.random.default_rng(1)
        curves = [rng.random(n) for n in (1, 5_000, 3, 700, 0, 12, 2_000, 1, 90, 33)]
        t = replay_many([Patience(30), Patience(30) | NonFinite()], curves, mode="min")
        for i, curve in enumerate(curves):
            r = replay(Patience(30), curve, mode="min")
            assert t.stop_index[0, i] == t.stop_index[1, i] == (-1 if r.stop_index is None else r.stop_index)
            np.testing.assert_array_equal(t.regret[:, i], [r.regret] * 2)

    def test_progress_true_means_the_recorded_end_is_the_planned_end(self):
        assert replay(Patience(1), [1.0, 2.0], mode="min", progress=True).stop_index == 1
        assert replay_many([Patience(1)], np.array([[1.0, 2.0]] * 9), mode="min", progress=True).stop_index[0, 0] == 1

    def test_several_metrics_are_streamed(self):
        val, train = [[1.0, 0.8, 0.9, 1.0, 1.1, 1.2]] * 3, [[1.0, 0.9, 0.85, 0.84, 0.83, 0.829]] * 3
        t = replay_many(
            [ProgressQuotient(1.0, k=2, train="train"), Patience(1)],
            {"val": val, "train": train},
            monitor="val",
            mode="min",
        )
        assert t.stop_index.tolist() == [[3] * 3, [2] * 3]
        assert t.best_index.tolist() == [[1] * 3, [1] * 3]

    def test_memory_beyond_input_and_result_does_not_grow_with_the_number_of_curves(self):
        def peak(count):
            curves = np.random.default_rng(0).random((count, 64))
            tracemalloc.start()
            replay_many([Patience(3), SmoothedSlope(4, tol=0)], curves, mode="min")
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return used - 2 * count * 32  # the result itself

        assert peak(8 * lockstep.LANES) < 1.5 * peak(2 * lockstep.LANES)

    def test_one_long_curve_is_bounded_too(self):
        curve = np.random.default_rng(0).random(1_000_000) + np.linspace(1, 0, 1_000_000)
        tracemalloc.start()
        r = replay(Patience(400_000), curve, mode="min")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert r.stop_index is None or r.stop_index > 400_000
        assert used < 6 * curve.nbytes
        assert math.isfinite(r.regret)


class TestHostileInput:
    """What once gave a wrong answer or a bare error."""

    MATRIX = np.arange(30.0).reshape(10, 3)

    def test_one_metric_is_not_taken_for_several(self):
        for rule in (Patience(2).on("acc", mode="max"), Patience(2).on("a") & Patience(2).on("b", mode="max")):
            with pytest.raises(ValueError, match="pass a mapping of metrics to curves"):
                replay_many([rule], self.MATRIX, monitor="loss", mode="min")

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("lr", -1.0, "lr must be at least 0, got -1"),
            ("lr_ahead", INF, "lr_ahead must be finite, got inf"),
            ("elapsed", -INF, "elapsed must be finite, got -inf"),
            ("progress", 1.5, "progress must be at most 1, got 1.5"),
            ("steps", NAN, "steps must be finite, got nan"),
        ],
    )
    def test_context_is_checked_for_one_and_many_alike(self, name, value, said):
        with pytest.raises(ValueError, match=said):
            replay(Patience(2), [1.0, 2.0, 3.0], mode="min", **{name: [0.0, value, value]})
        context = {name: np.full((10, 3), value)}
        with pytest.raises(ValueError, match=said):
            replay_many([Patience(2)], self.MATRIX, mode="min", **context)

    def test_masked_context_is_not_known(self):
        elapsed = np.ma.masked_array([1, 9, 3], mask=[False, True, False])
        assert replay(Budget(seconds=3), [3.0, 2.0, 1.0], mode="min", elapsed=elapsed).stop_index == 2

    @pytest.mark.parametrize(
        ("curves", "context", "error", "said"),
        [
            ([1.0, 2.0], {}, TypeError, "got one series: use replay"),
            ([[1.0, 2.0]], {"lr": 5}, TypeError, "lr must be given in the shape of the curves, got 5"),
            ([[1.0, 2.0]], {"lr": [[1, 1], [1, 1]]}, ValueError, "lr has 2 curves, the metric 1"),
            ({"value": [[1.0, 2.0]]}, {"lr": []}, ValueError, "lr has 0 curves, the metric 1"),
            ([np.array(["2020-01-01"], "M8[ns]")], {}, TypeError, "must hold numbers, got dates"),
            ([[10**400, 1]], {}, ValueError, "must fit a float"),
        ],
    )
    def test_shapes_are_refused_by_name(self, curves, context, error, said):
        with pytest.raises(error, match=said):
            replay_many([Patience(1)], curves, monitor="value", mode="min", **context)

    def test_a_window_beyond_all_curves_costs_no_memory(self):
        rules = [SmoothedSlope(10**9, tol=0.1), SmoothedSlope(2_000, tol=0)]
        tracemalloc.start()
        t = replay_many(rules, np.ones((3_000, 20)), mode="min")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (t.stop_index == -1).all()
        assert used < 200e6

    def test_numpy_parameters_count_as_their_numbers(self):
        assert replay(Target(np.uint8(90)), [10, 20, 95], mode="max").stop_index == 2
        assert replay(Patience(np.int64(1)) | NonFinite(), [1.0, 2.0], mode="min").stop_index == 1
        assert replay(Patience(1, min_delta=np.float32(0)), [1.0, 0.99999999], mode="min").stop_index is None


def test_floor_counts_for_mappings_of_curves_too():
    curves = {"a": [[1.002, 1.001, 1.001, 1.001, 1.0]]}
    table = replay_many(Patience(2), curves, monitor="a", mode="min", floor=0.02)
    assert table.regret[0, 0] == pytest.approx(0.001 / 0.02004)
