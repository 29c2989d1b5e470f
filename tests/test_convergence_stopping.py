"""ConvergenceStopping in real Trainers of one process."""

import copy
import importlib
import json
import math
import os
import pickle
import subprocess
import sys
import time
import warnings

import cloudpickle
import pytest
import torch
from lightning_runs import Counting, Endless, fit, quiet, trainer_for
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from pytorch_lightning.plugins.io import AsyncCheckpointIO
from torch.optim import lr_scheduler

import lightning_ext
from convergence import Auto, Best, Budget, NonFinite, Patience, ProgressQuotient, Rearm, Reason, SmoothedSlope
from lightning_ext import whole_files
from lightning_ext.schedule import Plan

ConvergenceStopping = lightning_ext.for_namespace("pytorch_lightning").ConvergenceStopping
NAN = math.nan


def files(folder, pattern="*.ckpt"):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(pattern))


def load(path):
    return torch.load(path, weights_only=True)


def report(folder, name="val_loss"):
    (path,) = folder.rglob(f"convergence-{name}.json")
    return json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(f"{text} in JSON"))


class Recorder(Callback):
    """Notes what the rule was fed, at each check."""

    def __init__(self, stopping):
        self.stopping = stopping
        self.updates = []

    def on_train_start(self, trainer, pl_module):
        stopper = self.stopping._stopper
        original, updates = stopper.update, self.updates

        class Spy:
            def __getattr__(self, name):
                return getattr(stopper, name)

            def update(self, news, **context):
                known = dict(news) if isinstance(news, dict) else {stopper.monitor: news}
                updates.append({"news": known, **context})
                return original(news, **context)

        self.stopping._stopper = Spy()


def fed(stopping, folder, model, **options):
    """What the rule was fed in a run: the values, and the whole updates."""
    spy = Recorder(stopping)
    run = fit([stopping, spy], folder, model, **options)
    return [update["news"] for update in spy.updates], spy.updates, run


# It stops, keeps and says why


@pytest.mark.parametrize("keep", ["disk", "memory"])
def test_stops_keeps_and_restores(tmp_path, keep):
    stopping = ConvergenceStopping("val_loss", rule=Patience(2), restore_best=True, keep=keep)
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 3, 4, 6, 1, 1]}))
    assert run.trainer.current_epoch == 4
    assert run.trainer.should_stop
    assert stopping.best == Best(8, 3.0)
    assert stopping.decision.stop
    assert stopping.decision.reason is Reason.PLATEAUED
    assert stopping.stopped_epoch == 3
    assert run.weight == 8
    assert load(stopping.best_model_path)["state_dict"]["weight"].item() == 8
    assert load(stopping.best_model_path)["global_step"] == 8
    assert run.trainer.checkpoint_callback.best_model_path == stopping.best_model_path
    assert files(tmp_path) == ["checkpoints/best-val_loss-epoch=1-step=8.ckpt", "checkpoints/last.ckpt"]
    last = load(tmp_path / "checkpoints/last.ckpt")
    assert (last["global_step"], last["state_dict"]["weight"].item()) == (16, 16)
    assert not files(tmp_path, "*.part")
    told = report(tmp_path)
    assert told["ended_by"] == "the rule"
    assert told["reason"] == "plateaued"
    assert told["message"] == stopping.decision.message
    assert told["best"] == {"step": 8, "value": 3.0}
    assert told["best_model_path"] == stopping.best_model_path
    assert told["rule"] == "Patience(2)"
    assert [row["metrics"]["val_loss"] for row in told["history"]] == [5, 3, 4, 6]


def test_best_is_the_first_of_ties_and_never_a_nan(tmp_path):
    stopping = ConvergenceStopping("val_acc", mode="max", rule="Patience(3)")
    run = fit([stopping], tmp_path, Counting({"val_acc": [NAN, 2, 2, math.inf, 1]}))
    assert stopping.best == Best(8, 2.0)
    assert load(stopping.best_model_path)["global_step"] == 8
    assert run.trainer.current_epoch == 5
    assert report(tmp_path, "val_acc")["history"][0]["metrics"] == {"val_acc": "nan"}


def test_without_restoring_the_weights_are_the_last(tmp_path):
    run = fit([ConvergenceStopping("val_loss", rule=Patience(2))], tmp_path, Counting({"val_loss": [5, 3, 4, 6]}))
    assert run.weight == 16


def test_best_and_last_are_known_to_the_trainer(tmp_path):
    stopping = ConvergenceStopping("val_loss", rule=Patience(1))
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 3, 4], "x": [1, 1, 1]}))
    for name, weight in (("best", 8), ("last", 12)):
        with torch.no_grad():
            run.model.weight.zero_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.filters", [("ignore", None, Warning, None, 0)])
            run.trainer.validate(run.model, torch.utils.data.DataLoader([0.0]), ckpt_path=name, verbose=False)
        assert run.weight == weight


def test_default_rule_needs_no_setting():
    assert ConvergenceStopping("val_loss").rule == Auto(0.01)


# The checkpoints of others


def test_a_users_checkpoint_callback_stays(tmp_path):
    def own():
        return ModelCheckpoint(dirpath=tmp_path / "mine", monitor="val_loss", save_top_k=2, save_last=True)

    script = {"val_loss": [5, 3, 4, 6, 7]}
    alone = own()
    fit([alone, EarlyStopping("val_loss", patience=2)], tmp_path / "a", Counting(script))
    kept = {path.name for path in (tmp_path / "mine").iterdir()}
    for path in (tmp_path / "mine").iterdir():
        path.unlink()
    mine, stopping = own(), ConvergenceStopping("val_loss", rule=Patience(2), dirpath=tmp_path / "ours")
    run = fit([mine, stopping], tmp_path / "b", Counting(script))
    assert run.trainer.checkpoint_callback is mine
    assert {path.name for path in (tmp_path / "mine").iterdir()} == kept
    assert mine.best_model_path == alone.best_model_path
    assert files(tmp_path / "ours") == ["best-val_loss-epoch=1-step=8.ckpt"]
    assert stopping.best_model_path == str(tmp_path / "ours/best-val_loss-epoch=1-step=8.ckpt")


def test_a_checkpoint_callback_that_is_like_the_default_is_replaced(tmp_path):
    like_default = ModelCheckpoint()
    stopping = ConvergenceStopping("val_loss", rule=Patience(1))
    run = fit([like_default, stopping], tmp_path, Counting({"val_loss": [5, 3, 4]}))
    assert run.trainer.checkpoint_callback.best_model_path == stopping.best_model_path
    assert files(tmp_path) == ["checkpoints/best-val_loss-epoch=1-step=8.ckpt", "checkpoints/last.ckpt"]
    assert like_default.best_model_path == stopping.last_model_path == str(tmp_path / "checkpoints/last.ckpt")


def test_rates_that_are_tensors(tmp_path):
    class Tensors(Counting):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=torch.tensor(1.0))
            return {"optimizer": optimizer, "lr_scheduler": lr_scheduler.StepLR(optimizer, 1)}

    stopping = ConvergenceStopping("m", rule=Rearm(Patience(99)), save_best=False)
    updates = fed(stopping, tmp_path, Tensors({"m": [1, 2, 3]}), max_epochs=3)[1]
    assert [update["lr"] for update in updates] == pytest.approx([1, 0.1, 0.01])
    assert [update["lr_ahead"] for update in updates] == pytest.approx([0.01, 0.01, 0.01])


