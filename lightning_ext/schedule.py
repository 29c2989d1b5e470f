"""What the learning-rate schedulers still plan: `lr_ahead`, found by stepping copies of them to the planned end."""

import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler as torch_schedulers

from lightning_ext.namespaces import overrides

_LONGEST = 2_000_000
"""Scheduler steps beyond which the plan is not looked at (at some microseconds each)."""


def rates_of(optimizers: list[Any]) -> list[Any]:
    """Return the learning rate of each parameter group as it is now; rates kept on a device are not waited for."""
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    return [rate.clone() if isinstance(rate, torch.Tensor) else rate for rate in rates]


def largest(rates: list[Any]) -> float | None:
    """Return the largest of `rates_of`; None where there are no optimizers."""
    return max(map(float, rates)) if rates else None


class Plan:
    """The learning rates to come.

    Parameters
    ----------
    trainer : Trainer
        At the start of training, with what a checkpoint brought already restored.

    Notes
    -----
    Known for the schedulers of torch itself, nested ones included, as long as Lightning steps them and the end is
    known from max_epochs or max_steps. Unknown for ReduceLROnPlateau, for other classes, under manual optimization,
    and where the module steps schedulers in its own way. Without schedulers the rate stays as it is.
    """

    def __init__(self, trainer: Any) -> None:
        self._clock: Any = None
        self._first_tick = 0
        self._floors: np.ndarray[Any, np.dtype[np.float64]] | None = None
        module, configs = trainer.lightning_module, trainer.lr_scheduler_configs
        self._configs = configs
        self._constant = not configs and module.automatic_optimization
        if not configs or not module.automatic_optimization or overrides(module, "lr_scheduler_step"):
            return
        if not all(_is_known(config.scheduler) and not config.reduce_on_plateau for config in configs):
            return
        rates = _simulate(trainer, configs)
        if rates is None:
            return
        self._clock = configs[0].scheduler
        self._first_tick = _ticks(self._clock)
        self._floors = np.minimum.accumulate(rates[::-1])[::-1]

    def lr_ahead(self, lr: float | None) -> float | None:
        """Return the lowest rate still to come (at its end, `lr`); None if unknown."""
        if self._floors is None:
            return lr if self._constant and not self._configs else None
        if self._configs[0].scheduler is not self._clock:  # another callback has put in its own
            return None
        tick = _ticks(self._clock) - self._first_tick
        return float(self._floors[tick]) if 0 <= tick < len(self._floors) else lr


def epochs_and_steps_left(trainer: Any) -> tuple[float, float]:
    """Return how many epochs and optimizer steps the plan still holds; infinite where it sets no end."""
    epochs: float = math.inf
    steps: float = math.inf
    per_epoch = steps_per_epoch(trainer)
    if planned_epochs(trainer) is not None:
        epochs = max(0, trainer.max_epochs - trainer.current_epoch)
        steps = max(0.0, trainer.max_epochs * per_epoch - trainer.global_step)
    if trainer.max_steps != -1:
        steps = min(steps, max(0, trainer.max_steps - trainer.global_step))
        epochs = min(epochs, math.ceil(steps / per_epoch) if math.isfinite(per_epoch) else math.inf)
    return epochs, steps


def steps_per_epoch(trainer: Any) -> float:
    """Return the optimizer steps of an epoch; infinite for data without length."""
    batches = trainer.num_training_batches
    return math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) else math.inf


def planned_epochs(trainer: Any) -> int | None:
    """Return max_epochs where somebody chose it.

    Lightning puts 1000 where nothing was said about the end, and keeps no record of that: 1000 without max_steps or
    max_time counts as not chosen.
    """
    epochs = trainer.max_epochs
    if epochs is None or epochs < 0:
        return None
    return None if epochs == 1000 and trainer.max_steps == -1 and timer_of(trainer) is None else int(epochs)


def timer_of(trainer: Any) -> Any:
    """Return the callback that keeps max_time, if there is one."""
    return next((c for c in trainer.callbacks if hasattr(c, "time_remaining") and hasattr(c, "time_elapsed")), None)


def _is_known(scheduler: Any) -> bool:
    own = type(scheduler).__module__ == torch_schedulers.__name__
    plateau = isinstance(scheduler, torch_schedulers.ReduceLROnPlateau)
    return own and not plateau and all(map(_is_known, getattr(scheduler, "_schedulers", ())))


def _ticks(scheduler: Any) -> int:
    """How often a scheduler was stepped; a ChainedScheduler itself does not count."""
    if type(scheduler) is torch_schedulers.ChainedScheduler:
        return _ticks(scheduler._schedulers[0])
    return int(scheduler.last_epoch)


def _simulate(trainer: Any, configs: list[Any]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Return the largest rate in force during each remaining tick of the first scheduler (the lowest in a tick)."""
    epochs, steps = epochs_and_steps_left(trainer)
    by_step = any(config.interval == "step" for config in configs)
    count = steps if by_step else epochs
    changing = any(hasattr(c, "going_to_accumulate_grad_batches") for c in trainer.callbacks)
    if not math.isfinite(count) or count > _LONGEST or (by_step and changing):
        return None
    optimizers = {id(optimizer): _stand_in(optimizer) for optimizer in trainer.optimizers}
    memo: dict[int, Any] = {id(trainer.lightning_module): trainer.lightning_module, **optimizers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            schedulers = [copy.deepcopy(config.scheduler, memo) for config in configs]
        except Exception:  # a user's own callable in it may be anything
            return None
        due = _by_step(trainer, configs, int(count)) if by_step else _by_epoch(trainer, configs, int(count))
        rates: list[float] = []
        lowest = math.inf
        for moved in due:
            lowest = min(lowest, max(g["lr"] for o in optimizers.values() for g in o.param_groups))
            try:
                for index in moved:
                    schedulers[index].step()
            except Exception:  # OneCycleLR beyond its end, or a user's function: known up to here
                break
            if 0 in moved:
                rates.append(lowest)
                lowest = math.inf
        if math.isfinite(lowest):
            rates.append(lowest)
    return np.array(rates, dtype=np.float64)


def _by_epoch(trainer: Any, configs: list[Any], count: int) -> Iterator[list[int]]:
    for epoch in range(trainer.current_epoch, trainer.current_epoch + count):
        yield [i for i, config in enumerate(configs) if (epoch + 1) % config.frequency == 0]


def _by_step(trainer: Any, configs: list[Any], count: int) -> Iterator[list[int]]:
    """After each optimizer step, which schedulers Lightning steps: its rule looks at the batch's index."""
    per_epoch, accumulate = steps_per_epoch(trainer), trainer.accumulate_grad_batches
    batches, epoch = trainer.num_training_batches, trainer.current_epoch
    place = int(trainer.global_step % per_epoch) if math.isfinite(per_epoch) else trainer.global_step
    for _ in range(count):
        place += 1
        ends = place >= per_epoch
        batch = batches if ends else place * accumulate
        yield [
            i
            for i, config in enumerate(configs)
            if (config.interval == "step" and batch % config.frequency == 0)
            or (config.interval == "epoch" and ends and (epoch + 1) % config.frequency == 0)
        ]
        if ends:
            place, epoch = 0, epoch + 1


def _stand_in(optimizer: Any) -> Any:
    """An optimizer without parameters that has the same rates."""
    stand_in = torch.optim.SGD([torch.zeros(1, device="cpu")], lr=0.0)
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    stand_in.param_groups = [{**copy.deepcopy(g), "params": [], "lr": float(g["lr"])} for g in groups]
    return stand_in
