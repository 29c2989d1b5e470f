"""Real, tiny Lightning runs whose metrics follow a script and whose one weight counts the optimizer steps."""

import warnings
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


class Counting(pl.LightningModule):
    """Its weight grows by the learning rate at each optimizer step; metrics come from `script`.

    `script` maps a metric to its values; `where` says which hook logs it, one value at each of its turns.
    """

    def __init__(self, script, where="validation", scheduler=None, lr=1.0, interval="epoch", frequency=1):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.script = {name: list(values) for name, values in script.items()}
        self.where = where if isinstance(where, dict) else dict.fromkeys(script, where)
        self.turns = dict.fromkeys(script, 0)
        self.scheduler, self.lr, self.interval, self.frequency = scheduler, lr, interval, frequency
        self.rates = []

    def say(self, place, **options):
        for name, values in self.script.items():
            if self.where[name] != place:
                continue
            turn = self.turns[name]
            self.turns[name] = turn + 1
            if turn < len(values) and values[turn] is not None:
                self.log(name, torch.tensor(float(values[turn]), dtype=torch.float64), **options)

    def training_step(self, batch, batch_idx):
        self.rates.append(max(g["lr"] for o in self.trainer.optimizers for g in o.param_groups))
        self.say("training_step")
        self.say("training_step_both", on_step=True, on_epoch=True)
        return -self.weight.sum()

    def validation_step(self, batch, batch_idx):
        if batch_idx == 0 and not self.trainer.sanity_checking:
            self.say("validation_step")

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.say("validation")

    def on_train_epoch_end(self):
        self.say("train_epoch")

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        if self.scheduler is None:
            return optimizer
        config = {"scheduler": self.scheduler(optimizer), "interval": self.interval, "frequency": self.frequency}
        return {"optimizer": optimizer, "lr_scheduler": config}


class Endless(IterableDataset):
    """Batches without a length."""

    def __init__(self, batches=4):
        self.batches = batches

    def __iter__(self):
        return iter(torch.zeros(self.batches, 1))


def loader(batches):
    return DataLoader(TensorDataset(torch.zeros(batches, 1)), batch_size=1)


@dataclass
class Run:
    """What a fit left behind."""

    trainer: pl.Trainer
    model: pl.LightningModule
    error: BaseException | None = None

    @property
    def weight(self):
        return self.model.weight.item()


def trainer_for(callbacks, folder, **options):
    plain = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 10,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return pl.Trainer(callbacks=callbacks, **{**plain, **options})


def fit(callbacks, folder, model, *, train=4, val=1, ckpt_path=None, raises=None, weights_only=None, **options):
    """Train with real Lightning; its own advice about workers and the like is not our subject."""
    train_data = loader(train) if isinstance(train, int) else train
    val_data = loader(val) if isinstance(val, int) else val
    with warnings.catch_warnings():
        quiet()
        trainer = trainer_for(callbacks, folder, **options)
        run = Run(trainer, model)
        try:
            trainer.fit(model, train_data, val_data, ckpt_path=ckpt_path, weights_only=weights_only)
        except BaseException as error:
            if raises is None or not isinstance(error, raises):
                raise
            run.error = error
    return run


def quiet():
    """Silence what Lightning itself warns of on tiny runs; ours stay errors."""
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning|torch|torchmetrics)\b.*")
    for text in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*exists and is not empty.*",
        ".*LeafSpec.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*val_check_interval.*",
        ".*max_epochs. was not set.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*Please add the following callbacks.*",
        ".*was called without a model.*",
        ".*GPU available but not used.*",
        ".*optimizer_states.*",
        ".*litlogger.*",
    ):
        warnings.filterwarnings("ignore", message=text)
