"""Checks of rule parameters: once, at construction; a message names the parameter, the law and the value."""

import math
import numbers
from typing import Any

MOST = 2**63 - 1
"""Largest count."""


def is_whole(value: Any) -> bool:
    """Whether value is an integer of Python or numpy (bools are not numbers here)."""
    return (isinstance(value, int) and not isinstance(value, bool)) or _is_numpy(value, numbers.Integral)


def is_number(value: Any) -> bool:
    """Whether value is a real number of Python or numpy (bools, strings and arrays are not)."""
    return isinstance(value, float) or is_whole(value) or _is_numpy(value, numbers.Real)


def _is_numpy(value: Any, kind: type) -> bool:
    return type(value).__module__ == "numpy" and isinstance(value, kind)


def check_count(rule: Any, name: str, *, least: int = 1, advice: str = "") -> None:
    """Refuse a parameter that is not a whole number of at least `least`; numpy's integers become Python's.

    Raises
    ------
    TypeError
        Not a whole number.
    ValueError
        Too small.
    """
    value = getattr(rule, name)
    if not is_whole(value):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}{advice}")
    if value > MOST:
        raise ValueError(f"{name} must be at most {MOST}, got a whole number of {int(value).bit_length()} bits")
    if type(value) is not int:
        object.__setattr__(rule, name, int(value))


def check_amount(rule: Any, name: str, *, least: float = -math.inf, below: float = math.inf) -> None:
    """Refuse a parameter that is not a finite number in [least, below); numpy's numbers become Python's.

    Raises
    ------
    TypeError
        Not a number.
    ValueError
        NaN, infinite, or outside the range.
    """
    value = getattr(rule, name)
    check_finite(name, value)
    if value < least:
        raise ValueError(f"{name} must be at least {least:g}, got {value}")
    if value >= below:
        raise ValueError(f"{name} must be below {below:g}, got {value}")
    if type(value) not in (int, float):
        object.__setattr__(rule, name, int(value) if is_whole(value) else float(value))


def check_finite(name: str, value: Any) -> None:
    """Refuse anything but a finite number that a float can hold.

    Raises
    ------
    TypeError
        Not a number.
    ValueError
        NaN, infinite, or too large.
    """
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        raise ValueError(f"{name} must fit a float, got a whole number of {value.bit_length()} bits") from None
    if not finite:
        raise ValueError(f"{name} must be finite, got {value}")


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