def test_works_without_checkpointing(tmp_path):
    stopping = ConvergenceStopping("val_loss", rule=Patience(1), restore_best=True)
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 3, 4]}), enable_checkpointing=False)
    assert run.weight == 8
    assert files(tmp_path) == ["checkpoints/best-val_loss-epoch=1-step=8.ckpt"]
    plain = ConvergenceStopping("val_loss", rule=Patience(1), save_best=False)
    run = fit([plain], tmp_path / "plain", Counting({"val_loss": [5, 3, 4]}), enable_checkpointing=False)
    assert run.trainer.current_epoch == 3
    assert files(tmp_path / "plain") == []
    assert (plain.best, plain.best_model_path) == (Best(8, 3.0), "")


def test_filename_and_weights_only(tmp_path):
    stopping = ConvergenceStopping(
        "val_loss", rule=Patience(2), dirpath=tmp_path, filename="{epoch:02d}-{val_loss:.1f}", save_weights_only=True
    )
    fit([stopping], tmp_path, Counting({"val_loss": [5, 3, 4, 6]}))
    assert files(tmp_path) == ["epoch=01-val_loss=3.0.ckpt", "last.ckpt"]
    assert "optimizer_states" not in load(stopping.best_model_path)


def test_another_runs_files_are_not_overwritten(tmp_path):
    for keep in ("disk", "memory", "disk"):
        stopping = ConvergenceStopping("val_loss", rule=Patience(1), dirpath=tmp_path, filename="best", keep=keep)
        fit([stopping], tmp_path / "logs", Counting({"val_loss": [5, 3, 4]}))
        assert load(stopping.best_model_path)["global_step"] == 8
    assert files(tmp_path) == ["best-v1.ckpt", "best-v2.ckpt", "best.ckpt", "last-v1.ckpt", "last-v2.ckpt", "last.ckpt"]


# Fresh values, wherever they are logged

PLACES = [
    ("validation", {}, {}, [1, 2, 3]),
    ("validation_step", {}, {}, [1, 2, 3]),
    ("train_epoch", {}, {}, [1, 2, 3]),
    ("train_epoch", {"val": None}, {}, [1, 2, 3]),
    ("validation", {}, {"check_val_every_n_epoch": 2, "max_epochs": 6}, [1, 2, 3]),
    ("validation", {}, {"val_check_interval": 2, "max_epochs": 2}, [1, 2, 3, 4]),
    ("validation", {}, {"val_check_interval": 3, "check_val_every_n_epoch": None, "max_epochs": 3}, [1, 2, 3, 4]),
    ("validation", {"train": Endless()}, {"val_check_interval": 2, "max_epochs": 2}, [1, 2, 3, 4]),
    ("validation", {"train": Endless()}, {}, [1, 2, 3]),
    ("training_step_both", {"train": 2}, {"max_epochs": 3}, [1.5, 3.5, 5.5]),
    ("training_step", {"train": 2}, {"max_epochs": 3}, [2, 4, 6]),
]


@pytest.mark.parametrize(("where", "data", "options", "expected"), PLACES)
def test_every_value_is_judged_once(tmp_path, where, data, options, expected):
    values = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    stopping = ConvergenceStopping("m", rule=Rearm(Patience(20)), mode="max", save_best=False)
    news, updates, run = fed(stopping, tmp_path, Counting({"m": values}, where), **data, **{"max_epochs": 3, **options})
    assert [n["m"] for n in news] == expected
    steps = [update["step"] for update in updates]
    assert steps == sorted(steps)
    assert steps[-1] == run.trainer.global_step


def test_steps_without_validation(tmp_path):
    stopping = ConvergenceStopping("m", rule=Patience(3), every_n_steps=3, save_best=True, restore_best=True)
    model = Counting({"m": [9, 8, 7, 6, 5, 4, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]}, "training_step")
    news, updates, run = fed(stopping, tmp_path, model, train=5, val=None)
    assert [n["m"] for n in news] == [7, 4, 9, 9, 9]
    assert [update["step"] for update in updates] == [3, 6, 9, 12, 15]
    assert stopping.best == Best(6, 4.0)
    assert run.trainer.global_step == 15
    assert run.weight == 6


def test_steps_with_gradient_accumulation_and_rare_logging(tmp_path):
    stopping = ConvergenceStopping("m", rule=Patience(9), every_n_steps=2, save_best=False)
    model = Counting({"m": [1, 2, None, None, None, None, None, 8, None, None, None, None]}, "training_step")
    news, updates, _ = fed(stopping, tmp_path, model, train=12, val=None, max_epochs=1, accumulate_grad_batches=2)
    assert [n["m"] for n in news] == [2, 8]
    assert [update["step"] for update in updates] == [2, 4]


def test_metrics_that_arrive_at_different_times(tmp_path):
    rule = Patience(2).on("val_loss") & Patience(2).on("train_loss")
    stopping = ConvergenceStopping("val_loss", rule=rule, save_best=False)
    model = Counting(
        {"val_loss": [3, 2, 2, 2, 2], "train_loss": [9, 8, 7, 6, 5, 5, 5, 5, 5, 5]},
        {"val_loss": "validation", "train_loss": "train_epoch"},
    )
    news, _, run = fed(stopping, tmp_path, model, check_val_every_n_epoch=2)
    assert news[:4] == [{"train_loss": 9}, {"val_loss": 3}, {"train_loss": 8}, {"train_loss": 7}]
    assert stopping.decision.stop
    assert run.trainer.current_epoch == 8


def test_a_metric_put_in_by_hand(tmp_path):
    class ByHand(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch % 2 == 0:
                trainer.callback_metrics["auc"] = torch.tensor(float(trainer.current_epoch))

    stopping = ConvergenceStopping("auc", rule=Patience(20), mode="max", save_best=False)
    spy = Recorder(stopping)
    fit([ByHand(), stopping, spy], tmp_path, Counting({"x": [1] * 9}), max_epochs=5)
    assert [update["news"] for update in spy.updates] == [{"auc": 0}, {"auc": 2}, {"auc": 4}]


def test_nothing_happens_outside_of_training(tmp_path):
    stopping = ConvergenceStopping("m", rule=Patience(1), restore_best=True)
    run = fit([stopping], tmp_path, Counting({"m": [1, 2, 3]}), fast_dev_run=2)
    assert run.error is None
    assert stopping.decision is None
    assert files(tmp_path, "*") == []

    class Loud(Counting):
        def on_validation_epoch_end(self):
            self.log("m", torch.tensor(1.0 if self.trainer.sanity_checking else 5.0))

    stopping = ConvergenceStopping("m", rule=Patience(1), save_best=False)
    spy = Recorder(stopping)
    run = fit([stopping, spy], tmp_path, Loud({}), num_sanity_val_steps=1, max_epochs=1)
    assert [update["news"] for update in spy.updates] == [{"m": 5.0}]
    with warnings.catch_warnings():
        quiet()
        run.trainer.validate(run.model, torch.utils.data.DataLoader([0.0]), verbose=False)
    assert len(spy.updates) == 1


# What the rule is fed beside the values

SCHEDULERS = {
    "step": (lambda o: lr_scheduler.StepLR(o, 2), "epoch", 1),
    "step every second epoch": (lambda o: lr_scheduler.StepLR(o, 1, gamma=0.5), "epoch", 2),
    "milestones": (lambda o: lr_scheduler.MultiStepLR(o, [2, 5], gamma=0.1), "epoch", 1),
    "exponential by steps": (lambda o: lr_scheduler.ExponentialLR(o, 0.9), "step", 1),
    "cosine": (lambda o: lr_scheduler.CosineAnnealingLR(o, 6), "epoch", 1),
    "cosine that comes back": (lambda o: lr_scheduler.CosineAnnealingLR(o, 3), "epoch", 1),
    "one cycle": (lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=24), "step", 1),
    "lambda": (lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)), "step", 2),
    "sequential": (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.StepLR(o, 2)], [2]
        ),
        "epoch",
        1,
    ),
    "warm restarts": (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2), "epoch", 1),
    "warm restarts by steps": (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 2), "step", 1),
    "chained": (
        lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 2), lr_scheduler.ExponentialLR(o, 0.9)]),
        "epoch",
        1,
    ),
    "none": (None, "epoch", 1),
}


