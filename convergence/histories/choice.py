"""Which series of many histories to judge, each with its mode."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from convergence.histories.history import History, Series
from convergence.histories.modes import Modes, matches

_LISTED = 20
"""Names that an error lists at most."""


class Choice(NamedTuple):
    """A series to judge."""

    history: History
    series: Series
    mode: str


def choose(histories: Iterable[History], globs: Sequence[str], modes: Modes) -> list[Choice]:
    """Return the series of the metrics that one of the globs describes, or all without globs, in order.

    Raises
    ------
    ValueError
        A glob that no metric matches, a mode for a metric that is not there, or a metric whose mode neither the user
        nor its log says.
    """
    every = [(history, series) for history in histories for series in history.series]
    names = list(dict.fromkeys(series.metric for _, series in every))
    for glob in globs:
        if not any(matches(name, glob) for name in names):
            raise ValueError(f"no metric is called {glob!r}; there are: {_listed(names)}")
    for name in modes.unused(names):
        if not any(mark in name for mark in "*?["):
            raise ValueError(f"no metric is called {name!r}, as --mode says; there are: {_listed(names)}")
    wanted = {name for name in names if not globs or any(matches(name, glob) for glob in globs)}
    chosen: list[Choice] = []
    unknown: dict[str, Path] = {}
    for history, series in every:
        if series.metric in wanted:
            mode = modes.of(series)
            if mode is None:
                unknown.setdefault(series.metric, history.source)
            else:
                chosen.append(Choice(history, series, mode))
    if unknown:
        name, *others = unknown
        more = f" (nor that of {_listed(others)})" if others else ""
        low, high = (f"--mode {shlex.quote(f'{name}={mode}')}" for mode in ("min", "max"))
        raise ValueError(
            f"{unknown[name]} does not say the mode of {name!r}{more}: give {low} or {high}, or --mode min for all"
        )
    return chosen


def _listed(names: Sequence[str]) -> str:
    """Return the names as text, the last of very many only counted."""
    more = len(names) - _LISTED
    return ", ".join(map(repr, names[:_LISTED])) + (f" and {more} more" if more > 0 else "")
