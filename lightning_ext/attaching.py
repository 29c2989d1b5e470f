"""Where a ConvergenceStopping's BestModel goes among the callbacks of a Trainer, and which may be there together."""

from typing import Any

_SETTINGS = (
    "monitor",
    "verbose",
    "save_last",
    "save_top_k",
    "save_on_exception",
    "save_weights_only",
    "auto_insert_metric_name",
    "mode",
    "filename",
    "dirpath",
    "_save_on_train_epoch_end",
    "_enable_version_counter",
    "_train_time_interval",
    "_every_n_epochs",
    "_every_n_train_steps",
)


def attach(model: Any, trainer: Any, checkpoint_class: Any) -> None:
    """Put it in place of Lightning's default checkpoint callback, or behind the user's.

    Lightning does not tell its default ModelCheckpoint from one that a user made with nothing set, so neither is it
    told here.
    """
    callbacks = trainer.callbacks
    if model in callbacks:
        return
    # Those whose stopper is gone: the module's configure_callbacks makes new ones for each fit.
    for orphan in [c for c in callbacks if isinstance(c, type(model)) and c.stopping not in callbacks]:
        if orphan.primary:
            model.writes_last, model.primary, model.replaced = orphan.writes_last, True, orphan.replaced
            callbacks[callbacks.index(orphan)] = model
        else:
            callbacks.remove(orphan)
    if model in callbacks:
        return
    checkpoints = trainer.checkpoint_callbacks
    default = next((c for c in checkpoints if _is_default(c, checkpoint_class)), None)
    model.writes_last = default is not None
    model.primary = not checkpoints or default is not None
    model.replaced = default
    if default is None:
        callbacks.append(model)
    else:
        callbacks[callbacks.index(default)] = model


def _is_default(callback: Any, checkpoint_class: Any) -> bool:
    if type(callback) is not checkpoint_class:
        return False
    plain = checkpoint_class()
    return all(getattr(callback, key, None) == getattr(plain, key, None) for key in _SETTINGS)


def refuse_clashes(stopping: Any, others: list[Any]) -> None:
    """Refuse others that would write the same files or restore other weights.

    Raises
    ------
    ValueError
        With what to change.
    """
    kind = type(stopping).__name__
    for other in others:
        if other.label == stopping.label:
            raise ValueError(
                f"two {kind} watch {stopping.monitor!r} under the name {stopping.label!r}: give each its own name="
            )
        if stopping.restore_best and other.restore_best:
            raise ValueError(f"{stopping.label!r} and {other.label!r} both have restore_best=True: only one can")
        same = (stopping.dirpath, stopping.filename) == (other.dirpath, other.filename)
        if stopping.save_best and other.save_best and stopping.filename is not None and same:
            raise ValueError(
                f"{stopping.label!r} and {other.label!r} write the same files, {stopping.filename!r} "
                f"in {stopping.dirpath!r}: give each its own filename="
            )
