"""The command line: options in, a table or JSON out, one line for a mistake."""

import contextlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from convergence import histories
from convergence.judge import judge
from convergence.parse import parse_rule
from convergence.replay import replay
from convergence.report import table
from convergence.rule import Rule
from convergence.stopper import Stopper

_UNBOUNDED = 10_000  # columns of an output that is no terminal

DEFAULT_RULE = "Patience(10) | NonFinite()"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

T = TypeVar("T")

# click's UsageError, which some versions of typer take from click and others carry inside.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class _Mistake(Exception):
    """What the user has to put right, in one sentence."""


def run(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; those of the process if left out.

    Returns
    -------
    int
        0 done, 2 wrong input, 130 interrupted, 141 the reader of the output went away.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed by the caller, as `>&-` does
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        status = typer.main.get_command(app).main(argv, prog_name="convergence", standalone_mode=False)
    except _UsageError as error:
        told: str = error.format_message()  # type: ignore[attr-defined]
        return _fail(f"{told.rstrip('.')} (see convergence --help)")
    except _Mistake as error:
        return _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        return 130
    return status if isinstance(status, int) else 0


@app.callback()
def _convergence() -> None:
    """Is this training done? Judge the logs of training runs."""


@app.command("judge")
def _judge(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Logs (CSV, tidy Parquet), or folders of them.")],
    rule: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="Rule to replay, such as 'Lookahead(3)'; repeatable.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Judge only metrics of this name; repeatable.")
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODE",
            help="Is lower or higher better: min or max, for metrics whose log does not say, or NAME=min, NAME=max, "
            "for metrics of that name (a glob) whatever their log says; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """Say what state each metric of each run is in, where each rule would have stopped it, and at what cost.

    Budget is the share of the run that was used up to the stop; regret is the share of its gain that was lost.

    Without --rule: Patience(10) | NonFinite()
    """
    try:
        rules = list(dict.fromkeys(parse_rule(text) for text in rule or [DEFAULT_RULE]))
        modes = histories.Modes(mode or ())
        found, skipped = _read(paths)
        work = histories.choose(found, metric or [], modes)
        _check(rules, work)
    except ValueError as error:
        raise _Mistake(error) from None
    for name in modes.unused(series.metric for history in found for series in history.series):
        _note(f"no metric is called {name!r}, as --mode says")
    _tell(skipped)
    rows = [row for item in _shown(work, "judging") for row in _rows(rules, item)]
    if as_json:
        _write("[\n" + ",\n".join(_json(row) for row in rows) + "\n]\n")
    else:
        _print(rules, rows)


def _read(paths: Sequence[str]) -> tuple[list[histories.History], list[histories.Skipped]]:
    files, skipped = histories.find(paths)
    loaded = []
    for file in _shown(files, "reading"):
        found = histories.load(file)
        if isinstance(found, histories.Skipped):
            skipped.append(found)
        else:
            loaded.append((file, found))
    if not loaded:
        _tell(skipped)
        raise _Mistake(f"no logs in {', '.join(paths)}")
    return histories.distinct(loaded), skipped


def _check(rules: Sequence[Rule], work: Sequence[histories.Choice]) -> None:
    """Refuse rules that need more than the values and steps of one metric."""
    for name, mode in dict.fromkeys((item.series.metric, item.mode) for item in work):
        for rule in rules:
            stopper = Stopper(rule, monitor=name, mode=mode)
            needs = [repr(other) for other in stopper.metrics if other != name] + sorted(stopper.needs)
            if needs:
                needed = " and ".join(needs)
                raise ValueError(f"{rule!r} needs {needed}, but {name!r} is judged by its own values alone")


def _rows(rules: Sequence[Rule], item: histories.Choice) -> Iterator[table.Row]:
    name, steps, values = item.series.metric, item.series.steps, item.series.values
    state = judge(values, mode=item.mode, monitor=name, steps=steps).state
    for rule in rules:
        r = replay(rule, values, monitor=name, mode=item.mode, steps=steps)
        yield table.Row(
            item.history.run, name, item.series.split, item.mode, repr(rule), state.value, r.observations,
            r.stop_index, r.stop_step, r.best_index, r.best_step, r.best_value, r.budget, r.regret,
            r.decision.reason.value, r.decision.message,
        )  # fmt: skip


def _json(row: table.Row) -> str:
    """Return the row as an object; what is undefined is null, because JSON knows neither NaN nor infinity."""
    told = row._asdict().items()
    known = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in told}
    return json.dumps(known, allow_nan=False)


def _print(rules: Sequence[Rule], rows: Sequence[table.Row]) -> None:
    """Print a table for each rule; as wide as its names where no terminal sets a width."""
    terminal = sys.stdout.isatty()
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=None if terminal else _UNBOUNDED, highlight=False)
    for number, rule in enumerate(rules):
        if number:
            console.print()
        of_rule = [row for row in rows if row.rule == repr(rule)]
        console.print(Text(repr(rule), "bold"), soft_wrap=True)
        for line in table.lines(of_rule, console.width):
            console.print(line, soft_wrap=True)
        console.print(Text(table.summary(of_rule)), soft_wrap=True)
    _write(out.getvalue())


def _shown(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield the items, with a progress bar on standard error if that is a terminal and it takes over two seconds."""
    if not sys.stderr.isatty():
        yield from items
        return
    began, bar = time.monotonic(), None
    try:
        for done, item in enumerate(items):
            yield item
            if bar is None and time.monotonic() - began > 2:
                bar = Progress(console=Console(stderr=True), transient=True)
                task = bar.add_task(what, total=len(items))
                bar.start()
            if bar is not None:
                bar.update(task, completed=done + 1)
    finally:
        if bar is not None:
            bar.stop()


def _note(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk under standard error must not hide the result
        print(table.plain(text), file=sys.stderr, flush=True)


def _tell(skipped: Iterable[histories.Skipped]) -> None:
    for file in skipped:
        _note(f"skipped {file.path}: {file.reason}")


def _fail(message: str) -> int:
    _note(f"convergence: error: {message}")
    return 2


def _write(text: str) -> None:
    """Write to standard output, quietly if nobody reads it any more."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(141) from None
        raise _Mistake(f"cannot write the output: {(error.strerror or str(error)).lower()}") from None
