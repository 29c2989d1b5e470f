"""Run a benchmark's command line: what the user has to put right is one line on standard error and exit status 2."""

import sys
from collections.abc import Sequence

import typer

from convergence.report.table import plain


class Mistake(Exception):
    """What the user has to put right, in one sentence."""


def run_command(app: typer.Typer, mistakes: tuple[type[Exception], ...] = (), argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 2 wrong input, 130 interrupted, or what the command says.

    Parameters
    ----------
    app : Typer
        The command.
    mistakes : tuple of exception types, optional
        Errors beside `Mistake` that word themselves for the user.
    argv : sequence of str, optional
        Its arguments; those of the process unless given.
    """
    try:
        status = typer.main.get_command(app).main(None if argv is None else list(argv), standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        # Errors of the command line, whose class depends on the version of typer, can word themselves.
        wording = getattr(error, "format_message", None)
        if wording is None and not isinstance(error, (Mistake, *mistakes)):
            raise
        said = wording() if wording else str(error)
        print(plain(f"error: {said}"), file=sys.stderr)
        return 2
    return status if isinstance(status, int) else 0
