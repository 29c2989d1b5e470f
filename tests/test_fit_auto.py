"""Fitting Auto's networks anew, and what is measured of them: on small folders, against plain recomputation."""

import hashlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("torch")
import pyarrow.parquet as pq  # noqa: E402

from benchmarks import auto_scores  # noqa: E402
from benchmarks.auto_folds import (  # noqa: E402
    TOLERANCES,
    HeldOutAuto,
    auto_family,
    expected,
    faded,
    first_below,
    held_out,
    held_out_model,
    outputs_of,
    worth,
)
from benchmarks.auto_scores import area_under_roc, auto_families, auto_findings, last_drop_that_mattered  # noqa: E402
from benchmarks.auto_training import ROWS, Options, Prepared, curve_weights, fit, side_by_side, spaced  # noqa: E402
from benchmarks.families import families, regret_so_far  # noqa: E402
from benchmarks.findings import measure  # noqa: E402
from benchmarks.suite import Curve, Suite, read_suite  # noqa: E402
from convergence import Auto, replay  # noqa: E402
from convergence.rules.auto import FEWEST  # noqa: E402
from convergence.score import Frontier  # noqa: E402
from convergence.stats.remaining import COEFFICIENTS, Network, Remaining, shipped  # noqa: E402

ROOT = Path(__file__).parents[1]


def curve(loss, *, source="s", run="r", group="g", mode="min", lr=None, regime="learns", full=True):
    loss = np.array(loss, float)
    rates = None if lr is None else np.array(lr, float)
    return Curve(source, "t", group, run, "loss", mode, regime, full, loss, np.arange(len(loss), dtype=float), rates)


def falling(count=12, length=40, **where):
    rng = np.random.default_rng(len(str(where)))
    return [
        curve(np.exp(-np.arange(length + i) / (4 + i)) + 0.01 * rng.standard_normal(length + i), run=f"r{i}",
              group=f"g{i % 3}", mode=("min", "max")[i % 2], **where)
        for i in range(count)
    ]  # fmt: skip


def write_source(folder, source, curves):
    rows = [
        {"run": f"{source}/{one.run}", "metric": "val_loss", "mode": one.mode, "split": "val", "step": float(t),
         "value": value if one.mode == "min" else -value}
        for one in curves
        for t, value in enumerate(one.loss.tolist())
    ]  # fmt: skip
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), folder / f"{source}.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("curves")
    for source in ("lab", "home", "shop"):
        write_source(made, source, falling(source=source))
    return made


def run_module(module, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)


def fit_into(folder, out, *more):
    files = {name: out / name for name in ("coefficients", "held-out", "record")}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    return files, run_module("fit_auto", "--curves", folder, "--members", 1, "--epochs", 2, *options, *more)


# Fitting


def test_one_command_fits_all_anew(folder, tmp_path):
    files, ran = fit_into(folder, tmp_path)
    assert ran.returncode == 0, ran.stderr
    record = json.loads(files["record"].read_text())
    assert record["coefficients"] == hashlib.sha256(files["coefficients"].read_bytes()).hexdigest()
    assert record["held_out"] == hashlib.sha256(files["held-out"].read_bytes()).hexdigest()
    assert {name: one["curves"] for name, one in record["sources"].items()} == {"home": 12, "lab": 12, "shop": 12}
    assert record["options"]["epochs"] == 2
    for rows in record["scores"].values():
        assert [row["tolerance"] for row in rows] == [0.005, 0.01, 0.02, 0.05, 0.1]
        assert all(0 <= row["regret"] <= 1 for row in rows)
        assert [row["budget"] for row in rows] == sorted((row["budget"] for row in rows), reverse=True)
    model = Remaining.read(files["coefficients"])
    prepared = Prepared.of(read_suite(folder).curves)
    for network in (model.planned, model.unplanned):
        outputs = outputs_of(network, prepared.features[0])
        assert np.isfinite(outputs).all()
        assert (np.diff(network.scores) > 0).all()
        assert (np.diff(network.log_gains) > 0).all()
    with np.load(files["held-out"]) as arrays:
        assert {name.split("/")[0] for name in arrays.files} == {"home", "lab", "shop"}
        assert not np.array_equal(arrays["lab/planned_w1"], arrays["home/planned_w1"])
    # The same command gives the same file.
    (tmp_path / "again").mkdir()
    again, ran = fit_into(folder, tmp_path / "again")
    assert again["coefficients"].read_bytes() == files["coefficients"].read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--members", "0"], "--members must be at least 1, got 0"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--jobs", "-1"], "--jobs must be at least 1, got -1"),
        (["--curves", "nowhere"], "nowhere"),
        ([], "one source, 'recorded'; at least 2 are needed"),
        (["--curves", "benchmarks/curves", "--curves", "benchmarks/curves"], "holds the source 'recorded', as another"),
    ],
)
def test_bad_options_are_one_line_and_status_2(options, said, tmp_path):
    outs = [part for name in ("coefficients", "held-out", "record") for part in (f"--{name}", str(tmp_path / name))]
    ran = run_module("fit_auto", *options, *outs)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stdout == ""
    assert not any(tmp_path.iterdir())


