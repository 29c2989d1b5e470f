"""Files that are there whole or not at all."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

MARK = "convergence"
"""The key under which a checkpoint says which run wrote it."""


def writer() -> str:
    """Return a name for this process: what it left half written is known by it."""
    host = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:40]
    return f"{host}-{os.getpid()}"


def part_of(path: str, writer: str) -> str:
    """Return the name under which a process writes `path`: hidden, in the same folder; object stores need none.

    Examples
    --------
    >>> part_of("models/best.ckpt", "node7-4711")
    'models/.best.ckpt.node7-4711.part'
    """
    if "://" in path:
        return path
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{writer}.part")


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


def remove_parts(folder: str) -> None:
    """Remove what processes of this machine left half written when they were killed."""
    host = writer().rpartition("-")[0]
    for found in Path(folder).glob(".*.part"):
        name, _, pid = found.name.removesuffix(".part").rpartition(".")[2].rpartition("-")
        if name == host and pid.isdigit() and not _lives(int(pid)):
            remove(str(found))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def link(path: str, other: str, writer: str) -> bool:
    """Give a file a second name; False where the file system cannot."""
    part = part_of(other, writer)
    try:
        remove(part)
        os.link(path, part)
        publish(part, other)
    except OSError:
        remove(part)
        return False
    return True


def mark_of(fs: Any, path: str, *, trusted: bool = False) -> dict[str, Any]:
    """Return what a checkpoint of ours says of itself; nothing for any other file.

    Only one that is trusted may hold more than tensors and plain data.
    """
    try:
        with fs.open(path, "rb") as file:
            mark = torch.load(file, map_location="meta", weights_only=not trusted).get(MARK)
    except Exception:  # not there, not a checkpoint, or not one that loads safely
        return {}
    return mark if isinstance(mark, dict) else {}


@contextmanager
def at_once(strategy: Any) -> Iterator[None]:
    """Let the strategy write before it returns, also where Lightning's AsyncCheckpointIO would write later."""
    chain = [outer := strategy.checkpoint_io]
    while getattr(chain[-1], "checkpoint_io", None) is not None:
        chain.append(chain[-1].checkpoint_io)
    if not any("Async" in kind.__name__ for io in chain for kind in type(io).__mro__):
        yield
        return
    strategy.checkpoint_io = chain[-1]
    try:
        yield
    finally:
        strategy.checkpoint_io = outer
