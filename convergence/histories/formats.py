"""Read one file: find out by its content what it is, and hand it to the reader of that format."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from convergence.histories.csv_log import read_csv
from convergence.histories.history import History, NotALog
from convergence.histories.tidy_parquet import MAGIC, read_parquet


class _Format(NamedTuple):
    """A format: says from the first kilobytes of a file whether it is this one, and reads it."""

    matches: Callable[[bytes], bool]
    read: Callable[[Path, BinaryIO], list[History]]


# The first that matches reads. CSV has no mark of its own, so it takes what is left of text.
_FORMATS = (
    _Format(lambda head: head.startswith(MAGIC), read_parquet),
    _Format(lambda head: b"\0" not in head, read_csv),
)


def read(path: str | os.PathLike[str]) -> list[History]:
    r"""Return the runs that a log file holds.

    The format is found by content, not by name: tidy Parquet, else CSV. A run that has no name in the log is named
    by its file.

    Raises
    ------
    NotALog
        The file cannot be opened, is empty, or is not a log: says which and where.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "first.csv")
    ...     _ = path.write_text("epoch,val_loss\n0,0.9\n1,0.5\n")
    ...     history, = read(path)
    >>> history.run, history.series[0].metric, history.series[0].values
    ('first', 'val_loss', array([0.9, 0.5]))
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.peek()
            if not head:
                raise NotALog(path, "empty file")
            for one in _FORMATS:
                if one.matches(head):
                    return one.read(path, stream)
    except OSError as error:
        raise NotALog(path, (error.strerror or str(error)).lower()) from None
    raise NotALog(path, "binary, and of no format that is known here")