def test_outputs_must_be_three_files(tmp_path):
    same = [part for name in ("coefficients", "held-out", "record") for part in (f"--{name}", str(tmp_path / "x"))]
    ran = run_module("fit_auto", *same)
    assert ran.returncode == 2
    assert "must be three files" in ran.stderr


@pytest.mark.parametrize(("losses", "said"), [([3.0, 2.0, 1.0], "no run of 4"), ([2.0] * 30, "no run of 4")])
def test_curves_to_learn_nothing_from(tmp_path, losses, said):
    for source in ("lab", "home"):
        write_source(tmp_path, source, [curve(losses, run=f"r{i}") for i in range(3)])
    files, ran = fit_into(tmp_path, tmp_path / "out")
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr
    assert not any(path.exists() for path in files.values())


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "a key is missing", "a shape is wrong", "nan"])
def test_damaged_coefficients_are_refused(tmp_path, damage):
    path, whole = tmp_path / "x.npz", COEFFICIENTS.read_bytes()
    with np.load(COEFFICIENTS) as arrays:
        held = dict(arrays)
    if damage in ("empty", "truncated", "text"):
        path.write_bytes({"empty": b"", "truncated": whole[:5000], "text": b"coefficients"}[damage])
    else:
        if damage == "a key is missing":
            del held["planned_w2"]
        elif damage == "nan":
            held["planned_w2"][0] = np.nan
        else:
            held["planned_w1"] = held["planned_w1"][:, 1:]
        np.savez(path, **held)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        Remaining.read(path)


def test_a_source_that_is_left_out_is_not_seen():
    """Its losses change nothing but for the mean and deviation, which are those of the others too."""
    ours, other = falling(source="a"), falling(source="b")
    spoilt = [curve(one.loss[::-1], source="b", run=one.run, mode=one.mode) for one in other]
    among = np.array([True] * len(ours) + [False] * len(other))
    made = [
        fit(Prepared.of([*ours, *more]), among, planned=True, seed=0, options=Options(epochs=1))
        for more in (other, spoilt)
    ]
    for name in made[0]:
        np.testing.assert_array_equal(made[0][name], made[1][name])


def test_fitting_lowers_the_cost_of_stops():
    curves = falling(count=30, source="a")
    prepared = Prepared.of(curves)
    among = np.ones(len(curves), np.bool_)
    cost = []
    for epochs in (1, 30):
        arrays = side_by_side([fit(prepared, among, planned=True, seed=0, options=Options(epochs=epochs, dropout=0.0))])
        network = Network.of(
            {
                **arrays,
                **dict.fromkeys(("scores", "log_gains", "means", "low", "high", "odds", "gains"), np.zeros(2)),
                "past": np.array(0.5),
            },
            "",
        )
        scores = [outputs_of(network, one)[0] for one in prepared.features]
        levels = np.quantile(np.concatenate(scores), np.linspace(0.01, 0.99, 60))
        stops = np.array([first_below(one, levels) for one in scores]).T
        used = np.where(stops < 0, 1.0, (stops + 1) / np.array([len(s) for s in scores]))
        lost = np.array(
            [[r[s] if s >= 0 else 0.0 for r, s in zip(prepared.regrets, row, strict=True)] for row in stops]
        )
        front = Frontier.of(used.mean(axis=1), lost.mean(axis=1))
        cost.append(float(front.at(0.5)))
    assert cost[1] < cost[0]


