"""The recorded runs: what the table covers, what the files hold, and that recording repeats itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import record
from benchmarks.setups import REGIMES, SETUPS, Setup, all_runs
from benchmarks.tasks import load
from benchmarks.training import _batches, initial_network, train

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "benchmarks.record"]
ORDERED = [setup for setup in SETUPS if setup.ordered]


def command(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


@dataclass
class Interrupted:
    """A recording that was interrupted and then went on: how it ended, and its cache before it went on and after."""

    folder: Path
    status: int
    said: str
    unfinished: bool
    before: dict[Path, int]
    after: dict[Path, int]


def _parts(cache):
    return {path: path.stat().st_mtime_ns for path in cache.glob("[!.]*.parquet")}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    out, cache = folder / "out", folder / "cache"
    arguments = ["--only", "wine_*/ada*/seed?", "--out", out, "--cache", cache, "--jobs", "1"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell starts what it runs in the background with Ctrl-C ignored, and the tests may run there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while process.poll() is None and not _parts(cache):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    _, said = process.communicate()
    before, unfinished = _parts(cache), not (out / "recorded.parquet").exists()
    again = command(*arguments)
    assert again.returncode == 0, again.stderr
    return Interrupted(folder, process.returncode, said, unfinished, before, _parts(cache))


class TestTable:
    def test_it_is_large_and_covers_every_regime(self):
        runs = list(all_runs())
        assert len(runs) >= 600
        assert len({run_id for run_id, _, _ in runs}) == len(runs)
        assert len({(setup.task, setup.architecture) for setup in SETUPS}) >= 12
        assert {setup.regime for setup in SETUPS} == set(REGIMES)
        assert all(setup.seeds >= 3 for setup in SETUPS)

    def test_a_regime_is_seen_on_several_tasks(self):
        for regime in set(REGIMES) - {"grokking"}:
            assert len({setup.task for setup in SETUPS if setup.regime == regime}) >= 3, regime

    @pytest.mark.parametrize(
        ("field", "wanted"),
        [
            ("budget_steps", {20, 30, 50, 100, 200, 300, 500, 1000}),
            ("optimizer", {"sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "boosting"}),
            ("schedule", {"constant", "step", "cosine", "one_cycle", "warm_up_cosine", "restarts"}),
            ("label_noise", {0.0, 0.1, 0.2, 0.3, 0.4, 1.0}),
        ],
    )
    def test_it_has_some_of_each(self, field, wanted):
        assert wanted <= {getattr(setup, field) for setup in SETUPS}

    def test_lengths(self):
        assert all(20 <= setup.budget_steps <= 1000 for setup in SETUPS)

    @pytest.mark.parametrize("setup", ORDERED, ids=lambda setup: setup.group)
    def test_ordered_runs_have_a_shuffled_twin(self, setup):
        (twin,) = (one for one in SETUPS if one.group == setup.group.replace("/ordered", "/shuffled"))
        assert replace(twin, name=setup.name, regime=setup.regime, ordered=True) == setup
        data = load(setup, 1)
        for part, other in zip((data.train, data.val, data.test), _splits(load(twin, 1)), strict=True):
            assert np.array_equal(part.x, other.x)
            assert np.array_equal(part.y, other.y)
        weights, others = (initial_network(one, 1, data)[1] for one in (setup, twin))
        assert all(torch.equal(weight, other) for weight, other in zip(weights, others, strict=True))
        rows, shuffled = (_epoch(one, data) for one in (setup, twin))
        assert sorted(rows) == sorted(shuffled) == list(range(len(rows)))
        assert (np.diff(data.train.y[rows]) >= 0).all()
        assert not (np.diff(data.train.y[shuffled]) >= 0).all()

    def test_list_prints_every_run(self):
        lines = command("--list").stdout.splitlines()
        assert [line.split("\t") for line in lines] == [
            [run_id, setup.regime, str(setup.budget_steps)] for run_id, setup, _ in all_runs()
        ]


def _splits(data):
    return data.train, data.val, data.test


def _epoch(setup, data):
    size = len(data.train.y)
    batches = _batches(setup, 1, data.train.y)
    rows = []
    while len(rows) < size:
        rows += next(batches).tolist()
    return rows


@pytest.fixture(scope="module")
def table():
    return pq.read_table(record.CURVES / "recorded.parquet")


@pytest.fixture(scope="module")
def manifest():
    return json.loads((record.CURVES / "manifest.json").read_text(encoding="utf-8"))


class TestRecordedFiles:
    def test_they_are_small(self):
        assert sum(path.stat().st_size for path in record.CURVES.iterdir()) < 8e6
        assert (record.CURVES / "manifest.json").stat().st_size < 6e5

    def test_the_manifest_tells_the_table_of_runs(self, manifest):
        told = {entry["run"]: entry for entry in manifest["runs"]}
        assert list(told) == [run_id for run_id, _, _ in all_runs()]
        for run_id, setup, seed in all_runs():
            measured = {name: told[run_id][name] for name in ("batch_size", "train_size", "val_size", "test_size")}
            assert min(measured.values()) > 0
            assert setup.train_size in (None, measured["train_size"])
            assert setup.val_size in (None, measured["val_size"])
            measured["cpu_seconds"] = told[run_id]["cpu_seconds"]
            assert told[run_id] == record._entry((run_id, setup, seed), measured)
        assert manifest["cpu_seconds"] == round(sum(entry["cpu_seconds"] for entry in manifest["runs"]))
        assert {"python", "torch", "numpy", "scikit-learn"} <= set(manifest["versions"])
        assert manifest["processor"]

    def test_the_curves_are_those_of_the_manifest(self, manifest, table):
        names = ["source", "run", "metric", "mode", "split", "step", "value", "lr", "seconds", "planned"]
        assert table.column_names == names
        lengths = {entry["run"]: entry["budget_steps"] for entry in manifest["runs"]}
        curves = table.group_by(["run", "metric", "split", "mode", "planned"]).aggregate(
            [("step", "min"), ("step", "max"), ("step", "count_distinct"), ("value", "count")]
        )
        seen = {}
        for row in curves.to_pylist():
            seen.setdefault(row["run"], set()).add((row["metric"], row["split"]))
            length = lengths[row["run"]]
            assert row["mode"] == record.MODES[row["metric"]]
            numbers = [row[name] for name in ("planned", "step_max", "step_count_distinct", "value_count")]
            assert numbers == [length] * 4
            assert row["step_min"] == 1
        assert seen.keys() == lengths.keys()
        for run_id, there in seen.items():
            assert {("loss", "train"), ("loss", "val"), ("loss", "test")} <= there, run_id
        assert sum({"accuracy", "r2"} <= {metric for metric, _ in there} for there in seen.values()) == 0

    def test_no_run_was_stopped_by_values_that_are_not_finite(self, table):
        loss = table.filter(pc.and_(pc.equal(table["metric"], "loss"), pc.equal(table["split"], "val")))
        values, early = loss["value"].to_numpy(), pc.less(loss["step"], loss["planned"]).to_numpy()
        lost = set(loss["run"].to_numpy()[~np.isfinite(values) & early])
        assert len(lost) > 8  # and they were trained to the end: each has all its steps
        assert (values[np.isfinite(values)] < 0).any()


ARCHITECTURES = {setup.architecture: setup for setup in reversed(SETUPS)}


@pytest.mark.parametrize("setup", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_training_twice_gives_the_same_values(setup):
    small = replace(setup, budget_steps=2, train_size=100, val_size=20, updates=2, schedule="cosine")
    first, second = (list(train(small, 3, load(small, 3))) for _ in range(2))
    assert len(first) == 2
    assert [one.values for one in first] == [one.values for one in second]
    assert [one.lr for one in first] == [one.lr for one in second]
    other = list(train(small, 4, load(small, 4)))
    assert first[0].values != other[0].values


def test_every_task_has_three_parts_that_differ():
    for setup in {setup.task: setup for setup in SETUPS}.values():
        data = load(setup, 0)
        sizes = [len(part.x) for part in _splits(data)]
        assert min(sizes) >= 12, setup.group
        assert [len(part.y) for part in _splits(data)] == sizes
        assert not np.array_equal(data.val.x[:10], data.test.x[:10])
        assert np.array_equal(data.train.x, load(setup, 0).train.x)


def test_label_noise_spoils_training_labels_alone():
    clean = Setup("digits", "mlp", "clean", "learns", 1, "sgd", "constant", 0.1)
    noisy = replace(clean, label_noise=0.3)
    for one, two, share in zip(_splits(load(clean, 0)), _splits(load(noisy, 0)), (0.3, 0.0, 0.0), strict=True):
        assert np.mean(one.y != two.y) == pytest.approx(share, abs=0.05 if share else 0)


class TestCommand:
    def test_a_label_can_change_without_training_again_but_no_rate(self, tmp_path):
        _, setup, _ = run = next(all_runs())
        kept = record.part_file(tmp_path, run)
        assert record.part_file(tmp_path, (run[0], replace(setup, regime="flat", seeds=9), run[2])) == kept
        assert record.part_file(tmp_path, (run[0], replace(setup, lr=1.0), run[2])) != kept

    def test_an_interrupted_recording_goes_on(self, recorded):
        assert recorded.status == 130
        assert "the same command goes on" in recorded.said
        assert recorded.unfinished
        assert 1 <= len(recorded.before) < len(recorded.after) == 8
        assert recorded.before.items() <= recorded.after.items()
        assert len(pq.read_table(recorded.folder / "out" / "recorded.parquet")["run"].unique()) == 8

    @pytest.mark.parametrize("damage", ["text", "empty", "another run", "no metadata"])
    def test_a_damaged_part_is_recorded_again(self, damage, recorded, tmp_path):
        runs = [run for run in all_runs() if fnmatchcase(run[0], "wine_linear/adagrad/seed?")]
        files = [record.part_file(recorded.folder / "cache", run) for run in runs]
        good = pq.read_table(files[0])
        path = tmp_path / files[0].name
        if damage == "another run":
            shutil.copy(files[1], path)
        elif damage == "no metadata":
            pq.write_table(good.replace_schema_metadata(), path)
        else:
            path.write_text("PAR1" if damage == "text" else "")
        assert record._part(path, runs[0][0]) is None
        assert record._part(files[0], runs[0][0]).equals(good)

    def test_a_folder_in_the_place_of_a_file_is_said_before_anything_is_trained(self, tmp_path):
        (tmp_path / "manifest.json").mkdir()
        done = command("--only", "wine_boosting/*", "--out", tmp_path, "--cache", tmp_path / "cache")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "manifest.json" in done.stderr
        assert not list((tmp_path / "cache").iterdir())

    def test_check_of_what_is_no_recording(self, tmp_path):
        (tmp_path / "recorded.parquet").write_text("text")
        done = command("--check", "--out", tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "not recorded curves" in done.stderr

    def test_check_finds_a_changed_value(self, recorded, tmp_path):
        table = pq.read_table(recorded.folder / "out" / "recorded.parquet")
        values = table["value"].to_pylist()
        at = pc.index(table["run"], "wine_linear/adagrad/seed0").as_py()
        values[at + 7] *= 1 + 1e-4
        table = table.set_column(table.column_names.index("value"), "value", pa.array(values))
        pq.write_table(table, tmp_path / "recorded.parquet")
        done = command("--only", "wine_linear/adagrad/seed[01]", "--check", "--out", tmp_path, "--jobs", 1)
        assert done.returncode == 1
        first, second = done.stdout.splitlines()
        assert first.startswith("wine_linear/adagrad/seed0\tabsolute ")
        assert first.endswith("relative 0.0001")
        assert second == "wine_linear/adagrad/seed1\tabsolute 0\trelative 0"

    def test_check_is_content_with_the_same_values(self, recorded, monkeypatch, capsys):
        def copy(runs, folder, jobs):
            for run in runs:
                shutil.copy(record.part_file(recorded.folder / "cache", run), folder)

        monkeypatch.setattr(record, "_record_missing", copy)
        runs = [run for run in all_runs() if fnmatchcase(run[0], "wine_*/ada*/seed?")]
        assert record._check(runs, recorded.folder / "out" / "recorded.parquet", 1)
        assert capsys.readouterr().out.count("absolute 0\trelative 0\n") == 8

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--only", "nothing"], "--only 'nothing' matches no run"),
            (["--only", "wine*"], "name a folder of their own with --out"),
            (["--jobs", "0"], "--jobs must be at least 1, not 0"),
            (["--jobs", "many"], "--jobs"),
            (["--what"], "--what"),
            (["--check", "--out", "{empty}"], "nothing was recorded yet"),
            (["--check", "--only", "digits_mlp/adam/*", "--out", "{there}"], "has no run digits_mlp/adam/seed0"),
        ],
    )
    def test_a_bad_option_is_one_line_and_status_2(self, arguments, said, recorded, tmp_path):
        done = command(*(one.format(empty=tmp_path, there=recorded.folder / "out") for one in arguments))
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("again", "wanted"),
    [
        ([1.0, 2.0, np.nan, np.inf], (0.0, 0.0)),
        ([1.0, 4.0, np.nan, np.inf], (2.0, 0.5)),
        ([1.0, np.nan, np.nan, np.inf], (np.inf, np.inf)),
        ([1.0, 2.0, np.nan, -np.inf], (np.inf, np.inf)),
        ([1.0, 2.0, np.nan], (np.inf, np.inf)),
    ],
)
def test_difference(again, wanted):
    recorded, other = ({("loss", "val"): dict(enumerate(v, 1))} for v in ([1.0, 2.0, np.nan, np.inf], again))
    assert record.difference(recorded, other) == wanted
