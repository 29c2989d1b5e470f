"""The verdict of a run, as JSON: written at every end of training, and read back where training ran elsewhere."""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convergence import Decision, Reason
from convergence.decision import Told, Verdict


class _Recorded:
    """Puts a verdict into the words that were recorded."""

    def tell(self, verdict: Verdict, /) -> Told:
        told: Told = verdict[1]
        return told


def plain(value: Any) -> Any:
    """Return JSON-able data: NaN and infinities, which JSON lacks, become the text "nan", "inf", "-inf".

    Examples
    --------
    >>> plain({"loss": float("nan"), "steps": (1, 2.5)})
    {'loss': 'nan', 'steps': [1, 2.5]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def told(decision: Decision) -> dict[str, Any]:
    """Return a decision as JSON-able data."""
    return {
        "stop": decision.stop,
        "reason": decision.reason.value,
        "message": decision.message,
        "evidence": plain(decision.evidence),
        "causes": [told(cause) for cause in decision.causes],
    }


def untold(record: Mapping[str, Any]) -> Decision:
    """Return the decision that `told` recorded.

    Examples
    --------
    >>> from convergence import Patience, Stopper
    >>> decision = Stopper(Patience(1), monitor="val_loss", mode="min").update(1.0)
    >>> untold(told(decision)) == decision
    True
    """
    evidence = {key: float(number) for key, number in record["evidence"].items()}
    causes = tuple(untold(cause) for cause in record["causes"])
    words = Told(Reason(record["reason"]), record["message"], evidence, causes)
    return Decision.of(_Recorded(), (record["stop"], words))


def write(path: str, report: Mapping[str, Any]) -> None:
    """Write a report; an old one at that path is replaced in one step."""
    if "://" in path:
        import fsspec

        with fsspec.open(path, "w") as file:
            json.dump(plain(report), file, indent=1, allow_nan=False)
        return
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name}.{os.getpid()}.part")
    os.makedirs(folder or ".", exist_ok=True)
    try:
        with open(part, "w") as file:
            json.dump(plain(report), file, indent=1, allow_nan=False)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def left_by_worker(token: str) -> str:
    """Where a worker process leaves its report for the process that started it."""
    return os.path.join(tempfile.gettempdir(), f"convergence-{token}.json")


def take_from_worker(token: str) -> dict[str, Any] | None:
    """Return and remove what a worker left; None if there is nothing."""
    path = Path(left_by_worker(token))
    try:
        report: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    path.unlink(missing_ok=True)
    return report