@pytest.mark.parametrize("limit", ["epochs", "steps"])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_lr_and_the_lowest_still_to_come(tmp_path, kind, limit):
    scheduler, interval, frequency = SCHEDULERS[kind]
    model = Counting({"m": [1] * 30}, "validation", scheduler, interval=interval, frequency=frequency)
    stopping = ConvergenceStopping("m", rule=Rearm(Patience(99)), save_best=False)
    end = {"max_epochs": 6} if limit == "epochs" else {"max_epochs": -1, "max_steps": 22}
    _, updates, run = fed(stopping, tmp_path, model, val_check_interval=2, **end)
    rates = run.model.rates
    assert len(rates) == run.trainer.global_step == (24 if limit == "epochs" else 22)
    assert len(updates) >= 11
    for update in updates:
        step = update["step"]
        assert update["lr"] == rates[step - 1]
        ahead = rates[step:]
        assert update["lr_ahead"] == pytest.approx(min(ahead) if ahead else rates[-1], rel=1e-9)


def test_unknown_schedules_are_unknown(tmp_path):
    class Own(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [1.0]

    class StepsByItself(Counting):
        def lr_scheduler_step(self, scheduler, metric):
            scheduler.step()

    def ahead(model, **options):
        stopping = ConvergenceStopping("m", rule=Rearm(Patience(99)), save_best=False)
        return {update["lr_ahead"] for update in fed(stopping, tmp_path, model, **{"max_epochs": 2, **options})[1]}

    script = {"m": [1, 2, 3]}
    assert ahead(Counting(script, scheduler=Own)) == {None}
    assert ahead(StepsByItself(script, scheduler=SCHEDULERS["step"][0])) == {None}
    assert ahead(Counting(script, scheduler=SCHEDULERS["step"][0]), max_epochs=-1, max_steps=8) == {1.0}
    assert ahead(Counting(script, scheduler=SCHEDULERS["step"][0]), max_epochs=-1, max_time={"seconds": 1}) == {None}

    class Plateau(Counting):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "m"}}

    assert ahead(Plateau(script)) == {None}


def test_looking_ahead_touches_nothing(tmp_path):
    class Lambda:
        calls = 0

        def __call__(self, k):
            type(self).calls += 1
            return 0.5**k

    model = Counting({"m": [1] * 9}, "validation", lambda o: lr_scheduler.LambdaLR(o, Lambda()))
    before = {}

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            scheduler = trainer.lr_scheduler_configs[0].scheduler
            before["state"] = copy.deepcopy(scheduler.state_dict()), trainer.optimizers[0].param_groups[0]["lr"]
            plan = Plan(trainer)
            assert plan.lr_ahead(1.0) == 0.5**4
            after = copy.deepcopy(scheduler.state_dict()), trainer.optimizers[0].param_groups[0]["lr"]
            assert after == before["state"]

    fit([Look()], tmp_path, model, max_epochs=5)
    assert before


def test_progress_and_elapsed(tmp_path):
    def used(**options):
        stopping = ConvergenceStopping("m", rule=Rearm(Patience(99)), save_best=False)
        updates = fed(stopping, tmp_path, Counting({"m": [1] * 30}), val_check_interval=2, **options)[1]
        elapsed = [update["elapsed"] for update in updates]
        assert elapsed == sorted(elapsed)
        assert elapsed[0] > 0
        return [update["progress"] for update in updates]

    assert used(max_epochs=2) == [0.25, 0.5, 0.75, 1.0]
    assert used(max_epochs=-1, max_steps=8) == [0.25, 0.5, 0.75, 1.0]
    assert used(max_epochs=100, max_steps=4) == [0.5, 1.0]
    assert used(max_epochs=1000, limit_train_batches=2, max_steps=4) == [0.5, 1.0]

    class Enough(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    stopping = ConvergenceStopping("m", rule=Rearm(Patience(99)), save_best=False)
    spy = Recorder(stopping)
    fit([stopping, spy, Enough()], tmp_path, Counting({"m": [1] * 30}), max_epochs=None)
    assert [update["progress"] for update in spy.updates] == [None]
    stopping = ConvergenceStopping("m", rule=Rearm(Patience(99)), save_best=False)
    spy = Recorder(stopping)
    fit([stopping, spy, Enough()], tmp_path, Counting({"m": [1] * 30}), max_epochs=-1, max_time={"hours": 1})
    assert 0 < spy.updates[0]["progress"] < 0.1


# When it may not stop yet


def test_min_epochs_leaves_no_latch(tmp_path):
    stopping = ConvergenceStopping("val_loss", rule=Patience(1), save_best=False)
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 6, 4, 3, 2, 1, 0, 0, 0]}), min_epochs=5)
    assert run.trainer.current_epoch == 8
    assert stopping.stopped_epoch == 7
    stopping = ConvergenceStopping("val_loss", rule=Patience(1), save_best=False)
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 6, 6, 6, 6, 6]}), min_epochs=4)
    assert run.trainer.current_epoch == 4
    stopping = ConvergenceStopping("val_loss", rule=Patience(1), save_best=False)
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 6, 6, 5.5, 4, 3, 2, 2, 2]}), min_steps=14)
    assert run.trainer.global_step == 16


# However training ends


class EndBy(Callback):
    def __init__(self, how, epoch=3):
        self.how, self.epoch = how, epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 2:
            if self.how == "callback":
                trainer.should_stop = True
            elif self.how == "time":
                time.sleep(1)
            elif self.how is not None:
                raise self.how


ENDS = [
    ({"max_epochs": 5}, None, "max_epochs", None, 20),
    ({"max_steps": 15, "max_epochs": -1}, None, "max_steps", None, 15),
    ({"max_time": {"seconds": 1}, "max_epochs": -1}, "time", "max_time", None, 15),
    ({}, "callback", "another callback", None, 15),
    ({}, ValueError("boom"), "ValueError", ValueError, 14),
    ({}, KeyboardInterrupt(), "KeyboardInterrupt", SystemExit, 14),
]