def test_weights_and_rows():
    curves = [*falling(count=9, source="a"), *falling(count=3, source="b")]
    among = np.array([True] * 8 + [False] + [True] * 3)
    even = curve_weights(curves, among, 1.0)
    assert even[8] == 0
    assert even[:8].sum() == pytest.approx(even[9:].sum())
    np.testing.assert_allclose(curve_weights(curves, among, 0.0)[among], 1.0)
    assert spaced(10).tolist() == list(range(10))
    assert len(spaced(1000)) == ROWS
    assert spaced(1000)[[0, -1]].tolist() == [0, 999]


def test_prepared_features_are_those_of_the_rule():
    curves = [curve([3.0, math.nan, 2.0, 1.0, 1.5, 0.5], run="x"), curve(np.linspace(5, 1, 90), run="y")]
    prepared = Prepared.of(curves)
    for one, features, regret in zip(curves, prepared.features, prepared.regrets, strict=True):
        np.testing.assert_array_equal(regret, regret_so_far(one.loss))
        for known, network in ((True, shipped().planned), (False, shipped().unplanned)):
            scores = outputs_of(network, features)[0]
            stops = first_below(scores, np.array([network.score_at(0.2)]))[0]
            found = replay(Auto(0.2), one.loss, mode="min", progress=known or None).stop_index
            assert stops == (-1 if found is None else found)


# What scores are worth


def test_worth_is_the_mean_regret_of_the_stops():
    rng = np.random.default_rng(0)
    regrets = [np.sort(rng.random(n))[::-1] for n in rng.integers(10, 60, 80)]
    scores = [np.log(np.maximum(r, 1e-3)) + 0.3 * rng.standard_normal(len(r)) for r in regrets]
    weight = rng.random(80)
    weight /= weight.sum()
    table = worth(scores, regrets, weight)
    for level, gain in list(zip(table["scores"], np.exp(table["log_gains"]), strict=True))[::5]:
        lost = 0.0
        for s, r, w in zip(scores, regrets, weight, strict=True):
            stop = next((t for t in range(FEWEST - 1, len(s)) if s[t] < level), None)
            lost += w * (0 if stop is None else r[stop])
        assert gain == pytest.approx(lost, abs=0.02)
    assert (table["low"] <= table["high"]).all()


def test_expected_gain_rises_with_the_odds():
    rng = np.random.default_rng(1)
    odds = [rng.normal(size=200) for _ in range(5)]
    regrets = [1 / (1 + np.exp(-o)) for o in odds]
    table = expected(odds, regrets, np.ones(5))
    assert (np.diff(table["gains"]) >= 0).all()
    np.testing.assert_allclose(table["gains"], 1 / (1 + np.exp(-table["odds"])), atol=0.05)


def test_pairs_and_levels():
    assert faded(np.array([1.0, 3.0, 5.0]), 0.5).tolist() == [1, 2, 3.5]
    scores = np.array([-9.0, -9.0, -9.0, 0.0, -1.0, -0.5, -2.0])
    assert first_below(scores, np.array([-3.0, -2.0, -1.5, -1.0, -0.5, 0.5])).tolist() == [-1, -1, 6, 6, 4, 3]


# Measuring


def test_each_source_is_judged_by_networks_that_have_not_seen_it():
    assert set(held_out()) >= {"recorded", "deepobs", "yolo_results"}
    assert held_out_model("recorded") is not held_out_model("deepobs")
    assert held_out_model("unheard of") is shipped()
    curves = [*falling(count=4, source="recorded"), *falling(count=4, source="unheard of")]
    stops = auto_family("Auto, progress", frozenset(), frozenset({"progress"})).stops(curves)
    row = TOLERANCES.index(0.05)
    for i, one in enumerate(curves):
        sign = 1 if one.mode == "min" else -1
        found = replay(HeldOutAuto(0.05, one.source), sign * one.loss, mode=one.mode, progress=True).stop_index
        assert stops[row, i] == (-1 if found is None else found)
    assert stops[row, 4] == replay(Auto(0.05), curves[4].loss, mode="min", progress=True).stop_index


