"""Read the logs of many files and folders, under run names that tell them apart."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convergence.histories.formats import read
from convergence.histories.history import History, NotALog

_SAME_FOR_ALL = frozenset({"metrics.csv", "results.csv", "log.csv"})
"""File names that loggers give to every run; the folder's name is the run's."""


@dataclass(frozen=True)
class Found:
    """A file to read.

    Attributes
    ----------
    path : Path
        The file.
    root : Path or None
        The folder that was searched; None for a file given by name.
    """

    path: Path
    root: Path | None = None

    def names(self) -> list[str]:
        """Return names for a run that has none of its own, the shortest first.

        Examples
        --------
        >>> Found(Path("logs/version_0/metrics.csv"), Path("logs")).names()[:2]
        ['version_0', 'version_0/metrics']
        """
        bare = self.path.with_suffix("").as_posix()
        if self.root is None:
            return [self.path.stem, bare, self.path.as_posix()]
        below = self.path.relative_to(self.root)
        names = [below.with_suffix("").as_posix(), below.as_posix(), bare, self.path.as_posix()]
        if self.path.name.lower() in _SAME_FOR_ALL:
            folder = below.parent.as_posix() if below.parent.parts else self.root.resolve().name
            names.insert(0, folder or names[0])
        return names


@dataclass(frozen=True)
class Skipped:
    """A file in a folder that is not a log, and why."""

    path: Path
    reason: str


def find(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Found], list[Skipped]]:
    """Return the files to read: those given, and those in the folders given, each file once.

    Folders are walked in sorted order. Hidden files are left out, and links to folders are not followed.

    Raises
    ------
    NotALog
        A path that does not exist or cannot be read.
    """
    ...


def load(file: Found) -> list[History] | Skipped:
    """Return the runs of a file; in a folder, what is not a log is skipped with the reason.

    Raises
    ------
    NotALog
        A file given by name is not a log.
    """
    try:
        return read(file.path)
    except NotALog as error:
        if file.root is None:
            raise
        return Skipped(file.path, error.reason)
