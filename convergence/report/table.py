"""The table of verdicts: one line for each rule on each series."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

_COLUMNS = ("run", "metric", "split", "state", "points", "stop", "best", "budget", "regret", "reason")
_NUMBERS = frozenset({"points", "stop", "budget", "regret"})
_STATE = _COLUMNS.index("state")
_GAP = "  "
_STYLES = {
    "converged": "green", "improving": "cyan", "overfitting": "yellow", "unstable": "magenta",
    "diverged": "red", "not_learning": "red", "too_short": "dim",
}  # fmt: skip


class Row(NamedTuple):
    """One rule on one series: what `judge` and `replay` say of it."""

    run: str
    metric: str
    split: str
    mode: str
    rule: str
    state: str
    points: int
    stop_index: int | None
    stop_step: float | None
    best_index: int | None
    best_step: float | None
    best_value: float | None
    budget: float
    regret: float
    reason: str
    message: str


def lines(rows: Sequence[Row], width: int) -> Iterator[Text]:
    """Yield a header and a line for each row; where width is short, the run stands above its rows.

    Laid out here, because rich's own table takes half a minute for ten thousand rows.
    """
    cells = [_cells(row) for row in rows]
    wide = [max(map(cell_len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
    room = width - sum(wide[2:]) - len(_GAP) * (len(wide) - 1)  # for run and metric
    grouped = wide[0] + wide[1] > room < 40
    if grouped:
        wide[1] = min(wide[1], max(room + len(_GAP), 12))
    else:
        wide[1] = min(wide[1], max(room // 2, room - wide[0]))
        wide[0] = min(wide[0], room - wide[1])

    def line(told: Sequence[str], style: str = "") -> Text:
        fitted = [_fitted(*cell) for cell in zip(told, wide, _COLUMNS, strict=True)]
        parts = [Text(part, style if i == _STATE else "") for i, part in enumerate(fitted)]
        joined = Text(_GAP).join(parts[1:] if grouped else parts)
        joined.rstrip()
        return joined

    header = line(_COLUMNS)
    header.stylize("bold")
    yield header
    above = None
    for row, told in zip(rows, cells, strict=True):
        if grouped and row.run != above:
            above = row.run
            yield Text(_fitted(told[0], min(width, cell_len(told[0])), "run"), "bold")
        yield line(told, _STYLES.get(row.state, ""))


def _cells(row: Row) -> tuple[str, ...]:
    stop = _step(row.stop_step)
    best = "-" if row.best_value is None else f"{row.best_value:.5g} at {_step(row.best_step)}"
    budget, regret = (f"{share:.3f}" if math.isfinite(share) else "-" for share in (row.budget, row.regret))
    run, metric, split = map(plain, (row.run, row.metric, row.split))
    return run, metric, split, row.state, str(row.points), stop, best, budget, regret, row.reason


def _step(step: float | None) -> str:
    return "-" if step is None else f"{step:.6g}" if isinstance(step, float) else str(step)


def _fitted(text: str, width: int, column: str) -> str:
    """Return the text in just this many cells of a terminal; of one that is too long the middle is left out."""
    if cell_len(text) > width:
        kept = width - 1
        text = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
    return " " * (width - cell_len(text)) + text if column in _NUMBERS else set_cell_size(text, width)


def summary(rows: Sequence[Row]) -> str:
    states = ", ".join(f"{count:,} {state}" for state, count in Counter(row.state for row in rows).most_common())
    budget, regret = (_mean([getattr(row, name) for row in rows]) for name in ("budget", "regret"))
    return f"{len(rows):,} curve{'s'[: len(rows) != 1]}: {states}; mean budget {budget}, mean regret {regret}"


def _mean(shares: Iterable[float]) -> str:
    known = [share for share in shares if math.isfinite(share)]
    return f"{math.fsum(known) / len(known):.3f}" if known else "-"


def plain(text: str) -> str:
    """Return the text without line breaks and what else could play tricks on a terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)
