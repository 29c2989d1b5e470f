"""The sentence about a metric that was never logged."""

from difflib import get_close_matches


def missing_metric(callback: str, metric: str, available: dict[str, list[str]], epoch: int) -> str:
    """Return what is missing, what there is and where it came from.

    Examples
    --------
    >>> print(missing_metric("ConvergenceStopping", "val_los", {"validation": ["val_loss"], "training": []}, 0))
    ConvergenceStopping watches 'val_los', which nothing had logged by the end of epoch 0. Did you mean 'val_loss'?
    Available after validation: 'val_loss'. Log it with self.log('val_los', ...) in validation_step,
    training_step or one of their epoch-end hooks.
    """
    names = [name for found in available.values() for name in found]
    close = get_close_matches(metric, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    moments = {"validation": "validation", "training": "a training epoch"}
    where = [
        f"Available after {moments[loop]}: {', '.join(map(repr, found))}." for loop, found in available.items() if found
    ]
    return (
        f"{callback} watches {metric!r}, which nothing had logged by the end of epoch {epoch}.{hint} "
        f"{' '.join(where) or 'Nothing was logged at all.'} "
        f"Log it with self.log({metric!r}, ...) in validation_step, training_step or one of their epoch-end hooks."
    )
