"""Record small real training runs, none of them ever stopped early, as curves to measure stopping rules on.

Run it with ``python -m benchmarks.record``; an interrupted recording goes on where it was.
"""

import hashlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.setups import Setup, all_runs

ROOT = Path(__file__).resolve().parent.parent
CURVES = Path(__file__).resolve().parent / "curves"
LIBRARIES = ("torch", "numpy", "scikit-learn")
MODES = {"loss": "min", "accuracy": "max", "r2": "max"}
SPLITS = ("train", "val", "test")
Run = tuple[str, Setup, int]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class RunFailed(Exception):
    """A run ended with an error."""


@cache
def _code() -> list[str]:
    return [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("tasks.py", "training.py")]


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)  # mkstemp keeps files private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _write_table(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    # nearly every value is different, so a dictionary would only cost room there
    repeated = [name for name in table.column_names if name != "value"]
    _write(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", use_dictionary=repeated))


def part_file(folder: Path, run: Run) -> Path:
    """Where a finished run is kept.

    Parameters
    ----------
    folder : Path
        Folder of the finished runs.
    run : Run
        Run id, set-up and seed.

    Returns
    -------
    Path
        A name that changes with the set-up, the training code and the versions of the libraries.
    """
    run_id, setup, seed = run
    key = json.dumps([asdict(setup), seed, _code(), _versions()])
    return folder / f"{run_id.replace('/', '.')}.{hashlib.sha256(key.encode()).hexdigest()[:12]}.parquet"


def record(run: Run, path: Path) -> None:
    """Train one run and write its rows, with its manifest entry as metadata.

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
    start = time.perf_counter()
    evaluations = list(train(setup, seed, data))
    entry = {
        "run": run_id,
        "task": setup.task,
        "architecture": setup.architecture,
        "group": setup.group,
        "regime": setup.regime,
        "seed": seed,
        "budget_steps": setup.budget_steps,
        "optimizer": setup.optimizer,
        "schedule": setup.schedule,
        "lr": setup.lr,
        # boosting fits every stage on all examples
        "batch_size": len(data.train.x) if setup.architecture == "boosting" else setup.batch_size,
        "train_size": len(data.train.x),
        "val_size": len(data.val.x),
        "test_size": len(data.test.x),
        "label_noise": setup.label_noise,
        "input_noise": setup.input_noise,
        "normalise": setup.normalise,
        "wall_seconds": round(time.perf_counter() - start, 3),
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
        }
    )
    _write_table(path, table.replace_schema_metadata({"run": json.dumps(entry, allow_nan=False)}))


def _record_missing(runs: list[Run], cache: Path, jobs: int) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    missing = [run for run in runs if not part_file(cache, run).exists()]
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


def _assemble(runs: list[Run], cache: Path, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [pq.read_table(part_file(cache, run)) for run in runs]
    entries = [json.loads(part.schema.metadata[b"run"]) for part in parts]
    _write_table(out / "recorded.parquet", pa.concat_tables(part.replace_schema_metadata() for part in parts))
    manifest = {
        "command": "python -m benchmarks.record",
        "versions": _versions(),
        "notes": {
            "step": "epoch, or stage for boosting, counted from 1; budget_steps is the planned and the actual length",
            "lr": "peak learning rate here, the largest one used during the step in the curves",
            "label_noise": "share of training labels given another class; 1 means all training targets are shuffled",
            "loss/train": "mean over the batches of the epoch, each before its update; for boosting after the stage",
        },
        "runs": entries,
    }
    text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
    _write(out / "manifest.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))


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
) -> None:
    """Train the recorded runs to their full length and write recorded.parquet and manifest.json."""
    runs = _select(only)
    if show:
        for run_id, setup, _ in runs:
            print(run_id, setup.regime, setup.budget_steps, sep="\t")
        return
    if jobs < 1:
        raise typer.BadParameter(f"--jobs must be at least 1, not {jobs}")
    if only is not None and out is None:
        raise typer.BadParameter("--only records a part of the runs: name a folder of their own with --out")
    for name, folder in (("--out", out or CURVES), ("--cache", cache)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typer.BadParameter(f"{name}: cannot use {folder}: {error.strerror}") from error
    try:
        _record_missing(runs, cache, jobs)
    except KeyboardInterrupt:
        print("interrupted: finished runs are kept, the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    _assemble(runs, cache, out or CURVES)


def main() -> None:
    """Run the command line; a bad option is one line on standard error and exit status 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except RunFailed as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        # errors of the command line, whose class depends on the version of typer, can word themselves
        wording = getattr(error, "format_message", None)
        if wording is None:
            raise
        print(f"error: {wording()}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
