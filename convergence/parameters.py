"""Checks of rule parameters: once, at construction; a message names the parameter, the law and the value."""

import math
from typing import Any


def is_whole(value: Any) -> bool:
    """Whether value is a whole number of an integer type (bools are not numbers here)."""
    return hasattr(value, "__index__") and not isinstance(value, bool) and type(value).__name__ != "bool"


def is_number(value: Any) -> bool:
    """Whether value is a real number of Python or numpy (bools, strings and arrays are not)."""
    return isinstance(value, float) or is_whole(value) or (type(value).__module__ == "numpy" and _is_numpy_real(value))


def _is_numpy_real(value: Any) -> bool:
    return getattr(value, "ndim", 1) == 0 and getattr(getattr(value, "dtype", None), "kind", "") in "fiu"


def check_count(name: str, value: Any, *, least: int = 1, advice: str = "") -> None:
    """Refuse anything but a whole number of at least `least`.

    Raises
    ------
    TypeError
        Not a whole number.
    ValueError
        Too small.
    """
    if not is_whole(value):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}{advice}")


def check_amount(name: str, value: Any, *, least: float = -math.inf, below: float = math.inf) -> None:
    """Refuse anything but a finite number in [least, below).

    Raises
    ------
    TypeError
        Not a number.
    ValueError
        NaN, infinite, or outside the range.
    """
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if value < least:
        raise ValueError(f"{name} must be at least {least:g}, got {value}")
    if value >= below:
        raise ValueError(f"{name} must be below {below:g}, got {value}")


def check_name(name: str, value: Any) -> None:
    """Refuse anything but a non-empty string.

    Raises
    ------
    TypeError
        Not a string.
    ValueError
        Empty.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}")
    if not value:
        raise ValueError(f"{name} must not be empty, got ''")


def check_mode(value: Any) -> None:
    """Refuse anything but 'min' and 'max'.

    Raises
    ------
    ValueError
        Any other value.
    """
    if value not in ("min", "max"):
        raise ValueError(f"mode must be 'min' or 'max', got {value!r}")
