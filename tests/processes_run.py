"""Trainings in several processes: `processes_run.py STRATEGY FOLDER` fits each scenario of FOLDER/scenarios.json.

Every rank writes what it saw to FOLDER/<scenario>/rank<r>.json at the end of the fit, and every process that comes back
from `trainer.fit` (one for spawn and fork, each rank for a script launch) writes FOLDER/<scenario>/after<r>.json.
"""

import hashlib
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ext import for_namespace

STEPS_PER_EPOCH = 2


class Listener(logging.Handler):
    """Keeps what is warned of and logged in this process."""

    def __init__(self, said):
        super().__init__(logging.INFO)
        self.said = said
        self.loggers = [logging.getLogger(), *map(logging.getLogger, ("pytorch_lightning", "lightning_ext"))]

    def emit(self, record):
        self.said.append(record.getMessage())

    def __enter__(self):
        self.filters_before, self.show_before = warnings.filters[:], warnings.showwarning
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: self.said.append(str(message))
        for logger in self.loggers:
            logger.addHandler(self)

    def __exit__(self, *_):
        warnings.filters[:] = self.filters_before
        warnings.showwarning = self.show_before
        for logger in self.loggers:
            logger.removeHandler(self)


class SkewedClock:
    """The clocks of `time`, so many times faster."""

    names = ("time", "monotonic", "perf_counter")

    def __init__(self, speed):
        self.speed = speed
        self.real = {}

    def __enter__(self):
        for name in self.names:
            self.real[name] = getattr(time, name)
            setattr(time, name, self.faster(self.real[name]))

    def faster(self, clock):
        start = clock()
        return lambda: start + self.speed * (clock() - start)

    def __exit__(self, *_):
        for name, clock in self.real.items():
            setattr(time, name, clock)


class Scripted(pl.LightningModule):
    """Trains a little, and logs for each rank and epoch the value that the scenario says."""

    def __init__(self, scenario, folder):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.layer = nn.Linear(4, 2)
        self.allow_zero_length_dataloader_with_multiple_devices = 0 in scenario.get("batches", ())
        self.scenario = scenario
        self.folder = str(folder)
        self.said = []
        self.decisions = []
        self.open = []

    def setup(self, stage):
        self.open = [Listener(self.said)]
        if self.scenario.get("clock_speeds"):
            self.open.append(SkewedClock(self.scenario["clock_speeds"][self.global_rank]))
        for context in self.open:
            context.__enter__()
        time.sleep(self.scenario.get("late", [0] * 4)[self.global_rank])

    def planned(self, when):
        return torch.tensor(float(self.scenario["values"][self.global_rank][when]))

    def training_step(self, batch, _):
        time.sleep(self.scenario.get("pause", 0))
        if self.scenario.get("monitor") == "train_value":
            self.log("train_value", self.planned(self.global_step))
        return self.layer(batch[0]).square().mean() + self.layer.bias.sum()

    def train_dataloader(self):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))
        return DataLoader(TensorDataset(x), batch_size=8 // STEPS_PER_EPOCH, num_workers=0)

    def val_dataloader(self):
        batches = self.scenario.get("batches", [1] * 4)[self.global_rank]
        return DataLoader(TensorDataset(torch.zeros(2 * batches, 4)), batch_size=2, num_workers=0)

    def validation_step(self, batch, _):
        if self.scenario.get("monitor", "val_loss") == "val_loss":
            value = self.planned(self.current_epoch)
            self.log("val_loss", value, sync_dist=self.scenario["sync"], batch_size=len(batch[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)

    def on_train_epoch_start(self):
        self.decisions.append(told(self.trainer))

    def teardown(self, stage):
        write(self.folder, f"rank{self.global_rank}", report(self.trainer, self), said=self.said)
        for context in self.open:
            context.__exit__()
        self.open = []


def stopping(trainer):
    return next(callback for callback in trainer.callbacks if hasattr(type(callback), "decision"))


def told(trainer):
    """Return what the callback says now, as plain data."""
    callback = stopping(trainer)
    stopped_epoch = callback.stopped_epoch  # first: it must not wait for somebody to ask for the rest
    decision, best = callback.decision, callback.best
    return {
        "stopped_epoch": stopped_epoch,
        "decision": None if decision is None else plain(decision),
        "best": best and [best.step, repr(best.value)],
        "best_model_path": str(callback.best_model_path or ""),
    }


def plain(decision):
    return {
        "stop": decision.stop,
        "reason": str(decision.reason),
        "message": decision.message,
        "evidence": {name: repr(float(value)) for name, value in decision.evidence.items()},
    }


def report(trainer, module):
    said = told(trainer)
    path = said["best_model_path"]
    saved = torch.load(path, map_location="cpu", weights_only=True) if os.path.isfile(path) else None
    return said | {
        "global_step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "decisions": module.decisions,
        "weights": digest(module.state_dict()),
        "saved_step": saved and saved.get("global_step"),
        "saved_weights": saved and digest(saved["state_dict"]),
        "trainers_path": getattr(trainer.checkpoint_callback, "best_model_path", None),
    }


def digest(weights):
    total = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        total.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def write(folder, name, content, **more):
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, f"{name}.json").write_text(json.dumps(content | more))


def fit(strategy, callback, scenario, folder):
    module = Scripted(scenario, folder)
    callbacks = [callback]
    if scenario.get("users_checkpoint"):
        callbacks.append(ModelCheckpoint(Path(folder) / "theirs", monitor="val_loss", filename="theirs-{step}"))
    trainer = pl.Trainer(
        strategy=strategy,
        accelerator="cpu",
        devices=len(scenario["values"]),
        max_epochs=scenario["epochs"],
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=scenario.get("enable_checkpointing", True),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    trainer.fit(module)
    write(folder, f"after{trainer.global_rank}", report(trainer, module))


def main(strategy, folder):
    torch.set_num_threads(1)
    made = {}
    for name, scenario in json.loads((Path(folder) / "scenarios.json").read_text()).items():
        started = time.monotonic()
        made[name] = made.get(scenario.get("reuses")) or for_namespace("pytorch_lightning").ConvergenceStopping(
            scenario.get("monitor", "val_loss"), rule=scenario["rule"], **scenario.get("options", {})
        )
        fit(scenario.get("strategy", strategy), made[name], scenario, Path(folder) / name)
        print(f"{name} took {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
