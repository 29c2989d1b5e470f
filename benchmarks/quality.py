"""What stopping costs and saves: every rule and every peer on recorded curves, by one protocol.

Run it with ``python -m benchmarks.quality``; ``--curves DIR`` takes another folder, ``--rules TEXT`` adds a rule.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.auto_scores import NAMES, auto_families, auto_findings
from benchmarks.command_line import Mistake, run_command
from benchmarks.families import Family, IntArray, families, family, rule_stops
from benchmarks.findings import OWN, Measured, findings, jsonable, measure, spread
from benchmarks.outcomes import outcomes
from benchmarks.record import CURVES
from benchmarks.suite import Curve, Suite, read_suite
from benchmarks.tables import tables
from benchmarks.whole_file import check_writable, save_text
from convergence import parse_rule
from convergence.histories import NotALog
from convergence.report.table import plain

RESULTS = Path(__file__).resolve().parent / "results"
RESAMPLES = 1000
COMPARED = 300
"""Curves on which a peer's stops are compared with its preset's."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

NEEDED = {
    "lr": "learning rates",
    "train": "a training curve",
    "full": "a planned length, known where `ended` is full in runs.csv",
}

Swept = tuple[tuple[str, ...], IntArray, IntArray, dict[str, Any]]
"""A peer's members, the curves that it was run on, where it stopped on these, and what it is."""


AUTO = "auto"
"""Text that stands for Auto over its tolerance, by networks that have not seen the source."""


def _own(texts: Sequence[str]) -> list[Family]:
    """Return a family for each rule that the user wrote, after a try on a curve that has everything."""
    values = np.array([1.0, 0.5, 0.6, 0.4])
    everything = Curve("", "", "", "", "", "min", "", True, values, np.arange(4.0), values, values, values)
    made = []
    for text in texts:
        if text.lower() == AUTO:
            made += auto_families()
            continue
        try:
            rule = parse_rule(text)
            made.append(family(OWN + repr(rule), [rule]))
            rule_stops([rule], [everything])
        except ValueError as error:
            raise Mistake(f"--rules: {error}") from None
    return made


# Peers run in processes of their own: each loads one library, and its memory is given back.


def _peer_stops(folder: str, full_only: bool, name: str) -> Swept:
    from benchmarks.live_peers import LIVE_PEERS, sweep

    curves = _chosen(read_suite(Path(folder)), full_only).curves
    at = _spaced(len(curves), LIVE_PEERS[name].most)
    members, stops, about = sweep(name, [curves[i] for i in at])
    refused = about.pop("refused_curves")
    about["refused_runs"] = [f"{curves[i].run} {curves[i].metric}" for i in at[refused]]
    taken = np.setdiff1d(np.arange(len(at)), refused)
    at, stops = at[taken], stops[:, taken]
    compared = _spaced(len(at), COMPARED)
    again = rule_stops([parse_rule(member) for member in members], [curves[i] for i in at[compared]])
    about |= {"preset_stops_equal": int((again == stops[:, compared]).sum()), "preset_stops_compared": again.size}
    return members, at, stops, about


