"""`convergence` and `python -m convergence`: hand over to the command line."""

import sys


def main() -> int:
    """Run the command line; without its libraries, say how to install them."""
    try:
        from convergence.cli import run
    except ModuleNotFoundError as missing:
        if missing.name not in ("typer", "rich", "click"):
            raise
        print(f"{missing.name} is not installed: pip install 'convergence-engine[cli]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
