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


def progress(trainer: Any) -> float | None:
    """Return the used fraction of the planned training, by whichever of its limits ends first.

    The limits are max_epochs, max_steps and max_time; None where none was chosen.
    """
    used = []
    epochs = planned_epochs(trainer)
    if epochs:
        loop, batches = trainer.fit_loop, trainer.num_training_batches
        within = loop.epoch_loop.batch_progress.current.ready / batches if batches else 0.0
        done = max(trainer.current_epoch + min(within, 1.0), loop.epoch_progress.current.processed)
        used.append(done / epochs)
    if trainer.max_steps > 0:
        used.append(trainer.global_step / trainer.max_steps)
    timer = timer_of(trainer)
    if timer is not None and timer.time_remaining() is not None:
        spent = timer.time_elapsed()
        used.append(spent / max(spent + timer.time_remaining(), 1e-9))
    return min(1.0, max(used)) if used else None
