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
        path = self.path.with_suffix("").parts
        below = self.path.relative_to(self.root) if self.root else Path(self.path.name)
        names = [below.with_suffix("").as_posix()]
        if self.root and self.path.name.lower() in _SAME_FOR_ALL:
            names.insert(0, below.parent.as_posix() if below.parent.parts else self.root.resolve().name)
        longer = [Path(*path[-count:]).as_posix() for count in range(len(below.parts) + 1, len(path) + 1)]
        return [*names, below.as_posix(), *longer, self.path.as_posix()]


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
    found: dict[str, Found] = {}
    skipped: list[Skipped] = []
    for given in paths:
        root = Path(given)
        if not os.fspath(given):
            raise NotALog("''", "empty path")
        if not os.path.isdir(root):  # False, not an error, where it may not be looked at
            found.setdefault(os.path.realpath(root), Found(root))
            continue

        def refuse(error: OSError, root: Path = root) -> None:
            reason = (error.strerror or str(error)).lower()
            if Path(error.filename) == root:
                raise NotALog(root, reason)
            skipped.append(Skipped(Path(error.filename), reason))

        for folder, below, files in os.walk(root, onerror=refuse):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(name for name in files if not name.startswith(".")):
                path = Path(folder, name)
                if os.path.isfile(path):
                    found.setdefault(os.path.realpath(path), Found(path, root))
                else:  # to open a pipe would wait for its writer
                    skipped.append(Skipped(path, "not a regular file"))
    return list(found.values()), skipped


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


def distinct(loaded: Sequence[tuple[Found, Sequence[History]]]) -> list[History]:
    """Return the histories with run names that differ.

    A run without a name of its own gets the shortest of its file's names that tells it apart; a run whose name
    another file has too gets its file's name in front.
    """
    labels = _labels([file for file, _ in loaded])
    named: list[tuple[str, str, History]] = []
    for label, (file, histories) in zip(labels, loaded, strict=True):
        by_file = len(histories) == 1 and histories[0].run == file.path.stem
        named += [(label if by_file else history.run, label, history) for history in histories]
    counts = Counter(run for run, _, _ in named)
    runs: dict[str, History] = {}
    for run, label, history in named:
        unique = wanted = run if counts[run] == 1 or run == label else f"{label}/{run}"
        number = 1
        while unique in runs:
            number += 1
            unique = f"{wanted} ({number})"
        runs[unique] = replace(history, run=unique)
    return list(runs.values())


def _labels(files: Sequence[Found]) -> list[str]:
    """Return for each file the first of its names that no other file has."""
    choices = [file.names() for file in files]
    while True:
        counts = Counter(names[0] for names in choices)
        clashing = [names for names in choices if counts[names[0]] > 1 and len(names) > 1]
        if not clashing:
            return [names[0] for names in choices]
        for names in clashing:
            del names[0]
