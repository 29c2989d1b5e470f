"""ConvergenceStopping: one tracker that decides when to stop, which model is the best, and what is saved."""

import logging
import math
import os
import re
import uuid
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convergence import Best, Decision, Patience, Rearm, Reason, Rule, Stopper, parse_rule
from convergence.parameters import check_mode, check_name, is_whole
from lightning_ext import announce, verdict_file
from lightning_ext.agreement import agree, some_validate_nothing
from lightning_ext.clock import Clock, Progress
from lightning_ext.logged import Logged
from lightning_ext.missing import missing_metric
from lightning_ext.namespaces import refuse_foreign_trainer
from lightning_ext.schedule import Plan, largest, rates_of, timer_of

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import EarlyStopping as NativeEarlyStopping
else:
    NativeEarlyStopping = object

_HISTORY = 4096
"""Checks that the history holds before it keeps only every second of them."""


class RuleStopping(NativeEarlyStopping):
    """Stop training when a rule says so, keep the best model, and say why.

    Parameters
    ----------
    monitor : str
        The logged metric whose best model is kept; the rule's parts that are not bound with `.on(...)` read it too.
    mode : {"min", "max"}
        Whether lower or higher is better.
    rule : Rule or str, optional
        When to stop, as an object or as text such as "Patience(5) | NonFinite()". None means Rearm(Patience(10)):
        ten values without improvement, counted again after each drop of the learning rate, and never while one is
        still planned.
    save_best : bool
        Keep the best model as a checkpoint.
    restore_best : bool
        Put the best weights back into the module however training ends: by the rule, a limit, another callback, an
        exception or KeyboardInterrupt. They are there from on_train_end of the module on; `last.ckpt` is not touched.
    dirpath : str, optional
        Folder for checkpoints; None means the one that ModelCheckpoint would take.
    filename : str, optional
        Template as for ModelCheckpoint, such as "{epoch}-{val_loss:.3f}".
    save_weights_only : bool
        The best checkpoint holds the weights alone rather than the full state of the Trainer.
    keep : {"disk", "memory"}
        "disk": each new best is written at once, complete before the old one goes; a kill at any moment leaves one
        of them. "memory": each new best is copied to host memory (on CUDA without waiting for it), carried inside
        the Trainer's own checkpoints, and written as a weights checkpoint at the end of training or on an exception;
        a SIGKILL or a power cut loses what is in no checkpoint yet.
    strict : bool
        Raise if the monitored metric was not logged by the end of the first epoch that could have had it; else warn.
    name : str, optional
        Goes into the state key and the names of files and curves; needed when two watch the same monitor.
    every_n_steps : int, optional
        Judge metrics of training_step every so many optimizer steps, without validation.
    progress_bar : bool
        Show how many checks the rule would still wait.

    Attributes
    ----------
    best : Best or None
        Step (Lightning's global step) and value of the best so far, first of ties.
    best_model_path : str
        Its checkpoint; "" while there is none.
    decision : Decision or None
        The verdict as of the newest value: stop, reason, message, evidence.
    stopped_epoch : int
        The epoch at which the rule stopped training; 0 if it did not.

    Raises
    ------
    TypeError, ValueError
        For a parameter or rule text that cannot be.
    RuntimeError
        In training, if the metric is missing and strict is set.

    Notes
    -----
    It judges values that are new, once, wherever they are logged: at the end of validation, of the training epoch, or
    between steps. The rule is fed the global step, the learning rate with which the value was trained, the lowest one
    still planned, the used fraction of the plan, and seconds. A stop that min_epochs or min_steps do not allow yet is
    not remembered: the rule is asked again. In several processes all judge the same numbers. State comes from the
    checkpoint, configuration from the code.

    It brings along a `BestModel` (a ModelCheckpoint), which takes the place of Lightning's default checkpoint
    callback. With a ModelCheckpoint of yours, `trainer.checkpoint_callback` stays yours.

    Examples
    --------
    >>> from lightning_ext import ConvergenceStopping
    >>> stopping = ConvergenceStopping("val_acc", mode="max", rule="Lookahead(3)", restore_best=True)
    >>> stopping.rule
    Lookahead(3)
    """

    namespace: str
    _native: Any
    _best_model_class: Any
    _checkpoint_class: Any
    _reasons: Any
    _log: logging.Logger

    def __init__(
        self,
        monitor: str,
        *,
        mode: str = "min",
        rule: Rule | str | None = None,
        save_best: bool = True,
        restore_best: bool = False,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        save_weights_only: bool = False,
        keep: str = "disk",
        strict: bool = True,
        name: str | None = None,
        every_n_steps: int | None = None,
        progress_bar: bool = False,
    ) -> None:
        super(self._native, self).__init__()
        check_name("monitor", monitor)
        check_mode(mode)
        if name is not None:
            check_name("name", name)
        if keep not in ("disk", "memory"):
            raise ValueError(f"keep must be 'disk' or 'memory', got {keep!r}")
        if restore_best and not save_best:
            raise ValueError("restore_best must not be set without save_best: there would be nothing to restore")
        if every_n_steps is not None and not (is_whole(every_n_steps) and every_n_steps >= 1):
            raise ValueError(f"every_n_steps must be a whole number of at least 1, got {every_n_steps!r}")
        self.rule = parse_rule(rule) if isinstance(rule, str) else Rearm(Patience(10)) if rule is None else rule
        self.monitor, self.mode = monitor, mode
        self.save_best, self.restore_best = save_best, restore_best
        self.dirpath = None if dirpath is None else os.fspath(dirpath)
        self.filename = filename
        self.save_weights_only = save_weights_only
        self.keep = keep
        self.strict = strict
        self.name = name
        self.every_n_steps = every_n_steps
        self.progress_bar = progress_bar
        # What Lightning's own class has, for those who read it there.
        self.verbose = False
        self.log_rank_zero_only = True
        self._check_on_train_epoch_end = True
        self.label = re.sub(r"[^\w.=+-]", "_", name or monitor)
        self._token = uuid.uuid4().hex
        self._best_model: Any = None
        Stopper(self.rule, monitor=monitor, mode=mode)
        self._begin()

    def _begin(self) -> None:
        """Start afresh, as if just made."""
        self._stopper: Stopper | None = None
        self._logged: Logged | None = None
        self._plan: Plan | None = None
        self._progress: Progress | None = None
        self._reads: frozenset[str] = frozenset()
        self._best_value: float | None = None
        self._several = False
        self.all_validate = True
        self._held_news: dict[str, float] = {}
        self._tells = False
        self._clock = Clock()
        self._rates: list[Any] = []
        self._checked_at = -1
        self._folder = ""
        self._history: list[list[Any]] = []
        self._stride = 1
        self._checks = 0
        self._changes: list[str] = []
        self._told: set[str] = set()
        self._elsewhere: dict[str, Any] | None = None
        self._reported = False
        self.stopped = False
        self.stopped_epoch = 0
        self.began = False
        self.live = False
        self.pending = False

    # What was found

    @property
    def best(self) -> Best | None:
        """Step and value of the best so far; None before a finite value."""
        report = self._from_worker()
        if report is not None:
            best = report["best"]
            return None if best is None else Best(best["step"], float(best["value"]))
        return None if self._stopper is None else self._stopper.best

    @property
    def decision(self) -> Decision | None:
        """The verdict as of the newest value; None before training."""
        report = self._from_worker()
        if report is not None:
            return verdict_file.untold(report["verdict"])
        return None if self._stopper is None else self._stopper.decision

    @property
    def best_model_path(self) -> str:
        """Where the best model is; "" while it is in no file."""
        report = self._from_worker()
        if report is not None:
            return str(report["best_model_path"])
        return "" if self._best_model is None else str(self._best_model.best_model_path)

    @property
    def last_model_path(self) -> str:
        """Where the newest state is, if this callback keeps it; else ""."""
        return "" if self._best_model is None else str(self._best_model.last_model_path)

    @property
    def best_score(self) -> Tensor:
        """The best value as a tensor, as Lightning's class has it."""
        worst = math.inf if self.mode == "min" else -math.inf
        best = self.best
        return torch.tensor(worst if best is None else best.value, device="cpu")

    @property
    def wait_count(self) -> int:
        """Checks without improvement, where the rule counts them."""
        decision = self.decision
        return 0 if decision is None else int(announce.numbers(decision).get("wait", 0))

    @property
    def stopping_reason(self) -> Any:
        """The nearest of Lightning's reasons; `decision.reason` is ours."""
        decision = self.decision
        if not self.stopped or decision is None:
            return self._reasons.NOT_STOPPED
        return {
            Reason.TARGET_REACHED: self._reasons.STOPPING_THRESHOLD,
            Reason.DIVERGED: self._reasons.DIVERGENCE_THRESHOLD,
            Reason.NON_FINITE: self._reasons.NON_FINITE_METRIC,
        }.get(decision.reason, self._reasons.PATIENCE_EXHAUSTED)

    @property
    def stopping_reason_message(self) -> str | None:
        """The verdict's sentence, once the rule has stopped training."""
        return self.decision.message if self.stopped and self.decision is not None else None

    @property
    def state_key(self) -> str:
        named = {} if self.name is None else {"name": self.name}
        key: str = self._generate_state_key(monitor=self.monitor, mode=self.mode, **named)
        return key

    # State

    def state_dict(self) -> dict[str, Any]:
        if self._stopper is None:
            return {}
        return {
            "version": 1,
            "stopper": self._stopper.state_dict(),
            "best_model": None if self._best_model is None else self._best_model.dump(),
            "stopped": self.stopped,
            "stopped_epoch": self.stopped_epoch,
            "elapsed": self._clock.elapsed(),
            "lr": largest(self._rates),
            "checked_at": self._checked_at,
            "history": [
                [step, epoch, dict(news), largest(rates), stop] for step, epoch, news, rates, stop in self._history
            ],
            "stride": self._stride,
            "checks": self._checks,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("version") != 1:
            raise ValueError(f"not a state of ConvergenceStopping, version 1: keys {sorted(state_dict)}")
        self._stopper = self._stopper or self._new_stopper()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said through the log instead, once per run
            try:
                self._changes = list(self._stopper.load_state_dict(state_dict["stopper"]))
            except ValueError as error:
                raise ValueError(
                    f"the checkpoint's {self.state_key} does not fit this rule ({error}); "
                    "give name= to begin a judgement of its own"
                ) from None
        self.stopped = bool(state_dict["stopped"])
        self.stopped_epoch = int(state_dict["stopped_epoch"])
        self._clock.start(before=float(state_dict["elapsed"]))
        self._rates = [] if state_dict["lr"] is None else [float(state_dict["lr"])]
        self._checked_at = int(state_dict["checked_at"])
        self._history = [[*row[:3], [] if row[3] is None else [row[3]], row[4]] for row in state_dict["history"]]
        self._stride = int(state_dict["stride"])
        self._checks = int(state_dict["checks"])
        if self._best_model is not None and state_dict["best_model"] is not None:
            self._best_model.load(state_dict["best_model"])

    # Lightning's hooks

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        refuse_foreign_trainer(self, trainer)
        if trainer.fast_dev_run:
            return
        self._refuse_clashes(trainer)
        if stage == "fit":
            verdict_file.take_from_worker(self._token)
            self._begin()
            self._stopper = self._new_stopper()
            self._logged = Logged(self._stopper.metrics)
        if self.save_best:
            self._attach(trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self._stopper is None:  # fast_dev_run
            return
        self.began = self.live = True
        self._clock.start()
        self._folder = _log_folder(trainer)
        self._reads = self._tracker.reads
        self._plan = Plan(trainer) if "lr_ahead" in self._reads else None
        self._progress = Progress(trainer) if self._reads else None
        self._best_value = self._tracker.best_value
        self._several = trainer.world_size > 1
        self.all_validate = not (self._several and some_validate_nothing(trainer))
        self._tells = bool(trainer.loggers) and trainer.is_global_zero
        for change in self._changes:
            self.say(trainer, f"resumed with a changed configuration: {change}")
        if self._checks and self._tracker.decision.stop:
            # A run that had stopped trains no further, unless the configuration now says otherwise.
            self._act(trainer)
        else:
            self.stopped, self.stopped_epoch = False, 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._rates = rates_of(trainer.optimizers)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.every_n_steps is None or not self.live:
            return
        step = trainer.global_step
        if step % self.every_n_steps == 0 and step != self._checked_at and step:
            self._checked_at = step
            self._judge(trainer, self._watched.after_step(trainer))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.live:
            return
        news = self._watched.after_validation(trainer)
        if self.all_validate:
            self._judge(trainer, news)
        else:
            self._held_news |= news

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.live:
            return
        news = self._held_news | self._watched.after_epoch(trainer, by_step=self.every_n_steps is not None)
        self._held_news = {}
        if not self._judge(trainer, news):
            # The verdict stands; what was not allowed at the end of validation may be at that of the epoch.
            self._act(trainer)
        if self._watched.unseen:
            self._miss(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.live and self._best_model is None:
            self.finish(trainer, None)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if self._best_model is None:
            self.finish(trainer, None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.live and self._best_model is None:
            self.finish(trainer, exception)

    # Judging

    def _judge(self, trainer: Any, news: dict[str, float]) -> bool:
        """Feed the rule what is new and act on its verdict; False if nothing was."""
        stopper = self._stopper
        assert stopper is not None
        elapsed: float | None = None
        used: float | None = None
        if self._reads:
            elapsed = self._clock.elapsed()
            used = None if self._progress is None else self._progress.used(trainer)
        if self._several:
            seen = agree(trainer, stopper.metrics, news, elapsed, used)
            news, elapsed, used = seen.news, seen.elapsed, seen.progress
            self._watched.unseen.difference_update(news)
            for metric in seen.differing:
                self._warn_once(
                    trainer,
                    f"{metric!r} differs between processes; the average of its finite values is judged. "
                    f"Log it with sync_dist=True.",
                )
        if not news:
            return False
        value: Any = news if len(stopper.metrics) > 1 else news[self.monitor]
        step = trainer.global_step
        if not self._reads:
            decision = stopper.update(value, step=step)
        else:
            lr = largest(self._rates or rates_of(trainer.optimizers))
            if lr is None and "lr" in stopper.needs:
                lr = 0.0  # a module without optimizers has no rate that could change
            ahead = None if self._plan is None else self._plan.lr_ahead(lr)
            decision = stopper.update(value, step=step, lr=lr, lr_ahead=ahead, progress=used, elapsed=elapsed)
        best = stopper.best_value
        if best != self._best_value:
            self._best_value = best
            self.pending = self.save_best
        self._checks += 1
        if self._stride == 1 or (self._checks - 1) % self._stride == 0:
            self._remember([step, trainer.current_epoch, news, self._rates, decision.stop])
        if decision.stop:
            self._act(trainer)
        if self._tells:
            self._log_check(trainer, decision)
        if self.progress_bar:
            self._show_remaining(trainer, decision)
        return True

    def _act(self, trainer: Any) -> None:
        """Tell the Trainer to stop if the verdict says so and min_epochs and min_steps allow it."""
        if not self._tracker.decision.stop or not trainer.fit_loop._can_stop_early:
            return
        if not self.stopped:
            self.stopped = True
            self.stopped_epoch = trainer.current_epoch
            self.say(trainer, f"stopping at epoch {trainer.current_epoch}: {self._tracker.decision.message}")
        trainer.should_stop = True

    def _remember(self, row: list[Any]) -> None:
        self._history.append(row)
        if len(self._history) > _HISTORY:
            self._history = self._history[::2]
            self._stride *= 2

    def _log_check(self, trainer: Any, decision: Decision) -> None:
        best = self._tracker.best
        values = announce.numbers(decision)
        if best is not None:
            values["best"] = best.value
        announce.log_numbers(trainer, self.monitor if self.name is None else self.name, values, self._log)

    def _show_remaining(self, trainer: Any, decision: Decision) -> None:
        wait = announce.numbers(decision).get("wait")
        patience = announce.patience(decision)
        if wait is not None and patience is not None:
            trainer.progress_bar_metrics[f"{self.label}/left"] = int(max(0, patience - wait))

    def _miss(self, trainer: Any) -> None:
        """Deal with a metric that was never logged although everything that could log it has run."""
        validated = not trainer.enable_validation or trainer.fit_loop.epoch_loop.val_loop._has_run
        if not validated:
            return
        metric = sorted(self._watched.unseen)[0]
        text = missing_metric(type(self).__name__, metric, self._watched.available(trainer), trainer.current_epoch)
        if self.strict:
            raise RuntimeError(text)
        self._warn_once(trainer, text)

    # Ending

    def finish(self, trainer: Any, exception: BaseException | None) -> None:
        """Say how training ended: log line, loggers, report; once per fit."""
        self.live = False
        if self._reported or self._stopper is None:
            return
        self._reported = True
        if not trainer.is_global_zero and trainer.local_rank != 0:
            return
        report = self._report(trainer, exception)
        launched = getattr(trainer.strategy.launcher, "_start_method", None)
        if launched is not None and trainer.local_rank == 0:
            verdict_file.write(verdict_file.left_by_worker(self._token), report)
        if not trainer.is_global_zero:
            return
        text = f"{report['ended_by']}: {report['verdict']['message']}"
        best = self._stopper.best
        if best is not None:
            text += f"; best {self.monitor} {best.value:.6g} at step {best.step:.12g}"
        if report["best_model_path"]:
            text += f", kept in {report['best_model_path']}"
        self.say(trainer, f"training ended by {text}")
        announce.log_verdict(trainer, self.label, text, self._log)
        path = os.path.join(self._folder or str(trainer.default_root_dir), f"convergence-{self.label}.json")
        try:
            verdict_file.write(path, report)
        except OSError as error:
            self.say(trainer, f"could not write {path}: {error}", logging.WARNING)

    def _report(self, trainer: Any, exception: BaseException | None) -> dict[str, Any]:
        stopper = self._tracker
        best = stopper.best
        verdict = verdict_file.told(stopper.decision)
        return {
            "version": 1,
            "name": self.name,
            "monitor": self.monitor,
            "mode": self.mode,
            "ended_by": self._ended_by(trainer, exception),
            "stopped": self.stopped,
            "stopped_epoch": self.stopped_epoch,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "verdict": verdict,
            "reason": verdict["reason"],
            "message": verdict["message"],
            "evidence": verdict["evidence"],
            "rule": repr(self.rule),
            "configuration": {key: getattr(self, key) for key in _CONFIGURATION},
            "changes": self._changes,
            "best": None if best is None else {"step": best.step, "value": best.value},
            "best_model_path": self.best_model_path,
            "history_every": self._stride,
            "history": [
                {"step": step, "epoch": epoch, "metrics": news, "lr": largest(rates), "stop": stop}
                for step, epoch, news, rates, stop in self._history
            ],
        }

    def _ended_by(self, trainer: Any, exception: BaseException | None) -> str:
        if exception is not None:
            return f"{type(exception).__name__}"
        if self.stopped:
            return "the rule"
        timer = timer_of(trainer)
        if timer is not None and timer.time_remaining() is not None and timer.time_remaining() <= 0:
            return "max_time"
        if trainer.max_steps > 0 and trainer.global_step >= trainer.max_steps:
            return "max_steps"
        done = trainer.fit_loop.epoch_progress.current.processed
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= done:
            return "max_epochs"
        return "another callback" if trainer.should_stop else "the Trainer"

    # Around it

    @property
    def _tracker(self) -> Stopper:
        assert self._stopper is not None
        return self._stopper

    @property
    def _watched(self) -> Logged:
        assert self._logged is not None
        return self._logged

    def _new_stopper(self) -> Stopper:
        return Stopper(self.rule, monitor=self.monitor, mode=self.mode)

    def _attach(self, trainer: Any) -> None:
        """Bring the checkpoint callback along, in place of Lightning's default one or behind the user's."""
        if self._best_model is None:
            self._best_model = self._best_model_class(self)
        model = self._best_model
        if trainer.state.fn == "fit":
            model.begin()
        if model in trainer.callbacks:
            return
        checkpoints = trainer.checkpoint_callbacks
        default = next((c for c in checkpoints if self._is_default(c)), None)
        model.writes_last = default is not None
        model.primary = not checkpoints or default is not None
        if default is None:
            trainer.callbacks.append(model)
        else:
            trainer.callbacks[trainer.callbacks.index(default)] = model
            model.replaced = default

    def _is_default(self, callback: Any) -> bool:
        """Whether this is the ModelCheckpoint that Lightning adds when the user has none."""
        if type(callback) is not self._checkpoint_class:
            return False
        plain = vars(self._checkpoint_class())
        return all(getattr(callback, key, None) == value for key, value in plain.items() if key in _SETTINGS)

    def _refuse_clashes(self, trainer: Any) -> None:
        others = [c for c in trainer.callbacks if isinstance(c, RuleStopping) and c is not self]
        for other in others:
            if other.label == self.label:
                raise ValueError(
                    f"two {type(self).__name__} watch {self.monitor!r} under the name {self.label!r}: "
                    "give each its own name="
                )
            if self.restore_best and other.restore_best:
                raise ValueError(f"{self.label!r} and {other.label!r} both have restore_best=True: only one can")
            same = (self.dirpath, self.filename) == (other.dirpath, other.filename)
            if self.save_best and other.save_best and self.filename is not None and same:
                raise ValueError(
                    f"{self.label!r} and {other.label!r} write the same files, {self.filename!r} "
                    f"in {self.dirpath!r}: give each its own filename="
                )

    def _from_worker(self) -> dict[str, Any] | None:
        """What a worker process found, if training ran in one that this process started."""
        if self.began:
            return None
        if self._elsewhere is None:
            report = verdict_file.take_from_worker(self._token)
            if report is not None:
                self._elsewhere = report
                self.stopped, self.stopped_epoch = report["stopped"], report["stopped_epoch"]
        return self._elsewhere

    def say(self, trainer: Any, text: str, level: int = logging.INFO) -> None:
        """Write a line to Lightning's log, on rank 0."""
        if trainer.is_global_zero:
            self._log.log(level, "%s(%r): %s", type(self).__name__, self.name or self.monitor, text)

    def _warn_once(self, trainer: Any, text: str) -> None:
        if text not in self._told and trainer.is_global_zero:
            warnings.warn(f"{type(self).__name__}({self.monitor!r}): {text}", UserWarning, stacklevel=2)
        self._told.add(text)


def _log_folder(trainer: Any) -> str:
    """Where a run's own files go; a collective, since ranks may not know the logger's version."""
    folder = str(trainer.log_dir or trainer.default_root_dir)
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is None or getattr(logger, "log_dir", None) is not None:
        return folder
    # Loggers of hosted services share one folder for all runs; checkpoints go to the same place below it.
    name, version = trainer.strategy.broadcast((logger.name, logger.version))
    return os.path.join(folder, str(name), version if isinstance(version, str) else f"version_{version}")


_CONFIGURATION = (
    "monitor",
    "mode",
    "save_best",
    "restore_best",
    "dirpath",
    "filename",
    "save_weights_only",
    "keep",
    "strict",
    "name",
    "every_n_steps",
)

_SETTINGS = {
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
}
