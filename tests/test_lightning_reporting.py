"""What ConvergenceStopping tells: loggers, log lines, progress bar, report; and how it is built from YAML."""

import csv
import functools
import json
import logging
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning_runs import Counting, fit
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lightning_ext
from convergence import NonFinite, Patience, Rearm, SmoothedSlope
from convergence.histories.csv_log import read_csv
from lightning_ext.ending import History

ConvergenceStopping = lightning_ext.for_namespace("pytorch_lightning").ConvergenceStopping
SCRIPT = {"val_loss": [5, 3, 4, 6]}


class Fake(Logger):
    """The interface that Lightning's loggers for hosted services share."""

    def __init__(self, experiment, **extra):
        super().__init__()
        self._experiment, self.numbers, self.hyper = experiment, [], {}
        vars(self).update(extra)

    name = "fake"
    version = 0

    @property
    def experiment(self):
        return self._experiment

    def log_metrics(self, metrics, step=None):
        self.numbers.append((step, metrics))

    def log_hyperparams(self, params, *args, **kwargs):
        self.hyper.update(params)


def test_every_logger_gets_numbers_and_the_verdict(tmp_path):
    board, table = TensorBoardLogger(tmp_path, name="tb"), CSVLogger(tmp_path, name="csv")
    texts, tags = [], {}
    wandb = Fake(SimpleNamespace(summary={}), log_text=lambda **given: texts.append(given))
    mlflow = Fake(SimpleNamespace(set_tag=lambda run, key, text: tags.update({(run, key): text})), run_id="r7")

    def refuse(*args):
        raise ConnectionError("gone")

    gone = Fake(SimpleNamespace(add_text=refuse))
    flat = Fake(SimpleNamespace(add_text=lambda *given: None))

    def no_folders(metrics, step=None, log=flat.log_metrics):
        if any("/" in name for name in metrics):
            raise NotADirectoryError("val_loss/wait")
        log(metrics, step)

    flat.log_metrics = no_folders
    gone.log_metrics = lambda metrics, step=None: (
        refuse() if "val_loss/wait" in metrics or "val_loss.wait" in metrics else 0
    )
    stopping = ConvergenceStopping("val_loss", rule=Patience(2) | SmoothedSlope(3, tol=0.0, smoothing=0.5))
    fit([stopping], tmp_path, Counting(SCRIPT), logger=[board, table, wandb, mlflow, gone, flat], log_every_n_steps=1)
    message = stopping.decision.message

    events = EventAccumulator(board.log_dir)
    events.Reload()
    assert [event.value for event in events.Scalars("val_loss/wait")] == [0, 0, 1, 2]
    assert [event.value for event in events.Scalars("val_loss/best")] == [5, 3, 3, 3]
    assert [event.step for event in events.Scalars("val_loss/best")] == [3, 7, 11, 15]
    slope = [event.value for event in events.Scalars("val_loss/slope")]
    assert slope[-1] == pytest.approx(stopping.decision.causes[0].evidence.get("slope", slope[-1]))
    smoothed = [event.value for event in events.Scalars("val_loss/smoothed")]
    assert smoothed[:3] == pytest.approx([5, (5 * 0.25 + 3 * 0.5) / 0.75, (5 * 0.125 + 3 * 0.25 + 4 * 0.5) / 0.875])
    (tensor,) = events.Tensors("convergence/val_loss/text_summary")
    assert message in tensor.tensor_proto.string_val[0].decode()

    with open(f"{table.log_dir}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss/best"]) for row in rows if row["val_loss/best"]] == [5, 3, 3, 3]
    with open(f"{table.log_dir}/convergence-val_loss.txt") as file:
        assert message in file.read()
    with open(f"{table.log_dir}/metrics.csv", "rb") as file:
        (history,) = read_csv(Path(f"{table.log_dir}/metrics.csv"), file)
    assert [series.metric for series in history.series] == ["val_loss"]

    assert message in texts[0]["data"][0][0]
    assert message in wandb.experiment.summary["convergence/val_loss"]
    assert message in tags["r7", "convergence/val_loss"]
    assert [numbers["val_loss/best"] for _, numbers in wandb.numbers if "val_loss/best" in numbers] == [5, 3, 3, 3]
    assert [numbers["val_loss.best"] for _, numbers in flat.numbers if "val_loss.best" in numbers] == [5, 3, 3, 3]
    assert (tmp_path / "tb/version_0/convergence-val_loss.json").exists()


def test_log_lines_say_why(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="pytorch_lightning")
    logging.getLogger("pytorch_lightning").addHandler(caplog.handler)
    try:
        stopping = ConvergenceStopping("val_loss", rule=Patience(2), name="mine")
        fit([stopping], tmp_path, Counting(SCRIPT))
    finally:
        logging.getLogger("pytorch_lightning").removeHandler(caplog.handler)
    lines = [record.getMessage() for record in caplog.records if record.name == "pytorch_lightning.convergence"]
    assert any("stopping at epoch 3" in line and stopping.decision.message in line for line in lines)
    assert any("training ended by the rule" in line and stopping.best_model_path in line for line in lines)


def test_remaining_patience_in_the_progress_bar(tmp_path):
    shown = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            shown.append(trainer.progress_bar_metrics.get("val_loss/left"))

    rule = Rearm(Patience(3)) | NonFinite()
    fit(
        [ConvergenceStopping("val_loss", rule=rule, progress_bar=True), Look()],
        tmp_path,
        Counting(SCRIPT),
        max_epochs=4,
    )
    assert shown == [3, 3, 2, 1]
    shown.clear()
    fit([ConvergenceStopping("val_loss", rule=rule), Look()], tmp_path, Counting(SCRIPT), max_epochs=2)
    assert shown == [None, None]


