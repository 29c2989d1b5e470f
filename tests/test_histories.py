"""Readers on files as tools write them: what is read, and the one sentence for what cannot be."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convergence.histories import History, Modes, NotALog, Series, Skipped, choose, distinct, find, load, read
from convergence.histories.columns import is_bookkeeping, split_of, step_rank

# What Lightning's CSVLogger writes: one header for all, a row for each call, empty cells for what was not logged,
# the rate at the start of each epoch without the epoch, validation and epoch means in rows of their own.
LIGHTNING = """\
epoch,lr-Adam,step,train_loss_epoch,train_loss_step,val_loss
,0.001,0,,,
0,,9,,0.9,
0,,19,,0.8,
0,,19,,,0.7
0,,19,0.85,,
,0.001,20,,,
1,,29,,0.6,
1,,39,,nan,
1,,39,,,0.5
1,,39,0.6,,
"""


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def only(path: Path) -> dict[str, Series]:
    (history,) = read(path)
    return {series.metric: series for series in history.series}


def points(series: Series) -> list[tuple[float, float]]:
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def tidy(path: Path, **columns: object) -> Path:
    given = {"run": ["a"] * 3, "metric": ["loss"] * 3, "split": ["val"] * 3, "step": [0, 1, 2], "value": [3.0, 2, 1]}
    pq.write_table(pa.table({name: v for name, v in {**given, **columns}.items() if v is not None}), path)
    return path


class TestColumns:
    @pytest.mark.parametrize(
        "name",
        ["epoch", "Epoch", "step", "global_step", "trainer/global_step", "iter", "_step", "time", "wall_time",
         "Wall time", "relative_time", "time_elapsed", "time (s)", "timestamp", "date", "duration", "elapsed",
         "train_runtime", "time_per_epoch", "lr", "LR", "lr-AdamW/pg1", "lr/pg0", "lr_0", "x/lr2", "learning_rate",
         "learning_rate/0", "train/learning_rate", "", "Unnamed: 0", "eval_samples_per_second"],
    )  # fmt: skip
    def test_bookkeeping(self, name: str) -> None:
        assert is_bookkeeping(name)

    @pytest.mark.parametrize(
        "name",
        ["val_loss", "train_loss_step", "train_loss_epoch", "metrics/mAP50-95(B)", "accuracy", "time_series_loss",
         "candidate_score", "update_ratio", "clr_loss", "perplexity", "epoch_loss", "date_accuracy"],
    )  # fmt: skip
    def test_metrics(self, name: str) -> None:
        assert not is_bookkeeping(name)

    @pytest.mark.parametrize(
        ("name", "split"),
        [("train_loss", "train"), ("Training loss", "train"), ("val/box_loss", "val"), ("valid-acc", "val"),
         ("validation.loss", "val"), ("eval_loss", "val"), ("loss/test", "test"), ("top1Accuracy", ""),
         ("trainer_x", ""), ("contest", ""), ("value", "")],
    )  # fmt: skip
    def test_split(self, name: str, split: str) -> None:
        assert split_of(name) == split

    def test_steps_before_epochs(self) -> None:
        names = ("step", "Global_Step", "trainer/global_step", "iteration", "iter", "epoch")
        ranks = [step_rank(name) for name in names]
        assert None not in ranks
        assert ranks == sorted(ranks)


class TestCsv:
    def test_lightning(self, tmp_path: Path) -> None:
        (history,) = read(write(tmp_path / "metrics.csv", LIGHTNING))
        series = {s.metric: s for s in history.series}
        assert (history.run, history.source) == ("metrics", tmp_path / "metrics.csv")
        assert list(series) == ["train_loss_epoch", "train_loss_step", "val_loss"]
        assert [s.split for s in series.values()] == ["train", "train", "val"]
        assert {s.mode for s in series.values()} == {None}
        assert points(series["val_loss"]) == [(19, 0.7), (39, 0.5)]
        assert points(series["train_loss_epoch"]) == [(19, 0.85), (39, 0.6)]
        np.testing.assert_array_equal(series["train_loss_step"].values, [0.9, 0.8, 0.6, np.nan])
        np.testing.assert_array_equal(series["train_loss_step"].steps, [9, 19, 29, 39])

    def test_padded_cells(self, tmp_path: Path) -> None:
        text = "   epoch,  train/box_loss,  x/lr0\n   0,   0.5,  0.1\n   1,  0.25,  0.1\n"
        series = only(write(tmp_path / "results.csv", text))
        assert points(series.pop("train/box_loss")) == [(0, 0.5), (1, 0.25)]
        assert not series

    @pytest.mark.parametrize("mark", [",", "\t", ";"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_delimiters_line_ends_and_byte_order_mark(self, tmp_path: Path, mark: str, end: str) -> None:
        text = end.join(mark.join(row) for row in (["epoch", "acc"], ["1", "0.5"], ["2", "0.75"])) + end
        series = only(write(tmp_path / "a.tsv", b"\xef\xbb\xbf" + text.encode()))
        assert points(series["acc"]) == [(1, 0.5), (2, 0.75)]

    def test_a_comma_in_the_header_decides(self, tmp_path: Path) -> None:
        assert points(only(write(tmp_path / "a.csv", "epoch,a;b\n1,2\n"))["a;b"]) == [(1, 2)]

    def test_row_numbers_without_steps(self, tmp_path: Path) -> None:
        assert points(only(write(tmp_path / "a.csv", "loss,acc\n3,\n2,0.5\n\n1,0.6\n"))["acc"]) == [(1, 0.5), (2, 0.6)]

    def test_step_before_epoch_and_held(self, tmp_path: Path) -> None:
        series = only(write(tmp_path / "a.csv", "epoch,loss,Step\n0,9,\n0,8,10\n0,7,\n1,6,30\n"))
        assert points(series["loss"]) == [(10, 9), (10, 8), (10, 7), (30, 6)]

    def test_epoch_where_step_is_empty_throughout(self, tmp_path: Path) -> None:
        assert points(only(write(tmp_path / "a.csv", "epoch,loss,step\n3,9,\n4,8,\n"))["loss"]) == [(3, 9), (4, 8)]

    def test_nan_and_infinity_are_values(self, tmp_path: Path) -> None:
        cells = ["nan", "NaN", "NAN", "inf", "-inf", "Infinity", "-INFINITY", "", "1e3"]
        rows = [f"{i},{cell}" for i, cell in enumerate(cells)]
        series = only(write(tmp_path / "a.csv", "\n".join(["step,loss", *rows])))["loss"]
        inf, nan = np.inf, np.nan
        np.testing.assert_array_equal(series.values, [nan, nan, nan, inf, -inf, inf, -inf, 1000])
        np.testing.assert_array_equal(series.steps, [0, 1, 2, 3, 4, 5, 6, 8])

    def test_text_beside_a_step_column(self, tmp_path: Path) -> None:
        text = "epoch,model,loss,time\n0,resnet,1.0,12:00\n1,resnet,0.5,12:01\n"
        assert list(only(write(tmp_path / "a.csv", text))) == ["loss"]

    def test_a_metric_never_logged(self, tmp_path: Path) -> None:
        series = only(write(tmp_path / "a.csv", "epoch,loss,val_loss\n0,1,\n1,2,\n"))
        assert points(series["val_loss"]) == []

    def test_short_rows_and_quotes(self, tmp_path: Path) -> None:
        series = only(write(tmp_path / "a.csv", 'epoch,"loss, all",acc\n0,1\n1,"2",0.5\n'))
        assert points(series["loss, all"]) == [(0, 1), (1, 2)]
        assert points(series["acc"]) == [(1, 0.5)]

    def test_equal_steps_are_in_order(self, tmp_path: Path) -> None:
        series = only(write(tmp_path / "a.csv", "epoch,loss\n0,3\n0,2\n1,1\n"))
        assert points(series["loss"]) == [(0, 3), (0, 2), (1, 1)]

    def test_a_step_back_between_metrics_is_none_within_one(self, tmp_path: Path) -> None:
        series = only(write(tmp_path / "a.csv", "step,loss,val_loss\n1,3,\n5,2,\n4,,1\n6,1,\n"))
        assert points(series["loss"]) == [(1, 3), (5, 2), (6, 1)]


NOT_LOGS = {
    "empty": (b"", "empty file"),
    "blank": (b"\n \n\n", "no header"),
    "header only": (b"epoch,loss\n", "a header and no rows"),
    "no numeric column": (b"epoch,note\n0,good\n1,bad\n", "no metric column with a number"),
    "bookkeeping only": (b"epoch,lr,time\n0,0.1,5\n", "no metric column with a number"),
    "no header": (b"1,2\n3,4\n", "line 1: no header: the first row holds numbers"),
    "NUL bytes": (b"epoch,loss\n0,\x001\n", "binary"),
    "not UTF-8": (b"epoch,loss\n0,\xff\xfe\xfa\n", "not text in UTF-8"),
    "duplicate columns": (b"epoch,loss, loss\n0,1,2\n", "line 1: 2 columns are called 'loss'"),
    "row too long": (b"epoch,loss\n0,1\n1,2,3\n", "line 3: a row has 3 cells, the header 2"),
    "decimal comma": (b"epoch;loss\n0;0,9\n1;0.5\n", "line 2: column 'loss' holds '0,9'"),
    "quoted decimal comma": (b'epoch,loss\n0,0.9\n1,"1,5"\n', "line 3: column 'loss' holds '1,5'"),
    "word among numbers": (b"epoch,loss\n\n0,1\n1,abc\n", "line 4: column 'loss' holds 'abc', which is not a number"),
    "bool among numbers": (b"epoch,loss\n0,1\n1,True\n", "line 3: column 'loss' holds 'True'"),
    "underscore": (b"epoch,loss\n0,1\n1,1_000\n", "line 3: column 'loss' holds '1_000'"),
    "word as step": (b"step,loss\n0,1\nx,2\n", "line 3: column 'step' holds 'x'"),
    "nan as step": (b"step,loss\n0,1\nnan,2\n", "line 3: step is nan, which is no step"),
    "table without steps": (b"task,loss\nimage,1\ntext,2\n", "line 2: column 'task' holds 'image'"),
    "long cell": (b"epoch,loss\n0,1\n1," + b"x" * 99 + b"\n", "line 3: column 'loss' holds '" + "x" * 39 + "…'"),
    "decreasing steps": (
        b"epoch,loss\n0,3\n5,2\n4,1\n",
        "line 4: step 4 of 'loss' comes after step 5; "
        "the file is not judged, because rows are neither sorted nor dropped",
    ),
    "huge field": (b"epoch,loss\n0,1\n1," + b"9" * 200_000 + b"\n", "line 3: not CSV: field larger than field limit"),
    "open quote": (b'epoch,loss\n0,1\n1,"2\n2,3\n', "line 3: not CSV: unexpected end of data"),
    "invalid Parquet": (b"PAR1" + bytes(100), "not readable as Parquet"),
    "tiny Parquet": (b"PAR1", "not readable as Parquet"),
}


@pytest.mark.parametrize("kind", NOT_LOGS)
def test_not_a_log(tmp_path: Path, kind: str) -> None:
    content, reason = NOT_LOGS[kind]
    path = write(tmp_path / "metrics.csv", content)
    with pytest.raises(NotALog) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert reason in raised.value.reason
    assert "\n" not in str(raised.value)


def test_unreadable_paths(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, reason in (
        (tmp_path / "none.csv", "no such file"),
        (loop, "symbolic links"),
        (tmp_path, "is a directory"),
        (write(tmp_path / "file", "x") / "below", "not a directory"),
    ):
        with pytest.raises(NotALog, match=reason):
            read(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything is readable for root")
def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", LIGHTNING)
    path.chmod(0)
    with pytest.raises(NotALog, match="permission denied"):
        read(path)


class TestParquet:
    def test_order_and_grouping(self, tmp_path: Path) -> None:
        path = tidy(
            tmp_path / "t.parquet",
            run=["b", "a", "b", "b", "a", "b"],
            metric=["loss", "loss", "acc", "loss", "loss", "loss"],
            split=["val", "val", "val", "train", "val", "val"],
            step=[1, 1, 1, 1, 2, 2],
            value=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            mode=["min", "min", "max", "min", "min", None],
            other=[0] * 6,
        )
        b, a = read(path)
        assert (b.run, a.run, b.source) == ("b", "a", path)
        told = [(s.metric, s.split, s.mode, points(s)) for s in b.series]
        assert told == [
            ("loss", "val", "min", [(1, 1), (2, 6)]),
            ("loss", "train", "min", [(1, 4)]),
            ("acc", "val", "max", [(1, 3)]),
        ]
        assert [points(s) for s in a.series] == [[(1, 2), (2, 5)]]

    @pytest.mark.parametrize("encode", [True, False])
    def test_many_row_groups(self, tmp_path: Path, encode: bool) -> None:
        names = pa.chunked_array([["a", "b"], ["c", "a"]])
        table = pa.table(
            {"run": names.dictionary_encode() if encode else names, "metric": ["x"] * 4, "split": [None] * 4,
             "step": pa.array([0.5, 0, 0, 1], pa.float32()), "value": pa.array([1, 2, 3, 4], pa.int8())}
        )  # fmt: skip
        pq.write_table(table, tmp_path / "t.parquet", row_group_size=1)
        histories = read(tmp_path / "t.parquet")
        assert [(h.run, [(s.split, s.mode, points(s)) for s in h.series]) for h in histories] == [
            ("a", [("", None, [(0.5, 1), (1, 4)])]),
            ("b", [("", None, [(0, 2)])]),
            ("c", [("", None, [(0, 3)])]),
        ]

    def test_a_name_twice_in_the_dictionary(self, tmp_path: Path) -> None:
        run = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), ["a", "a"])
        (history,) = read(tidy(tmp_path / "t.parquet", run=run))
        assert points(history.series[0]) == [(0, 3), (1, 2), (2, 1)]

    def test_null_values(self, tmp_path: Path) -> None:
        value = pa.array([3.0, None, float("nan")])
        path = tidy(tmp_path / "t.parquet", value=value)
        (series,) = only(path).values()
        np.testing.assert_array_equal(series.values, [3, np.nan])
        np.testing.assert_array_equal(series.steps, [0, 2])
        pq.write_table(pq.read_table(path).replace_schema_metadata({"pandas": "{}"}), path)
        np.testing.assert_array_equal(only(path)["loss"].values, [3, np.nan, np.nan])

    def test_only_gaps(self, tmp_path: Path) -> None:
        assert points(only(tidy(tmp_path / "t.parquet", value=pa.array([None] * 3, pa.float64())))["loss"]) == []

    def test_rates_and_times_belong_to_the_values_that_are_kept(self, tmp_path: Path) -> None:
        value = pa.array([3.0, None, 2.0])
        series = only(tidy(tmp_path / "t.parquet", value=value, lr=[0.1, 0.1, 0.01], seconds=[1, 2, 3]))["loss"]
        assert series.lr is not None
        assert series.seconds is not None
        assert (series.lr.tolist(), series.seconds.tolist()) == ([0.1, 0.01], [1.0, 3.0])
        series = only(tidy(tmp_path / "t.parquet", lr=pa.array([0.1, None, 0.1])))["loss"]
        assert series.seconds is None
        series = only(tidy(tmp_path / "t.parquet", lr=["0", "1", "2"], seconds=pa.nulls(3)))["loss"]
        assert series.lr is None
        assert series.seconds is None
        series = only(tidy(tmp_path / "t.parquet", lr=pa.array([0.1, None, 0.1])))["loss"]
        np.testing.assert_array_equal(series.lr, [0.1, np.nan, 0.1])

    def test_found_by_content(self, tmp_path: Path) -> None:
        assert read(tidy(tmp_path / "metrics.csv"))[0].run == "a"
        assert read(write(tmp_path / "metrics.parquet", LIGHTNING))[0].run == "metrics"

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"split": None, "step": None}, "not in tidy form: no column split, step"),
            ({"step": [0, 5, 4]}, "row 3: step 4 of 'loss' comes after step 5; the file is not judged"),
            ({"step": [0, None, 2]}, "row 2: no step"),
            ({"step": [0.0, 1.0, float("inf")]}, "row 3: no step"),
            ({"step": ["0", "1", "2"]}, "column step holds string, not numbers"),
            ({"value": [True, False, True]}, "column value holds bool, not numbers"),
            ({"run": ["a", None, "a"]}, "row 2: no run"),
            ({"metric": ["", "", ""]}, "row 1: no metric"),
            ({"run": [["a"]] * 3}, "not readable as Parquet"),
            ({"mode": ["min", "max", "min"]}, "row 1: 'loss' has the modes 'max' and 'min' in one run"),
            ({"mode": ["lower"] * 3}, "row 1: mode of 'loss' must be min or max, got 'lower'"),
            ({name: pa.array([], pa.string()) for name in ("run", "metric", "split")}
             | {name: pa.array([], pa.float64()) for name in ("step", "value")}, "Parquet without rows"),
        ],
    )  # fmt: skip
    def test_not_tidy(self, tmp_path: Path, columns: dict[str, object], reason: str) -> None:
        path = tidy(tmp_path / "t.parquet", **columns)
        with pytest.raises(NotALog) as raised:
            read(path)
        assert reason in raised.value.reason
        assert "\n" not in str(raised.value)

    def test_truncated(self, tmp_path: Path) -> None:
        path = tidy(tmp_path / "t.parquet")
        write(path, path.read_bytes()[:-20])
        with pytest.raises(NotALog, match="not readable as Parquet"):
            read(path)

    def test_pyarrow_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tidy(tmp_path / "t.parquet")
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(NotALog, match=r"pip install 'convergence-engine\[logs\]'"):
            read(path)


def gathered(*paths: Path) -> tuple[list[History], list[Skipped]]:
    files, skipped = find(paths)
    loaded = [(file, load(file)) for file in files]
    skipped += [found for _, found in loaded if isinstance(found, Skipped)]
    return distinct([(file, found) for file, found in loaded if not isinstance(found, Skipped)]), skipped


class TestFolders:
    def test_walk(self, tmp_path: Path) -> None:
        for name in ("z", "b/version_10/metrics", "b/version_2/metrics", "a/x", ".hidden/h", "a/.h"):
            write(tmp_path / f"{name}.csv", LIGHTNING)
        write(tmp_path / "notes.md", "# Notes\nsome, text\n")
        write(tmp_path / "model.ckpt", b"PK\x03\x04\0\0\0")
        (tmp_path / "dead.csv").symlink_to(tmp_path / "nothing")
        (tmp_path / "again").symlink_to(tmp_path)
        (tmp_path / "link.csv").symlink_to(tmp_path / "z.csv")
        os.mkfifo(tmp_path / "pipe")
        histories, skipped = gathered(tmp_path)
        assert [h.run for h in histories] == ["link", "a/x", "b/version_10", "b/version_2"]
        reasons = {file.path.name: file.reason for file in skipped}
        assert reasons.keys() == {"notes.md", "model.ckpt", "dead.csv", "pipe"}
        assert reasons["notes.md"] == "line 2: a row has 2 cells, the header 1"
        assert reasons["pipe"] == "not a regular file"
        assert "binary" in reasons["model.ckpt"]

    def test_a_named_file_must_be_a_log(self, tmp_path: Path) -> None:
        with pytest.raises(NotALog, match=r"notes\.md: line 2: a row has 2 cells"):
            gathered(write(tmp_path / "notes.md", "# Notes\nsome, text\n"))
        with pytest.raises(NotALog, match="no such file"):
            gathered(tmp_path / "nothing")
        with pytest.raises(NotALog, match="empty path"):
            find([""])

    def test_the_folder_names_the_run(self, tmp_path: Path) -> None:
        write(tmp_path / "version_0/metrics.csv", LIGHTNING)
        assert [h.run for h in gathered(tmp_path)[0]] == ["version_0"]
        assert [h.run for h in gathered(tmp_path / "version_0")[0]] == ["version_0"]
        assert [h.run for h in gathered(tmp_path / "version_0/metrics.csv")[0]] == ["metrics"]

    def test_names_that_clash_grow(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / name, LIGHTNING) for name in ("a/metrics.csv", "b/metrics.csv", "b/metrics.txt")]
        assert [h.run for h in gathered(*paths[:2])[0]] == ["a/metrics", "b/metrics"]
        assert [h.run for h in gathered(*paths)[0]] == ["a/metrics", "b/metrics", "metrics.txt"]
        write(tmp_path / "b/results.csv", LIGHTNING)
        assert [h.run for h in gathered(tmp_path)[0]] == ["a", "b/metrics.csv", "b/metrics.txt", "b/results"]
        runs = [h.run for h in gathered(tmp_path / "a", tmp_path / "b")[0]]
        assert runs == ["a", "metrics.csv", "metrics.txt", "results"]

    def test_each_file_once(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", LIGHTNING)
        assert len(gathered(tmp_path, path, path, tmp_path)[0]) == 1

    def test_runs_of_two_files_with_one_name(self, tmp_path: Path) -> None:
        paths = [tidy(tmp_path / "x.parquet"), tidy(tmp_path / "y.parquet"), write(tmp_path / "z.csv", LIGHTNING)]
        assert [h.run for h in gathered(*paths)[0]] == ["x/a", "y/a", "z"]
        assert [h.run for h in gathered(*paths[1:])[0]] == ["a", "z"]


class TestChoice:
    def history(self, *names: str, mode: str | None = None) -> History:
        steps = np.arange(2.0)
        return History("r", Path("r.csv"), tuple(Series(name, "", mode, steps, steps) for name in names))

    def modes(self, history: History, *told: str, globs: tuple[str, ...] = ()) -> dict[str, str]:
        return {c.series.metric: c.mode for c in choose([history], globs, Modes(told))}

    def test_who_says_the_mode(self) -> None:
        silent, telling = self.history("loss", "acc"), self.history("loss", "acc", mode="max")
        assert self.modes(silent, "min", "acc=max") == {"loss": "min", "acc": "max"}
        assert self.modes(telling, "min") == {"loss": "max", "acc": "max"}
        assert self.modes(telling, "min", "loss=min") == {"loss": "min", "acc": "max"}
        assert self.modes(silent, "*=min", "a*=max") == {"loss": "min", "acc": "max"}
        assert self.modes(silent, "acc=max", "*=min") == {"loss": "min", "acc": "max"}
        assert self.modes(self.history("a=b", "x[0]"), "a=b=max", "x[0]=min") == {"a=b": "max", "x[0]": "min"}

    @pytest.mark.parametrize("told", [["up"], ["=min"], ["loss=down"], ["loss="], [""], ["min", "max"]])
    def test_no_mode(self, told: list[str]) -> None:
        with pytest.raises(ValueError, match="--mode"):
            Modes(told)

    def test_unused(self) -> None:
        assert Modes(["loss=min", "los=min", "x*=max"]).unused(["loss", "acc"]) == ["los", "x*"]

    def test_globs(self) -> None:
        history = self.history("train_loss", "val_loss", "x[0]")
        assert list(self.modes(history, "min", globs=("val*", "x[0]"))) == ["val_loss", "x[0]"]
        assert list(self.modes(history, "val_loss=min", globs=("val_loss",))) == ["val_loss"]

    def test_errors(self) -> None:
        with pytest.raises(
            ValueError, match=r"r\.csv does not say the mode of 'a b' \(nor that of 'c'\): give --mode 'a b="
        ):
            self.modes(self.history("a b", "c"))
        many = self.history(*(f"m{i}" for i in range(25)))
        with pytest.raises(ValueError, match=r"no metric is called 'M1'; there are: 'm0', .*'m19' and 5 more$"):
            self.modes(many, "min", globs=("m1", "M1"))


class TestHalfMeantNumbers:
    """What a person would have read as numbers must not go unnoticed."""

    @pytest.mark.parametrize("cell", ["10%", "1,5", "0.5 %", "1.000,5"])
    def test_a_column_of_nearly_numbers_is_an_error(self, tmp_path: Path, cell: str) -> None:
        path = write(tmp_path / "a.csv", f'epoch,loss,acc\n0,2,"{cell}"\n1,1,"{cell}"\n')
        with pytest.raises(NotALog, match="line 2: column 'acc' holds"):
            read(path)

    def test_a_column_of_words_is_left_out(self, tmp_path: Path) -> None:
        (history,) = read(write(tmp_path / "a.csv", "epoch,loss,phase\n0,2,warm\n1,1,main\n"))
        assert [series.metric for series in history.series] == ["loss"]

    def test_tidy_csv_is_not_taken_for_a_wide_one(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", "run,metric,split,step,value\na,loss,val,0,2\na,acc,val,0,0.5\n")
        with pytest.raises(NotALog, match="line 1: a table with a metric and a value in each row"):
            read(path)

    @pytest.mark.parametrize(("end", "points"), [("2,0.", 2), ("2,0.5,0.", 3), ("2,0.\n", 3)])
    def test_a_row_that_is_being_written_is_left_out(self, tmp_path: Path, end: str, points: int) -> None:
        (history,) = read(write(tmp_path / "a.csv", f"epoch,loss,acc\n0,2,0.1\n1,1,0.2\n{end}"))
        assert len(history.series[0].values) == points
