"""Time to target, the question of DAWNBench: which run was first at a target, at which step, epoch and second.

Run it with ``python -m benchmarks.targets PATH... --metric val/accuracy --target 0.93``. It reads tidy Parquet with
its column `seconds`, CSV, and DAWNBench's own TSV; from the text formats it also takes the columns `epoch` and `hours`,
`minutes` or `seconds`. Times are since the start of the run.

The task of a run is the first part of its name: `CIFAR10` in `CIFAR10/ResNet_1GPU`. Runs of one task are ranked among
each other, by seconds where all that reached the target have them, else by steps. Times of different machines are
compared as they are.
"""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.command_line import Mistake, run_command
from benchmarks.whole_file import save_text
from convergence import histories
from convergence.histories.columns import split_of
from convergence.histories.tidy_parquet import MAGIC
from convergence.lanes import FloatArray
from convergence.parameters import check_finite
from convergence.report.table import plain
from convergence.score import budget
from convergence.targets import Reached, rank, time_to_target

LISTED = 20  # names that an error lists at most
UNBOUNDED = 10_000  # columns of an output that is no terminal
SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}
COLUMNS = ("rank", "run", "step", "epoch", "time", "value", "budget")

Mode = StrEnum("Mode", ["min", "max"])
By = StrEnum("By", ["seconds", "steps", "epochs"])
FIELDS = {"seconds": "seconds", "steps": "step", "epochs": "epoch"}  # what to rank by, and where a row has it

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class LeftOut(NamedTuple):
    """A run or file that is not in the ranking, or has no rank though it reached the target, and why."""

    what: str
    why: str


class Curve(NamedTuple):
    """The metric of one run; seconds and epochs are None where the log has none."""

    run: str
    source: Path
    series: histories.Series
    seconds: FloatArray | None
    epochs: FloatArray | None


@dataclass(frozen=True)
class Row:
    """A line of the result; what is not known, or was not reached, is None. Budget is the share of the run used."""

    task: str
    rank: int | None
    run: str
    index: int | None
    step: float | None
    epoch: float | None
    seconds: float | None
    value: float | None
    observations: int
    budget: float | None


class Task(NamedTuple):
    """What the runs of one task had to reach, and what they are ranked by."""

    task: str
    target: float | None
    by: str
    runs: int
    reached: int


def label(series: histories.Series) -> str:
    """Return the name by which to ask for a series: its split in front, unless the name itself says it."""
    said = not series.split or split_of(series.metric) == series.split
    return series.metric if said else f"{series.split}/{series.metric}"


def listed(names: Sequence[str]) -> str:
    """Return the names as text, the last of very many only counted."""
    more = len(names) - LISTED
    return ", ".join(map(repr, names[:LISTED])) + (f" and {more} more" if more > 0 else "")


def task_of(run: str, depth: int) -> str:
    """Return the first parts of a run's name, all but its last part at most.

    Examples
    --------
    >>> task_of("CIFAR10/train/one", 1), task_of("one", 1)
    ('CIFAR10', '')
    """
    return "/".join(run.split("/")[:-1][:depth])


