"""Telling every attached logger: numbers at each check, the verdict at the end."""

import logging
import os
from typing import Any

from convergence import Decision

_TOLD = ("wait", "slope", "smoothed", "expected_gain")
"""Evidence that is worth a curve."""


def numbers(decision: Decision) -> dict[str, float]:
    """Return wait, slope, smoothed value and expected gain, where the rule or a part of it has them.

    Of several parts the first counts.

    Examples
    --------
    >>> from convergence import NonFinite, Patience, Stopper
    >>> numbers(Stopper(Patience(4) | NonFinite(), monitor="val_loss", mode="min").update(1.0))
    {'wait': 0}
    """
    found = {name: decision.evidence[name] for name in _TOLD if name in decision.evidence}
    for cause in decision.causes:
        found = {**numbers(cause), **found}
    return found


def log_numbers(trainer: Any, label: str, values: dict[str, float], step: int, log: logging.Logger) -> None:
    """Log a check's numbers under `label/...`; a failure is only reported."""
    for logger in trainer.loggers:
        try:
            try:
                logger.log_metrics({f"{label}/{key}": value for key, value in values.items()}, step=step)
            except Exception:
                # MLflow's file store cannot hold `val_loss/wait` beside `val_loss`.
                logger.log_metrics({f"{label}.{key}": value for key, value in values.items()}, step=step)
        except Exception as error:
            log.warning("%s did not take the numbers of %s: %s", type(logger).__name__, label, error)


def log_verdict(trainer: Any, label: str, text: str, log: logging.Logger) -> None:
    """Log the verdict's sentence to each logger in the way that it has for text; a failure there is only reported."""
    for logger in trainer.loggers:
        try:
            _log_text(logger, f"convergence/{label}", text, trainer.global_step)
            logger.save()
        except Exception as error:
            log.warning("%s did not take the verdict: %s", type(logger).__name__, error)


def _log_text(logger: Any, tag: str, text: str, step: int) -> None:
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(logger, "log_text"):  # Weights & Biases
        logger.log_text(key=tag, columns=["verdict"], data=[[text]])
        summary = getattr(experiment, "summary", None)
        if summary is not None:
            summary[tag] = text
    elif hasattr(experiment, "add_text"):  # TensorBoard
        experiment.add_text(tag, text, step)
    elif hasattr(experiment, "set_tag") and getattr(logger, "run_id", None) is not None:  # MLflow
        experiment.set_tag(logger.run_id, tag, text[:5000])
    elif hasattr(experiment, "metrics_file_path"):  # CSV: a sentence among its numbers would spoil the table
        path = os.path.join(logger.log_dir, f"{tag.replace('/', '-')}.txt")
        with open(path, "w") as file:
            file.write(f"{text}\n")
    else:
        logger.log_hyperparams({tag: text})


def left(decision: Decision) -> float | None:
    """Return how many checks the rule, or the part of it that says so, would still wait for a new best.

    Examples
    --------
    >>> from convergence import Patience, Stopper
    >>> left(Stopper(Patience(4), monitor="val_loss", mode="min").update(1.0))
    4
    """
    evidence = decision.evidence
    if "patience" in evidence and "wait" in evidence:
        return max(0, evidence["patience"] - evidence["wait"])
    if "longest_wait" in evidence:
        return evidence["longest_wait"]
    return next((p for cause in decision.causes if (p := left(cause)) is not None), None)
