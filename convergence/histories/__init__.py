"""Recorded runs: one reader for each format of log, and the files of whole folders."""

from convergence.histories.choice import Choice, choose
from convergence.histories.folder import Found, Skipped, distinct, find, load
from convergence.histories.formats import read
from convergence.histories.history import History, NotALog, Series
from convergence.histories.modes import Modes

__all__ = [
    "Choice",
    "Found",
    "History",
    "Modes",
    "NotALog",
    "Series",
    "Skipped",
    "choose",
    "distinct",
    "find",
    "load",
    "read",
]
