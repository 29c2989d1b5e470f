"""The tables that `benchmarks.quality` prints."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.findings import BUDGETS, is_shown
from benchmarks.suite import FLOOR
from convergence.report.table import plain


def tables(found: dict[str, Any], *, every: bool = False) -> Iterator[Table]:
    """Yield the tables of what `benchmarks.findings` found, with every member of every family if so asked."""
    yield _families(found["families"])
    yield _rules(found["families"], every)
    regimes = found["regimes"]
    columns = [f"{plain(name)}\n{entry['curves']}" for name, entry in regimes.items()]
    by_rule = _table("Regret / budget by regime, on so many curves", "rule", *columns)
    for rule in dict.fromkeys(rule for entry in regimes.values() for rule in entry["rules"]):
        cells = [entry["rules"].get(rule) for entry in regimes.values()]
        _add(by_rule, rule, *(f"{one['regret']:.3f} / {one['budget']:.2f}" if one else "-" for one in cells))
    yield by_rule
    by_family = _table("Ratio to Patience by regime", "family", *map(plain, regimes))
    for name in found["families"]:
        _add(by_family, name, *(_number(entry["ratio_to_patience"].get(name), 2) for entry in regimes.values()))
    yield by_family


def _families(families: dict[str, Any]) -> Table:
    made = _table(
        f"Families over their parameter: regret (floor {FLOOR:g}) at equal budget, as a ratio to Patience",
        "family", "curves", "ratio", "95 %", "over budgets", *(f"regret at {budget:g}" for budget in BUDGETS),
    )  # fmt: skip
    for name, entry in families.items():
        over = entry["ratio_budgets"]
        _add(
            made, name, str(entry["curves"]), _number(entry["ratio_to_patience"], 2), _pair(entry["ratio_interval"], 2),
            _pair(over, 2) if over else "-", *(_number(regret, 3) for regret in entry["regret_at"]),
        )  # fmt: skip
    return made


def _rules(families: dict[str, Any], every: bool) -> Table:
    made = _table(
        f"Rules, and peers as they come: means within run, group, task and source (floor {FLOOR:g}); "
        "/ Patience: at the same budget, on the same curves",
        "rule", "curves", "budget", "regret", "95 %", "/ Patience", "p95", "within 1 %", "before drop", "test regret",
    )  # fmt: skip
    for name, entry in families.items():
        default = (entry.get("peer") or {}).get("default")
        for member in entry["members"]:
            if every or is_shown(name, member["rule"]) or member["rule"] == default:
                _add(
                    made, f"{name}: {member['rule']}" if entry.get("peer") else member["rule"], str(entry["curves"]),
                    _number(member["budget"], 3), _number(member["regret"], 4), _pair(member["regret_interval"], 3),
                    _number(member["to_patience"], 2),
                    _number(member["regret_p95"], 3), _number(member["within_1_percent"], 3),
                    _number(member["before_first_drop"], 3), _number(member["test_regret"], 4),
                )  # fmt: skip
    return made


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        made.add_column(Text(column), justify="left" if i == 0 else "right", no_wrap=i == 0)
    return made


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(plain(cell)) for cell in cells))


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _pair(values: Sequence[float], digits: int) -> str:
    low, high = (_number(value, digits) for value in values)
    return "-" if low == high == "-" else f"{low} to {high}"
