"""What the name of a column says: its split, and whether it is a metric at all."""

import re
from collections.abc import Iterable

STEPS = ("step", "global_step", "trainer_global_step", "iteration", "iter", "epoch")
"""Names of columns that number the rows, the one to use first; words joined by underscores."""

# Not steps themselves: in a table of runs they say how long each was.
_COUNTS = frozenset({"steps", "global_steps", "iterations", "iters", "epochs"})
_SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "eval": "val",
    "test": "test",
}  # fmt: skip
_TIMES = frozenset({
    "time", "walltime", "wallclock", "clock", "timestamp", "date", "datetime", "elapsed", "duration", "runtime",
    "seconds", "secs", "sec", "minutes", "hours",
})  # fmt: skip
_UNITS = frozenset({"s", "ms", "(s)", "(ms)", "(sec)", "(seconds)", "(min)", "(h)"})
_RATE = re.compile(r"lr\d*")


def words(name: str) -> list[str]:
    """Return the words of a name, in lower case.

    Examples
    --------
    >>> words("Trainer/global_step")
    ['trainer', 'global', 'step']
    """
    return [word for word in re.split(r"[/_\-. ]+", name.lower()) if word]


def split_of(name: str) -> str:
    """Return "train", "val" or "test" if a word of the name says so, else "".

    Examples
    --------
    >>> split_of("valid/loss"), split_of("train_acc_epoch"), split_of("metrics/mAP50(B)")
    ('val', 'train', '')
    """
    return next((_SPLITS[word] for word in words(name) if word in _SPLITS), "")


def step_rank(name: str) -> int | None:
    """Return the place of a step-like name in `STEPS`; None for other names.

    Examples
    --------
    >>> step_rank("step"), step_rank("Epoch"), step_rank("train_loss_step")
    (0, 5, None)
    """
    joined = "_".join(words(name))
    return STEPS.index(joined) if joined in STEPS else None


def is_bookkeeping(name: str) -> bool:
    """Say whether a column counts, clocks or schedules training rather than measures it.

    Such are step-like names, times, learning rates, and index columns without a name. A metric must not be hidden
    by accident, so for a time the last word counts (`epoch_time`), not any word (`time_series_loss`).

    Examples
    --------
    >>> [name for name in ("epoch", "lr-Adam", "x/lr0", "wall_time", "val_loss") if not is_bookkeeping(name)]
    ['val_loss']
    """
    told = words(name)
    if not told or re.fullmatch(r"unnamed: \d+", name.lower()):
        return True
    if step_rank(name) is not None or "_".join(told) in _COUNTS:
        return True
    if any(_RATE.fullmatch(word) for word in (told[0], told[-1])) or ["learning", "rate"] in (told[:2], told[-2:]):
        return True
    while len(told) > 1 and told[-1] in _UNITS:
        told.pop()
    return told[-1] in _TIMES or told[-2:] == ["per", "second"] or (told[0] in _TIMES and told[1] == "per")


def told_by_a_rule(names: Iterable[str]) -> frozenset[str]:
    """Return the columns in which a stopping callback told how its rule stood: `x/best` beside `x/wait` or `x/slope`.

    Examples
    --------
    >>> sorted(told_by_a_rule(["val_loss", "val_loss/best", "val_loss/wait", "acc/best"]))
    ['val_loss/best', 'val_loss/wait']
    """
    there = frozenset(names)
    stems = {name.removesuffix("/best") for name in there if name.endswith("/best")}
    stems = {stem for stem in stems if there & {f"{stem}/wait", f"{stem}/slope"}}
    return there & {f"{stem}/{curve}" for stem in stems for curve in ("best", "wait", "slope", "smoothed")}
