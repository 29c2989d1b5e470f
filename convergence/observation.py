"""Observation: what happened at one step of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Observation:
    """One step of a run, as a rule sees it.

    A `Stopper` refills one Observation at every update and hands it to each part of its rule: a rule that wants
    to remember something copies the number, not the object.

    Parameters
    ----------
    step : float
        Position in training, in the caller's unit; never decreases within a run.
    metrics : mapping of str to float
        The newest values, in their own units; a metric without news is absent.
    lr : float, optional
        Learning rate with which these values were trained.
    lr_ahead : float, optional
        Lowest learning rate still to come; None if unknown.
    progress : float, optional
        Used fraction of the planned training, 0 to 1.
    elapsed : float, optional
        Seconds since training began.

    Examples
    --------
    >>> Observation(3, {"val_loss": 0.5}, lr=0.1).metrics["val_loss"]
    0.5
    """

    step: float
    metrics: Mapping[str, float]
    lr: float | None = None
    lr_ahead: float | None = None
    progress: float | None = None
    elapsed: float | None = None
