"""Time to target: tables of boundaries, and the command line on real files."""

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import targets
from convergence import Target, replay
from convergence.targets import Reached, rank, time_to_target

NAN, INF = math.nan, math.inf


class TestTimeToTarget:
    @pytest.mark.parametrize(
        ("values", "mode", "index"),
        [
            pytest.param([0.1, 0.9, 0.5, 0.95], "max", 1, id="first, not best"),
            pytest.param([0.1, 0.9], "max", 1, id="exactly"),
            pytest.param([1.0, 0.9], "min", 1, id="exactly, min"),
            pytest.param([0.1, np.nextafter(0.9, 0)], "max", None, id="a hair below"),
            pytest.param([1.0, np.nextafter(0.9, 1)], "min", None, id="a hair above, min"),
            pytest.param([0.9], "max", 0, id="at once"),
            pytest.param([0.1, 0.2], "max", None, id="never"),
            pytest.param([1.0, 2.0], "min", None, id="never, min"),
            pytest.param([NAN, 0.95, NAN], "max", 1, id="NaN before and after"),
            pytest.param([NAN, NAN], "max", None, id="all NaN"),
            pytest.param([INF, 0.95], "max", 1, id="infinity does not reach"),
            pytest.param([-INF, 0.5], "min", 1, id="minus infinity does not reach, min"),
            pytest.param([INF, -INF], "max", None, id="nothing finite"),
            pytest.param([None, 0.5, None, 0.95], "max", 1, id="gaps do not count"),
            pytest.param([None, None], "max", None, id="gaps only"),
            pytest.param([], "max", None, id="empty"),
            pytest.param(np.ma.array([1.0, 0.95], mask=[True, False]), "max", 0, id="masked"),
            pytest.param(np.array([0, 1]), "max", 1, id="whole numbers"),
        ],
    )
    def test_index(self, values: Any, mode: str, index: int | None) -> None:
        found = time_to_target(values, 0.9, mode=mode)
        assert (found.index if found else None) == index
        if len(values):
            assert replay(Target(0.9), values, mode=mode).stop_index == index

    def test_step_and_seconds(self) -> None:
        told = {"steps": [10, 20, 20, 40], "seconds": [1.5, 2.5, 3.5, 4.5]}
        assert time_to_target([0, None, 1, 1], 1, mode="max", **told) == Reached(1, 20, 3.5, 1)

    def test_unknown_seconds(self) -> None:
        found = time_to_target([0.1, 0.9, 0.9], 0.9, mode="max", seconds=[1.0, None, 2.0])
        assert found is not None
        assert (found.index, found.step, math.isnan(found.seconds)) == (1, 1, True)

    def test_negated(self) -> None:
        values = np.random.default_rng(0).normal(size=200)
        for target in np.linspace(-3, 3, 25):
            up, down = time_to_target(values, target, mode="max"), time_to_target(-values, -target, mode="min")
            assert (up and up.index) == (down and down.index)

    @pytest.mark.parametrize(
        ("values", "told", "error", "saying"),
        [
            ([1.0], {"mode": "up"}, ValueError, "mode must be 'min' or 'max', got 'up'"),
            ([1.0], {"target": NAN}, ValueError, "target must be finite, got nan"),
            ([1.0], {"target": "1"}, TypeError, "target must be a number, got '1'"),
            (["1"], {}, TypeError, "'1'"),
            ([[1.0]], {}, TypeError, "number"),
            ([1.0, 2.0], {"steps": [2, 1]}, ValueError, "steps must not decrease, got 1 after 2 at index 1"),
            ([1.0, 2.0], {"steps": [1, NAN]}, ValueError, "steps must be finite, got nan"),
            ([1.0, 2.0], {"steps": [1]}, ValueError, "step has 1 values, 'values' has 2"),
            ([1.0, 2.0], {"seconds": [2, 1]}, ValueError, "seconds must not decrease, got 1 after 2"),
            ([1.0] * 3, {"seconds": [2, None, 1]}, ValueError, "seconds must not decrease, got 1 after 2"),
            ([1.0], {"seconds": [-1]}, ValueError, "seconds must be at least 0, got -1"),
            ([1.0], {"seconds": [INF]}, ValueError, "seconds must be finite, got inf"),
        ],
    )
    def test_refuses(self, values: Any, told: dict[str, Any], error: type[Exception], saying: str) -> None:
        with pytest.raises(error) as caught:
            time_to_target(values, **{"target": 0.9, "mode": "max", **told})
        assert saying in str(caught.value)


