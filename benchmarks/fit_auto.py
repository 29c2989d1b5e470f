"""Fit the networks of `Auto` anew: ``python -m benchmarks.fit_auto --curves benchmarks/curves --curves DIR``.

For each source of the curves networks are fitted to all the others, and what a score is worth is measured on the
source that they have not seen; the networks that are shipped are then fitted to all sources. Writes coefficients
(``convergence/stats/remaining.npz``), the networks of the measurement and a record with their provenance.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from io import BytesIO
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks import peers
from benchmarks.auto_folds import HELD_OUT, PROMISED, expected, first_below, outputs_of, worth
from benchmarks.auto_training import PAST, PRICES, Options, Prepared, curve_weights, fit, side_by_side
from benchmarks.command_line import Mistake, run_command
from benchmarks.record import CURVES
from benchmarks.suite import Curve, read_suite
from benchmarks.whole_file import check_writable, save_text, write_whole
from convergence.histories import NotALog
from convergence.rules.auto import FEWEST
from convergence.stats.remaining import COEFFICIENTS, Network

RECORD = Path(__file__).resolve().parent / "results" / "auto.json"
KINDS = (("planned", True), ("unplanned", False))
ALL = ""
"""In place of a source that is left out: none."""

FloatArray = npt.NDArray[np.float64]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_prepared: Prepared
_options: Options


def _begin(folders: Sequence[str], options: Options) -> None:
    """Read the curves, once in each process."""
    global _prepared, _options
    parent = parent_process()
    if parent is not None:  # do not outlive it, however it ends
        Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    _prepared, _options = Prepared.of(_curves([Path(folder) for folder in folders])), options


def _curves(folders: Sequence[Path]) -> list[Curve]:
    """Return the curves of all folders; a source in two of them would be left out of neither."""
    found: list[Curve] = []
    for folder in folders:
        more = read_suite(folder).curves
        twice = {curve.source for curve in found} & {curve.source for curve in more}
        if twice:
            raise Mistake(f"--curves: {folder} holds the source {min(twice)!r}, as another folder does")
        found += more
    return found


def _job(left_out: str, planned: bool, seed: int) -> dict[str, FloatArray]:
    among = np.array([curve.source != left_out for curve in _prepared.curves])
    return fit(_prepared, among, planned=planned, seed=seed, options=_options)


def _networks(folders: Sequence[Path], sources: Sequence[str], options: Options, seed: int, jobs: int) -> Any:
    """Return the arrays of the networks by source left out and kind."""
    from rich.console import Console
    from rich.progress import Progress

    wanted = [(source, kind, planned) for source in (*sources, ALL) for kind, planned in KINDS]
    with (
        ProcessPoolExecutor(jobs, get_context("spawn"), _begin, ([str(f) for f in folders], options)) as pool,
        Progress(console=Console(stderr=True)) as progress,
    ):
        bar = progress.add_task("fitting", total=len(wanted) * options.members)
        futures = {
            (source, kind): [pool.submit(_job, source, planned, seed + k) for k in range(options.members)]
            for source, kind, planned in wanted
        }
        made = {}
        for key, members in futures.items():
            fitted = []
            for member in members:
                fitted.append(member.result())
                progress.advance(bar)
            made[key] = side_by_side(fitted)
    return made


Arrays = dict[str, npt.NDArray[np.float32]]


def _with_worth(made: Any, prepared: Prepared, sources: Sequence[str]) -> tuple[Arrays, dict[str, Any]]:
    """Return all arrays, each network with what scores are worth on sources that the scoring ones had not seen.

    And what stops at such scores would have used and lost on the source that was left out, on average over sources.
    """
    names = np.array([curve.source for curve in prepared.curves])
    arrays: Arrays = {}
    found: dict[str, Any] = {}
    worthless = {name: np.zeros(2) for name in ("scores", "log_gains", "means", "low", "high", "odds", "gains")}
    for kind, _ in KINDS:
        outputs: list[FloatArray] = [np.empty((2, 0))] * len(names)
        for source in sources:
            network = Network.of({**made[source, kind], **worthless, "past": np.array(PAST[kind])}, "")
            for i in np.flatnonzero(names == source):
                outputs[i] = outputs_of(network, prepared.features[i])
        for source in (*sources, ALL):
            among = names != source
            weight = curve_weights(prepared.curves, among, 1.0)[among]
            at = np.flatnonzero(among)
            regrets = [prepared.regrets[i] for i in at]
            weight /= weight.sum()
            table = worth([outputs[i][0] for i in at], regrets, weight)
            table["past"] = np.array(PAST[kind], np.float32)
            table |= expected([outputs[i][1] for i in at], regrets, weight)
            prefix = f"{source}/{kind}_" if source else f"{kind}_"
            arrays |= {prefix + name: array for name, array in {**made[source, kind], **table}.items()}
        networks = {source: Network.of(arrays, f"{source}/{kind}_") for source in sources}
        weight = curve_weights(prepared.curves, np.ones(len(names), np.bool_), 1.0) / len(names)
        found[kind] = [_score(tolerance, networks, prepared, outputs, weight) for tolerance in PROMISED]
    return arrays, found


def _score(
    tolerance: float,
    networks: dict[str, Network],
    prepared: Prepared,
    outputs: Sequence[FloatArray],
    weight: FloatArray,
) -> dict[str, float]:
    used = lost = 0.0
    for curve, regret, (scores, _), heavy in zip(prepared.curves, prepared.regrets, outputs, weight, strict=True):
        stop = int(first_below(scores, np.array([networks[curve.source].score_at(tolerance)]))[0])
        used += heavy * (1.0 if stop < 0 else (stop + 1) / len(regret))
        lost += heavy * (0.0 if stop < 0 else float(regret[stop]))
    return {"tolerance": tolerance, "budget": round(float(used), 4), "regret": round(float(lost), 5)}


def _bytes(arrays: Arrays) -> bytes:
    stream = BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def fingerprint(data: bytes) -> str:
    """Return the SHA-256 of some bytes, as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


