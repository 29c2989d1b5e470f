"""Time per update, replay throughput and memory, side by side with plain Python, numpy and the peers.

Run it with ``python -m benchmarks.speed [--quick] [--out FILE]``. Absolute times vary by machine and by what else
runs on it: all contenders of a part take turns within each round, and the ratios of their median times are the result.
"""

import json
import math
import random
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.peers import CLOCK, INLINE, LIGHTNING, METHOD, NEVER, Prepare, Run, Spread, calls, take_turns
from benchmarks.whole_file import save_text
from convergence import Auto, Lookahead, NonFinite, Patience, Rearm, SmoothedSlope, Stopper, WarmUp, replay_many, rules
from convergence.rule import Rule

RESULTS = Path(__file__).resolve().parent / "results" / "speed.json"
LIMIT, LOOPED = "np.minimum.accumulate", "Lightning's class in a loop"
SWEEP, SLOPE = "Patience(1..100)", repr(SmoothedSlope(20, tol=0))
LR_DROPS = (60, 120, 160)
NOTE = (
    "Ours include best, budget and regret of each curve. Lightning goes over {lightning_rows} of the curves, each up "
    "to its stop (the same as ours), and is extrapolated: its throughput counts all values of a curve, as the others' "
    "do, though it checks {share_lightning_checks:.0%} of them."
)
Matrix = npt.NDArray[np.float64]


class Target(NamedTuple):
    """A figure and what it may be at most, or has to be at least; None where it could not be measured."""

    name: str
    sense: str
    bound: float
    figure: float | None

    @property
    def verdict(self) -> str:
        """Met, not met, or not measured."""
        if self.figure is None:
            return "not measured"
        return "met" if (self.figure <= self.bound) is (self.sense == "at most") else "NOT MET"


def _stopper(rule: Rule) -> Prepare:
    return lambda values: calls(Stopper(rule, monitor="val_loss", mode="min").update, values)


def _in_mapping(rule: Rule) -> Prepare:
    def prepare(values: Sequence[float]) -> Run:
        stopper = Stopper(rule, monitor="val_loss", mode="min")
        return calls(stopper.update, [{"val_loss": value, "train_loss": 0.9 * value} for value in values])

    return prepare


