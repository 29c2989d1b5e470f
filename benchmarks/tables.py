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
    if "auto" in found:
        yield from _auto(found["auto"])


def _auto(found: dict[str, Any]) -> Iterator[Table]:
    """Yield the tables of Auto on sources that its networks have not seen."""
    against = _table(
        f"Auto on sources unseen: ratio of regret at budgets {found['budgets'][0]:g} to {found['budgets'][-1]:g}",
        "told", "curves", "reach", "/ Patience", "95 %", "budgets", "best peer", "/ best peer", "95 %", "budgets",
    )  # fmt: skip
    for name, one in found["against"].items():
        cells = [name, str(one["curves"]), _pair(one["reach"], 2) if one["reach"] else "-"]
        for label in ("patience", "best_peer"):
            entry = one.get(label)
            cells += [] if label == "patience" else [entry["family"] if entry else "-"]
            cells += (
                [_number(entry["ratio"], 3), _pair(entry["interval"], 2), str(entry["budgets"])] if entry else ["-"] * 3
            )
        _add(against, *cells)
    yield against
    promise = _table(
        "The promise: mean regret / tolerance, and of the source of many runs that loses most",
        "told", "tolerance", "budget", "regret", "95 %", "/ tolerance", "worst source", "/ tolerance",
    )  # fmt: skip
    for name, rows in found["promise"].items():
        for row in rows:
            worst = row["worst_regret"]
            _add(
                promise, name, f"{row['tolerance']:g}", _number(row["budget"], 3), _number(row["regret"], 4),
                _pair(row["interval"], 4), _number(row["regret"] / row["tolerance"], 2), row["worst_source"] or "-",
                "-" if worst is None else _number(worst / row["tolerance"], 2),
            )  # fmt: skip
    yield promise
    scheduled = _table(
        "Runs whose learning rate drops, at tolerance 0.01",
        "told", "curves", "budget", "regret", "before the last drop that mattered", "within 5 of a drop",
    )  # fmt: skip
    for name, one in found["scheduled"].items():
        if one["curves"]:
            figures = [one[key] for key in ("budget", "regret", "before_the_last_drop_that_mattered")]
            _add(scheduled, name, str(one["curves"]), *(_number(x, 4) for x in [*figures, one["within_5_of_a_drop"]]))
    yield scheduled
    prefixes = _table("Prefixes of 25, 50 and 75 %: is at most 1 % still to come?", "plan", "area", "lowest")
    for name, one in found["prefixes"].items():
        lowest = min(one["by_source"], key=one["by_source"].get, default=None)
        least = "-" if lowest is None else f"{lowest} {one['by_source'][lowest]:.2f}"
        _add(prefixes, name, _number(one["area"], 3), least)
    yield prefixes
    regimes = _table(
        "Auto(0.01) and Patience(10) by regime: regret / budget", "told", "regime", "Auto", "Patience", "worse in both"
    )
    for name, table in found["regimes"].items():
        for regime, one in table.items():
            pairs = [f"{regret:.4f} / {budget:.3f}" for budget, regret in (one["auto"], one["patience"])]
            _add(regimes, name, regime, *pairs, "yes" if one["worse_in_both"] else "")
    yield regimes


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