@pytest.mark.parametrize("keep", ["disk", "memory"])
@pytest.mark.parametrize(("options", "how", "ended_by", "raises", "steps"), ENDS, ids=[end[2] for end in ENDS])
def test_the_best_comes_back_for_every_end(tmp_path, options, how, ended_by, raises, steps, keep):
    stopping = ConvergenceStopping("val_loss", rule=Patience(20), restore_best=True, keep=keep)
    model = Counting({"val_loss": [5, 3, 4, 6, 7, 8]})
    run = fit([stopping, EndBy(how)], tmp_path, model, raises=raises, **options)
    assert run.trainer.global_step == steps
    assert (run.error is None) == (raises is None)
    best = min(8, 4 * (steps // 4)) or steps
    assert run.weight == best
    assert load(stopping.best_model_path)["state_dict"]["weight"].item() == best
    told = report(tmp_path)
    assert told["ended_by"] == ended_by
    assert told["stopped"] is False
    assert told["best"]["step"] == best
    assert told["best_model_path"] == stopping.best_model_path


def test_an_error_before_training_leaves_no_report(tmp_path):
    class Broken(Counting):
        def configure_optimizers(self):
            raise ValueError("no optimizer")

    run = fit(
        [ConvergenceStopping("val_loss", restore_best=True)], tmp_path, Broken({"val_loss": [1]}), raises=ValueError
    )
    assert str(run.error) == "no optimizer"
    assert files(tmp_path, "*.json") == []


# Resume


def half(tmp_path, stopping, script, epochs, **options):
    return fit([stopping], tmp_path, Counting(script), max_epochs=epochs, **options)


@pytest.mark.parametrize("keep", ["disk", "memory"])
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_resumed_is_as_never_interrupted(tmp_path, keep, cut):
    values = [9, 7, 8, 6, 6.5, 6.2, 6.1, 5, 5, 5]

    def make():
        return ConvergenceStopping("val_loss", rule=Patience(3), restore_best=True, keep=keep, dirpath=tmp_path / "c")

    whole = ConvergenceStopping("val_loss", rule=Patience(3), restore_best=True, dirpath=tmp_path / "whole")
    expected = fit([whole], tmp_path, Counting({"val_loss": values}))
    first = make()
    fit([first], tmp_path, Counting({"val_loss": values}), max_epochs=cut)
    second = make()
    run = fit([second], tmp_path, Counting({"val_loss": values[cut:]}), ckpt_path=first.last_model_path)
    assert run.trainer.global_step == expected.trainer.global_step == 28
    assert (second.best, second.decision, second.stopped_epoch) == (whole.best, whole.decision, whole.stopped_epoch)
    assert run.weight == expected.weight == 16
    assert load(second.best_model_path)["state_dict"]["weight"].item() == 16
    assert len([f for f in files(tmp_path / "c") if "best" in f]) <= (1 if keep == "disk" else 2)


def test_a_stopped_run_trains_no_further(tmp_path):
    script = {"val_loss": [5, 3, 4, 6, 1]}
    first = ConvergenceStopping("val_loss", rule=Patience(2))
    fit([first], tmp_path, Counting(script))
    second = ConvergenceStopping("val_loss", rule=Patience(2), restore_best=True)
    run = fit([second], tmp_path / "again", Counting(script), ckpt_path=first.last_model_path)
    assert run.trainer.global_step == 16
    assert run.weight == 8
    assert (second.best, second.stopped_epoch, second.decision) == (first.best, 3, first.decision)
    assert second.best_model_path == first.best_model_path
    more = ConvergenceStopping("val_loss", rule=Patience(4))
    run = fit([more], tmp_path / "more", Counting({"val_loss": [7, 8, 9]}), ckpt_path=first.last_model_path)
    assert run.trainer.current_epoch == 6
    assert "rule is Patience(4), was Patience(2)" in report(tmp_path / "more")["changes"]


def test_another_rule_keeps_the_best_and_counts_anew(tmp_path):
    first = ConvergenceStopping("val_loss", rule=Patience(2), dirpath=tmp_path / "c")
    fit([first], tmp_path, Counting({"val_loss": [5, 3, 4]}), max_epochs=3)
    other = ConvergenceStopping("val_loss", rule=Patience(2) | NonFinite(), dirpath=tmp_path / "c", restore_best=True)
    run = fit([other], tmp_path / "b", Counting({"val_loss": [6, 5, 6, 7]}), ckpt_path=first.last_model_path)
    assert other.best == Best(8, 3.0)
    assert run.trainer.current_epoch == 7
    assert run.weight == 8
    changes = " ".join(report(tmp_path / "b")["changes"])
    assert "Patience(2) | NonFinite()" in changes
    assert "count anew" in changes
    assert "restore_best is True, was False" in changes


def test_a_reused_instance_starts_fresh(tmp_path):
    stopping = ConvergenceStopping("val_loss", rule=Patience(1))
    fit([stopping], tmp_path / "a", Counting({"val_loss": [1, 2]}))
    first = stopping.best_model_path
    run = fit([stopping], tmp_path / "b", Counting({"val_loss": [9, 8, 7, 8]}))
    assert stopping.best == Best(12, 7.0)
    assert run.trainer.current_epoch == 4
    assert stopping.best_model_path.startswith(str(tmp_path / "b"))
    assert load(first)["global_step"] == 4
    assert len(report(tmp_path / "b")["history"]) == 4


def test_resuming_from_the_best_itself(tmp_path):
    first = ConvergenceStopping("val_loss", rule=Patience(2), dirpath=tmp_path / "c")
    fit([first], tmp_path, Counting({"val_loss": [5, 3, 4, 6]}))
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes((tmp_path / "c/best-val_loss-epoch=1-step=8.ckpt").read_bytes())
    for path in (tmp_path / "c").iterdir():
        path.unlink()
    second = ConvergenceStopping("val_loss", rule=Patience(2), dirpath=tmp_path / "c", restore_best=True)
    run = fit([second], tmp_path, Counting({"val_loss": [4, 6, 1]}), ckpt_path=moved)
    assert run.trainer.global_step == 16
    assert second.best == Best(8, 3.0)
    assert second.best_model_path == str(tmp_path / "c/best-val_loss-epoch=1-step=8.ckpt")
    assert run.weight == load(second.best_model_path)["state_dict"]["weight"].item() == 8
    assert load(moved)["state_dict"]["weight"].item() == 8


# Several in one Trainer, and errors


def test_several_with_names(tmp_path):
    a = ConvergenceStopping("val_loss", rule=Patience(1), name="short", dirpath=tmp_path / "c")
    b = ConvergenceStopping("val_loss", rule=Patience(3), name="long", dirpath=tmp_path / "c", restore_best=True)
    c = ConvergenceStopping("val_acc", mode="max", rule=Patience(9), dirpath=tmp_path / "c")
    run = fit([a, b, c], tmp_path, Counting({"val_loss": [5, 3, 4, 6], "val_acc": [1, 2, 3, 4]}))
    assert run.trainer.current_epoch == 3
    assert (a.stopped, b.stopped, c.stopped) == (True, False, False)
    assert run.weight == 8
    assert files(tmp_path / "c") == [
        "best-long-epoch=1-step=8.ckpt",
        "best-short-epoch=1-step=8.ckpt",
        "best-val_acc-epoch=2-step=12.ckpt",
        "last.ckpt",
    ]
    keys = load(tmp_path / "c/last.ckpt")["callbacks"].keys()
    assert "ConvergenceStopping{'monitor': 'val_loss', 'mode': 'min', 'name': 'short'}" in keys
    assert report(tmp_path, "long")["ended_by"] == "another callback"
    assert report(tmp_path, "short")["ended_by"] == "the rule"
    assert run.trainer.checkpoint_callback.best_model_path == a.best_model_path


def test_clashes_are_errors_before_training(tmp_path):
    def clash(*stoppings, error=ValueError):
        run = fit(list(stoppings), tmp_path, Counting({"m": [1]}), raises=error)
        assert run.weight == 0
        return str(run.error)

    with pytest.raises(RuntimeError, match="state_key"):
        trainer_for([ConvergenceStopping("m"), ConvergenceStopping("m")], tmp_path)
    assert "name=" in clash(ConvergenceStopping("m"), ConvergenceStopping("m", mode="max"))
    assert "name=" in clash(ConvergenceStopping("a/b"), ConvergenceStopping("a_b"))
    both = [ConvergenceStopping("m", name=n, restore_best=True) for n in "ab"]
    assert "restore_best" in clash(*both)
    same = [ConvergenceStopping("m", name=n, filename="best") for n in "ab"]
    assert "filename=" in clash(*same)


def test_missing_metric(tmp_path):
    script = {"val_loss": [3, 2, 1], "train_loss": [1, 2, 3]}
    where = {"val_loss": "validation", "train_loss": "train_epoch"}
    for options in ({}, {"check_val_every_n_epoch": 2}):
        run = fit([ConvergenceStopping("val_los")], tmp_path, Counting(script, where), raises=RuntimeError, **options)
        text = str(run.error)
        assert "'val_los'" in text
        assert "Did you mean 'val_loss'?" in text
        assert "after validation: 'val_loss'" in text
        assert "after a training epoch: 'train_loss'" in text
        assert run.trainer.current_epoch == options.get("check_val_every_n_epoch", 1) - 1
    with pytest.warns(UserWarning, match="Did you mean 'val_loss'"):
        run = fit([ConvergenceStopping("val_los", strict=False)], tmp_path, Counting(script, where), max_epochs=3)
    assert run.trainer.current_epoch == 3


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"mode": "down"}, ValueError, "mode must be 'min' or 'max', got 'down'"),
        ({"mode": "auto"}, ValueError, "'auto'"),
        ({"keep": "cloud"}, ValueError, "keep must be 'disk' or 'memory', got 'cloud'"),
        ({"every_n_steps": 0}, ValueError, "every_n_steps must be a whole number of at least 1, got 0"),
        ({"every_n_steps": True}, ValueError, "got True"),
        ({"rule": "Patience(0)"}, ValueError, "patience must be at least 1, got 0"),
        ({"rule": "Patient(3)"}, ValueError, "Patient"),
        ({"rule": 3}, TypeError, "rule must be a rule such as Patience"),
        ({"name": ""}, ValueError, "name must not be empty"),
        ({"save_best": False, "restore_best": True}, ValueError, "restore_best must not be set without save_best"),
    ],
)
def test_wrong_options(options, error, text):
    with pytest.raises(error) as caught:
        ConvergenceStopping("val_loss", **options)
    assert text in str(caught.value)