def read(paths: Sequence[Path], metric: str, only: str | None, depth: int) -> tuple[list[Curve], list[LeftOut]]:
    """Return the curves of a metric, and what has none.

    Raises
    ------
    Mistake
        No log, no such run, no run with such a metric, or a run with several.
    """
    try:
        files, skipped = histories.find(paths)
        loaded = []
        for file in files:
            found = histories.load(file)
            if isinstance(found, histories.Skipped):
                skipped.append(found)
            else:
                loaded.append((file, found))
    except histories.NotALog as error:
        raise Mistake(str(error)) from None
    left_out = [LeftOut(str(file.path), file.reason) for file in skipped]
    if not loaded:
        why = f" ({left_out[0].what}: {left_out[0].why})" if left_out else ""
        raise Mistake(f"no logs in {', '.join(map(str, paths))}{why}")
    every = histories.distinct(loaded)
    runs = [run for run in every if only is None or fnmatchcase(run.run, only)]
    if not runs:
        raise Mistake(f"--only {only!r} matches no run; there are: {listed([run.run for run in every])}")
    curves: list[Curve] = []
    without: dict[Path, list[str]] = {}
    for run in runs:
        wanted = [series for series in run.series if metric in (series.metric, label(series))]
        if len(wanted) > 1:
            several = listed([label(series) for series in wanted])
            raise Mistake(
                f"{run.source}: run {run.run!r} has several curves called {metric!r}: ask for one of {several}"
            )
        if not wanted:
            without.setdefault(run.source, []).append(run.run)
        elif not len(wanted[0].values):
            left_out.append(LeftOut(run.run, f"no value of {metric!r}"))
        else:
            curves.append(Curve(run.run, run.source, wanted[0], *_clocks(run.source, wanted[0])))
    left_out += _without(metric, without, {(curve.source, task_of(curve.run, depth)) for curve in curves}, depth)
    if not curves:
        others = list(dict.fromkeys(label(series) for run in runs for series in run.series))
        raise Mistake(f"no run has a value of the metric {metric!r}; there are: {listed(others)}")
    return curves, left_out


def _without(
    metric: str, without: dict[Path, list[str]], there: set[tuple[Path, str]], depth: int
) -> Iterator[LeftOut]:
    """Name the runs without the metric; where no run of a file or of a task has it, the file or the task."""
    for source, runs in without.items():
        whole_file = source not in {path for path, _ in there}
        groups: dict[str, list[str]] = {}
        for run in runs:
            groups.setdefault(str(source) if whole_file else task_of(run, depth), []).append(run)
        for name, members in groups.items():
            if len(members) == 1 or (source, name) in there:
                yield from (LeftOut(run, f"no metric {metric!r}") for run in members)
            else:
                yield LeftOut(name, f"none of its {len(members):,} runs has a metric {metric!r}")


def _clocks(path: Path, series: histories.Series) -> tuple[FloatArray | None, FloatArray | None]:
    """Return seconds and epoch at each value of a series: what the reader of CSV leaves out as bookkeeping."""
    with path.open("rb") as stream:
        if series.seconds is not None or stream.read(len(MAGIC)) == MAGIC:
            return series.seconds, None
    with path.open(encoding="utf-8-sig", newline="") as text:
        marks = [mark for mark in ",\t;" if mark in text.readline()]
        text.seek(0)
        reader = csv.reader(text, delimiter=marks[0] if len(marks) == 1 else ",")
        rows = [[cell.strip() for cell in row] for row in reader]
    header, *body = [row for row in rows if any(row)]
    at = header.index(series.metric)
    # the reader leaves out gaps, and a last row that is being written
    logged = [row for row in body if len(row) > at and row[at]][: len(series.values)]

    def column(name: str, unit: float = 1.0) -> FloatArray | None:
        places = [i for i, other in enumerate(header) if other.lower() == name]
        if not places:
            return None
        cells = [row[places[0]] if len(row) > places[0] else "" for row in logged]
        try:
            return np.array([float(cell or "nan") for cell in cells]) * unit
        except ValueError as error:
            raise Mistake(f"{path}: column {name!r} must hold numbers: {error}") from None

    times = (column(name, unit) for name, unit in SECONDS.items())
    return next((time for time in times if time is not None), None), column("epoch")


def target_within(share: float, curves: Sequence[Curve], mode: str) -> float | None:
    """Return the value that is within a share of the best gain of all runs from the best value of all runs.

    The gain is measured from the median of the runs' first finite values: a run that diverges at once, whose first
    value is thousands of times worse, would put the worst one anywhere. None if nothing is finite.
    """
    finite = [curve.series.values[np.isfinite(curve.series.values)] for curve in curves]
    finite = [values for values in finite if len(values)]
    if not finite:
        return None
    best = float(max(values.max() for values in finite) if mode == "max" else min(values.min() for values in finite))
    return best - share * (best - float(np.median([values[0] for values in finite])))