def test_area_under_roc():
    rng = np.random.default_rng(2)
    score, positive = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    assert area_under_roc(score, positive) == pytest.approx(np.mean(pairs))
    assert math.isnan(area_under_roc(score, np.ones(40, np.bool_)))


def test_the_last_drop_that_mattered():
    losses = [4.0, 2.0, 2.0, 1.0, 1.0, 0.995, 0.995]
    rates = [1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    assert last_drop_that_mattered(curve(losses, lr=rates)) == 3
    assert last_drop_that_mattered(curve([*losses[:5], 0.5, 0.5], lr=rates)) == 5
    assert last_drop_that_mattered(curve(losses, lr=[1.0] * 7)) == -1


def test_findings_of_a_hand_made_suite():
    rates = np.where(np.arange(40) < 30, 0.1, 0.01)
    scheduled = [
        curve(
            np.where(np.arange(40) < 30, 1 + np.exp(-np.arange(40) / 3), 0.5), run=f"d{i}", lr=rates, regime="scheduled"
        )
        for i in range(4)
    ]
    curves = (*falling(source="a"), *falling(source="b"), *scheduled)
    suite = Suite(curves, ())
    measured = [found for one in (*families(), *auto_families()) if (found := measure(one, curves)) is not None]
    found = auto_findings(measured, suite, resamples=5)
    by_name = {one.name: one for one in measured}
    plain = by_name["Auto"]
    row = TOLERANCES.index(0.05)
    # Three sources; in the first two, three groups of four runs.
    weights = np.array([1 / 3 / 3 / 4] * 24 + [1 / 3 / 4] * 4)
    promise = next(one for one in found["promise"]["Auto"] if one["tolerance"] == 0.05)
    assert promise["regret"] == pytest.approx(float(plain.outcome.regret[row] @ weights))
    assert promise["budget"] == pytest.approx(float(plain.outcome.budget[row] @ weights))
    assert promise["worst_source"] is None  # no source of 50 runs
    # Where it does stop before the drop when it is told nothing, it does not when it is told the schedule.
    early = TOLERANCES.index(0.3)
    blind, told = (by_name[name].outcome.stop_index[early, 24:] for name in ("Auto", "Auto, lr and lr_ahead"))
    assert ((blind >= 0) & (blind < 30)).all()
    assert ((told < 0) | (told >= 35)).all()
    assert (by_name["Auto, lr"].outcome.stop_index[early, :24] == -1).all()  # not measured without rates
    told = found["scheduled"]["Auto, lr and lr_ahead"]
    assert told["curves"] == 4
    assert told["before_the_last_drop_that_mattered"] == 0
    assert told["within_5_of_a_drop"] == 0
    against = found["against"]["Auto"]
    ours, theirs = (
        Frontier.of(o.budget @ weights, o.regret @ weights) for o in (plain.outcome, by_name["Patience"].outcome)
    )
    logs = [
        math.log(ours.at(b) / theirs.at(b)) for b in auto_scores.BUDGETS if math.isfinite(ours.at(b) / theirs.at(b))
    ]
    assert against["patience"]["ratio"] == pytest.approx(math.exp(np.mean(logs)))
    assert against["patience"]["budgets"] == len(logs)
    prefixes = found["prefixes"]["planned"]
    assert sum(one["prefixes"] for one in prefixes["reliability"]) == 3 * len(curves)
    assert set(found["regimes"]["Auto"]) == {"learns", "scheduled"}


def test_quality_measures_auto(tmp_path, folder):
    out = tmp_path / "q.json"
    ran = run_module("quality", "--no-peers", "--resamples", 10, "--curves", folder, "--rules", "auto", "--out", out)
    assert ran.returncode == 0, ran.stderr
    results = json.loads(out.read_text())
    assert set(results["auto"]["against"]) == {"Auto", "Auto, progress"}
    assert "Auto, lr" in results["absent"]
    ratio = results["auto"]["against"]["Auto, progress"]["patience"]["ratio"]
    assert f"{ratio:.3f}" in ran.stdout
    for title in ("Auto on sources unseen", "The promise", "Prefixes of 25, 50 and 75 %", "by regime: regret / budget"):
        assert title in ran.stdout
