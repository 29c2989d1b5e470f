"""Memory of a run as JSON-able data and back: slotted dataclasses of plain numbers."""

import math
from dataclasses import fields
from typing import Any

from convergence.parameters import is_whole


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
        If a field is missing, unknown, or not a number, None or a list of numbers.
    """
    names = {f.name for f in fields(memory) if not f.name.startswith("_")}
    if not isinstance(data, dict) or set(data) != names:
        raise ValueError(f"the state of {owner} is damaged: its memory must hold {', '.join(sorted(names))}")
    for name, value in data.items():
        setattr(memory, name, _number(value, getattr(memory, name), f"{owner}.{name}"))


def _number(value: Any, model: Any, name: str) -> Any:
    if isinstance(value, str) and value in ("nan", "inf", "-inf") and not isinstance(model, int):
        return float(value)
    if isinstance(model, list):
        if not isinstance(value, list):
            raise ValueError(f"the state is damaged: {name} must be a list, got {value!r}")
        return [_number(v, 0.0, name) for v in value]
    if isinstance(model, dict):
        if not isinstance(value, dict) or set(value) != set(model):
            raise ValueError(f"the state is damaged: {name} must hold {', '.join(map(repr, model))}, got {value!r}")
        return {k: _number(value[k], model[k], name) for k in model}
    if value is None and model is None:
        return None
    kinds = {bool: bool, int: int}.get(type(model), int | float)
    if not isinstance(value, kinds) or isinstance(value, bool) is not isinstance(model, bool):
        raise ValueError(f"the state is damaged: {name} must be like {model!r}, got {value!r}")
    return value