def test_a_metric_that_is_no_number_is_named(tmp_path):
    class Wide(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            trainer.callback_metrics["m"] = torch.ones(3)

    run = fit([Wide(), ConvergenceStopping("m")], tmp_path, Counting({"x": [1]}), raises=ValueError)
    assert "'m' must be logged as one number, got a tensor of shape (3,)" in str(run.error)


# As an object


def test_pickle_equality_and_meta(tmp_path):
    options = {"rule": Patience(3) & SmoothedSlope(4, tol=0.01) | NonFinite(), "restore_best": True, "name": "x"}
    with torch.device("meta"):
        stopping = ConvergenceStopping("val_loss", **options)
    for twin in (pickle.loads(pickle.dumps(stopping)), cloudpickle.loads(cloudpickle.dumps(stopping))):
        assert vars(twin) == vars(stopping)
    assert stopping.best_score == torch.tensor(math.inf)
    fit([stopping], tmp_path, Counting({"val_loss": [5, 3, 4, 6, 7, 8]}))
    twin = pickle.loads(pickle.dumps(stopping))
    assert (twin.best, twin.decision, twin.best_model_path) == (
        stopping.best,
        stopping.decision,
        stopping.best_model_path,
    )


def test_seen_as_lightnings_own(tmp_path):
    stopping = ConvergenceStopping("val_loss", rule=Patience(2) | NonFinite(), save_best=False)
    assert isinstance(stopping, EarlyStopping)
    reasons = type(stopping)._reasons
    assert stopping.stopping_reason is reasons.NOT_STOPPED
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 3, 4, 6]}))
    assert run.trainer.early_stopping_callback is stopping
    assert stopping.best_score == torch.tensor(3.0)
    assert stopping.wait_count == 2
    assert stopping.stopping_reason is reasons.PATIENCE_EXHAUSTED
    assert stopping.stopping_reason_message == stopping.decision.message
    fit([stopping], tmp_path, Counting({"val_loss": [5, NAN]}))
    assert stopping.stopping_reason is reasons.NON_FINITE_METRIC


def test_budget_in_seconds_goes_by_the_trainers_clock(tmp_path):
    stopping = ConvergenceStopping("val_loss", rule=Patience(99) | Budget(seconds=0), save_best=False)
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 3, 4]}))
    assert run.trainer.current_epoch == 1
    assert stopping.decision.reason is Reason.BUDGET_EXHAUSTED


def test_a_module_without_optimizers(tmp_path):
    class Still(Counting):
        def training_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return None

    stopping = ConvergenceStopping("val_loss", rule=Rearm(Patience(1)), save_best=False)
    run = fit([stopping], tmp_path, Still({"val_loss": [1, 2, 3]}))
    assert run.trainer.current_epoch == 2


# What went wrong once


def test_no_file_of_another_run_is_overwritten_after_a_resume(tmp_path):
    def make():
        return ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path)

    other = make()
    fit([other], tmp_path / "a", Counting({"val_loss": [5, 4, 3]}, lr=100.0), max_epochs=3)
    first = make()
    fit([first], tmp_path / "b", Counting({"val_loss": [5]}), max_epochs=1)
    second = make()
    fit([second], tmp_path / "b", Counting({"val_loss": [4, 3]}), max_epochs=3, ckpt_path=first.last_model_path)
    assert load(other.best_model_path)["state_dict"]["weight"].item() == 1200
    assert load(second.best_model_path)["state_dict"]["weight"].item() == 12
    assert second.best_model_path.endswith("epoch=2-step=12-v1.ckpt")


@pytest.mark.parametrize("keep", ["disk", "memory"])
def test_resumed_from_a_checkpoint_saved_before_ours(tmp_path, keep):
    """The user's callback saves first: its checkpoint knows the best, but not yet the file that holds it."""

    def make():
        mine = ModelCheckpoint(dirpath=tmp_path / "mine", save_last=True, every_n_epochs=1)
        ours = ConvergenceStopping(
            "val_loss", rule=Patience(20), dirpath=tmp_path / "ours", restore_best=True, keep=keep
        )
        return mine, ours

    options = {"check_val_every_n_epoch": 2}
    mine, first = make()
    fit([mine, first], tmp_path, Counting({"val_loss": [5, 3]}), max_epochs=4, **options)
    mine, second = make()
    last = tmp_path / "mine/last.ckpt"
    run = fit([mine, second], tmp_path, Counting({"val_loss": [4, 6]}), max_epochs=8, ckpt_path=last, **options)
    assert second.best == second.kept == Best(16, 3.0)
    assert run.weight == 16
    assert load(second.best_model_path)["state_dict"]["weight"].item() == 16
    assert load(last)["global_step"] == 32


