"""Memory of a run as JSON-able data and back: slotted dataclasses of plain numbers."""

import math
from dataclasses import fields
from typing import Any

from convergence.parameters import is_number, is_whole

_LARGEST_COUNT = 2**63


def plain(value: Any) -> Any:
    """Return numpy numbers as Python's own, floats that are not finite as text, tuples as lists.

    Examples
    --------
    >>> plain((1.5, float("nan")))
    [1.5, 'nan']
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if is_whole(value):
        return int(value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def dump(memory: Any) -> dict[str, Any]:
    """Return a memory's fields as JSON-able data; those that begin with an underscore are derived and left out."""
    return {f.name: plain(getattr(memory, f.name)) for f in fields(memory) if not f.name.startswith("_")}


def load(memory: Any, data: Any, owner: str) -> None:
    """Set the fields of a fresh memory from what `dump` returned.

    Raises
    ------
    ValueError
        If a field is missing, unknown, or not of the kind that the fresh memory shows.
    """
    names = {f.name for f in fields(memory) if not f.name.startswith("_")}
    if not isinstance(data, dict) or set(data) != names:
        raise ValueError(f"the state of {owner} is damaged: its memory must hold {', '.join(sorted(names))}")
    for name, value in data.items():
        setattr(memory, name, _field(value, getattr(memory, name), f"{owner}.{name}"))


def _field(value: Any, fresh: Any, name: str) -> Any:
    """Return a field's value, which must be like the value in a fresh memory."""
    if isinstance(fresh, list):
        if not isinstance(value, list):
            raise ValueError(f"the state is damaged: {name} must be a list, got {value!r:.80}")
        return [_field(v, 0.0, name) for v in value]
    if isinstance(fresh, dict):
        if not isinstance(value, dict) or set(value) != set(fresh):
            raise ValueError(f"the state is damaged: {name} must hold {', '.join(map(repr, fresh))}, got {value!r:.80}")
        return {k: _field(value[k], fresh[k], name) for k in fresh}
    if value is None and fresh is None:
        return None
    # The newest loss may be anything, a quotient by no progress infinite, and a range begins with infinities.
    any_number = name.endswith((".loss", ".quotient")) or (isinstance(fresh, float) and math.isinf(fresh))
    if any_number and isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if is_whole(value) and abs(value) > _LARGEST_COUNT:
        raise ValueError(f"the state is damaged: {name} cannot be a whole number of {value.bit_length()} bits")
    if isinstance(fresh, bool):
        good = isinstance(value, bool)
    elif isinstance(fresh, int):
        good = is_whole(value) and value >= 0  # whole numbers are counts
    else:
        good = is_number(value) and (any_number or math.isfinite(value))
    if not good:
        raise ValueError(f"the state is damaged: {name} cannot be {value!r:.80}")
    return value