def rank_task(
    name: str, curves: Sequence[Curve], target: float | None, mode: str, by: By | None
) -> tuple[Task, list[Row]]:
    """Return the runs of one task, the first to reach the target first, those that never do last.

    Raises
    ------
    Mistake
        Steps or seconds of a log that cannot be.
    """
    rows = []
    for curve in curves:
        reached = None
        if target is not None:
            steps, values = curve.series.steps, curve.series.values
            try:
                reached = time_to_target(values, target, mode=mode, steps=steps, seconds=curve.seconds)
            except ValueError as error:
                raise Mistake(f"{curve.source}: run {curve.run!r}: {error}") from None
        rows.append(_row(name, curve, reached))
    there = [row for row in rows if row.index is not None]
    timed = there and all(row.seconds is not None for row in there)
    unit = by or (By.seconds if timed else By.steps)
    ranks = rank(getattr(row, FIELDS[unit]) for row in rows)
    rows = [replace(row, rank=place) for row, place in zip(rows, ranks, strict=True)]
    rows.sort(key=lambda row: (row.index is None, row.rank is None, row.rank or 0))
    return Task(name, target, unit.value, len(rows), len(there)), rows


def _row(task: str, curve: Curve, reached: Reached | None) -> Row:
    count = len(curve.series.values)
    if reached is None:
        return Row(task, None, curve.run, None, None, None, None, None, count, None)
    i = reached.index
    seconds = None if math.isnan(reached.seconds) else reached.seconds
    epoch = None if curve.epochs is None or np.isnan(curve.epochs[i]) else float(curve.epochs[i])
    used = float(budget(i, count))
    return Row(task, None, curve.run, i, reached.step, epoch, seconds, reached.value, count, used)


def mode_of(curves: Sequence[Curve], metric: str, told: Mode | None) -> str:
    """Return the mode of the metric: what the user says, which must agree with what the logs say."""
    said = {curve.series.mode: curve.source for curve in curves if curve.series.mode}
    if len(said) > 1:
        logs = " and ".join(f"{source} says {mode}" for mode, source in said.items())
        raise Mistake(f"is lower or higher better for {metric!r}? {logs}: choose runs with --only")
    if told is None and not said:
        raise Mistake(
            f"is lower or higher better for {metric!r}? {curves[0].source} does not say: give --mode min or max"
        )
    for mode, source in said.items():
        if told not in (None, mode):
            raise Mistake(f"--mode is {told}, but {source} says {mode} for {metric!r}")
    return str(told or next(iter(said)))


def as_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV; what is not known is an empty cell."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerows([[field.name for field in fields(Row)], *map(astuple, rows)])
    return text.getvalue()


