"""Tables of recorded runs: what a folder of curves says of each run, and by which of its curves it is to be judged."""

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convergence.histories import History, NotALog

MANIFEST = "manifest.json"
RUNS = "runs.csv"
COLUMNS = (
    "source", "run", "task", "group", "ended", "primary_loss", "split_loss", "primary_score", "split_score"
)  # fmt: skip
"""Columns of a `runs.csv`."""


@dataclass(frozen=True)
class Row:
    """What a table says of one run.

    Attributes
    ----------
    source, run, task, group : str
        Where it belongs; the runs of a group share task and set-up.
    regime : str
        The label it was recorded under; "" if none.
    full : bool
        Whether its recorded end is its planned end.
    wanted : tuple of (metric, split)
        The curves to judge it by.
    sure : bool
        Whether all of these are said to be logged.
    """

    source: str
    run: str
    task: str
    group: str
    regime: str
    full: bool
    wanted: tuple[tuple[str, str], ...]
    sure: bool = True


def rows_of(folder: Path, histories: Mapping[tuple[str, str], History]) -> list[Row]:
    """Return the table of a folder: its manifest.json, its runs.csv, or else every validation curve.

    Raises
    ------
    NotALog
        A table that cannot be read, lacks what it needs, or has a run twice.
    """
    if (folder / MANIFEST).is_file():
        path = folder / MANIFEST
        rows = _manifest(path)
    elif (folder / RUNS).is_file():
        path = folder / RUNS
        rows = _runs_csv(path)
    else:
        return _of_validation(histories)
    twice = [key for key, count in Counter((row.source, row.run) for row in rows).items() if count > 1]
    if twice:
        raise NotALog(path, f"run {twice[0][1]!r} of source {twice[0][0]!r} is there twice")
    return rows


def _manifest(path: Path) -> list[Row]:
    """Return the runs of a manifest as `benchmarks.record` writes it: recorded to their planned end."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["runs"]
        rows = [
            Row(
                source=entry.get("source", "recorded"),
                run=entry["run"],
                task=f"{entry['task']}_{entry['architecture']}",
                group=entry["group"],
                regime=entry["regime"],
                full=True,
                wanted=(("loss", "val"), ("accuracy", "val"), ("r2", "val")),
                sure=False,
            )
            for entry in entries
        ]
    except (ValueError, RecursionError) as error:
        raise NotALog(path, f"not readable as JSON: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise NotALog(path, f"not a manifest of recorded runs: {type(error).__name__} {error}") from None
    odd = [
        row for row in rows if not all(isinstance(text, str) for text in (row.source, row.run, row.group, row.regime))
    ]
    if odd:
        raise NotALog(path, f"source, run, group and regime must be text, got {odd[0]!r:.200}")
    return rows


def _runs_csv(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise NotALog(path, f"no column {', '.join(missing)}")
            return [_csv_row(path, row, reader.line_num) for row in reader]
    except UnicodeDecodeError:
        raise NotALog(path, "text in it is not UTF-8") from None
    except csv.Error as error:
        raise NotALog(path, f"not readable as CSV: {error}") from None
    except OSError as error:
        raise NotALog(path, (error.strerror or str(error)).lower()) from None


def _csv_row(path: Path, row: dict[str, str | None], line: int) -> Row:
    lacking = [name for name in ("source", "run") if not row[name]] + [name for name in COLUMNS if row[name] is None]
    if lacking:
        raise NotALog(path, f"no {lacking[0]}", line=line)
    told = {name: row[name] or "" for name in COLUMNS}
    wanted = [(told[f"primary_{kind}"], told[f"split_{kind}"]) for kind in ("loss", "score") if told[f"primary_{kind}"]]
    return Row(
        source=told["source"],
        run=told["run"],
        task=told["task"],
        group=told["group"],
        regime="",
        full=told["ended"].strip().lower().startswith("full"),
        wanted=tuple(dict.fromkeys(wanted)),
    )


def _of_validation(histories: Mapping[tuple[str, str], History]) -> list[Row]:
    """Return the runs themselves, each a group of its own, judged by every series of the split "val"."""
    return [
        Row(source, run, source, run, "", False,
            tuple((one.metric, one.split) for one in history.series if one.split == "val"))
        for (source, run), history in histories.items()
    ]  # fmt: skip