@app.command()
def command(
    curves: Annotated[list[Path] | None, typer.Option(help="Folder of recorded curves; repeatable.")] = None,
    members: Annotated[int, typer.Option(help="Networks side by side.")] = Options.members,
    epochs: Annotated[int, typer.Option(help="Passes over the curves.")] = Options.epochs,
    seed: Annotated[int, typer.Option(help="Of the first network.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
    coefficients: Annotated[Path, typer.Option(help="File for the coefficients.")] = COEFFICIENTS,
    held_out: Annotated[Path, typer.Option(help="File for the networks of the measurement.")] = HELD_OUT,
    record: Annotated[Path, typer.Option(help="File for the record.")] = RECORD,
) -> None:
    """Fit the networks of Auto to recorded curves."""
    begun = time.perf_counter()
    least = {"--members": (members, 1), "--epochs": (epochs, 1), "--jobs": (jobs, 1), "--seed": (seed, 0)}
    for name, (number, fewest) in least.items():
        if number < fewest:
            raise Mistake(f"{name} must be at least {fewest}, got {number}")
    if len({check_writable(out) for out in (coefficients, held_out, record)}) < 3:
        raise Mistake("--coefficients, --held-out and --record must be three files")
    folders = curves or [CURVES]
    prepared = Prepared.of(_curves(folders))
    names = [curve.source for curve in prepared.curves]
    sources = sorted(set(names))
    if len(sources) < 2:
        raise Mistake(f"--curves: one source, {sources[0]!r}; at least 2 are needed, so that each can be left out")
    options = Options(members=members, epochs=epochs)
    for source in sources:
        others = [r for r, name in zip(prepared.regrets, names, strict=True) if name != source and len(r) >= FEWEST]
        if not source or not any(regret.any() for regret in others):
            raise Mistake(f"--curves: beside {source!r} no run of {FEWEST} evaluations that gains anything")
    try:
        arrays, scores = _with_worth(_networks(folders, sources, options, seed, jobs), prepared, sources)
    except ValueError as error:
        raise Mistake(f"--curves: {error}") from None
    shipped = _bytes({name: array for name, array in arrays.items() if "/" not in name})
    measured = _bytes({name: array for name, array in arrays.items() if "/" in name})
    versions = peers.versions()
    told = {
        "date": datetime.now(UTC).date().isoformat(),
        "coefficients": fingerprint(shipped),
        "held_out": fingerprint(measured),
        "seed": seed,
        "options": asdict(options),
        "prices": list(PRICES),
        "past": PAST,
        "versions": {name: versions[name] for name in ("python", "numpy", "torch") if name in versions},
        "sources": {
            source: {"curves": names.count(source), "snapshot": _snapshot(prepared, source)} for source in sources
        },
        "scores": scores,
        "seconds": round(time.perf_counter() - begun),
    }
    write_whole(coefficients, lambda path: path.write_bytes(shipped))
    write_whole(held_out, lambda path: path.write_bytes(measured))
    save_text(record, json.dumps(told, indent=1) + "\n")
    print(json.dumps({name: told[name] for name in ("date", "coefficients", "held_out", "seconds")}))


def _snapshot(prepared: Prepared, source: str) -> str:
    """Return a fingerprint of a source's curves: their runs, metrics and values."""
    digest = hashlib.sha256()
    for curve in prepared.curves:
        if curve.source == source:
            digest.update(f"{curve.run}\0{curve.metric}\0{curve.mode}\0".encode() + curve.loss.tobytes())
    return digest.hexdigest()[:16]


def main() -> int:
    """Run the command line; bad input is one line on standard error and exit status 2."""
    return run_command(app, (NotALog, OSError))


if __name__ == "__main__":
    sys.exit(main())
