"""Write a file whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def check_writable(path: Path) -> Path:
    """Return the file that a path leads to, and make its folder where it is missing.

    Raises
    ------
    OSError
        Something else than a file is there, or the folder cannot be made or written to.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    return target


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one go.

    Parameters
    ----------
    path : Path
        The file, or a link to it; its folder is made where it is missing.
    write : callable
        Gets the path of the temporary file.

    Raises
    ------
    OSError
        As `check_writable`, and what the system says; the file is then as it was.
    """
    target = check_writable(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)  # mkstemp keeps files private
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def save_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
