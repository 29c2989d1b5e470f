"""Ranks agree on what was seen before anything is judged, so that all judge alike."""

import math
from typing import Any, NamedTuple

import torch


class Seen(NamedTuple):
    """What all ranks go by at one check."""

    news: dict[str, float]
    elapsed: float | None
    progress: float | None
    differing: tuple[str, ...]


def agree(
    trainer: Any, metrics: tuple[str, ...], news: dict[str, float], elapsed: float | None, progress: float | None
) -> Seen:
    """Return the same view on every rank; one small collective, which every rank must come to.

    A metric that differs between ranks is averaged over its finite values; the clock is that of rank 0.
    """
    row = [number for name in metrics for number in ((1.0, news[name]) if name in news else (0.0, 0.0))]
    row += [math.nan if number is None else number for number in (elapsed, progress)]
    mine = torch.tensor(row, dtype=torch.float64, device=trainer.strategy.root_device)
    table = trainer.strategy.all_gather(mine).reshape(-1, len(row)).tolist()
    merged, differing = {}, []
    for index, name in enumerate(metrics):
        values = [rank[2 * index + 1] for rank in table if rank[2 * index]]
        if not values:
            continue
        if len(values) == len(table) and len({repr(value) for value in values}) == 1:
            merged[name] = values[0]
            continue
        differing.append(name)
        finite = [value for value in values if math.isfinite(value)]
        merged[name] = math.fsum(finite) / len(finite) if finite else values[0]
    shared = [None if math.isnan(number) else number for number in table[0][-2:]]
    return Seen(merged, shared[0], shared[1], tuple(differing))


def some_validate_nothing(trainer: Any) -> bool:
    """Whether some ranks have no validation data while others have: those never come to the end of validation.

    What validation brought is then judged at the end of the epoch, where all ranks come. A collective.
    """
    if trainer.enable_validation and not trainer.num_val_batches:
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True
    batches = trainer.num_val_batches
    mine = float(sum(batches) if isinstance(batches, list) else batches)
    flag = torch.tensor([float(mine > 0)], device=trainer.strategy.root_device)
    flags = trainer.strategy.all_gather(flag).reshape(-1).tolist()
    return 0.0 in flags and 1.0 in flags
