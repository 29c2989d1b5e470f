"""Write a file whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one go.

    Parameters
    ----------
    path : Path
        The file; its folder is made where it is missing.
    write : callable
        Gets the path of the temporary file.

    Raises
    ------
    OSError
        What the system says; `path` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)  # mkstemp keeps files private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def save_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
