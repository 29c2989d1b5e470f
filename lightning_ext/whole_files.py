"""Files that are there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def part_of(path: str, run: str) -> str:
    """Return the name under which a run writes `path`: hidden, in the same folder; object stores need none.

    Examples
    --------
    >>> part_of("models/best.ckpt", "7f3a")
    'models/.best.ckpt.7f3a.part'
    """
    if "://" in path:
        return path
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{run}.part")


def publish(part: str, path: str) -> None:
    """Give what was written its own name, in one step; a file of that name is replaced."""
    if part != path:
        os.replace(part, path)


def remove(path: str) -> None:
    """Remove a file or folder, if it is there."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif "://" not in path:
        Path(path).unlink(missing_ok=True)


def remove_parts(folder: str, run: str) -> None:
    """Remove what a killed session of this run left half written."""
    for found in Path(folder).glob(f".*.{run}.part"):
        remove(str(found))


def link(path: str, other: str, run: str) -> bool:
    """Give a file a second name; False where the file system cannot."""
    part = part_of(other, run)
    try:
        remove(part)
        os.link(path, part)
        publish(part, other)
    except OSError:
        remove(part)
        return False
    return True


@contextmanager
def at_once(strategy: Any) -> Iterator[None]:
    """Let the strategy write before it returns, also where Lightning's AsyncCheckpointIO would write later."""
    outer = strategy.checkpoint_io
    inner = getattr(outer, "checkpoint_io", None) if "Async" in type(outer).__name__ else None
    if inner is None:
        yield
        return
    strategy.checkpoint_io = inner
    try:
        yield
    finally:
        strategy.checkpoint_io = outer