def clock(seconds: float) -> str:
    """Return a time as h:mm:ss, or in seconds where it is below a minute.

    Examples
    --------
    >>> clock(12.345), clock(59.96), clock(7384.6)
    ('12.3 s', '0:01:00', '2:03:05')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def show(metric: str, mode: str, tasks: Sequence[Task], rows: Sequence[Row]) -> None:
    """Print a table for each task; as wide as its names where no terminal sets a width."""
    width = None if sys.stdout.isatty() else UNBOUNDED
    console = Console(width=width, highlight=False)
    relation = "at or above" if mode == "max" else "at or below"
    for task in tasks:
        target = "nothing finite" if task.target is None else f"{metric} {relation} {task.target:.6g}"
        name = plain(task.task) or "all runs"
        told = f"{name}: {target}, by {task.by}; {task.reached:,} of {task.runs:,} runs reached it"
        console.print(Text(told, "bold"), soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "run" else "right", overflow="fold")
        for row in rows:
            if row.task == task.task:
                table.add_row(*_cells(row))
        console.print(table)
        console.print()


def _cells(row: Row) -> list[Text]:
    if row.index is None:
        told = ["-", row.run, *["-"] * 5]
    else:
        step, epoch, value = ("" if n is None else f"{n:.6g}" for n in (row.step, row.epoch, row.value))
        if isinstance(row.step, int):
            step = str(row.step)
        time = "" if row.seconds is None else clock(row.seconds)
        told = [str(row.rank or "?"), row.run, step, epoch, time, value, f"{row.budget:.3f}"]
    return [Text(plain(cell), "dim" if row.index is None else "") for cell in told]


@app.command()
def command(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Logs (tidy Parquet, CSV, TSV), or folders.")],
    metric: Annotated[str, typer.Option(metavar="NAME", help="Metric, with its split in front if several have it.")],
    mode: Annotated[Mode | None, typer.Option(help="Which is better; needed where the logs do not say.")] = None,
    target: Annotated[float | None, typer.Option(help="Value to reach, in the metric's own unit.")] = None,
    within: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Instead of --target, for each task: at most this share of the best gain below the best value of all "
            "its runs; the gain is from the median first value of its runs.",
        ),
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only runs whose name matches.")] = None,
    depth: Annotated[int, typer.Option(min=0, help="Parts of a run's name that name its task; 0: one task.")] = 1,
    by: Annotated[
        By | None, typer.Option(help="What to rank by.", show_default="seconds where all have them, else steps")
    ] = None,
    print_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.")] = False,
    print_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the JSON to a file too.")] = None,
) -> None:
    """Say when each run first reached a target, and rank the runs of each task by it.

    Budget is the share of the run's own observations that were used up to there. Runs that never reach the target come
    last; runs without the metric, and files that are no logs, are named on standard error.
    """
    if (target is None) == (within is None):
        raise Mistake("give either --target or --within")
    if print_csv and print_json:
        raise Mistake("give either --csv or --json")
    if within is not None and not 0 <= within < 1:
        raise Mistake(f"--within must be at least 0 and below 1, got {within:g}")
    if target is not None:
        try:
            check_finite("--target", target)
        except ValueError as error:
            raise Mistake(str(error)) from None
    curves, left_out = read(paths, metric, only, depth)
    better = mode_of(curves, metric, mode)
    of_task: dict[str, list[Curve]] = {}
    for curve in curves:
        of_task.setdefault(task_of(curve.run, depth), []).append(curve)
    tasks: list[Task] = []
    rows: list[Row] = []
    for name, members in of_task.items():
        wanted = target if within is None else target_within(within, members, better)
        task, of_this = rank_task(name, members, wanted, better, by)
        tasks.append(task)
        rows += of_this
    nothing_finite = [curve.run for curve in curves if not np.isfinite(curve.series.values).any()]
    left_out += [LeftOut(run, f"no finite value of {metric!r}, listed as not reached") for run in nothing_finite]
    timeless = [row.run for row in rows if row.index is not None and row.rank is None]
    if timeless and len(timeless) == sum(task.reached for task in tasks):
        raise Mistake(f"--by {by}, but no run that reached the target has {by}")
    left_out += [LeftOut(run, f"reached the target, but the log has no {by} there: no rank") for run in timeless]
    result: dict[str, Any] = {
        "metric": metric,
        "mode": better,
        "target": target,
        "within": within,
        "only": only,
        "depth": depth,
        "files": list(dict.fromkeys(curve.source.name for curve in curves)),
        "tasks": [task._asdict() for task in tasks],
        "runs": [asdict(row) for row in rows],
        "left_out": [one._asdict() for one in left_out],
    }
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if out is not None:
        try:
            save_text(out, text)
        except OSError as error:
            raise Mistake(f"--out: cannot write {out}: {(error.strerror or str(error)).lower()}") from None
    for one in left_out:
        print(plain(f"{one.what}: {one.why}"), file=sys.stderr)
    try:
        if print_csv or print_json:
            sys.stdout.write(text if print_json else as_csv(rows))
        else:
            show(metric, better, tasks, rows)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise typer.Exit(141) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: 0 done; 2 wrong input, with one line on standard error; 130 interrupted."""
    return run_command(app, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