def test_a_lost_best_is_said_and_the_next_one_kept(tmp_path):
    first = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "c")
    fit([first], tmp_path, Counting({"val_loss": [5, 1, 4]}), max_epochs=3)
    last = tmp_path / "last.ckpt"
    last.write_bytes((tmp_path / "c/last.ckpt").read_bytes())
    for path in (tmp_path / "c").iterdir():
        path.unlink()
    second = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "c", restore_best=True)
    run = fit([second], tmp_path, Counting({"val_loss": [4, 3, 6]}), max_epochs=6, ckpt_path=last)
    assert second.best == second.kept == Best(20, 3.0)
    assert run.weight == 20
    assert second.decision.evidence["best"] == 1  # the rule remembers


def test_a_best_that_moved_with_its_folder_is_found(tmp_path):
    first = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "c")
    fit([first], tmp_path, Counting({"val_loss": [5, 1, 4]}), max_epochs=3)
    (tmp_path / "c").rename(tmp_path / "d")
    second = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "e", restore_best=True)
    run = fit([second], tmp_path, Counting({"val_loss": [4]}), max_epochs=4, ckpt_path=tmp_path / "d/last.ckpt")
    assert run.weight == 8
    assert second.best_model_path == str(tmp_path / "d/best-val_loss-epoch=1-step=8.ckpt")
    assert second._best_model.best_model_score == 1


@pytest.mark.parametrize(("before", "after"), [("memory", "disk"), ("disk", "memory")])
def test_another_way_of_keeping_at_resume(tmp_path, before, after):
    first = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "c", keep=before)
    fit([first, EndBy(None)], tmp_path, Counting({"val_loss": [5, 1, 4]}), max_epochs=3)
    if before == "memory":
        os.remove(first.best_model_path)
    second = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "c", keep=after, restore_best=True)
    run = fit([second], tmp_path, Counting({"val_loss": [4]}), max_epochs=4, ckpt_path=first.last_model_path)
    assert run.weight == 8
    assert load(second.best_model_path)["state_dict"]["weight"].item() == 8


@pytest.mark.parametrize("keep", ["disk", "memory"])
def test_averaged_weights_are_what_is_kept(tmp_path, keep):
    stopping = ConvergenceStopping("val_loss", rule=Patience(2), restore_best=True, keep=keep, save_weights_only=True)
    seen = []

    class Watching(Counting):
        def validation_step(self, batch, batch_idx):
            seen.append(self.weight.item())

    averaging = EMAWeightAveraging(decay=0.9)
    run = fit([averaging, stopping], tmp_path, Watching({"val_loss": [5, 3, 4, 6]}))
    assert seen[1] != 8
    assert load(stopping.best_model_path)["state_dict"]["weight"].item() == seen[1] == run.weight


def test_what_the_module_adds_is_of_the_same_moment_as_the_weights(tmp_path):
    class Adds(Counting):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["double"] = self.weight.detach() * 2
            checkpoint["state_dict"] = {f"renamed.{k}": v for k, v in checkpoint["state_dict"].items()}

        def on_load_checkpoint(self, checkpoint):
            renamed = checkpoint["state_dict"]
            checkpoint["state_dict"] = {k.removeprefix("renamed."): v for k, v in renamed.items()}

    for keep in ("disk", "memory"):
        stopping = ConvergenceStopping("val_loss", rule=Patience(2), restore_best=True, keep=keep)
        run = fit([stopping], tmp_path / keep, Adds({"val_loss": [5, 3, 4, 6]}))
        kept = load(stopping.best_model_path)
        assert (kept["double"].item(), kept["state_dict"]["renamed.weight"].item(), run.weight) == (16, 8, 8)


@pytest.mark.parametrize("keep", ["disk", "memory"])
def test_asynchronous_checkpoint_io(tmp_path, keep):
    stopping = ConvergenceStopping("val_loss", rule=Patience(2), restore_best=True, keep=keep)
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 3, 4, 6]}), plugins=[AsyncCheckpointIO()])
    assert run.weight == load(stopping.best_model_path)["state_dict"]["weight"].item() == 8
    assert isinstance(run.trainer.strategy.checkpoint_io, AsyncCheckpointIO)


class Odd:
    """A hyperparameter that does not load with weights_only."""


def test_hyperparameters_that_are_objects(tmp_path):
    class Odds(Counting):
        def __init__(self, script, odd):
            super().__init__(script)
            self.save_hyperparameters("odd")

    def make():
        return ConvergenceStopping("val_loss", rule=Patience(9), restore_best=True, dirpath=tmp_path)

    first = make()
    run = fit([first], tmp_path, Odds({"val_loss": [5, 3, 4]}, Odd()), max_epochs=3)
    assert run.weight == 8
    second = make()
    last = first.last_model_path
    run = fit([second], tmp_path, Odds({"val_loss": [4]}, Odd()), max_epochs=4, ckpt_path=last, weights_only=False)
    assert run.weight == 8


@pytest.mark.parametrize("with_own", [False, True])
def test_callbacks_of_the_module(tmp_path, with_own):
    class Brings(Counting):
        def configure_callbacks(self):
            own = [ModelCheckpoint(dirpath=tmp_path / "own", filename="own")] if with_own else []
            return [ConvergenceStopping("val_loss", rule=Patience(1)), *own]

    run = fit([], tmp_path, Brings({"val_loss": [5, 3, 4]}))
    run.model.script, run.model.turns = {"val_loss": [9, 8, 7, 8]}, {"val_loss": 0}
    with warnings.catch_warnings():
        quiet()
        run.trainer.fit_loop.epoch_progress.reset()
        run.trainer.fit(run.model, torch.utils.data.DataLoader([0.0] * 4), torch.utils.data.DataLoader([0.0]))
    (stopping,) = [c for c in run.trainer.callbacks if isinstance(c, ConvergenceStopping)]
    assert stopping.best.value == 7
    assert load(stopping.best_model_path)["state_dict"]["weight"].item() == run.weight - 4
    assert (run.trainer.checkpoint_callback.best_model_path == stopping.best_model_path) is not with_own
    assert len([c for c in run.trainer.callbacks if isinstance(c, ModelCheckpoint)]) == 1 + with_own


def test_rules_whose_metrics_come_late(tmp_path):
    rule = ProgressQuotient(0.1, 2, train="train_loss")
    where = {"val_loss": "validation", "train_loss": "train_epoch"}
    script = {"val_loss": [5, 3, 4, 6, 7, 8], "train_loss": [5, 4, 3, 3, 3, 3]}
    stopping = ConvergenceStopping("val_loss", rule=rule, restore_best=True)
    news, _, run = fed(stopping, tmp_path / "a", Counting(script, where))
    assert news[0] == {"val_loss": 5, "train_loss": 5}
    assert stopping.decision.stop
    assert run.weight == 8
    stopping = ConvergenceStopping("m", rule=Patience(50).on("m") | Patience(5).on("val_loss"), every_n_steps=1)
    model = Counting({"m": range(60), "val_loss": [1, 2]}, {"m": "training_step", "val_loss": "validation"})
    run = fit([stopping], tmp_path / "b", model, train=15, max_epochs=2)
    assert run.trainer.global_step == 30
    stopping = ConvergenceStopping("m", rule=Patience(50).on("m") | Patience(5).on("never"), strict=False)
    with pytest.warns(UserWarning, match="'never'") as caught:
        run = fit([stopping], tmp_path / "c", Counting({"m": range(30)}), max_epochs=15)
    assert run.trainer.current_epoch == 15
    assert len([w for w in caught if "'never'" in str(w.message)]) == 1


