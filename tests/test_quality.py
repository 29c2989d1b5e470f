"""The benchmark of stopping: what it reads, what it names, and its figures against plain arithmetic."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_score import nested_mean

from benchmarks import quality
from benchmarks.command_line import Mistake
from benchmarks.families import COUNTS, LIMIT, SHARES, families, regret_so_far, rule_stops
from benchmarks.findings import findings, jsonable, measure
from benchmarks.outcomes import Averages, measures, outcomes
from benchmarks.quality import measured_peer
from benchmarks.suite import Curve, Suite, read_suite, regime_of
from convergence import Patience, ProgressQuotient, Rearm, replay
from convergence.histories import NotALog
from convergence.score import Frontier

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).parents[1]
OUR_RUN = {"source": "lab", "task": "t", "group": "g", "ended": "full", "split_loss": "val", "primary_score": "",
           "split_score": "", "primary_loss": "val_loss"}  # fmt: skip


def write_curves(folder, series, source="lab"):
    """Write {(run, metric, mode, split): values} as tidy Parquet."""
    rows = [
        {"run": run, "metric": metric, "mode": mode, "split": split, "step": float(i), "value": value}
        for (run, metric, mode, split), values in series.items()
        for i, value in enumerate(values)
    ]
    names = ("run", "metric", "mode", "split", "step", "value")
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in names}), folder / f"{source}.parquet")


def write_runs(folder, rows):
    with (folder / "runs.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["run", *OUR_RUN])
        writer.writeheader()
        writer.writerows([OUR_RUN | row for row in rows])


def curve_of(
    loss, *, run="r", group="g", task="t", source="s", mode="min", lr=None, train=None, test=None, regime="learns",
    full=True,
):  # fmt: skip
    loss = np.array(loss, float)
    given = {"lr": lr, "train": train, "test": test}
    optional = {name: None if values is None else np.array(values, float) for name, values in given.items()}
    return Curve(
        source, task, group, run, "loss", mode, regime, full, loss, np.arange(len(loss), dtype=float), **optional
    )


def run_quality(*arguments):
    command = [sys.executable, "-m", "benchmarks.quality", "--no-peers", "--resamples", "20", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("loss", "regime"),
    [
        ([1.0, 0.5, 0.3, 0.25, 0.24, 0.24], "learns"),
        ([1.0, 1.001, 0.999, 1.0, 1.0, 1.0], "flat"),
        ([1.0, 0.5, 0.2, 0.3, 0.4, 0.6], "overfits"),
        ([1.0, 0.5, 0.7, 2.0, 9.0, 80.0], "diverges"),
        ([1.0, 0.5, 0.4, math.nan, math.nan, math.nan], "diverges"),
        ([1.0] * 10 + [0.9, 0.5, 0.2, 0.1, 0.1], "slow_start"),
        ([-5.0, -5.5, -6.0, -6.1, -6.1, -6.1], "learns"),  # a negative loss
        ([0.0] * 6, "flat"),
        ([math.nan] * 4, "diverges"),
        ([1.0, 0.5, 0.2, 0.3] + [0.6] * 24 + [math.nan, 0.6], "overfits"),  # one NaN in the last tenth
        (
            [1.0, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.9],
            "learns",
        ),  # after a best in the last quarter
    ],
)
def test_regimes(loss, regime):
    assert regime_of(np.array(loss)) == regime


def test_stops_are_scored_as_replay_scores_them():
    rng = np.random.default_rng(0)
    curves = [
        curve_of(1 / np.sqrt(np.arange(1, n + 1)) + 0.05 * rng.standard_normal(n), run=str(n), mode=mode)
        for n, mode in ((5, "min"), (40, "min"), (17, "max"), (90, "max"))
    ]
    rules = [Patience(1), Patience(4)]
    outcome = outcomes(rule_stops(rules, curves), curves)
    for row, rule in enumerate(rules):
        for column, curve in enumerate(curves):
            sign = 1 if curve.mode == "min" else -1
            expected = replay(rule, sign * curve.loss, mode=curve.mode, floor=0.02)
            assert outcome.stop_index[row, column] == (-1 if expected.stop_index is None else expected.stop_index)
            assert outcome.budget[row, column] == pytest.approx(expected.budget)
            assert outcome.regret[row, column] == pytest.approx(expected.regret)


def test_selected_on_validation_and_scored_on_test():
    # Stopping at index 1 keeps validation 0.5 (test 0.9); the whole run keeps 0.2 (test 1.0, worse).
    outcome = outcomes(np.array([[1], [-1], [3]]), [curve_of([1.0, 0.5, 0.6, 0.2], test=[2.0, 0.9, 0.8, 1.0])])
    assert outcome.test_regret[:, 0] == pytest.approx([(0.9 - 1.0) / (2.0 - 1.0), 0, 0])
    assert np.isnan(outcomes(np.array([[1]]), [curve_of([1.0, 0.5, 0.6])]).test_regret).all()
    # The best of the whole run is at index 2, and not at its end; a gain of 0.1 counts as 2 % of 100.
    outcome = outcomes(np.array([[1]]), [curve_of([1.0, 0.5, 0.2, 0.4], test=[100.0, 100.5, 99.9, 50.0])])
    assert outcome.test_regret[0, 0] == pytest.approx((100.5 - 99.9) / 2.0)


def test_stops_before_the_first_drop_are_counted():
    drops = curve_of([1.0] * 6, lr=[0.01, 0.1, 0.1, 0.095, 0.05, 0.01])  # warm-up is no drop, 5 % is none
    assert drops.first_drop == 4
    assert curve_of([1.0] * 4, lr=[0.0, 0.1, 0.1, 0.08]).first_drop == 3  # a rate of 0 at first is no drop
    assert curve_of([1.0] * 4, lr=[0.0] * 4).first_drop == -1
    early = outcomes(np.array([[3], [4], [-1]]), [drops]).early
    assert early[:, 0].tolist() == [1, 0, 0]
    assert np.isnan(outcomes(np.array([[3]]), [curve_of([1.0] * 6, lr=[0.1] * 6)]).early).all()


def test_means_are_taken_within_run_group_task_source():
    labels = [tuple(text) for text in ("atg1", "atg1", "atg2", "ath1", "aug1", "btg1")]
    curves = [curve_of([1, 0.5], source=s, task=t, group=g, run=r) for s, t, g, r in labels]
    values = np.array([0.3, 0.1, 0.7, 0.2, 0.9, 0.4])
    assert Averages(curves).mean(values)[0] == pytest.approx(nested_mean(values.tolist(), labels))


def test_bootstrap_resamples_groups_within_sources():
    rng = np.random.default_rng(1)
    labels = [(s, t, g, r) for s in "ab" for t in "xy" for g in "123" for r in "12"]
    curves = [curve_of([1, 0.5], source=s, task=t, group=g, run=r) for s, t, g, r in labels]
    values = rng.random(len(curves))
    averages = Averages(curves, resamples=4000)
    resampled = averages.resampled_means(values)[0]
    assert averages.resampled.sum(axis=1) == pytest.approx(np.ones(4000))
    assert resampled.mean() == pytest.approx(averages.mean(values)[0], abs=0.01)
    group_means = {}
    for value, (s, t, g, _) in zip(values, labels, strict=True):
        group_means.setdefault((s, t, g), []).append(value)
    assert resampled.std() > 0.2 * np.std([np.mean(v) for v in group_means.values()])
    same = Averages(curves, resamples=50).resampled_means(np.ones(len(curves)))
    assert same == pytest.approx(np.ones((1, 50)))  # what does not vary has no spread


def test_every_resample_keeps_the_weights_of_sources_tasks_and_runs():
    # Source a has one group, b three in two tasks; a run of b has two curves, its twin one.
    labels = ["atg1", "btg1", "btg1", "btg2", "bth1", "bug1"]
    curves = [curve_of([1, 0.5], source=s, task=t, group=g, run=r) for s, t, g, r in labels]
    averages = Averages(curves, resamples=500)
    of_a, of_b = averages.resampled_means(np.array([[1.0] + [0.0] * 5, [0.0] + [1.0] * 5]))
    assert of_a == pytest.approx(np.full(500, 0.5))
    assert of_b == pytest.approx(np.full(500, 0.5))
    # In group btg the two curves of run 1 weigh as much as the one of run 2.
    first, _, second = averages.resampled_means(np.eye(6)[1:4])
    assert first == pytest.approx(second / 2)
    assert len(set(np.round(second, 6))) > 2
    for share, counts in zip(second, averages.resampled[:, 1:] > 0, strict=True):
        in_task, other_task = counts[:2], counts[2]
        if in_task.any():
            assert share <= 0.25 / (1 if not other_task else 2) + 1e-9


def test_an_interval_of_one_group_has_no_width():
    low, high = Averages([curve_of([1, 0.5])], resamples=10).interval(np.array([[0.3]]))[0]
    assert low == high == pytest.approx(0.3)


def test_families_stop_where_their_rules_do():
    rng = np.random.default_rng(2)
    rates = [0.1] * 20 + [0.01] * 10 + [0.08] * 10 + [0.1] * 20  # restarts: what is ahead is not where it ends
    curves = [
        curve_of(np.exp(-np.arange(60) / 15) + 0.02 * rng.standard_normal(60), lr=rates, run=str(i)) for i in range(9)
    ]
    found = {one.name: one.stops(curves) for one in families() if one.applies(curves[0])}
    assert "ProgressQuotient" not in found
    for row, count in enumerate(COUNTS):
        ahead = [min(rates[i + 1 :], default=rates[-1]) for i in range(60)]
        for column, curve in enumerate(curves):
            single = replay(Rearm(Patience(count)), curve.loss, mode="min", lr=rates, lr_ahead=ahead).stop_index
            assert found["Rearm(Patience)"][row, column] == (-1 if single is None else single)
    for row, share in enumerate(SHARES):
        patience = max(1, math.ceil(share * 60 - 1e-9))
        assert found["Patience, share of plan"][row].tolist() == rule_stops([Patience(patience)], curves)[0].tolist()
        assert (found["fixed fraction"][row] == patience - 1).all()
    assert (found["clairvoyant"][0] == [int(np.argmin(curve.loss)) for curve in curves]).all()


def test_clairvoyance_counts_small_gains_as_the_regret_does():
    stops = next(one for one in families() if one.name == "clairvoyant").stops([curve_of([100.0, 99.99, 99.98, 99.97])])
    assert stops[:, 0].tolist() == [3, 3, 3, 1, *[0] * 7]  # 0.03 of at least 2.0


def test_no_stops_beat_the_limit():
    rng = np.random.default_rng(7)
    curves = [curve_of(np.exp(-np.arange(n) / 9) + 0.05 * rng.standard_normal(n), run=str(n)) for n in (12, 30, 55)]
    limit = next(one for one in families() if one.name == LIMIT)
    best = outcomes(limit.stops(curves), curves)
    for _ in range(300):
        other = outcomes(np.array([[rng.integers(0, len(curve.loss)) for curve in curves]]), curves)
        for price, row in zip(limit.members, range(len(limit.members)), strict=True):
            worth = float(price.removeprefix("price "))
            ours = best.regret[row].mean() + worth * best.budget[row].mean()
            assert ours <= other.regret.mean() + worth * other.budget.mean() + 1e-12


def test_rules_that_need_the_training_curve_get_it():
    train, val = [3.0, 1.0, 1.0, 1.4, 1.0, 1.0, 1.2, 1.0, 1.0], [3.0, *(2.0 + 0.02 * i for i in range(8))]
    rule = ProgressQuotient(0.1, 3, train="whatever it is called")
    for sign, mode in ((1, "min"), (-1, "max")):
        curve = curve_of(val, train=train, mode=mode)
        series = {"v": sign * np.array(val), "whatever it is called": sign * np.array(train)}
        expected = replay(rule, series, monitor="v", mode=mode).stop_index
        assert expected is not None
        assert rule_stops([rule, Patience(2)], [curve])[:, 0].tolist() == [expected, 3]


def test_what_needs_the_plan_is_measured_on_full_runs_only():
    curves = [curve_of([3.0, 2.0, 1.0, 0.5], run=str(i), full=i != 1) for i in range(3)]
    on = {one.name: found.on.tolist() for one in families() if (found := measure(one, curves))}
    assert on["fixed fraction"] == on["Patience, share of plan"] == [True, False, True]
    assert on["Patience"] == [True] * 3


def test_patience_of_a_share_treats_nan_as_patience_does():
    share = next(one for one in families() if one.name == "Patience, share of plan")
    curves = [curve_of([math.nan, math.nan, 3, 2, math.nan, math.inf, 2, 2, 2, 2]), curve_of([math.nan] * 9 + [1.0])]
    for row, part in enumerate(SHARES):
        patience = max(1, math.ceil(part * 10 - 1e-9))
        assert share.stops(curves)[row].tolist() == rule_stops([Patience(patience)], curves)[0].tolist()


def test_the_measures_of_a_hand_made_suite():
    curves = [curve_of([1.0, 0.0, 0.0, 0.0], group="a"), curve_of([1.0, 0.8, 0.9, 0.0], group="b")]
    row = measures(outcomes(np.array([[1, 2]]), curves), Averages(curves, resamples=100))[0]
    assert row["budget"] == pytest.approx((0.5 + 0.75) / 2)
    assert row["regret"] == pytest.approx((0 + 0.8) / 2)
    assert row["regret_p95"] == pytest.approx(0.8)
    assert (
        measures(outcomes(np.array([[1, 2]]), curves), Averages(curves))[0]["regret_interval"]
        == [pytest.approx(math.nan, nan_ok=True)] * 2
    )
    assert row["within_1_percent"] == 0.5
    assert row["never_stops"] == 0
    assert row["regret_interval"] == [0.0, pytest.approx(0.8)]
    assert math.isnan(row["before_first_drop"])


def test_quantiles_are_weighted_and_good_is_one_percent():
    # Ten runs of one group lose nothing, one run of another loses a fifth: half of the weight each.
    curves = [curve_of([1.0, 0.0, 0.0], group="many", run=str(i)) for i in range(38)]
    curves += [curve_of([1.0, 0.2, 0.0], group="one"), curve_of([1.0, 0.02, 0.0], group="two")]
    row = measures(outcomes(np.full((1, 40), 1), curves), Averages(curves))[0]
    assert row["regret_p95"] == pytest.approx(0.2)  # the unweighted quantile would be 0.02
    assert row["within_1_percent"] == pytest.approx(1 / 3)


def test_a_run_without_a_finite_value_costs_time_only():
    curve = curve_of([math.nan] * 10)
    assert regret_so_far(curve.loss).tolist() == [0.0] * 10
    row = measures(outcomes(np.array([[1]]), [curve]), Averages([curve]))[0]
    assert (row["budget"], row["regret"], row["within_1_percent"]) == (0.2, 0.0, 1.0)
    assert families()[-1].stops([curve])[:, 0].tolist() == [0] * len(families()[-1].members)


def test_a_folder_with_a_table_of_runs(tmp_path):
    series = {
        ("one", "val_loss", "min", "val"): [3.0, 2.0, 1.0],
        ("one", "train_loss", "min", "train"): [2.0, 1.5, 0.5],
        ("one", "test_loss", "min", "test"): [3.1, 2.1, 1.1],
        ("one", "val_acc", "max", "val"): [0.1, 0.5, 0.6],
    }
    write_curves(tmp_path, series)
    write_runs(tmp_path, [{"run": "one", "primary_score": "val_acc", "split_score": "val"}])
    suite = read_suite(tmp_path)
    loss, score = suite.curves
    assert (loss.metric, score.metric, suite.left_out) == ("val_loss", "val_acc", ())
    assert loss.train.tolist() == [2.0, 1.5, 0.5]
    assert loss.test.tolist() == [3.1, 2.1, 1.1]
    assert score.loss.tolist() == [-0.1, -0.5, -0.6]
    assert score.test is None


def test_one_file_may_hold_several_sources(tmp_path):
    write_curves(tmp_path, {(run, "val_loss", "min", "val"): [3.0, 2.0, 1.0] for run in ("one", "two")}, source="all")
    write_runs(tmp_path, [{"run": "one", "source": "lab"}, {"run": "two", "source": "field"}])
    assert sorted(curve.source for curve in read_suite(tmp_path).curves) == ["field", "lab"]


def test_what_gives_no_curve_is_named(tmp_path):
    write_curves(
        tmp_path,
        {
            ("fine", "val_loss", "min", "val"): [3.0, 2.0, 1.0],
            ("short", "val_loss", "min", "val"): [3.0, 2.0],
            ("empty-handed", "val_loss", "min", "val"): [math.nan] * 5,
            ("other", "val_acc", "max", "val"): [0.1, 0.2, 0.3],
            ("stray", "val_loss", "min", "val"): [3.0, 2.0, 1.0],
        },
    )
    (tmp_path / "notes.parquet").write_text("not Parquet")
    (tmp_path / "notes.txt").write_text("not Parquet")
    runs = ("fine", "short", "empty-handed", "other", "gone")
    write_runs(tmp_path, [{"run": run, "group": f"group of {run}"} for run in runs])
    suite = read_suite(tmp_path)
    assert [curve.run for curve in suite.curves] == ["fine", "empty-handed"]
    assert suite.nowhere_finite == ["empty-handed (lab) val_loss"]
    told = "\n".join(suite.left_out)
    for said in ("short (lab) val_loss: 2 evaluation(s), fewer than 3", "notes.txt: not Parquet",
                 "other (lab): none of the metrics", "gone (lab): no row", "group group of gone (lab): empty",
                 "stray: not in the table", "notes.parquet:"):  # fmt: skip
        assert said in told
    ran = run_quality("--curves", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert all(line in ran.stderr for line in suite.left_out)
    assert "no finite value, so there is no regret in it: empty-handed" in ran.stderr


def test_what_is_there_twice_is_not_counted_twice(tmp_path):
    (tmp_path / "a").mkdir()
    for folder, values in ((tmp_path, [3.0, 2.0, 1.0]), (tmp_path / "a", [3.0, 2.0, 1.0, 0.5])):
        write_curves(folder, {("r", "val_loss", "min", "val"): values})
    suite = read_suite(tmp_path)
    assert len(suite.curves) == 1
    assert "run 'r' of 'lab' was read from another file" in suite.left_out[0]
    write_runs(tmp_path, [{"run": "r", "primary_score": "val_loss", "split_score": "val"}])
    assert len(read_suite(tmp_path).curves) == 1
    write_runs(tmp_path, [{"run": "r"}, {"run": "r", "group": "h"}])
    with pytest.raises(NotALog, match="run 'r' of source 'lab' is there twice"):
        read_suite(tmp_path)


def test_rates_that_cannot_be_are_named(tmp_path):
    write_curves(tmp_path, {("r", "loss", "min", "val"): [3.0, 2.0, 1.0]})
    table = pq.read_table(tmp_path / "lab.parquet")
    for rates, known in (([0.1, 0.1, 0.01], True), ([0.1, math.nan, 0.1], False), ([0.1, -0.1, 0.1], False)):
        pq.write_table(table.append_column("lr", pa.array(rates)), tmp_path / "lab.parquet")
        (curve,), left_out = (suite := read_suite(tmp_path)).curves, suite.left_out
        assert (curve.lr is not None) == known
        assert curve.regime == ("scheduled" if known else "learns")
        assert left_out == ()
        assert ["learning rates are passed over" in note for note in suite.notes] == [True] * (not known)
    pq.write_table(table.append_column("lr", pa.nulls(3, pa.float64())), tmp_path / "lab.parquet")
    assert read_suite(tmp_path).notes == []


def test_curves_beside_are_those_of_the_same_quantity_and_steps(tmp_path):
    steps = {"val": [0, 2, 4, 6], "test": [0, 4, 6, 8], "train": [1, 3, 5, 7]}
    rows = [("r", "validation/accuracy", "max", "val", at, 0.1 * at) for at in steps["val"]]
    rows += [("r", "test/accuracy", "max", "test", at, 0.2 * at) for at in steps["test"]]
    rows += [("r", "train/accuracy", "max", "train", at, 0.3 * at) for at in steps["train"]]
    names = ("run", "metric", "mode", "split", "step", "value")
    columns = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    pq.write_table(pa.table(columns | {"step": np.array(columns["step"], float)}), tmp_path / "lab.parquet")
    (curve,) = read_suite(tmp_path).curves
    assert curve.test == pytest.approx([0, math.nan, -0.8, -1.2], nan_ok=True)
    assert curve.train is None  # at none of its steps


def test_a_manifest(tmp_path):
    series = {
        ("t_mlp/a/0", "loss", "min", "val"): [3.0, 2.0, 1.0],
        ("t_mlp/a/0", "accuracy", "max", "val"): [0.1, 0.2, 0.3],
        ("t_mlp/a/0", "loss", "min", "train"): [3.0, 1.0, 0.5],
    }
    write_curves(tmp_path, series, source="recorded")
    entry = {"run": "t_mlp/a/0", "task": "t", "architecture": "mlp", "group": "t_mlp/a", "regime": "grokking"}
    (tmp_path / "manifest.json").write_text(json.dumps({"runs": [entry]}))
    loss, score = read_suite(tmp_path).curves
    assert {(c.task, c.group, c.regime, c.full, c.source) for c in (loss, score)} == {
        ("t_mlp", "t_mlp/a", "grokking", True, "recorded")
    }
    assert (loss.metric, score.metric) == ("loss", "accuracy")
    assert loss.train.tolist() == [3.0, 1.0, 0.5]
    (tmp_path / "manifest.json").write_text(json.dumps({"runs": [entry, entry]}))
    with pytest.raises(NotALog, match="twice"):
        read_suite(tmp_path)


def test_only_runs_to_their_planned_end(tmp_path):
    write_curves(tmp_path, {(run, "val_loss", "min", "val"): [3.0, 2.0, 1.0] for run in ("done", "cut")})
    write_runs(tmp_path, [{"run": "done", "ended": "full schedule"}, {"run": "cut", "ended": "unknown"}])
    suite = quality._chosen(read_suite(tmp_path), full_only=True)
    assert [curve.run for curve in suite.curves] == ["done"]
    assert "cut (lab) val_loss: not to its planned end" in suite.left_out
    assert len(quality._chosen(read_suite(tmp_path), full_only=False).curves) == 2
    write_runs(tmp_path, [{"run": "cut", "ended": "unknown"}])
    ran = run_quality("--curves", tmp_path, "--full-only")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "--full-only: no run" in ran.stderr


def test_without_a_table_every_validation_curve_counts(tmp_path):
    write_curves(
        tmp_path, {("r", "loss", "min", "val"): [3.0, 2.0, 1.0], ("r", "loss", "min", "train"): [3.0, 1.0, 0.0]}
    )
    assert [(c.run, c.metric, c.full) for c in read_suite(tmp_path).curves] == [("r", "loss", False)]


def bad_folder(kind, folder):
    if kind == "missing":
        return folder / "nowhere"
    if kind != "empty":
        write_curves(folder, {("r", "val_loss", "min", "val"): [3.0, 2.0, 1.0]})
    if kind == "columns":
        pq.write_table(pa.table({"run": ["r"], "value": [1.0]}), folder / "lab.parquet")
    if kind == "runs.csv":
        (folder / "runs.csv").write_text("run,task\nr,t\n")
    if kind == "manifest":
        (folder / "manifest.json").write_text('{"runs": [{"run": "r"}]}')
    if kind == "not JSON":
        (folder / "manifest.json").write_text("{")
    if kind == "a list for a name":
        entry = {"run": ["r"], "task": "t", "architecture": "a", "group": "g", "regime": "learns"}
        (folder / "manifest.json").write_text(json.dumps({"runs": [entry]}))
    if kind == "too deep":
        (folder / "manifest.json").write_text("[" * 100_000)
    if kind == "latin-1":
        (folder / "runs.csv").write_bytes("source,run,gr\xfcn\n".encode("latin-1"))
    if kind == "short row":
        write_runs(folder, [{"run": "r"}])
        (folder / "runs.csv").write_text((folder / "runs.csv").read_text() + "s,lab\n")
    if kind == "huge cell":
        (folder / "runs.csv").write_text("source,run\n" + "x" * 200_000 + ",r\n")
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "not a folder"),
        ("empty", "no Parquet file"),
        ("columns", "no column metric, split, step"),
        ("runs.csv", "no column source, group, ended"),
        ("manifest", "not a manifest of recorded runs"),
        ("not JSON", "not readable as JSON"),
        ("a list for a name", "source, run, group and regime must be text"),
        ("too deep", "not readable as JSON"),
        ("latin-1", r"runs.csv: text in it is not UTF-8"),
        ("short row", "line 3: no "),
        ("huge cell", "runs.csv: no"),
    ],
)
def test_bad_folders(tmp_path, kind, said):
    with pytest.raises(NotALog, match=said):
        read_suite(bad_folder(kind, tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--curves", "/nowhere"], "not a folder"),
        (["--rules", "Patiense(3)"], "did you mean 'Patience'"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--resamples", "-1"], "--resamples must be at least 0, got -1"),
        (["--rules", "Patience(3).on('val_loss')"], "write it without .on(...)"),
        (["--rules", "Budget(seconds=3)"], "needs elapsed seconds"),
        (["--rules", "ProgressQuotient(1, train='a') | ProgressQuotient(1, train='b')"], "reads 'a' and 'b'"),
        (["--out", "/proc/nowhere/q.json"], "/proc/nowhere"),
        (["--out", "/dev/null"], "not a regular file"),
        (["--out", "tests"], "not a regular file"),
    ],
)
def test_bad_options_are_one_line_and_status_2(options, said):
    ran = run_quality(*options)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_the_command_writes_what_it_prints(tmp_path):
    rng = np.random.default_rng(3)
    series = {(f"r{i}", "val_loss", "min", "val"): np.exp(-np.arange(40) / 9) + 0.01 * rng.standard_normal(40)
              for i in range(12)}  # fmt: skip
    write_curves(tmp_path, series)
    write_runs(tmp_path, [{"run": f"r{i}", "group": f"g{i % 4}"} for i in range(12)])
    out = tmp_path / "results" / "q.json"
    ran = run_quality("--curves", tmp_path, "--rules", "Patience(6)", "--out", out)
    assert ran.returncode == 0, ran.stderr
    results = json.loads(out.read_text())
    assert results["suite"]["curves"] == 12
    assert results["gallery"] == []  # curves of other people are not copied
    (own,) = results["families"]["--rules Patience(6)"]["members"]
    curves = read_suite(tmp_path).curves
    expected = measures(outcomes(rule_stops([Patience(6)], curves), curves), Averages(curves))[0]
    assert own["regret"] == pytest.approx(expected["regret"], rel=1e-4)
    assert f"{own['regret']:.4f}" in ran.stdout
    assert results["families"]["Patience"]["ratio_to_patience"] == 1.0
    fixed = results["families"]["fixed fraction"]
    lost = {one["rule"]: one["regret"] for one in fixed["members"]}
    assert fixed["regret_at"][:2] == pytest.approx([lost["0.25 of plan"], lost["0.5 of plan"]])
    assert "Rearm(Patience)" in results["absent"]


def test_a_family_is_compared_on_the_curves_that_it_was_measured_on():
    rng = np.random.default_rng(4)
    make = lambda **more: curve_of(np.exp(-np.arange(50) / 12) + 0.02 * rng.standard_normal(50), **more)  # noqa: E731
    curves = [make(run=str(i), group=str(i), lr=[0.1] * 25 + [0.01] * 25 if i % 2 else None) for i in range(8)]
    patience, rearm = (measure(one, curves) for one in families() if one.name in ("Patience", "Rearm(Patience)"))
    assert rearm.on.tolist() == [False, True] * 4
    results = findings(Suite(tuple(curves), ()), [patience, rearm], {}, 5, show_curves=True)
    assert results["families"]["Rearm(Patience)"]["curves"] == 4
    assert rearm.outcome.stop_index[:, ::2].tolist() == [[-1] * 4] * len(COUNTS)
    assert np.isnan(rearm.outcome.regret[:, ::2]).all()
    only = [curve for curve in curves if curve.lr is not None]
    alone = findings(Suite(tuple(only), ()), [measure(families()[0], only)], {}, 0, show_curves=False)
    both = findings(
        Suite(tuple(only), ()), [measure(one, only) for one in families() if one.name in results["families"]], {}, 0,
        show_curves=False,
    )  # fmt: skip
    ours, theirs = (found["families"]["Rearm(Patience)"] for found in (results, both))
    assert [one["to_patience"] for one in ours["members"]] == pytest.approx(
        [one["to_patience"] for one in theirs["members"]], nan_ok=True
    )
    front = Frontier.of(*(np.array([one[name] for one in ours["members"]]) for name in ("budget", "regret")))
    assert ours["regret_at"] == pytest.approx(front.at([0.25, 0.5, 0.75]).tolist(), nan_ok=True)
    theirs_at = Frontier.of(*(Averages(only).mean(values) for values in _of_patience(only)))
    for one in ours["members"]:
        beside = one["regret"] / theirs_at.at(one["budget"])
        assert math.isnan(one["to_patience"]) or one["to_patience"] == pytest.approx(beside)
    assert np.isfinite([one["to_patience"] for one in ours["members"]]).any()
    for one in results["families"]["Patience"]["members"]:  # beside itself it is 1, or too good to say
        assert one["to_patience"] == pytest.approx(1) or (math.isnan(one["to_patience"]) and one["regret"] <= 1e-4)
    assert ours["ratio_to_patience"] == theirs["ratio_to_patience"] != 1
    assert ours["regret_at"] == pytest.approx(theirs["regret_at"], nan_ok=True)
    assert results["regimes"]["learns"]["ratio_to_patience"]["Rearm(Patience)"] == ours["ratio_to_patience"]
    on_same = Averages(curves, rearm.on).mean(patience.outcome.regret)
    assert on_same == pytest.approx([member["regret"] for member in alone["families"]["Patience"]["members"]])
    assert len(results["gallery"]) == 8
    json.dumps(jsonable(results), allow_nan=False)


def _of_patience(curves):
    outcome = outcomes(families()[0].stops(curves), curves)
    return outcome.budget, outcome.regret


def test_regimes_are_averaged_by_themselves():
    rng = np.random.default_rng(6)
    curves = [
        curve_of(np.exp(-np.arange(30) / 6) + 0.05 * rng.standard_normal(30), run=str(i), group=str(i), regime=regime)
        for i, regime in enumerate(["learns"] * 4 + ["flat"] * 3)
    ]
    patience = measure(families()[0], curves)
    tables = findings(Suite(tuple(curves), ()), [patience], {}, 0, show_curves=False)["regimes"]
    assert {name: table["curves"] for name, table in tables.items()} == {"learns": 4, "flat": 3}
    row = COUNTS.index(3)
    for regime, part in (("learns", slice(0, 4)), ("flat", slice(4, 7))):
        shown = tables[regime]["rules"]["Patience(3)"]
        assert shown["regret"] == pytest.approx(patience.outcome.regret[row, part].mean())
        assert shown["budget"] == pytest.approx(patience.outcome.budget[row, part].mean())


def test_a_peer_is_measured_on_the_curves_that_it_was_run_on():
    rng = np.random.default_rng(8)
    curves = [
        curve_of(np.exp(-np.arange(20) / 4) + 0.1 * rng.standard_normal(20), run=str(i), group=str(i)) for i in range(6)
    ]
    patience = measure(families()[0], curves)
    at = np.array([1, 4, 5])
    stops = patience.outcome.stop_index[[COUNTS.index(2), COUNTS.index(5)]][:, at]
    peer = measured_peer("A peer", (("presets.keras(patience=2)", "presets.keras(patience=5)"), at, stops, {}), curves)
    assert peer.on.tolist() == [False, True, False, False, True, True]
    assert peer.outcome.regret[:, at] == pytest.approx(patience.outcome.regret[[1, 4]][:, at])
    assert np.isnan(peer.outcome.budget[:, [0, 2, 3]]).all()


def test_an_installed_peer_is_run_and_compared_with_its_preset(tmp_path):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(9)
    series = {(f"r{i}", "val_loss", "min", "val"): np.exp(-np.arange(25) / 5) + 0.1 * rng.standard_normal(25)
              for i in range(8)}  # fmt: skip
    write_curves(tmp_path, series)
    members, at, stops, about = quality._peer_stops(str(tmp_path), False, "scikit-learn MLP")
    assert at.tolist() == list(range(8))
    assert about["preset_stops_equal"] == about["preset_stops_compared"] == stops.size == 8 * len(members)
    assert (stops >= 0).any()
    assert about["refused_runs"] == []


def test_figures_show_the_results(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks import figures

    rng = np.random.default_rng(5)
    curves = [
        curve_of(np.exp(-np.arange(40) / 9) + 0.02 * rng.standard_normal(40), run=str(i), group=str(i), lr=[0.1] * 40)
        for i in range(5)
    ]
    measured = [found for one in families() if (found := measure(one, curves))]
    results = jsonable(findings(Suite(tuple(curves), ()), measured, {}, 5, show_curves=True))
    (tmp_path / "quality.json").write_text(json.dumps(results))
    drawn = figures.draw(tmp_path)
    assert set(drawn) == {"regret_budget.png", "regime_quality.png", "gallery.png"}
    (panel,) = drawn["regret_budget.png"].axes
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert lines["Patience"].get_xdata().tolist() == results["families"]["Patience"]["frontier"]["budget"]
    assert {"clairvoyant", "fixed fraction"} <= set(lines)
    stops = [
        line for axes in drawn["gallery.png"].axes for line in axes.get_lines() if line.get_label() == "Patience(10)"
    ]
    assert len(stops) == len(results["gallery"]) == 5
    at = results["gallery"][0]["stops"]["Patience(10)"]
    assert stops[0].get_xdata()[0] == (39 if at < 0 else at)
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.figures", "--results", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    (tmp_path / "empty").mkdir()
    for content, said in (
        (None, r"none of quality\.json"),
        ("{", "not readable as JSON"),
        ("[]", "not what benchmarks"),
        ('{"families": {}}', "not what benchmarks"),
    ):
        if content:
            (tmp_path / "empty" / "quality.json").write_text(content)
        with pytest.raises(Mistake, match=said):
            figures.draw(tmp_path / "empty")
