"""The command line on real files: rows, tables, and one line for a mistake."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.text import Text

from convergence import Patience, cli, replay
from convergence.judge import judge
from convergence.parse import parse_rule

KEYS = [
    "run", "metric", "split", "mode", "rule", "state", "points", "stop_index", "stop_step", "best_index", "best_step",
    "best_value", "budget", "regret", "reason", "message",
]  # fmt: skip
LOSSES = [0.9, 0.5, 0.6, 0.7, 0.4, 0.41, 0.42, 0.43, 0.44, 0.45]


def log(path: Path, **columns: list[Any]) -> Path:
    """Write a CSV log with an epoch column, from 10 in tens."""
    columns = columns or {"val_loss": LOSSES}
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(("epoch", *columns)), *(",".join(map(str, (10 * i + 10, *row))) for i, row in enumerate(rows))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def tidy(path: Path, mode: str | None = "min") -> Path:
    n = len(LOSSES)
    columns = {"run": ["r"] * n, "metric": ["loss"] * n, "split": ["val"] * n, "step": range(n), "value": LOSSES}
    pq.write_table(pa.table({**columns, **({"mode": [mode] * n} if mode else {})}), path)
    return path


class Ran:
    def __init__(self, capsys: pytest.CaptureFixture[str], *argv: str | Path) -> None:
        self.status = cli.run([*map(str, argv)])
        self.out, self.err = capsys.readouterr()

    @property
    def rows(self) -> list[dict[str, Any]]:
        assert self.status == 0, self.err
        rows: list[dict[str, Any]] = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        return rows


def fails(capsys: pytest.CaptureFixture[str], *argv: str | Path, saying: str) -> None:
    ran = Ran(capsys, *argv)
    assert (ran.status, ran.out) == (2, "")
    assert re.fullmatch(r"convergence: error: [^\n]+\n", ran.err), ran.err
    assert saying in ran.err


class TestJson:
    def test_row(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        ran = Ran(capsys, "judge", log(tmp_path / "first.csv"), "--mode", "min", "--rule", "Patience(2)", "--json")
        (row,) = ran.rows
        assert ran.err == ""
        assert list(row) == KEYS
        wanted = replay(Patience(2), LOSSES, monitor="val_loss", mode="min", steps=range(10, 110, 10))
        assert row == {
            "run": "first", "metric": "val_loss", "split": "val", "mode": "min", "rule": "Patience(2)",
            "state": judge(LOSSES, mode="min").state.value, "points": 10, "stop_index": 3, "stop_step": 40,
            "best_index": 1, "best_step": 20, "best_value": 0.5, "budget": 0.4, "regret": pytest.approx(0.1 / 0.5),
            "reason": "plateaued", "message": wanted.decision.message,
        }  # fmt: skip

    def test_rules_and_order(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        log(tmp_path / "b.csv", zeta=[1, 2], alpha=[2, 1])
        log(tmp_path / "a.csv", zeta=[1, 2])
        rules = ["--rule", "Patience( 3 )", "--rule", "Target(1.5)", "--rule", "Patience(3)"]
        rows = Ran(capsys, "judge", tmp_path, "--mode", "max", "--json", *rules).rows
        assert [(row["run"], row["metric"], row["rule"]) for row in rows] == [
            (run, metric, rule)
            for run, metric in (("a", "zeta"), ("b", "zeta"), ("b", "alpha"))
            for rule in ("Patience(3)", "Target(1.5)")
        ]
        assert rows[1]["stop_step"] == 20
        assert rows[1]["reason"] == "target_reached"

    def test_default_rule(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = log(tmp_path / "a.csv", val_loss=[0.5, "nan", 0.4])
        (row,) = Ran(capsys, "judge", path, "--mode", "min", "--json").rows
        assert row["rule"] == cli.DEFAULT_RULE == repr(parse_rule(cli.DEFAULT_RULE))
        assert (row["stop_index"], row["reason"]) == (1, "non_finite")
        assert cli.DEFAULT_RULE in Ran(capsys, "judge", "--help").out

    @pytest.mark.parametrize(("values", "points"), [(["nan", "inf"], 2), (["", ""], 0)])
    def test_nothing_finite_is_null(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], values: list[str], points: int
    ) -> None:
        path = log(tmp_path / "a.csv", loss=values, acc=[1, 2])
        row = Ran(capsys, "judge", path, "--mode", "min", "--rule", "Patience(5)", "--json").rows[0]
        assert (row["metric"], row["points"]) == ("loss", points)
        assert row["best_value"] is row["best_step"] is row["regret"] is row["stop_index"] is None
        assert row["budget"] == (1 if points else None)

    def test_modes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tidy(tmp_path / "t.parquet", "max")

        def mode(*argv: str) -> str:
            (row,) = Ran(capsys, "judge", path, "--json", *argv).rows
            return str(row["mode"])

        assert [mode(), mode("--mode", "min"), mode("--mode", "lo*=min")] == ["max", "max", "min"]

    def test_misspelt_mode_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tidy(tmp_path / "t.parquet")
        fails(capsys, "judge", path, "--mode", "los=max", saying="no metric is called 'los', as --mode says; there are")
        ran = Ran(capsys, "judge", path, "--mode", "los?x=max", "--json")
        assert ran.rows[0]["mode"] == "min"
        assert ran.err == "no metric is called 'los?x', as --mode says\n"

    def test_metric_needs_no_mode_of_others(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = log(tmp_path / "a.csv", loss=[2, 1], val_acc=[1, 2], val_f1=[1, 2])
        rows = Ran(capsys, "judge", path, "--metric", "val_*", "--mode", "val_*=max", "--json").rows
        assert [row["metric"] for row in rows] == ["val_acc", "val_f1"]


class TestFolder:
    def test_what_is_no_log_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        log(tmp_path / "logs/version_3/metrics.csv")
        notes = tmp_path / "logs/notes.txt"
        notes.write_text("a note\n")
        ran = Ran(capsys, "judge", tmp_path / "logs", "--mode", "min", "--json")
        assert [row["run"] for row in ran.rows] == ["version_3"]
        assert ran.err == f"skipped {notes}: a header and no rows\n"

    def test_nothing_left(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        fails(capsys, "judge", tmp_path, "--mode", "min", saying=f"no logs in {tmp_path}")
        (tmp_path / "notes.txt").write_text("a note\n")
        ran = Ran(capsys, "judge", tmp_path)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.splitlines() == [
            f"skipped {tmp_path / 'notes.txt'}: a header and no rows",
            f"convergence: error: no logs in {tmp_path}",
        ]


class TestMistakes:
    @pytest.mark.parametrize(
        ("content", "saying"),
        [
            (b"", "empty file"),
            (b"epoch,loss\n", "a header and no rows"),
            (b"epoch,note\n1,x\n", "no metric column with a number"),
            (b"\x00\x01\x02" * 50, "binary"),
            (b"epoch,loss\n0,\xff\n", "UTF-8"),
            (b"PAR1\x00\x00", "not readable as Parquet"),
            (b"epoch,loss,loss\n0,1,2\n", "line 1: 2 columns are called 'loss'"),
            (b"epoch,loss\n0,1,2\n", "line 2: a row has 3 cells"),
            (b'epoch,loss\n0,1\n1,"1,5"\n', "line 3: column 'loss' holds '1,5'"),
            (b"epoch,loss\n5,1\n4,2\n", "line 3: step 4 of 'loss' comes after step 5"),
            (b"source,run\nx,1\n", "line 2: column 'source' holds 'x'"),
            (b"epoch,loss\n0,1\n1," + b"1" * 150_000, "line 3: not CSV"),
            (b"epoch,loss\n0,1\n1,\x1b[31m\n2,red\rbull\n", "line 3: column 'loss' holds"),
        ],
    )
    def test_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, saying: str) -> None:
        path = tmp_path / "some log.csv"
        path.write_bytes(content)
        log(tmp_path / "good.csv")
        fails(capsys, "judge", tmp_path / "good.csv", path, "--mode", "min", saying=f"{path}: ")
        fails(capsys, "judge", path, "--mode", "min", saying=saying)

    def test_paths(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        loop = tmp_path / "loop"
        loop.symlink_to(loop)
        fails(capsys, "judge", loop, "--mode", "min", saying=f"{loop}: too many levels of symbolic links")
        fails(capsys, "judge", tmp_path / "none\nsuch", "--mode", "min", saying="none such: no such file or directory")
        fails(capsys, "judge", tmp_path / ("x" * 300), "--mode", "min", saying="file name too long")
        fails(capsys, "judge", "", "--mode", "min", saying="empty path")

    def test_parquet(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tidy(tmp_path / "t.parquet")
        path.write_bytes(path.read_bytes()[:-9])
        fails(capsys, "judge", path, saying=f"{path}: not readable as Parquet")
        pq.write_table(pa.table({"run": ["a"], "value": [1.0]}), path)
        fails(capsys, "judge", path, saying="not in tidy form: no column metric, split, step")

    @pytest.mark.parametrize(
        ("argv", "saying"),
        [
            ([], "does not say the mode of 'val_loss': give --mode val_loss=min or --mode val_loss=max"),
            (["--mode", "best"], "--mode must be min, max, NAME=min or NAME=max, got 'best'"),
            (["--mode", "min", "--mode", "max"], "contradict"),
            (["--mode", "min", "--metric", "loss"], "no metric is called 'loss'; there are: 'val_loss'"),
            (["--mode", "min", "--rule", "Patiens(3)"], "unknown rule 'Patiens'"),
            (["--mode", "min", "--rule", "Patience(0)"], "patience must be"),
            (["--mode", "min", "--rule", "Budget(seconds=5)"], "Budget(seconds=5) needs elapsed"),
            (["--mode", "min", "--rule", "Rearm(Patience(3))"], "needs lr"),
            (["--mode", "min", "--rule", "ProgressQuotient(1.0, train='loss')"], "needs 'loss'"),
            (["--mode", "min", "--rule", "Patience(3).on('acc')"], "needs 'acc'"),
            (["--mode"], "requires an argument"),
            (["--nonsense"], "--nonsense"),
        ],
    )
    def test_options(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], saying: str) -> None:
        fails(capsys, "judge", log(tmp_path / "a.csv"), *argv, saying=saying)

    def test_commands(self, capsys: pytest.CaptureFixture[str]) -> None:
        fails(capsys, "judge", saying="Missing argument 'PATH")
        fails(capsys, "jugde", saying="No such command 'jugde'")
        fails(capsys, saying="Missing command")


class TestTable:
    def lines(self, capsys: pytest.CaptureFixture[str], *argv: str | Path) -> list[str]:
        ran = Ran(capsys, "judge", *argv)
        assert (ran.status, ran.err) == (0, "")
        assert "\x1b" not in ran.out
        return ran.out.splitlines()

    def test_cells(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        log(tmp_path / "a.csv", val_loss=LOSSES, acc=[""] * 10)
        log(tmp_path / "b.csv", val_loss=LOSSES[:3])
        lines = self.lines(capsys, tmp_path, "--mode", "min", "--rule", "Patience(2)", "--rule", "Target(0.4)")
        state = judge(LOSSES, mode="min").state.value
        assert [re.split(r" {2,}", line) for line in lines[:6]] == [
            ["Patience(2)"],
            ["run", "metric", "split", "state", "points", "stop", "best", "budget", "regret", "reason"],
            ["a", "val_loss", "val", state, "10", "40", "0.5 at 20", "0.400", "0.200", "plateaued"],
            ["a", "acc", "too_short", "0", "-", "-", "-", "-", "waiting"],
            ["b", "val_loss", "val", "too_short", "3", "-", "0.5 at 20", "1.000", "0.000", "waiting"],
            [f"3 curves: 2 too_short, 1 {state}; mean budget 0.700, mean regret 0.100"],
        ]
        assert lines[6:8] == ["", "Target(0.4)"]
        assert len(lines) == 13

    def test_names_are_whole_in_a_pipe(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        name = f"{'begin' * 20}-{'end' * 20}"
        log(tmp_path / f"{name}.csv")
        assert self.lines(capsys, tmp_path, "--mode", "min")[2].startswith(f"{name}  val_loss  val")

    def test_hostile_names(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        log(tmp_path / "[red]x\x1b[31m\n.csv", **{"[bold]损失": [2, 1], "b": [2, 1]})
        lines = self.lines(capsys, tmp_path, "--mode", "min")
        assert lines[2].startswith("[red]x?[31m   [bold]损失  ")
        assert len(lines) == 5

    @pytest.mark.parametrize("width", [60, 100, 200])
    def test_in_a_terminal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
        class Terminal(io.StringIO):
            encoding = "utf-8"

            def isatty(self) -> bool:
                return True

        def shown() -> str:
            terminal = Terminal()
            with monkeypatch.context() as m:
                m.setattr(sys, "stdout", terminal)
                assert cli.run(["judge", str(tmp_path), "--mode", "min"]) == 0
            return terminal.getvalue()

        for number in range(3):
            log(tmp_path / f"{'run' * 20}{number}.csv", val_loss=LOSSES, **{"metrics/precision(B)": LOSSES})
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        lines = Text.from_ansi(shown()).plain.splitlines()
        assert len(lines) == (9 if width == 200 else 12)
        if width >= 100:
            assert max(map(len, lines)) <= width
            assert sum("metrics/precision(B)" in line for line in lines) == 3
        assert "\x1b[3" in shown()
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b[3" not in shown()


class TestProcess:
    def command(self, *argv: str | Path, **options: Any) -> "subprocess.Popen[str]":
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
        return subprocess.Popen([sys.executable, "-m", "convergence", *map(str, argv)], **{**pipe, **options})

    def test_module(self, tmp_path: Path) -> None:
        with self.command("judge", log(tmp_path / "a.csv"), "--mode", "min", "--json") as process:
            out, err = process.communicate()
        assert (process.returncode, err, len(json.loads(out))) == (0, "", 1)
        with self.command("judge", tmp_path / "nothing.csv") as process:
            out, err = process.communicate()
        assert (process.returncode, out) == (2, "")
        assert err == f"convergence: error: {tmp_path / 'nothing.csv'}: no such file or directory\n"

    def test_output_in_ascii(self, tmp_path: Path) -> None:
        log(tmp_path / "a.csv", **{"val_損失": [2, 1]})
        env = {**os.environ, "PYTHONIOENCODING": "ascii"}
        with self.command("judge", tmp_path, "--mode", "min", env=env) as process:
            out, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        assert r"val_\u640d\u5931" in out

    def test_reader_goes_away(self, tmp_path: Path) -> None:
        read, write = os.pipe()
        os.close(read)
        with self.command("judge", log(tmp_path / "a.csv"), "--mode", "min", stdout=write) as process:
            os.close(write)
            _, err = process.communicate()
        assert (process.returncode, err) == (141, "")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
    def test_full_disk(self, tmp_path: Path) -> None:
        with (
            open("/dev/full", "w") as full,
            self.command("judge", log(tmp_path / "a.csv"), "--mode", "min", stdout=full) as process,
        ):
            _, err = process.communicate()
        assert process.returncode == 2
        assert err == "convergence: error: cannot write the output: no space left on device\n"

    def test_interrupt(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        # The pipe opens once the command reads it, which then waits for a first line.
        # A shell starts background jobs deaf to the signal, so the command is given back its hearing.
        hearing = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        with self.command("judge", pipe, "--mode", "min", **hearing) as process, open(pipe, "w"):
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
        assert (process.returncode, out, err.strip()) == (130, "", "")


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(seconds: float) -> str:
        ticks = iter(range(10_000))
        terminal = Terminal()
        with monkeypatch.context() as m:
            m.setattr(cli.time, "monotonic", lambda: next(ticks) * seconds)
            m.setattr(sys, "stderr", terminal)
            assert list(cli._shown(range(5), "judging")) == list(range(5))
        return terminal.getvalue()

    assert shown(0.1) == ""
    assert "judging" in shown(1.0)