def test_steps_that_jump(tmp_path):
    class Two(Counting):
        def __init__(self, script):
            super().__init__(script, "training_step")
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                optimizer.step()
            self.say("training_step")

        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), lr=1.0) for _ in range(2)]

    stopping = ConvergenceStopping("m", rule=Rearm(Patience(99)), every_n_steps=5, save_best=False)
    _, updates, _ = fed(stopping, tmp_path, Two({"m": range(30)}), train=15, val=None, max_epochs=1)
    assert [update["step"] for update in updates] == [6, 10, 16, 20, 26, 30]


def test_a_plan_that_another_callback_replaced_is_unknown(tmp_path):
    model = Counting({"m": [1] * 9}, scheduler=lambda o: lr_scheduler.CosineAnnealingLR(o, 8))
    stopping = ConvergenceStopping("m", rule=Rearm(Patience(99)), save_best=False)
    spy = Recorder(stopping)
    swa = StochasticWeightAveraging(swa_lrs=0.5, swa_epoch_start=4)
    fit([stopping, spy, swa], tmp_path, model, max_epochs=8)
    ahead = [update["lr_ahead"] for update in spy.updates]
    assert ahead[0] is not None
    assert ahead[-1] is None


def test_a_verdict_after_the_stop_changes_nothing(tmp_path):
    rule = Patience(1).on("val_loss") & Patience(1).on("tv")
    script = {"val_loss": [5, 6, 7], "tv": [5, 6, 1, 1]}
    where = {"val_loss": "validation", "tv": "train_epoch"}
    first = ConvergenceStopping("val_loss", rule=rule)
    run = fit([first], tmp_path / "a", Counting({"val_loss": [5, 6, 7], "tv": [5, 6, 1]}, where))
    assert run.trainer.current_epoch == 2
    script = {"val_loss": [5, 4, 7], "tv": [5, 6, 1, 1]}
    first = ConvergenceStopping("val_loss", rule=rule)
    run = fit([first], tmp_path / "b", Counting(script, where))
    assert run.trainer.current_epoch == 3
    assert first.stopped
    assert first.decision.stop
    second = ConvergenceStopping("val_loss", rule=rule)
    run = fit([second], tmp_path / "c", Counting(script, where), ckpt_path=first.last_model_path)
    assert run.trainer.current_epoch == 3
    assert second.decision == first.decision


def test_a_stopped_run_that_may_not_stop_yet_goes_on(tmp_path):
    first = ConvergenceStopping("val_loss", rule=Patience(1))
    fit([first], tmp_path, Counting({"val_loss": [5, 6]}))
    second = ConvergenceStopping("val_loss", rule=Patience(1))
    model = Counting({"val_loss": [4, 3, 2, 1]})
    run = fit([second], tmp_path / "b", model, ckpt_path=first.last_model_path, min_epochs=4, max_epochs=5)
    assert run.trainer.current_epoch == 5
    assert (second.stopped, second.stopped_epoch, second.decision.stop) == (False, 0, False)
    assert report(tmp_path / "b")["ended_by"] == "max_epochs"


def test_epoch_values_beside_step_values(tmp_path):
    stopping = ConvergenceStopping("m_epoch", rule=Rearm(Patience(9)), every_n_steps=2, save_best=False)
    model = Counting({"m": range(1, 13)}, "training_step_both")
    news, _, _ = fed(stopping, tmp_path, model, train=4, val=None, max_epochs=3)
    assert [n["m_epoch"] for n in news] == [2.5, 6.5, 10.5]


def test_a_dry_run_after_a_stop_is_a_dry_run(tmp_path):
    stopping = ConvergenceStopping("val_loss", rule=Patience(1))
    fit([stopping], tmp_path, Counting({"val_loss": [5, 6]}))
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 6]}), fast_dev_run=2)
    assert run.trainer.global_step == 2
    assert stopping.decision is None


def test_nothing_hides_the_users_exception(tmp_path, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("report")

    monkeypatch.setattr("lightning_ext.ending.report_of", broken)
    stopping = ConvergenceStopping("val_loss", rule=Patience(9), restore_best=True)
    run = fit([stopping, EndBy(ValueError("boom"))], tmp_path, Counting({"val_loss": [5, 3, 4]}), raises=ValueError)
    assert str(run.error) == "boom"
    assert run.weight == 8


def test_one_name_in_training_and_validation(tmp_path):
    class Both(Counting):
        def on_train_epoch_end(self):
            self.log("val_loss", torch.tensor(0.1))

    stopping = ConvergenceStopping("val_loss", rule=Patience(2), restore_best=True)
    with pytest.warns(UserWarning, match="validation's is judged"):
        run = fit([stopping], tmp_path, Both({"val_loss": [5, 3, 4, 4]}), check_val_every_n_epoch=2)
    assert stopping.best == Best(16, 3.0)
    assert run.weight == 16
    assert run.trainer.current_epoch == 8


def test_names_of_any_length_and_templates(tmp_path):
    name = "ü" * 300
    stopping = ConvergenceStopping(name, rule=Patience(1))
    fit([stopping], tmp_path, Counting({name: [5, 3, 4]}))
    assert load(stopping.best_model_path)["global_step"] == 8
    for filename in ("a{", "last", "last-{epoch}"):
        with pytest.raises(ValueError, match="filename must"):
            ConvergenceStopping("m", filename=filename)


def test_copies_do_not_share_their_workers():
    stopping = ConvergenceStopping("m", rule=Patience(1))
    twin = copy.deepcopy(stopping)
    assert twin._token != stopping._token
    assert {**vars(twin), "_token": 0} == {**vars(stopping), "_token": 0}


def test_half_files_of_dead_processes_go_and_those_of_living_stay(tmp_path):
    host = whole_files.writer().rpartition("-")[0]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    parts = [
        f".x.ckpt.{host}-{dead.pid}.part",
        f".x.ckpt.{host}-{os.getpid()}.part",
        ".x.ckpt.elsewhere-1.part",
        ".y.part",
    ]
    for name in parts:
        (tmp_path / name).touch()
    fit([ConvergenceStopping("m", rule=Patience(1), dirpath=tmp_path)], tmp_path / "logs", Counting({"m": [1, 2]}))
    assert {path.name for path in tmp_path.glob(".*.part")} == set(parts[1:])


def test_a_resume_neither_takes_nor_removes_what_another_run_wrote(tmp_path):
    """Run 1's checkpoints name files that are gone; run 2 in the same folder has files of those names."""
    folder = tmp_path / "c"

    def make():
        return ConvergenceStopping("val_loss", rule=Patience(20), dirpath=folder, restore_best=True)

    kept = {}

    class Copies(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            for path in folder.glob("best*.ckpt"):
                kept[path.name] = path.read_bytes()

    first = make()
    fit([first, Copies()], tmp_path, Counting({"val_loss": [5, 3, 4]}), max_epochs=3)
    assert set(kept) == {"best-val_loss-epoch=0-step=4.ckpt", "best-val_loss-epoch=1-step=8.ckpt"}
    (tmp_path / "first.ckpt").write_bytes(kept["best-val_loss-epoch=0-step=4.ckpt"])
    (tmp_path / "second.ckpt").write_bytes(kept["best-val_loss-epoch=1-step=8.ckpt"])
    for path in folder.iterdir():
        path.unlink()
    other = make()
    fit([other], tmp_path, Counting({"val_loss": [2, 9]}, lr=100.0), max_epochs=2)
    for name, script, weight in (("second", [4, 6], 8), ("first", [6, 7], 4)):
        again = make()
        run = fit([again], tmp_path, Counting({"val_loss": script}), max_epochs=4, ckpt_path=tmp_path / f"{name}.ckpt")
        assert run.weight == weight
        assert load(other.best_model_path)["state_dict"]["weight"].item() == 400


@pytest.mark.parametrize("ending", ["normal", "exception"])
def test_weights_in_memory_come_back_though_they_cannot_be_written(tmp_path, ending, monkeypatch):
    stopping = ConvergenceStopping("val_loss", rule=Patience(2), restore_best=True, keep="memory")

    class Full(Callback):
        def on_train_start(self, trainer, pl_module):
            def full(*args, **kwargs):
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(trainer.strategy, "save_checkpoint", full)

    other = EndBy(ValueError("boom") if ending == "exception" else None, epoch=3)
    model = Counting({"val_loss": [5, 3, 4, 6]})
    run = fit([stopping, Full(), other], tmp_path, model, raises=(OSError, ValueError), enable_checkpointing=False)
    assert ("No space left" if ending == "normal" else "boom") in str(run.error)
    assert run.weight == 8
    assert report(tmp_path)["best"] == {"step": 8, "value": 3.0}


def test_held_weights_go_where_the_resumed_run_writes(tmp_path):
    first = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "a", keep="memory")
    fit([first], tmp_path, Counting({"val_loss": [5, 3, 4]}), max_epochs=3)
    last = tmp_path / "last.ckpt"
    last.write_bytes((tmp_path / "a/last.ckpt").read_bytes())
    second = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "b", keep="memory")
    fit([second], tmp_path, Counting({"val_loss": [4]}), max_epochs=4, ckpt_path=last)
    assert second.best_model_path == str(tmp_path / "b/best-val_loss-epoch=1-step=8.ckpt")
    assert len(files(tmp_path / "a")) == 2


