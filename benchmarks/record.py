"""Record small real training runs, none of them ever stopped early, as curves to measure stopping rules on.

Run it with ``python -m benchmarks.record``; an interrupted recording goes on where it was.
"""

import hashlib
import json
import math
import os
import platform
import signal
import sys
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command_line import run_command
from benchmarks.peers import processor
from benchmarks.setups import Setup, all_runs
from benchmarks.whole_file import check_writable, save_text, write_whole

ROOT = Path(__file__).resolve().parent.parent
CURVES = Path(__file__).resolve().parent / "curves"
LIBRARIES = ("torch", "numpy", "scikit-learn")
MODES = {"loss": "min", "accuracy": "max", "r2": "max"}
SPLITS = ("train", "val", "test")
READ = ["metric", "split", "step", "value"]
CODE = ("generated.py", "tasks.py", "networks.py", "training.py")
TOLERANCE = 1e-6
"""Largest relative difference that --check takes for the same value."""
Run = tuple[str, Setup, int]
Values = dict[tuple[str, str], dict[int, float]]  # by metric and split, then by step

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class RunFailed(Exception):
    """A run ended with an error."""


@cache
def _code() -> list[str]:
    return [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in CODE]


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def _write_table(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    # nearly every value is different, so a dictionary would only cost room there; splitting the bytes saves none
    options = {
        "compression": "zstd",
        "compression_level": 19,
        "use_dictionary": [name for name in table.column_names if name != "value"],
        "row_group_size": 2**17,
    }
    write_whole(path, lambda temporary: pq.write_table(table, temporary, **options))


def part_file(folder: Path, run: Run) -> Path:
    """Where a finished run is kept, under a name that changes with whatever changes its values.

    Parameters
    ----------
    folder : Path
        Folder of the finished runs.
    run : Run
        Run id, set-up and seed.

    Returns
    -------
    Path
        A name that tells set-up, training code and versions of the libraries, but not what the set-up is said to show.
    """
    run_id, setup, seed = run
    told = {name: value for name, value in asdict(setup).items() if name not in ("name", "regime", "seeds")}
    key = json.dumps([told, seed, _code(), _versions()])
    return folder / f"{run_id.replace('/', '.')}.{hashlib.sha256(key.encode()).hexdigest()[:12]}.parquet"


def record(run: Run, path: Path) -> None:
    """Train one run and write its rows, with the sizes of its data and its CPU seconds as metadata.

    Parameters
    ----------
    run : Run
        Run id, set-up and seed.
    path : Path
        Parquet file to write.
    """
    import pyarrow as pa

    from benchmarks.tasks import load
    from benchmarks.training import train

    run_id, setup, seed = run
    data = load(setup, seed)
    evaluations = list(train(setup, seed, data))
    measured = {
        # boosting fits every stage on all examples
        "batch_size": len(data.train.x) if setup.architecture == "boosting" else setup.batch_size,
        "train_size": len(data.train.x),
        "val_size": len(data.val.x),
        "test_size": len(data.test.x),
        "cpu_seconds": round(evaluations[-1].seconds, 3),
    }
    curves = sorted(evaluations[0].values, key=lambda curve: (curve[0], SPLITS.index(curve[1])))
    steps = len(evaluations)

    def column(values: list[Any], kind: Any) -> Any:
        return pa.array(values, kind, from_pandas=False)  # NaN stays a value, it is no missing one

    names = [name for curve in curves for name in [curve] * steps]
    table = pa.table(
        {
            "source": column(["recorded"] * len(names), pa.string()),
            "run": column([run_id] * len(names), pa.string()),
            "metric": column([metric for metric, _ in names], pa.string()),
            "mode": column([MODES[metric] for metric, _ in names], pa.string()),
            "split": column([split for _, split in names], pa.string()),
            "step": column(list(range(1, steps + 1)) * len(curves), pa.int64()),
            "value": column([one.values[curve] for curve in curves for one in evaluations], pa.float64()),
            "lr": column([one.lr for one in evaluations] * len(curves), pa.float64()),
            "seconds": column([round(one.seconds, 4) for one in evaluations] * len(curves), pa.float64()),
            "planned": column([setup.budget_steps] * len(names), pa.int64()),
        }
    )
    _write_table(path, table.replace_schema_metadata({"run": json.dumps(measured)}))


def _part(path: Path, run_id: str) -> Any:
    """Return the table of a finished run; None if there is none, or what is there is not that."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        measured = json.loads(table.schema.metadata[b"run"])
        runs = table["run"].unique().to_pylist()
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
    return table if runs == [run_id] and isinstance(measured, dict) else None


def _record_missing(runs: list[Run], cache: Path, jobs: int) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    missing = [run for run in runs if _part(part_file(cache, run), run[0]) is None]
    # one thread each: the number of threads would change the order of sums, and so the curves
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    run_name = TextColumn("{task.fields[run]}")
    columns = TextColumn("recording"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), run_name
    # on Ctrl-C the workers finish and keep the runs they are at
    ignore = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=signal.signal, initargs=ignore)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(runs), completed=len(runs) - len(missing), run="")
        futures: dict[Future[None], str] = {pool.submit(record, run, part_file(cache, run)): run[0] for run in missing}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except Exception as error:
                    raise RunFailed(f"run {futures[future]} failed: {error!r}") from error
                progress.update(bar, advance=1, run=futures[future])
        finally:
            pool.shutdown(cancel_futures=True)


def _entry(run: Run, measured: dict[str, Any]) -> dict[str, Any]:
    run_id, setup, seed = run
    told = {name: value for name, value in asdict(setup).items() if name not in ("name", "seeds")}
    return {"run": run_id, "group": setup.group, "seed": seed} | told | measured


def _assemble(runs: list[Run], cache: Path, out: Path) -> None:
    import pyarrow as pa

    parts = [_part(part_file(cache, run), run[0]) for run in runs]
    entries = [_entry(run, json.loads(part.schema.metadata[b"run"])) for run, part in zip(runs, parts, strict=True)]
    _write_table(out / "recorded.parquet", pa.concat_tables(part.replace_schema_metadata() for part in parts))
    head = {
        "command": "python -m benchmarks.record",
        "versions": _versions(),
        "processor": processor(),
        "cpu_seconds": round(sum(entry["cpu_seconds"] for entry in entries)),
        "notes": {
            "step": "evaluation, counted from 1: after an epoch, after so many updates if the run tells them, or after "
            "a stage of boosting; budget_steps is the planned and the actual number (planned in the curves)",
            "seconds": "CPU seconds of the training process since the start of training, with one thread",
            "lr": "peak learning rate here, the largest one used since the last evaluation in the curves",
            "label_noise": "share of training labels given another class, or of targets shuffled; 1: all are shuffled",
            "ordered": "every epoch in the order of the labels; the group named shuffled starts from the same weights",
            "loss": "cross entropy, mean squared error (on scaled targets if normalised), Gaussian negative log "
            "likelihood (wave) or negative evidence lower bound per pixel (vae); these two can be below 0",
            "loss/train": "mean over the batches since the last evaluation, each before its update; for boosting "
            "after the stage",
        },
    }
    # a line for each run: small, and readable all the same
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries)
    text = f'{json.dumps(head, indent=1)[:-2]},\n "runs": [\n{lines}\n]\n}}\n'
    save_text(out / "manifest.json", text)


# Recording again


def _read(path: Path, run_id: str | None = None) -> Values:
    import pyarrow.parquet as pq

    values: Values = {}
    rows = pq.read_table(path, columns=READ, filters=None if run_id is None else [("run", "==", run_id)])
    for metric, split, step, value in zip(*(rows[name].to_pylist() for name in READ), strict=True):
        values.setdefault((metric, split), {})[step] = value
    return values


def difference(recorded: Values, again: Values) -> tuple[float, float]:
    """How far a run that was recorded again is from the recorded one.

    Parameters
    ----------
    recorded, again : Values
        Both runs.

    Returns
    -------
    tuple of float, float
        The largest absolute and the largest relative difference of two values; infinite if one is NaN or infinite and
        the other one is not the same, or if the runs do not have the same curves and steps.
    """
    if {name: curve.keys() for name, curve in recorded.items()} != {
        name: curve.keys() for name, curve in again.items()
    }:
        return math.inf, math.inf
    absolute = relative = 0.0
    for name, curve in recorded.items():
        for step, one in curve.items():
            two = again[name][step]
            if one == two or (math.isnan(one) and math.isnan(two)):
                continue
            if not (math.isfinite(one) and math.isfinite(two)):
                return math.inf, math.inf
            absolute = max(absolute, abs(one - two))
            relative = max(relative, abs(one - two) / max(abs(one), abs(two)))
    return absolute, relative


def _check(runs: list[Run], recorded: Path, jobs: int) -> bool:
    """Record the runs again, print how far each is from the recorded one, and say whether all are the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not recorded.exists():
        raise typer.BadParameter(f"nothing was recorded yet: there is no {recorded}")
    try:
        there = set(pq.read_table(recorded, columns=["run", *READ])["run"].unique().to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise typer.BadParameter(f"{recorded}: not recorded curves: {str(error).partition(chr(10))[0]}") from None
    absent = [run[0] for run in runs if run[0] not in there]
    if absent:
        raise typer.BadParameter(f"{recorded} has no run {absent[0]} ({len(absent)} of {len(runs)} are not there)")
    same = True
    with tempfile.TemporaryDirectory() as folder:
        _record_missing(runs, Path(folder), jobs)
        for run in runs:
            absolute, relative = difference(_read(recorded, run[0]), _read(part_file(Path(folder), run)))
            print(run[0], f"absolute {absolute:.3g}", f"relative {relative:.3g}", sep="\t")
            same = same and relative <= TOLERANCE
    return same


def _select(only: str | None) -> list[Run]:
    runs = [run for run in all_runs() if only is None or fnmatchcase(run[0], only)]
    if not runs:
        there = dict.fromkeys(f"{run[0].split('/')[0]}/*" for run in all_runs())
        raise typer.BadParameter(f"--only {only!r} matches no run; there are {', '.join(there)}")
    return runs


@app.command()
def command(
    out: Annotated[Path | None, typer.Option(help="Folder to write to.", show_default="benchmarks/curves")] = None,
    only: Annotated[str | None, typer.Option(help="Record the runs that match this pattern; needs --out.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes that train at the same time.")] = 2,
    cache: Annotated[Path, typer.Option(help="Folder that keeps finished runs.", show_default=".cache/record")] = (
        ROOT / ".cache" / "record"
    ),
    show: Annotated[bool, typer.Option("--list", help="Print run, regime and length of each run, and end.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Record the runs again, elsewhere, and print the largest differences from those recorded in --out; "
            f"exit status 1 if a relative one is above {TOLERANCE:g}. On one type of machine there are none; between "
            "types, training can amplify differences of rounding.",
        ),
    ] = False,
) -> None:
    """Train the recorded runs to their full length and write recorded.parquet and manifest.json."""
    runs = _select(only)
    if show:
        for run_id, setup, _ in runs:
            print(run_id, setup.regime, setup.budget_steps, sep="\t")
        return
    if jobs < 1:
        raise typer.BadParameter(f"--jobs must be at least 1, not {jobs}")
    if check:
        if not _check(runs, (out or CURVES) / "recorded.parquet", jobs):
            raise typer.Exit(1)
        return
    if only is not None and out is None:
        raise typer.BadParameter("--only records a part of the runs: name a folder of their own with --out")
    for name, folder in (("--out", out or CURVES), ("--cache", cache)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typer.BadParameter(f"{name}: cannot use {folder}: {error.strerror}") from error
    for name in ("recorded.parquet", "manifest.json"):
        check_writable((out or CURVES) / name)
    try:
        _record_missing(runs, cache, jobs)
    except KeyboardInterrupt:
        print("interrupted: finished runs are kept, the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    _assemble(runs, cache, out or CURVES)


def main() -> int:
    """Run the command line; a bad option is one line on standard error and exit status 2, a failed run 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it does not leave its workers behind
    try:
        return run_command(app, (OSError,))
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