def _with_lr(rule: Rule) -> Prepare:
    def prepare(values: Sequence[float]) -> Run:
        update = Stopper(rule, monitor="val_loss", mode="min").update
        pairs = [(value, 0.1 * 0.1 ** (i // 1000)) for i, value in enumerate(values)]

        def run() -> None:
            for value, lr in pairs:
                update(value, lr=lr)

        return run

    return prepare


def _told(values: Sequence[float]) -> Run:
    update = Stopper(Patience(NEVER), monitor="val_loss", mode="min").update
    return calls(lambda value: update(value).message, values)


def our_updates() -> dict[str, Prepare]:
    """Return every rule of ours by name, set so that it never stops or that stopping does not matter."""
    chosen: dict[str, Rule] = {
        "Patience": Patience(NEVER),
        "Lookahead": Lookahead(NEVER),
        "SmoothedSlope": SmoothedSlope(20, tol=0),
        "GeneralizationLoss": rules.GeneralizationLoss(1e9),
        "ProgressQuotient": rules.ProgressQuotient(1e9, train="train_loss"),
        "SuccessiveRises": rules.SuccessiveRises(NEVER),
        "Target": rules.Target(-1e9),
        "Divergence": rules.Divergence(1e9),
        "Budget": rules.Budget(steps=NEVER),
    }
    # A rule that is not among these is measured with its defaults.
    all_rules = {name: chosen[name] if name in chosen else getattr(rules, name)() for name in rules.__all__}
    return {name: _stopper(rule) for name, rule in all_rules.items()} | {
        "ProgressQuotient": _in_mapping(chosen["ProgressQuotient"]),
        "Patience | NonFinite": _stopper(Patience(NEVER) | NonFinite()),
        "WarmUp(Patience)": _stopper(WarmUp(Patience(NEVER), 10)),
        "Rearm(Patience), lr given": _with_lr(Rearm(Patience(NEVER))),
        "Patience, value in a mapping": _in_mapping(Patience(NEVER)),
        "Patience, message read each time": _told,
    }


def time_updates(present: Mapping[str, Prepare], count: int, rounds: int) -> dict[str, Spread]:
    """Return the seconds per update of plain Python, our rules and the peers, on one slowly improving noisy curve."""
    noise = random.Random(0)
    values = [1 / math.sqrt(t) + 0.03 * noise.gauss(0, 1) for t in range(1, count + 1)]
    contenders = peers.PLAIN | our_updates() | dict(present)
    times = take_turns({name: lambda p=p: p(values) for name, p in contenders.items()}, rounds)  # type: ignore[misc]
    return {name: Spread(*(seconds / count for seconds in spread)) for name, spread in times.items()}


def time_replays(curves: int, length: int, sample: int, rounds: int) -> tuple[dict[str, Spread], dict[str, Any]]:
    """Return the seconds per value of replays of many falling noisy curves, and what was seen of their stops.

    Raises
    ------
    RuntimeError
        If Lightning's class and our Patience stop elsewhere on the sample: the times could not be compared.
    """
    noise = np.random.default_rng(0).standard_normal((curves, length))
    matrix: Matrix = 1 / np.sqrt(np.arange(1, length + 1)) + 0.03 * noise
    drops = np.searchsorted(LR_DROPS, np.arange(length), side="right")
    lr: Matrix = np.broadcast_to(0.1 * 0.1**drops, matrix.shape).copy()

    def many(*chosen: Rule, **known: Any) -> Callable[[], Run]:
        return lambda: lambda: replay_many(chosen, matrix, mode="min", **known)

    contenders: dict[str, Callable[[], Run]] = {
        LIMIT: lambda: lambda: np.minimum.accumulate(matrix, axis=1),
        **{
            repr(rule): many(rule)
            for rule in (
                Patience(10),
                Patience(50),
                Lookahead(10),
                SmoothedSlope(20, tol=0),
                rules.GeneralizationLoss(20),
                rules.SuccessiveRises(3),
                rules.Target(0.05),
                Patience(10) | NonFinite(),
            )
        },
        "Rearm(Patience(10)), lr": many(Rearm(Patience(10)), lr=lr),
        SWEEP: many(*map(Patience, range(1, 101))),
    }
    cells = dict.fromkeys(contenders, curves * length)
    stops = replay_many(Patience(10), matrix, mode="min").stop_index[0]
    seen: dict[str, Any] = {"mean_stop_index": float(stops[stops >= 0].mean()), "never": int((stops < 0).sum())}
    try:
        looped = peers.lightning_rows(matrix[:sample], 10)
    except ImportError:
        pass
    else:
        found = looped()
        if found != stops[:sample].tolist():
            raise RuntimeError(f"Lightning's class stops elsewhere than Patience(10): {found}")
        contenders[LOOPED], cells[LOOPED] = (lambda: looped), sample * length
        checked = sum(length if i < 0 else i + 1 for i in found)
        seen |= {"lightning_rows": sample, "share_lightning_checks": checked / cells[LOOPED]}
    times = take_turns(contenders, rounds)
    return {name: Spread(*(s / cells[name] for s in spread)) for name, spread in times.items()}, seen


def measure_auto(count: int, curves: int, length: int) -> dict[str, float]:
    """Return the median time of an update of Auto, and the time of a replay through every value of many curves."""
    noise = np.random.default_rng(0).standard_normal((curves, length))
    matrix: Matrix = 1 / np.sqrt(np.arange(1, length + 1)) + 0.03 * noise
    never = Auto(1e-9)
    update = Stopper(never, monitor="val_loss", mode="min").update
    times = []
    for value in np.resize(matrix, count).tolist():
        begun = time.perf_counter()
        update(value)
        times.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    replay_many(never, matrix, mode="min")
    return {"update_seconds": float(np.median(times)), "replay_seconds": time.perf_counter() - begun}


def measure_memory(count: int) -> dict[str, Any]:
    """Return the peak memory of one Stopper after a tenth and after all of `count` updates, and its saved size."""
    noise = random.Random(0)
    peaks = []
    tracemalloc.start()
    try:
        stopper = Stopper(SmoothedSlope(1000, tol=0), monitor="val_loss", mode="min")
        for i in range(1, count + 1):
            stopper.update(1 / math.sqrt(i) + 0.03 * noise.gauss(0, 1))
            if i in (count // 10, count):
                peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    state = len(json.dumps(stopper.state_dict(), allow_nan=False).encode())
    return {"observations": [count // 10, count], "peak_bytes": peaks, "state_json_bytes": state}


def targets(
    update: Mapping[str, Spread],
    replay: Mapping[str, Spread],
    seen: Mapping[str, Any],
    memory: Mapping[str, Any],
    auto: Mapping[str, float],
) -> list[Target]:
    """Return what we set out to reach. Updates and the sweep compare times, the other replays throughputs.

    For Auto they are times: as long as nobody waits for it in training, or for thousands of curves.
    """

    def ratio(times: Mapping[str, Spread], name: str, to: str) -> float | None:
        return times[name].median / times[to].median if name in times and to in times else None

    check = "Lightning's check"
    early, late = memory["peak_bytes"]
    # Two readings: the same curves, each rule up to its stop; and the values that each takes in, which for us are all.
    curves = ratio(replay, LOOPED, "Patience(10)")
    checks = None if curves is None else curves / seen["share_lightning_checks"]
    return [
        # Called once for each value, as every contender is; and the bare loop, which pays for no call at all.
        Target("time of Patience update / plain patience, called", "at most", 10, ratio(update, "Patience", METHOD)),
        Target("time of Patience update / plain patience, inlined", "at most", 10, ratio(update, "Patience", INLINE)),
        *(
            Target(f"time of {name} update / {check}", "at most", bound, ratio(update, name, LIGHTNING))
            for name, bound in (("Patience", 0.1), ("Patience | NonFinite", 0.25), ("SmoothedSlope", 0.25))
        ),
        *(
            Target(f"replay of {name} / accumulate", "at least", bound, ratio(replay, LIMIT, name))
            for name, bound in (("Patience(10)", 0.25), ("Patience(50)", 0.25), ("Lookahead(10)", 0.25), (SLOPE, 0.125))
        ),
        Target("time of 100 values of patience / of one", "at most", 8, ratio(replay, SWEEP, "Patience(10)")),
        Target("replay of Patience(10) / Lightning in a loop, per check", "at least", 300, checks),
        Target("replay of Patience(10) / Lightning in a loop, same curves", "at least", 300, curves),
        # Small slack: the interpreter's own caches are counted too.
        Target("peak memory after all updates / a tenth", "at most", 1.05, late / early),
        Target("bytes of the saved state", "at most", 64_000, memory["state_json_bytes"]),
        Target("seconds of an update of Auto", "at most", 200e-6, auto["update_seconds"]),
        Target("seconds of Auto through the curves of sizes.auto", "at most", 60, auto["replay_seconds"]),
    ]


def times_table(title: str, times: Mapping[str, Spread], bases: Mapping[str, str], unit: float, rate: bool) -> Table:
    """Return times as a table, or with `rate` throughputs: ratios to the bases that were measured, then absolute."""
    bases = {heading: name for heading, name in bases.items() if name in times}
    what = "million values/s" if rate else "µs"
    table = Table("", *bases, what, "slowest to fastest", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, spread in times.items():
        shares = (spread.median / times[base].median for base in bases.values())
        median, fastest, slowest = (unit / s if rate else s / unit for s in spread)
        ratios = (f"{1 / share if rate else share:.3g}" for share in shares)
        table.add_row(name, *ratios, f"{median:.3g}", f"{slowest:.3g} to {fastest:.3g}")
    return table


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, smaller inputs: a look, not a result.")] = False,
    out: Annotated[Path, typer.Option(help="Results file.", show_default="benchmarks/results/speed.json")] = RESULTS,
) -> None:
    """Measure, print tables, write a results file. A missed target is printed and does not fail."""
    console = Console(width=max(Console().width, 100))
    sizes = {
        "update": {"count": 1000 if quick else 5000, "rounds": 5 if quick else 31},
        "replay": {"curves": 4000 if quick else 20_000, "length": 200, "sample": 100, "rounds": 3 if quick else 15},
        "memory": {"count": 100_000 if quick else 1_000_000},
        "auto": {"count": 2000, "curves": 5000 if quick else 50_000, "length": 100},
    }
    with peers.quiet():
        present, absent = peers.load()
        update = time_updates(present, **sizes["update"])
        replay, seen = time_replays(**sizes["replay"])
        memory = measure_memory(**sizes["memory"])
        auto = measure_auto(**sizes["auto"])
    reached = targets(update, replay, seen, memory, auto)

    bases = {"x loop": INLINE, "x object": METHOD, "x Lightning": LIGHTNING}
    console.print(times_table("Time per update", update, bases, 1e-6, rate=False))
    for name, why in (peers.CALLS | absent).items():
        console.print(f"{name}: {why}", markup=False)
    bases = {"x accumulate": LIMIT, "x Lightning": LOOPED}
    console.print(times_table("Replay throughput", replay, bases, 1e-6, rate=True))
    if LOOPED in replay:
        console.print(NOTE.format(**seen), markup=False)
    table = Table("", "", "measured", "wanted", title="Targets")
    for target in reached:
        figure = "" if target.figure is None else f"{target.figure:.4g}"
        table.add_row(target.name, target.verdict, figure, f"{target.sense} {target.bound:g}")
    console.print(table)
    console.print(f"Memory of one Stopper: {memory}", markup=False)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": peers.processor(),
        "clock": CLOCK,
        "threads": 1,
        "quick": quick,
        "versions": peers.versions(),
        "absent": absent,
        "peer_calls": peers.CALLS,
        "sizes": sizes,
        "seconds_per_update": {name: spread._asdict() for name, spread in update.items()},
        "seconds_per_value_replayed": {name: spread._asdict() for name, spread in replay.items()},
        "replay": seen,
        "memory": memory,
        "auto": auto,
        "targets": [target._asdict() | {"verdict": target.verdict} for target in reached],
    }
    save_text(out, json.dumps(results, indent=1, allow_nan=False) + "\n")
    console.print(f"Written to {out.name}", markup=False)


if __name__ == "__main__":
    app()