def _spaced(count: int, most: int | None) -> IntArray:
    """Return at most so many indices, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most or count)).astype(np.int64))


def measured_peer(name: str, swept: Swept, curves: Sequence[Curve]) -> Measured:
    """Return a peer's outcomes on the curves that it was run on.

    Parameters
    ----------
    name : str
        The peer.
    swept : tuple
        Its members, indices of curves, stops (members, indices), and what it is.
    curves : sequence of Curve
        All curves.
    """
    members, at, stops, about = swept
    on = np.zeros(len(curves), np.bool_)
    on[at] = True
    return Measured(name, members, on, spread(outcomes(stops, [curves[i] for i in at]), on), about)


def _chosen(suite: Suite, full_only: bool) -> Suite:
    """Return the suite without the curves that were not recorded to the planned end, if so asked."""
    kept = tuple(curve for curve in suite.curves if curve.full or not full_only)
    if not kept:
        raise Mistake("--full-only: no run is known to have been recorded to its planned end")
    gone = [f"{curve.run} ({curve.source}) {curve.metric}: not to its planned end" for curve in suite.curves
            if full_only and not curve.full]  # fmt: skip
    return replace(suite, curves=kept, left_out=(*suite.left_out, *gone))


def _progress(total: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    what = TextColumn("{task.fields[what]}", markup=False)
    columns = TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), what
    progress = Progress(*columns, console=Console(stderr=True))
    progress.add_task("", total=total, what="")
    return progress


def _measure_all(
    suite: Suite, folder: Path, own: Sequence[Family], peers: Sequence[str], jobs: int, full_only: bool
) -> tuple[list[Measured], dict[str, str]]:
    """Return what was measured, and for each family or peer that was not, why."""
    ours = [*families(), *own]
    measured: list[Measured] = []
    absent: dict[str, str] = {}
    with (
        ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool,
        _progress(len(ours) + len(peers)) as progress,
    ):
        bar = progress.task_ids[0]
        try:
            futures: dict[str, Future[Swept]] = {
                name: pool.submit(_peer_stops, str(folder), full_only, name) for name in peers
            }
            for one in ours:
                progress.update(bar, what=one.name)
                found = measure(one, suite.curves)
                if found is None:
                    absent[one.name] = (
                        f"no curve has what it needs: {' and '.join(NEEDED[n] for n in sorted(one.needs))}"
                    )
                else:
                    measured.append(found)
                progress.update(bar, advance=1)
            for name, future in futures.items():
                progress.update(bar, what=name)
                try:
                    swept = future.result()
                    if len(swept[1]):
                        measured.append(measured_peer(name, swept, suite.curves))
                    else:
                        absent[name] = f"refuses every curve: {swept[3]['refused_because']}"
                except ImportError as error:
                    absent[name] = str(error)
                except Exception as error:  # one peer must not end the measurement of the others
                    absent[name] = f"failed: {error!r}"
                progress.update(bar, advance=1)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return measured, absent


@app.command()
def command(
    curves: Annotated[Path, typer.Option(help="Folder of recorded curves.", show_default="benchmarks/curves")] = CURVES,
    rules: Annotated[list[str] | None, typer.Option(help="A rule to measure too, or auto; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write the results to.")] = None,
    peers: Annotated[bool, typer.Option(help="Run the installed peers' own code too.")] = True,
    full_only: Annotated[bool, typer.Option(help="Only runs that were recorded to their planned end.")] = False,
    every: Annotated[bool, typer.Option("--every", help="Print every member of every family.")] = False,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.")] = RESAMPLES,
    jobs: Annotated[int, typer.Option(help="Processes for the peers.")] = 2,
) -> None:
    """Measure what stopping costs and saves, on recorded runs."""
    from rich.console import Console

    begun = time.perf_counter()
    for name, number, least in (("--jobs", jobs, 1), ("--resamples", resamples, 0)):
        if number < least:
            raise Mistake(f"{name} must be at least {least}, got {number}")
    own = _own(rules or ())
    if out:
        check_writable(out)
    suite = _chosen(read_suite(curves), full_only)
    names: Sequence[str] = ()
    if peers:
        from benchmarks.live_peers import NAMES as PEERS

        names = PEERS
    measured, absent = _measure_all(suite, curves, own, names, jobs, full_only)
    found = findings(suite, measured, absent, resamples, show_curves=curves.resolve() == CURVES)
    if any(one.name in NAMES for one in measured):
        found["auto"] = auto_findings(measured, suite, resamples)
    kilobytes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found["cost"] = {
        "seconds": time.perf_counter() - begun,
        "peak_memory_mb": kilobytes[0] / 1024,
        "peak_memory_of_a_peer_mb": kilobytes[1] / 1024,
    }
    if out:
        save_text(out, json.dumps(jsonable(found), indent=1, allow_nan=False) + "\n")
    console = Console(width=200)  # a narrower table would cut its numbers
    for made in tables(found, every=every):
        console.print(made)
    print(json.dumps(jsonable(found["suite"] | found["cost"])))
    _tell(suite, measured, absent)


def _tell(suite: Suite, measured: Sequence[Measured], absent: dict[str, str], most: int = 20) -> None:
    """Name on standard error what was not measured, and what there is to know of what was."""
    for name, reason in absent.items():
        print(plain(f"not measured: {name}: {reason}"), file=sys.stderr)
    for one in measured:
        about = one.peer or {}
        differing = about.get("preset_stops_compared", 0) - about.get("preset_stops_equal", 0)
        if differing:
            print(f"{one.name}: its preset stops elsewhere in {differing} cases", file=sys.stderr)
        if about.get("refused"):
            print(plain(f"{one.name}: refuses {about['refused']} curves: {about['refused_because']}"), file=sys.stderr)
    told = [f"left out: {reason}" for reason in suite.left_out] + [f"note: {note}" for note in suite.notes]
    told += [f"no finite value, so there is no regret in it: {name}" for name in suite.nowhere_finite]
    for line in islice(told, most):
        print(plain(line), file=sys.stderr)
    if len(told) > most:
        print(f"{len(told) - most} more such lines; --out writes them all", file=sys.stderr)


def main() -> int:
    """Run the command line; bad input is one line on standard error and exit status 2."""
    return run_command(app, (NotALog, OSError))


if __name__ == "__main__":
    sys.exit(main())