@pytest.mark.parametrize(
    ("times", "ranks"),
    [
        ([], []),
        ([3.0, 1.0, 2.0], [3, 1, 2]),
        ([3.0, 1.0, 3.0, 1.0, 4.0], [3, 1, 3, 1, 5]),
        ([None, 2.0, NAN, 1], [None, 2, None, 1]),
        ([None, None], [None, None]),
        ([0.0, None], [1, None]),
    ],
)
def test_rank(times: list[float | None], ranks: list[int | None]) -> None:
    assert rank(times) == ranks


TSV = "epoch\thours\ttop1Accuracy\ttop5Accuracy\r\n1\t0.01\t50.0\t80\r\n2\t0.02\t94.0\t\r\n3\t0.03\t95.0\t93.5\r\n"


def tsv(path: Path, text: str = TSV) -> Path:
    """Write a log as DAWNBench has them: with a byte order mark, tabs, and hours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    return path


def tidy(
    path: Path, runs: dict[str, list[float | None]], *, metric: str | list[str] = "accuracy", **columns: Any
) -> Path:
    """Write a tidy Parquet file; steps count from 1, and an evaluation takes two seconds."""
    rows = [(run, i + 1, value) for run, values in runs.items() for i, value in enumerate(values)]
    run, step, value = map(list, zip(*rows, strict=True))
    n = len(rows)
    told = {
        "run": run,
        "metric": [metric] * n if isinstance(metric, str) else metric,
        "mode": ["max"] * n,
        "split": ["val"] * n,
        "step": step,
    }
    told |= {"value": pa.array(value, pa.float64(), from_pandas=False), "seconds": [2.0 * i for i in step]}
    pq.write_table(pa.table({name: column for name, column in (told | columns).items() if column is not None}), path)
    return path


RUNS = {
    "small/slow": [0.1, 0.2, 0.9],
    "small/never": [0.1, 0.8, 0.8],
    "small/fast": [0.1, 0.9, 0.8],
    "small/tie": [0.2, 0.95],
    "large/gap": [0.1, None, 0.5, 0.91],
    "large/nan": [NAN, NAN],
}


class Ran:
    def __init__(self, capsys: pytest.CaptureFixture[str], *argv: Any) -> None:
        self.status = targets.main([str(word) for word in argv])
        self.out, self.err = capsys.readouterr()

    @property
    def result(self) -> dict[str, Any]:
        assert self.status == 0, self.err
        found: dict[str, Any] = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        return found


class TestCommand:
    def test_parquet(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tidy(tmp_path / "suite.parquet", RUNS)
        ran = Ran(capsys, file, "--metric", "val/accuracy", "--target", 0.9, "--json")
        assert ran.err == "large/nan: no finite value of 'val/accuracy', listed as not reached\n"
        assert [(row["task"], row["rank"], row["run"], row["step"], row["seconds"]) for row in ran.result["runs"]] == [
            ("small", 1, "small/fast", 2, 4.0),
            ("small", 1, "small/tie", 2, 4.0),
            ("small", 3, "small/slow", 3, 6.0),
            ("small", None, "small/never", None, None),
            ("large", 1, "large/gap", 4, 8.0),
            ("large", None, "large/nan", None, None),
        ]
        assert ran.result["tasks"] == [
            {"task": "small", "target": 0.9, "by": "seconds", "runs": 4, "reached": 3},
            {"task": "large", "target": 0.9, "by": "seconds", "runs": 2, "reached": 1},
        ]
        assert ran.result["runs"][4] == {
            "task": "large", "rank": 1, "run": "large/gap", "index": 2, "step": 4, "epoch": None, "seconds": 8.0,
            "value": 0.91, "observations": 3, "budget": 1.0,
        }  # fmt: skip

    def test_dawnbench(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        tsv(tmp_path / "CIFAR10/train/one.tsv")
        (row,) = Ran(capsys, tmp_path, "--metric", "top1Accuracy", "--mode", "max", "--target", 94, "--json").result[
            "runs"
        ]
        assert row == {
            "task": "CIFAR10", "rank": 1, "run": "CIFAR10/train/one", "index": 1, "step": 2, "epoch": 2,
            "seconds": pytest.approx(72), "value": 94, "observations": 3, "budget": pytest.approx(2 / 3),
        }  # fmt: skip
        ran = Ran(capsys, tmp_path, "--metric", "top5Accuracy", "--mode", "max", "--target", 93, "--json")
        (row,) = ran.result["runs"]  # a gap before it
        assert (row["index"], row["step"], row["seconds"], row["observations"]) == (1, 3, pytest.approx(108), 2)

    @pytest.mark.parametrize(("column", "seconds"), [("seconds", 30), ("Minutes", 1800), ("time", None)])
    def test_csv_log(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, seconds: float | None
    ) -> None:
        file = tmp_path / "log.csv"
        file.write_text(f"step,epoch,val_loss,{column}\n100,1,0.9,15\n\n200,2,0.4,30\n300,3,0.3")  # being written
        (row,) = Ran(capsys, file, "--metric", "val_loss", "--mode", "min", "--target", 0.5, "--json").result["runs"]
        assert (row["step"], row["epoch"], row["seconds"], row["observations"]) == (200, 2, seconds, 2)

    def test_csv_and_table_agree(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        told = tidy(tmp_path / "suite.parquet", RUNS), "--metric", "accuracy", "--target", 0.9
        rows = list(csv.DictReader(io.StringIO(Ran(capsys, *told, "--csv").out)))
        assert [(row["rank"], row["run"], row["seconds"], row["epoch"]) for row in rows[2:4]] == [
            ("3", "small/slow", "6.0", ""),
            ("", "small/never", "", ""),
        ]
        lines = [line.split() for line in Ran(capsys, *told).out.splitlines()]
        assert " ".join(lines[0]) == "small: accuracy at or above 0.9, by seconds; 3 of 4 runs reached it"
        assert lines[2:6] == [
            ["1", "small/fast", "2", "4.0", "s", "0.9", "0.667"],
            ["1", "small/tie", "2", "4.0", "s", "0.95", "1.000"],
            ["3", "small/slow", "3", "6.0", "s", "0.9", "1.000"],
            ["-", "small/never", "-", "-", "-", "-", "-"],
        ]

    def test_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "results" / "targets.json"
        told = tidy(tmp_path / "suite.parquet", RUNS), "--metric", "accuracy", "--target", 0.9, "--out", out
        ran = Ran(capsys, *told, "--json")
        assert json.loads(out.read_text()) == ran.result
        assert [path.name for path in out.parent.iterdir()] == ["targets.json"]
        assert Ran(capsys, *told[:-1], tmp_path).status == 2
        assert {path.name for path in tmp_path.iterdir()} == {"results", "suite.parquet"}

    def test_depth_and_only(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        told = tidy(tmp_path / "suite.parquet", RUNS), "--metric", "accuracy", "--target", 0.9, "--json"
        (task,) = Ran(capsys, *told, "--depth", 0).result["tasks"]
        assert (task["task"], task["runs"]) == ("", 6)
        assert [row["run"] for row in Ran(capsys, *told, "--only", "*/gap").result["runs"]] == ["large/gap"]

    def test_within(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        runs = {"a/1": [0.2, 0.9, 1.0], "a/2": [0.2, 0.5, 0.6], "a/3": [-1e6, NAN, 0.92], "b/1": [NAN]}
        told = tidy(tmp_path / "suite.parquet", runs), "--metric", "accuracy", "--json"
        tasks = Ran(capsys, *told, "--within", 0.125).result[
            "tasks"
        ]  # of a gain of 0.8: the diverging run sets nothing
        assert [(task["target"], task["reached"]) for task in tasks] == [(pytest.approx(0.9), 2), (None, 0)]
        assert [task["reached"] for task in Ran(capsys, *told, "--within", 0).result["tasks"]] == [1, 0]

    def test_by(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        n = sum(map(len, RUNS.values()))
        told = "--metric", "accuracy", "--target", 0.9, "--json"
        # small/slow takes 3 steps and no time, small/tie has no clock
        seconds = [0.0] * 3 + [9.0] * 6 + [None] * 2 + [9.0] * (n - 11)
        file = tidy(tmp_path / "suite.parquet", RUNS, seconds=pa.array(seconds, pa.float64()))
        ran = Ran(capsys, file, *told)
        assert [task["by"] for task in ran.result["tasks"]] == ["steps", "seconds"]
        assert [row["rank"] for row in ran.result["runs"][:4]] == [1, 1, 3, None]
        ran = Ran(capsys, file, *told, "--by", "seconds")
        assert [(row["rank"], row["run"]) for row in ran.result["runs"][:4]] == [
            (1, "small/slow"), (2, "small/fast"), (None, "small/tie"), (None, "small/never"),
        ]  # fmt: skip
        assert "small/tie: reached the target, but the log has no seconds there: no rank\n" in ran.err
        ran = Ran(capsys, file, *told, "--by", "epochs")
        assert (ran.status, ran.out) == (2, "")
        ran = Ran(capsys, tidy(file, RUNS, seconds=None), *told)
        assert [task["by"] for task in ran.result["tasks"]] == ["steps", "steps"]

    def test_names_what_is_left_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        logs = tmp_path / "logs"
        tsv(logs / "run.tsv")
        tsv(logs / "f1.tsv", "epoch\thours\tf1\n1\t1\t0.5\n")
        (logs / "readme.md").write_text("# Logs\n")
        tidy(logs / "other.parquet", {"a": [1.0], "b": [2.0]}, metric="loss")
        tidy(logs / "some.parquet", {"c": [1.0], "d": [2.0]}, metric="top1Accuracy", split=["val", "test"])
        runs = {"e/1": [1.0], "e/2": [1.0], "f/1": [1.0], "f/2": [1.0]}
        tidy(logs / "tasks.parquet", runs, metric=["top1Accuracy", "loss", "loss", "loss"])
        tidy(logs / "gaps.parquet", {"g": [None]}, metric="top1Accuracy")
        ran = Ran(capsys, logs, "--metric", "top1Accuracy", "--mode", "max", "--target", 2, "--json")
        assert [row["run"] for row in ran.result["runs"]] == ["d", "run", "c", "e/1"]
        assert len(ran.err.splitlines()) == len(ran.result["left_out"]) == 6
        for what in (
            "readme.md: ",
            "f1: no metric",
            "other.parquet: none of its 2 runs",
            "g: no value",
            "\ne/2: no metric",
            "\nf: none of its 2",
        ):
            assert what in ran.err

    @pytest.mark.parametrize(
        ("argv", "saying"),
        [
            (["--metric", "acc", "--target", 1], "no run has a value of the metric 'acc'; there are: 'val/accuracy'"),
            (["--metric", "accuracy"], "give either --target or --within"),
            (["--metric", "accuracy", "--target", 1, "--within", 0.1], "give either --target or --within"),
            (["--metric", "accuracy", "--target", "nan"], "--target must be finite, got nan"),
            (["--metric", "accuracy", "--within", 1], "--within must be at least 0 and below 1, got 1"),
            (["--metric", "accuracy", "--target", 1, "--mode", "min"], "suite.parquet says max for 'accuracy'"),
            (["--metric", "accuracy", "--target", 1, "--mode", "up"], "'up'"),
            (["--metric", "accuracy", "--target", 1, "--csv", "--json"], "either --csv or --json"),
            (["--metric", "accuracy", "--target", 1, "--only", "x*"], "--only 'x*' matches no run; there are: 'small"),
            (["--target", 1], "--metric"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[Any], saying: str) -> None:
        ran = Ran(capsys, tidy(tmp_path / "suite.parquet", RUNS), *argv)
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert saying in ran.err

    @pytest.mark.parametrize(
        ("text", "saying"),
        [
            ("", "log.tsv: empty file"),
            ("epoch\thours\tacc\n2\t1\t1\n1\t2\t2\n", "step 1 of 'acc' comes after step 2"),
            ("epoch\thours\tacc\n1\t2\t1\n2\t1\t2\n", "seconds must not decrease, got 3600 after 7200"),
            ("epoch\thours\tacc\n1\t-1\t1\n", "seconds must be at least 0, got -3600"),
            ("epoch\thours\tacc\n1\tsoon\t1\n", "column 'hours' must hold numbers"),
            ("epoch\thours\tacc\n1\t1\thigh\n2\t2\t1\n", "line 2: column 'acc' holds 'high'"),
        ],
    )
    def test_bad_logs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, saying: str) -> None:
        file = tmp_path / "log.tsv"
        file.write_text(text)
        ran = Ran(capsys, file, "--metric", "acc", "--mode", "max", "--target", 1)
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert str(file) in ran.err
        assert saying in ran.err

    def test_modes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        told = "--metric", "accuracy", "--target", 1
        file = tidy(tmp_path / "one.parquet", {"a": [1.0]}, mode=None)
        assert "one.parquet does not say: give --mode min or max" in Ran(capsys, file, *told).err
        tidy(file, {"a": [1.0], "b": [1.0]}, mode=["min", "max"])
        assert "choose runs with --only" in Ran(capsys, file, *told).err
        tidy(file, {"a": [1.0, 1.0]}, split=["train", "val"])
        assert "ask for one of 'train/accuracy', 'val/accuracy'" in Ran(capsys, file, *told).err

    def test_as_a_program(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.targets", str(tidy(tmp_path / "suite.parquet", RUNS))]
        command += ["--metric", "accuracy", "--target", "0.9"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
        assert "3 of 4 runs reached it" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "0:01:00"),
        (3599.6, "1:00:00"),
        (7384.6, "2:03:05"),
        (360000, "100:00:00"),
    ],
)
def test_clock(seconds: float, shown: str) -> None:
    assert targets.clock(seconds) == shown
