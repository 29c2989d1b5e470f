"""Logs in CSV: a header, a row for each logged step, empty cells where a metric was not logged."""

import csv
import io
import itertools
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from convergence.histories.columns import is_bookkeeping, split_of, step_rank, told_by_a_rule
from convergence.histories.history import History, NotALog, Series, decrease
from convergence.lanes import FloatArray

# "10%" and "0,5" were meant as numbers, also where no cell of the column is one.
_NEARLY = re.compile(r"[+-]?\d[\d.,]*\s*%?")


@dataclass
class _Column:
    """What a column holds: numbers with their rows, and its first cell that is no number with its line."""

    name: str
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    numbers: "array[float]" = field(default_factory=lambda: array("d"))
    text: str = ""
    text_line: int = 0


def read_csv(path: Path, stream: BinaryIO) -> list[History]:
    """Return the one run that a CSV file logs.

    The delimiter is a comma, or a tab or semicolon if the header has only that. The step is the first step-like
    column with anything in it, `step` before `epoch`; a row without it has the step of the row before. Without such
    a column the step is the row's number from 0; and as many a table is no log, every cell must then be a number.
    An empty cell is a gap; the text `nan` or `inf` is a value. Columns of text beside a step column are left out, and
    so is a last row that is short and has no end of line: it is being written.

    Raises
    ------
    NotALog
        A cell that is not a number among numbers, a row longer than the header, two columns of one name, steps that
        decrease, no header, no metric with a number, text that is not UTF-8 or not CSV.
    """
    with io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        columns, lines = _columns(path, text)
    told = told_by_a_rule(column.name for column in columns)
    metrics = [column for column in columns if not is_bookkeeping(column.name) and column.name not in told]
    wrong = [column for column in metrics if column.text and (column.numbers or _NEARLY.fullmatch(column.text))]
    if wrong:
        raise _not_a_number(path, min(wrong, key=lambda column: column.text_line))
    if not any(column.numbers for column in metrics):
        raise NotALog(path, "no metric column with a number in it")
    steps = _steps(path, columns, lines)
    return [History(path.stem, path, tuple(_series(path, c, steps, lines) for c in metrics if not c.text))]


def _rows(path: Path, text: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, cells stripped, with the line on which it begins."""
    line = 1
    try:
        header = text.readline()
        found = [mark for mark in ",\t;" if mark in header]
        delimiter = found[0] if len(found) == 1 else ","
        # Strict, because a quote that is never closed would swallow the rest of the file.
        last = [header]

        def physical() -> Iterator[str]:
            for part in itertools.chain([header], text):
                last[0] = part
                yield part

        reader = csv.reader(physical(), delimiter=delimiter, strict=True)
        width = 0
        for row in reader:
            cells = [cell.strip() for cell in row]
            # A short last row without an end of line is being written right now: its last number may lack digits.
            cut_off = len(cells) < width and not last[0].endswith(("\n", "\r"))
            if (len(cells) > 1 or any(cells)) and not cut_off:
                yield line, cells
            width = width or len(cells)
            line = reader.line_num + 1
    except UnicodeDecodeError:
        raise NotALog(path, "not text in UTF-8") from None
    except csv.Error as error:
        raise NotALog(path, f"not CSV: {error}", line=line) from None


def _columns(path: Path, text: TextIO) -> tuple[list[_Column], list[int]]:
    """Return the columns, and the line of each row."""
    rows = _rows(path, text)
    at, header = next(rows, (1, []))
    names = [name for name in header if name]
    if not names:
        raise NotALog(path, "no header", line=at)
    if all(_is_number(name) for name in names):
        raise NotALog(path, "no header: the first row holds numbers", line=at)
    (name, count), *_ = Counter(names).most_common(1)
    if count > 1:
        raise NotALog(path, f"{count} columns are called {name!r}", line=at)
    if {"metric", "value"} <= set(names):
        raise NotALog(path, "a table with a metric and a value in each row is read from Parquet, not from CSV", line=at)
    columns = [_Column(name) for name in header]
    has_step = any(step_rank(name) is not None for name in names)
    lines: list[int] = []
    for line, cells in rows:
        if len(cells) > len(header):
            raise NotALog(path, f"a row has {len(cells)} cells, the header {len(header)}", line=line)
        for column, cell in zip(columns, cells, strict=False):
            if cell:
                if _is_number(cell):
                    column.rows.append(len(lines))
                    column.numbers.append(float(cell))
                elif not column.text:
                    column.text, column.text_line = cell, line
                    if not has_step:
                        raise _not_a_number(path, column)
        lines.append(line)
    if not lines:
        raise NotALog(path, "a header and no rows")
    return columns, lines


def _is_number(cell: str) -> bool:
    """Say whether a cell is a number; Python's own 1_000 and digits of other scripts are not."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell.isascii()


def _not_a_number(path: Path, column: _Column) -> NotALog:
    cell = column.text if len(column.text) <= 40 else f"{column.text[:39]}…"
    return NotALog(path, f"column {column.name!r} holds {cell!r}, which is not a number", line=column.text_line)


def _steps(path: Path, columns: list[_Column], lines: list[int]) -> FloatArray:
    """Return the step of each row."""
    given = [(rank, c) for c in columns if (rank := step_rank(c.name)) is not None and (c.numbers or c.text)]
    if not given:
        return np.arange(len(lines), dtype=np.float64)
    column = min(given, key=lambda ranked: ranked[0])[1]
    if column.text:
        raise _not_a_number(path, column)
    rows, numbers = np.array(column.rows), np.array(column.numbers)
    odd = np.flatnonzero(~np.isfinite(numbers))
    if odd.size:
        raise NotALog(path, f"{column.name} is {numbers[odd[0]]}, which is no step", line=lines[rows[odd[0]]])
    # The last step at or before each row; rows before the first step get that.
    known = np.searchsorted(rows, np.arange(len(lines)), side="right") - 1
    steps: FloatArray = numbers[np.maximum(known, 0)]
    return steps


def _series(path: Path, column: _Column, steps: FloatArray, lines: list[int]) -> Series:
    rows = np.array(column.rows, np.int64)
    own = steps[rows]
    fall = decrease(column.name, own)
    if fall:
        raise NotALog(path, fall[1], line=lines[rows[fall[0]]])
    return Series(column.name, split_of(column.name), None, own, np.array(column.numbers, np.float64))
