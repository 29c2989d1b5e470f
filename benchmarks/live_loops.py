"""Installed early stopping of training loops and searches, driven over a plain sequence of values to its first stop.

Each driver is made with the parameters of the preset of the same name and returns a function from the values and the
mode to the index of the first stop, -1 for never. What surrounds a peer's code is replaced by as little as it needs;
the docstrings say what.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.peers import lightning_class

Stop = Callable[[Sequence[float], str], int]
"""From the values and the mode to the index of the first stop; -1 for never."""


def lightning(patience: int = 3, min_delta: float = 0.0, **more: Any) -> Stop:
    """`_evaluate_stopping_criteria` on float32 tensors, without a Trainer."""
    import torch

    kind = lightning_class()

    def stop(values: Sequence[float], mode: str) -> int:
        callback = kind("m", min_delta=min_delta, patience=patience, mode=mode, **more)
        check = callback._evaluate_stopping_criteria
        for i, tensor in enumerate(torch.tensor(values, dtype=torch.float32)):
            if check(tensor)[0]:
                return i
        return -1

    return stop


def keras(patience: int = 0, min_delta: float = 0.0, **more: Any) -> Stop:
    """`on_epoch_end` with the torch backend, without a model."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    kind = import_module("keras.callbacks").EarlyStopping

    def stop(values: Sequence[float], mode: str) -> int:
        callback = kind("m", min_delta=min_delta, patience=patience, mode=mode, **more)
        callback.set_model(SimpleNamespace(stop_training=False))
        callback.on_train_begin()
        for epoch, value in enumerate(values):
            callback.on_epoch_end(epoch, {"m": value})
            if callback.model.stop_training:
                return epoch
        return -1

    return stop


def ignite(patience: int, min_delta: float = 0.0, **more: Any) -> Stop:
    """The handler called with an engine, as at an event."""
    engine = import_module("ignite.engine").Engine(lambda engine, batch: None)
    kind = import_module("ignite.handlers").EarlyStopping
    newest = [0.0]
    handlers = {
        mode: kind(patience, lambda engine: newest[0], engine, threshold=min_delta, mode=mode, **more)
        for mode in ("min", "max")
    }
    engine.logger.disabled = handlers["min"].logger.disabled = handlers["max"].logger.disabled = True

    def stop(values: Sequence[float], mode: str) -> int:
        handler = handlers[mode]
        handler.reset()
        engine.should_terminate = False
        for i, value in enumerate(values):
            newest[0] = value
            handler(engine)
            if engine.should_terminate:
                return i
        return -1

    return stop


def huggingface(patience: int = 1, min_delta: float = 0.0) -> Stop:
    """`on_evaluate` of the callback, then the Trainer's own step of its best; without a model."""
    trainer = import_module("transformers.trainer")
    callbacks = import_module("transformers.trainer_callback")

    def stop(values: Sequence[float], mode: str) -> int:
        args = SimpleNamespace(metric_for_best_model="m", greater_is_better=mode == "max", save_strategy="no")
        state, control = callbacks.TrainerState(), callbacks.TrainerControl()
        callback = callbacks.EarlyStoppingCallback(patience, min_delta)
        owner = SimpleNamespace(args=args, state=state)
        for i, value in enumerate(values):
            metrics = {"eval_m": value}
            callback.on_evaluate(args, state, control, metrics)
            trainer.Trainer._determine_best_metric(owner, metrics, None)
            if control.should_training_stop:
                return i
        return -1

    return stop


def ray_plateau(**parameters: Any) -> Stop:
    """The stopper called with results."""
    kind = import_module("ray.tune.stopper").TrialPlateauStopper

    def stop(values: Sequence[float], mode: str) -> int:
        stopper = kind("m", mode=mode, **parameters)
        with np.errstate(all="ignore"):
            for i, value in enumerate(values):
                if stopper("trial", {"m": value}):
                    return i
        return -1

    return stop


def optuna_patient(patience: int, min_delta: float = 0.0) -> Stop:
    """`prune` on a trial that grows, without the storage."""
    optuna = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = optuna.pruners.PatientPruner(None, patience=patience, min_delta=min_delta)
    studies = {mode: optuna.create_study(direction=f"{mode}imize") for mode in ("min", "max")}
    running = optuna.trial.TrialState.RUNNING

    def stop(values: Sequence[float], mode: str) -> int:
        study, trial = studies[mode], optuna.trial.create_trial(state=running)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, about windows of NaN
            for i, value in enumerate(values):
                trial.intermediate_values[i] = value
                if pruner.prune(study, trial):
                    return i
        return -1

    return stop


def skorch(patience: int = 5, min_delta: float = 1e-4, threshold_mode: str = "rel") -> Stop:
    """`on_epoch_end` with skorch's own History, without a net."""
    kind = import_module("skorch.callbacks").EarlyStopping
    history = import_module("skorch.history").History

    def stop(values: Sequence[float], mode: str) -> int:
        callback = kind(
            "m",
            patience=patience,
            threshold=min_delta,
            threshold_mode=threshold_mode,
            lower_is_better=mode == "min",
        )
        net = SimpleNamespace(history=history(), verbose=0)
        callback.on_train_begin(net)
        for epoch, value in enumerate(values):
            # The newest row is all that it reads.
            net.history[:] = [{"epoch": epoch + 1, "m": value, "batches": []}]
            try:
                callback.on_epoch_end(net)
            except KeyboardInterrupt:
                return epoch
        return -1

    return stop


def torch_plateau(patience: int = 10, min_delta: float = 1e-4, threshold_mode: str = "rel") -> Stop:
    """The scheduler as it is; the first lower rate is the stop."""
    import torch
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    group = optimizer.param_groups[0]

    def stop(values: Sequence[float], mode: str) -> int:
        group["lr"] = 1.0
        step = ReduceLROnPlateau(
            optimizer, mode, patience=patience, threshold=min_delta, threshold_mode=threshold_mode
        ).step
        for i, value in enumerate(values):
            step(value)
            if group["lr"] < 1.0:
                return i
        return -1

    return stop