def test_history_is_thinned_not_endless(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_ext.ending.History", functools.partial(History, most=8))
    model = Counting({"m": range(1, 41)}, "training_step")
    stopping = ConvergenceStopping("m", mode="max", rule=Patience(99), every_n_steps=1, save_best=False)
    fit([stopping], tmp_path, model, train=40, val=None, max_epochs=1)
    (path,) = tmp_path.rglob("convergence-m.json")
    told = json.loads(path.read_text())
    assert told["history_every"] == 8
    assert [row["metrics"]["m"] for row in told["history"]] == [1, 9, 17, 25, 33]


def test_a_report_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog):
    logging.getLogger("pytorch_lightning").addHandler(caplog.handler)
    (tmp_path / "convergence-val_loss.json").mkdir()
    try:
        run = fit([ConvergenceStopping("val_loss", rule=Patience(2), save_best=False)], tmp_path, Counting(SCRIPT))
    finally:
        logging.getLogger("pytorch_lightning").removeHandler(caplog.handler)
    assert run.trainer.current_epoch == 4
    assert "could not write" in caplog.text
    assert not list(tmp_path.glob(".convergence-*"))


# On a real schedule


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_the_drop_that_mattered_is_waited_for(tmp_path, schedule):
    """SGD on a noisy quadratic: the loss sits at a floor that only a lower rate can lower."""

    class Noisy(Counting):
        def __init__(self, steps):
            super().__init__({}, "validation")
            self.steps = steps
            self.weight = torch.nn.Parameter(torch.full((200,), 3.0))
            self.noise = torch.Generator().manual_seed(7)

        def training_step(self, batch, batch_idx):
            noise = torch.randn(200, generator=self.noise)
            return (0.5 * self.weight**2 + noise * self.weight).sum()

        def on_validation_epoch_end(self):
            self.log("val_loss", (0.5 * self.weight**2).sum())

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
            scheduler = (
                torch.optim.lr_scheduler.StepLR(optimizer, 20)
                if self.steps == "step"
                else torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
            )
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def train(rule):
        stopping = ConvergenceStopping("val_loss", rule=rule, save_best=False)
        run = fit([stopping], tmp_path, Noisy(schedule), max_epochs=60, train=10)
        return stopping, run.trainer.current_epoch

    full, _ = train(Patience(1000))
    plain, plain_epochs = train(Patience(5))
    rearmed, rearmed_epochs = train("Rearm(Patience(5))")
    assert plain_epochs < 20
    assert plain.best.value > 3 * full.best.value
    assert rearmed.best.value <= 1.1 * full.best.value
    assert rearmed_epochs > (45 if schedule == "step" else 50)


# From YAML

CLI = """
import sys
import torch
from NAMESPACE import LightningModule
from NAMESPACE.cli import LightningCLI
from torch.utils.data import DataLoader


class Model(LightningModule):
    def __init__(self, width: int = 1):
        super().__init__()
        self.layer = torch.nn.Linear(1, width)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", torch.tensor([3.0, 2.0, 2.5, 2.6, 2.7, 2.8][self.current_epoch]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(torch.ones(2, 1))

    val_dataloader = train_dataloader


if __name__ == "__main__":
    cli = LightningCLI(Model, save_config_kwargs={"overwrite": True})
    ours, other = cli.trainer.callbacks[:2]
    print("RESULT", ours.rule, ours.best, cli.trainer.current_epoch, other.patience, type(other).__module__)
"""

YAML = """
trainer:
  accelerator: cpu
  max_epochs: 6
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning_ext.ConvergenceStopping
      init_args:
        monitor: val_loss
        restore_best: true
        rule: RULE
    - class_path: lightning_ext.EarlyStopping
      init_args: {monitor: val_loss, patience: 5}
"""


TEXT = "Patience(2) & SmoothedSlope(2, tol=0.001)"


@pytest.mark.parametrize(
    ("namespace", "rule", "expected"),
    [
        (
            "pytorch_lightning",
            '"Patience(2) & SmoothedSlope(2, tol=0.001)"',
            "Patience(2) & SmoothedSlope(2, tol=0.001)",
        ),
        ("lightning.pytorch", "{class_path: convergence.Patience, init_args: {patience: 2}}", "Patience(2)"),
    ],
)
def test_built_from_yaml_and_printed_back(tmp_path, namespace, rule, expected):
    script, config, printed = tmp_path / "run.py", tmp_path / "config.yaml", tmp_path / "printed.yaml"
    script.write_text(CLI.replace("NAMESPACE", namespace))
    config.write_text(textwrap.dedent(YAML).replace("RULE", rule))

    def run(*arguments):
        command = [sys.executable, "-W", "ignore", str(script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed.write_text(run("fit", "--config", config, "--print_config"))
    out = run("fit", "--config", printed)
    line = next(line for line in out.splitlines() if line.startswith("RESULT"))
    module = "lightning_ext.on_pytorch_lightning" if namespace == "pytorch_lightning" else "lightning_ext.on_lightning"
    assert line == f"RESULT {expected} Best(step=4, value=2.0) 4 5 {module}"
    assert "lightning_ext" in printed.read_text()
