"""How far training has come: seconds since it began, and the used fraction of what is planned."""

import time
from dataclasses import dataclass
from typing import Any

from lightning_ext.schedule import planned_epochs, timer_of


@dataclass
class Clock:
    """Seconds of training, earlier sessions included.

    Examples
    --------
    >>> clock = Clock()
    >>> clock.start(before=10.0)
    >>> clock.elapsed() >= 10
    True
    """

    before: float = 0.0
    began: float | None = None

    def start(self, before: float | None = None) -> None:
        """Begin to count; `before` is what an earlier session had counted."""
        self.before = self.before if before is None else before
        self.began = time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds so far."""
        return self.before + (0.0 if self.began is None else time.monotonic() - self.began)


class Progress:
    """The used fraction of the planned training, by whichever of its limits ends first.

    The limits are max_epochs, max_steps and max_time.

    Parameters
    ----------
    trainer : Trainer
        In fit, with its limits settled.
    """

    def __init__(self, trainer: Any) -> None:
        self._epochs = planned_epochs(trainer)
        self._steps = trainer.max_steps if trainer.max_steps > 0 else None
        timer = timer_of(trainer)
        self._timer = None if timer is None or timer.time_remaining() is None else timer
        self._loop = trainer.fit_loop

    def used(self, trainer: Any) -> float | None:
        """Return the fraction, 0 to 1; None where no limit was chosen."""
        used = -1.0
        if self._epochs:
            epochs, batches = self._loop.epoch_progress.current, trainer.num_training_batches
            within = self._loop.epoch_loop.batch_progress.current.ready / batches if batches else 0.0
            used = max(epochs.completed + min(within, 1.0), epochs.processed) / self._epochs
        if self._steps is not None:
            used = max(used, trainer.global_step / self._steps)
        if self._timer is not None:
            spent = self._timer.time_elapsed()
            used = max(used, spent / max(spent + self._timer.time_remaining(), 1e-9))
        return None if used < 0 else min(used, 1.0)