def test_the_old_best_stays_while_anothers_checkpoint_names_it(tmp_path):
    mine = ModelCheckpoint(dirpath=tmp_path / "mine", every_n_epochs=2, save_on_train_epoch_end=True)
    stopping = ConvergenceStopping("val_loss", rule=Patience(20), dirpath=tmp_path / "ours")
    there = []

    class Look(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            there.append([name.split("step=")[1] for name in files(tmp_path / "ours")])

    fit([mine, stopping, Look()], tmp_path, Counting({"val_loss": [5, 4, 3, 9, 9]}), max_epochs=5)
    assert there == [[], ["4.ckpt"], ["8.ckpt"], ["8.ckpt", "12.ckpt"], ["12.ckpt"]]
    assert files(tmp_path / "ours") == ["best-val_loss-epoch=2-step=12.ckpt"]


def test_testing_a_checkpoint_does_not_undo_the_verdict(tmp_path):
    stopping = ConvergenceStopping("val_loss", rule=Patience(2))
    run = fit([stopping], tmp_path, Counting({"val_loss": [5, 3, 4, 6]}))
    before = (stopping.decision, stopping.best, stopping.stopped_epoch, stopping.best_model_path)
    with warnings.catch_warnings():
        quiet()
        run.trainer.validate(run.model, torch.utils.data.DataLoader([0.0]), ckpt_path="best", verbose=False)
    assert (stopping.decision, stopping.best, stopping.stopped_epoch, stopping.best_model_path) == before


@pytest.mark.parametrize("keep", ["disk", "memory"])
def test_a_resume_with_nothing_left_to_train(tmp_path, keep):
    first = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "a", keep=keep)
    fit([first], tmp_path, Counting({"val_loss": [5, 3, 4]}), max_epochs=3)
    (tmp_path / "a").rename(tmp_path / "b")
    for _ in range(2):
        again = ConvergenceStopping("val_loss", rule=Patience(9), dirpath=tmp_path / "b", keep=keep, restore_best=True)
        run = fit([again], tmp_path, Counting({"val_loss": []}), max_epochs=3, ckpt_path=tmp_path / "b/last.ckpt")
        assert run.weight == 8
        assert again.best_model_path == str(tmp_path / "b/best-val_loss-epoch=1-step=8.ckpt")
    assert len(files(tmp_path / "b")) == 2


def test_a_best_that_waits_for_its_side_metric_is_kept(tmp_path):
    where = {"val_loss": "validation", "train_loss": "train_epoch"}
    script = {"val_loss": [1, 5, 4, 6, 7, 8, 9], "train_loss": [5, 4, 3, 3, 3, 3]}
    rule = ProgressQuotient(9.0, 2, train="train_loss")
    stopping = ConvergenceStopping("val_loss", rule=rule, restore_best=True)
    run = fit([stopping], tmp_path, Counting(script, where), max_epochs=3, val_check_interval=2)
    assert stopping.best == Best(2, 1.0)
    assert run.weight == 2


@pytest.mark.parametrize("namespace", ["pytorch_lightning", "lightning.pytorch"])
def test_each_namespace_has_its_own(tmp_path, namespace):
    lightning = importlib.import_module(namespace)
    methods = (
        "training_step",
        "validation_step",
        "on_validation_epoch_end",
        "on_train_epoch_end",
        "configure_optimizers",
    )
    members = {name: vars(Counting)[name] for name in (*methods, "say")}
    model = type("Model", (lightning.LightningModule,), members)()
    model.weight, model.scheduler, model.lr = torch.nn.Parameter(torch.zeros(1)), None, 1.0
    model.rates, model.turns = [], {"val_loss": 0}
    model.script, model.where = {"val_loss": [5, 3, 4, 6]}, {"val_loss": "validation"}
    data = torch.utils.data.DataLoader([torch.zeros(1)] * 4)
    plain = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    classes = {name: lightning_ext.for_namespace(name) for name in ("pytorch_lightning", "lightning.pytorch")}
    own = classes.pop(namespace)
    (foreign,) = classes.values()

    def fit_with(kind):
        stopping = kind.ConvergenceStopping("val_loss", rule=Patience(2), restore_best=True)
        with warnings.catch_warnings():
            quiet()
            trainer = lightning.Trainer(
                max_epochs=9, accelerator="cpu", default_root_dir=tmp_path, callbacks=[stopping], **plain
            )
            trainer.fit(model, data, data)
        return trainer, stopping

    with pytest.raises(TypeError) as refused:
        fit_with(foreign)
    assert f'lightning_ext.for_namespace("{namespace}").ConvergenceStopping' in str(refused.value)
    trainer, stopping = fit_with(own)
    assert isinstance(stopping, lightning.callbacks.EarlyStopping)
    assert isinstance(trainer.checkpoint_callback, own.BestModel)
    assert (stopping.best, trainer.current_epoch, model.weight.item()) == (Best(8, 3.0), 4, 8)
