"""Logs in Parquet, in tidy form: a row for each logged value, with its run, metric, split and step."""

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from convergence.histories.history import History, NotALog, Series, decrease
from convergence.lanes import BoolArray, FloatArray, IntArray

MAGIC = b"PAR1"
"""How a Parquet file begins."""

REQUIRED = ("run", "metric", "split", "step", "value")
"""Columns of the tidy form; `mode`, and what is in `CONTEXT`, are read too if they are there."""

CONTEXT = ("lr", "seconds")
"""Columns of numbers that belong to each value: learning rate, and time since training began; others are ignored."""


class _Names(NamedTuple):
    """A column of text: the texts in the order in which the file first has them, and which of them each row has."""

    texts: list[str]
    ranks: IntArray


class _Rows(NamedTuple):
    """The file's columns; null text is "", a null number is NaN."""

    run: _Names
    metric: _Names
    split: _Names
    mode: _Names
    steps: FloatArray
    values: FloatArray
    gaps: BoolArray
    context: dict[str, FloatArray]


def read_parquet(path: Path, stream: BinaryIO) -> list[History]:
    """Return the runs that a Parquet file in tidy form holds.

    Rows of one (run, metric, split) are one series, in the order of the rows. A null value is a gap, unless pandas
    wrote the file, which stores NaN as null. Runs, and within a run metrics and splits, come in the order in which
    the file first names them.

    Raises
    ------
    NotALog
        Not readable as Parquet, not tidy, columns of the wrong type, a run, metric or step that is missing, steps
        that decrease, a mode that is none, two modes for one series; or pyarrow is not installed.
    """
    rows = _rows(path, stream)
    keys = (rows.run.ranks, rows.metric.ranks, rows.split.ranks)
    order = np.lexsort(keys[::-1])  # stable, so that the rows of a series stay in order
    run, metric, split = (key[order] for key in keys)
    fresh = np.flatnonzero((np.diff(run) != 0) | (np.diff(metric) != 0) | (np.diff(split) != 0)) + 1
    of_run: dict[str, list[Series]] = {name: [] for name in rows.run.texts}
    for members in np.split(order, fresh):
        first = members[0]
        name = rows.metric.texts[rows.metric.ranks[first]]
        mode = _mode(path, rows.mode, members, name)
        logged = members[~rows.gaps[members]]
        steps = rows.steps[logged]
        fall = decrease(name, steps)
        if fall:
            raise NotALog(path, f"row {logged[fall[0]] + 1}: {fall[1]}")
        split_name = rows.split.texts[rows.split.ranks[first]]
        context = {column: numbers[logged] for column, numbers in rows.context.items()}
        series = Series(name, split_name, mode, steps, rows.values[logged], **context)
        of_run[rows.run.texts[rows.run.ranks[first]]].append(series)
    return [History(name, path, tuple(series)) for name, series in of_run.items()]


def _rows(path: Path, stream: BinaryIO) -> _Rows:
    """Return the file's columns, checked row by row."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise NotALog(path, "reading Parquet needs pyarrow: pip install 'convergence-engine[logs]'") from None
    try:
        file = pq.ParquetFile(pa.BufferReader(stream.read()))
        schema = file.schema_arrow
        missing = [name for name in REQUIRED if name not in schema.names]
        read = (*REQUIRED, "mode", *CONTEXT)
        twice = [name for name in read if schema.names.count(name) > 1]
        if twice:
            raise NotALog(path, f"{schema.names.count(twice[0])} columns are called {twice[0]!r}")
        if missing:
            raise NotALog(path, f"Parquet, but not in tidy form: no column {', '.join(missing)}")
        table = file.read([name for name in read if name in schema.names])
        if not table.num_rows:
            raise NotALog(path, "Parquet without rows")
        run, metric, split = (_names(table.column(name)) for name in ("run", "metric", "split"))
        mode = _names(table.column("mode")) if "mode" in table.column_names else _Names([""], np.zeros_like(run.ranks))
        steps, values = (_numbers(path, name, table.column(name)) for name in ("step", "value"))
        context = {
            name: _numbers(path, name, table.column(name))
            for name in CONTEXT
            if name in table.column_names and _holds_numbers(table.column(name).type)
        }
        gaps = table.column("value").is_null().to_numpy()
    except UnicodeDecodeError:
        raise NotALog(path, "text in it is not UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        raise NotALog(path, f"not readable as Parquet: {str(error).partition(chr(10))[0]}") from None
    if b"pandas" in (schema.metadata or {}):
        gaps = np.zeros_like(gaps)
    for name, lacking in (
        ("run", _blank(run)), ("metric", _blank(metric)), ("step", ~np.isfinite(steps) & ~gaps)
    ):  # fmt: skip
        if lacking.any():
            raise NotALog(path, f"row {np.argmax(lacking) + 1}: no {name}")
    return _Rows(run, metric, split, mode, steps, values, gaps, context)


def _names(column: Any) -> _Names:
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    encoded = column.combine_chunks()
    texts = ["" if text is None else str(text) for text in encoded.dictionary.to_pylist()] + [""]
    codes = encoded.indices.cast(pa.int64()).fill_null(len(texts) - 1).to_numpy()
    first = np.full(len(texts), len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # of equal codes the last assignment stays: the first row
    ranks: dict[str, int] = {}
    rank_of = np.zeros(len(texts), np.int64)
    for code in np.argsort(first, kind="stable"):
        if first[code] < len(codes):
            rank_of[code] = ranks.setdefault(texts[code], len(ranks))
    return _Names(list(ranks), rank_of[codes])


def _numbers(path: Path, name: str, column: Any) -> FloatArray:
    import pyarrow as pa

    if not _holds_numbers(column.type):
        raise NotALog(path, f"column {name} holds {column.type}, not numbers")
    numbers: FloatArray = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def _holds_numbers(kind: Any) -> bool:
    import pyarrow as pa

    return any(law(kind) for law in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def _blank(names: _Names) -> BoolArray:
    blank: BoolArray = names.ranks == (names.texts.index("") if "" in names.texts else -1)
    return blank


def _mode(path: Path, modes: _Names, members: IntArray, metric: str) -> str | None:
    """Return the one mode of a series; None if the file does not say."""
    said = sorted({modes.texts[rank] for rank in set(modes.ranks[members].tolist())} - {""})
    row = f"row {members[0] + 1}"
    if len(said) > 1:
        raise NotALog(path, f"{row}: {metric!r} has the modes {' and '.join(map(repr, said))} in one run")
    if said and said[0] not in ("min", "max"):
        raise NotALog(path, f"{row}: mode of {metric!r} must be min or max, got {said[0]!r}")
    return said[0] if said else None
