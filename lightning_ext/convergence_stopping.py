"""ConvergenceStopping: one tracker that decides when to stop, which model is the best, and what is saved."""

import logging
import math
import os
import re
import string
import uuid
import warnings
from copy import deepcopy
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convergence import Auto, Best, Decision, Reason, Rule, Stopper, parse_rule
from convergence.parameters import check_mode, check_name, is_whole
from lightning_ext import announce, attaching, ending, verdict_file
from lightning_ext.agreement import agree, some_validate_nothing
from lightning_ext.clock import Clock, Progress
from lightning_ext.logged import Logged
from lightning_ext.missing import missing_metric
from lightning_ext.namespaces import refuse_foreign_trainer
from lightning_ext.schedule import Plan, largest, rates_of

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import EarlyStopping as NativeEarlyStopping
else:
    NativeEarlyStopping = object

_LONGEST_LABEL = 100
"""Characters of a name that go into the names of files."""


class RuleStopping(NativeEarlyStopping):
    """Stop training when a rule says so, keep the best model, and say why.

    Parameters
    ----------
    monitor : str
        The logged metric whose best model is kept; the rule's parts that are not bound with `.on(...)` read it too.
    mode : {"min", "max"}
        Whether lower or higher is better.
    rule : Rule or str, optional
        When to stop, as an object or as text such as "Patience(5) | NonFinite()". None means Auto(): when less than
        1 % of the gain is expected still to come, and never while a drop of the learning rate is still planned.
    save_best : bool
        Keep the best model as a checkpoint, also with `Trainer(enable_checkpointing=False)`.
    restore_best : bool
        Put the best weights back into the module however training ends: by the rule, a limit, another callback, an
        exception or KeyboardInterrupt. They are there from on_train_end of the module on; `last.ckpt` is not touched.
    dirpath : str, optional
        Folder for checkpoints; None means the one that ModelCheckpoint would take. A new process finds `last.ckpt` in
        it by its path, not by `ckpt_path="last"`: Lightning looks before callbacks are asked.
    filename : str, optional
        Template as for ModelCheckpoint, such as "{epoch}-{val_loss:.3f}"; not beginning with "last".
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
        Judge metrics of training_step every so many optimizer steps, without validation. Without it, what is logged
        for single steps only is judged once per epoch, by the last of them.
    progress_bar : bool
        Show how many checks the rule would still wait.

    Attributes
    ----------
    best : Best or None
        Step (Lightning's global step) and value of the best so far, first of ties.
    best_model_path : str
        Its checkpoint; "" while there is none.
    decision : Decision or None
        The verdict that stopped training, else that of the newest value: stop, reason, message, evidence. Its truth is
        `decision.stop`, so ask `is not None` for whether there is one.
    stopped : bool
        Whether the rule has stopped training.
    stopped_epoch : int
        The epoch at which it did; 0 if it did not.

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

    A rule changed at resume keeps the best, and begins to count anew where its parts are others.

    It brings along a `BestModel` (a ModelCheckpoint), which takes the place of Lightning's default checkpoint
    callback (or of a ModelCheckpoint() with nothing set, which cannot be told from it). With a ModelCheckpoint of
    yours, `trainer.checkpoint_callback` stays yours.

    Where some processes have no validation data, values are judged at the end of the epoch.

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
        if filename is not None:
            _check_template(filename)
        self.rule = parse_rule(rule) if isinstance(rule, str) else Auto() if rule is None else rule
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
        self.label = re.sub(r"[^\w.=+-]", "_", name or monitor)[:_LONGEST_LABEL]
        self._token = uuid.uuid4().hex
        self._stage: str | None = None
        self._best_model: Any = None
        self._new_stopper()
        self._begin()

    def _begin(self) -> None:
        """Start afresh, as if just made."""
        self._stopper: Stopper | None = None
        self._logged: Logged | None = None
        self._plan: Plan | None = None
        self._progress: Progress | None = None
        self._clock = Clock()
        self._reads: frozenset[str] = frozenset()
        self._rates: list[Any] = []
        self._best_value: float | None = None
        self._verdict: Decision | None = None
        self._stopped = False
        self._stopped_epoch = 0
        self._other_rule = False
        self._several = False
        self._tells = False
        self._is_worker = False
        self._reported = False
        self._deferred: dict[str, float] = {}
        self._aside: dict[str, float] = {}
        self._aside_at = 0
        self._checked_at = 0
        self._folder = ""
        self._warned: set[str] = set()
        self._elsewhere: dict[str, Any] | None = None
        self.history = ending.History()
        self.changes: list[str] = []
        self.all_validate = True
        self.live = False
        self.pending = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "RuleStopping":
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({key: deepcopy(value, memo) for key, value in vars(self).items()})
        twin._token = uuid.uuid4().hex  # its workers are not this one's
        return twin

    # What was found

    @property
    def best(self) -> Best | None:
        """Step and value of the best so far; None before a finite value."""
        report = self._from_worker()
        if report is not None:
            return _best_of(report["best"])
        return None if self._stopper is None else self._stopper.best

    @property
    def kept(self) -> Best | None:
        """Step and value of the model that is kept: those of `best`, but where saving failed."""
        report = self._from_worker()
        if report is not None:
            return _best_of(report["kept"])
        return None if self._best_model is None else self._best_model.kept

    @property
    def decision(self) -> Decision | None:
        """The verdict that stopped training, else the one as of the newest value; None before training."""
        report = self._from_worker()
        if report is not None:
            return verdict_file.untold(report["verdict"])
        if self._verdict is not None:
            return self._verdict
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
        report = self._from_worker()
        if report is not None:
            return str(report["last_model_path"])
        return "" if self._best_model is None else str(self._best_model.last_model_path)

    @property
    def stopped(self) -> bool:
        """Whether the rule has stopped training."""
        report = self._from_worker()
        return self._stopped if report is None else bool(report["stopped"])

    @property
    def stopped_epoch(self) -> int:
        """The epoch at which the rule stopped training; 0 if it did not."""
        report = self._from_worker()
        return self._stopped_epoch if report is None else int(report["stopped_epoch"])

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

    def _from_worker(self) -> dict[str, Any] | None:
        """What a worker process found, if training ran in one that this process started."""
        if self.live or self._is_worker:
            return None
        self._elsewhere = verdict_file.take_from_worker(self._token) or self._elsewhere
        return self._elsewhere

    # State

    @property
    def state_key(self) -> str:
        named = {} if self.name is None else {"name": self.name}
        key: str = self._generate_state_key(monitor=self.monitor, mode=self.mode, **named)
        return key

    def state_dict(self) -> dict[str, Any]:
        if self._stopper is None:
            return {}
        return {
            "version": 1,
            "stopper": self._stopper.state_dict(),
            "rule": repr(self.rule),
            "configuration": {key: getattr(self, key) for key in ending.CONFIGURATION},
            "best_model": None if self._best_model is None else self._best_model.dump(),
            "stopped_epoch": self._stopped_epoch if self._stopped else None,
            "verdict": None if self._verdict is None else verdict_file.told(self._verdict),
            "elapsed": self._clock.elapsed(),
            "lr": largest(self._rates),
            "checked_at": self._checked_at,
            "history": self.history.dump(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._stage not in (None, "fit"):
            return  # validating or testing a checkpoint does not undo what was found
        if state_dict.get("version") != 1:
            raise ValueError(f"not a state of ConvergenceStopping, version 1: keys {sorted(state_dict)}")
        self._stopper = self._stopper or self._new_stopper()
        self.changes = [
            f"{key} is {getattr(self, key)!r}, was {was!r}"
            for key, was in state_dict["configuration"].items()
            if key in ending.CONFIGURATION and getattr(self, key) != was
        ]
        self._other_rule = state_dict["rule"] != repr(self.rule)
        if self._other_rule:
            self.changes.append(f"rule is {self.rule!r}, was {state_dict['rule']}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said through the log instead
            saved = state_dict["stopper"]
            try:
                self._stopper.load_state_dict(saved)
            except ValueError as error:
                self.changes.append(f"the rule begins to count anew: {error}")
                anew = self._new_stopper().state_dict()
                self._stopper.load_state_dict(anew | {key: saved[key] for key in ("best", "best_step", "last_step")})
        self._stopped = state_dict["stopped_epoch"] is not None
        self._stopped_epoch = state_dict["stopped_epoch"] or 0
        self._verdict = None if state_dict["verdict"] is None else verdict_file.untold(state_dict["verdict"])
        self._clock.start(before=float(state_dict["elapsed"]))
        self._rates = [] if state_dict["lr"] is None else [float(state_dict["lr"])]
        self._checked_at = int(state_dict["checked_at"])
        self.history.load(state_dict["history"])
        if self._best_model is not None:
            if state_dict["best_model"] is not None:
                self._best_model.load(state_dict["best_model"])
            self._best_model.resumed = True

    # Lightning's hooks

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        refuse_foreign_trainer(self, trainer)
        if stage == "fit":
            verdict_file.take_from_worker(self._token)
            self._begin()
            if self._best_model is not None:
                self._best_model.begin()
        self._stage = stage
        if trainer.fast_dev_run:
            return
        others = [c for c in trainer.callbacks if isinstance(c, RuleStopping) and c is not self]
        attaching.refuse_clashes(self, others)
        if stage == "fit":
            self._stopper = self._new_stopper()
            self._logged = Logged(self._stopper.metrics)
        if self.save_best:
            if self._best_model is None:
                self._best_model = self._best_model_class(self)
            attaching.attach(self._best_model, trainer, self._checkpoint_class)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self._stopper is None:  # fast_dev_run
            return
        self._folder = _log_folder(trainer)
        if getattr(trainer.strategy.launcher, "_start_method", None) is not None:
            # Lightning tells only the process that started this one when it fails.
            self._is_worker = True
            Finalize(None, self._end_of_worker, (trainer,), exitpriority=100)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        stopper = self._stopper
        if stopper is None:  # fast_dev_run
            return
        self.live = True
        self._clock.start()
        self._reads = stopper.reads
        self._plan = Plan(trainer) if "lr_ahead" in self._reads else None
        self._progress = Progress(trainer) if self._reads else None
        self._best_value = stopper.best_value
        self._several = trainer.world_size > 1
        self.all_validate = not (self._several and some_validate_nothing(trainer))
        if not self.all_validate and trainer.val_check_batch != trainer.num_training_batches:
            self._warn_once(
                trainer,
                "some processes have no validation data: values are judged at the end of the epoch, and the weights "
                "that are kept are those of then",
            )
        self._tells = bool(trainer.loggers) and trainer.is_global_zero
        for change in self.changes:
            self.say(trainer, f"resumed with a changed configuration: {change}")
        self._go_on_or_not(trainer, stopper)

    def _go_on_or_not(self, trainer: Any, stopper: Stopper) -> None:
        """A run that had stopped trains no further, unless the configuration or min_epochs now say otherwise."""
        if self._stopped and not self._other_rule and trainer.fit_loop._can_stop_early:
            trainer.should_stop = True
            return
        self._stopped, self._stopped_epoch, self._verdict = False, 0, None
        if self.history.count and stopper.decision.stop:
            self._act(trainer, stopper.decision)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._rates = rates_of(trainer.optimizers)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.every_n_steps is None or not self.live:
            return
        step = trainer.global_step
        if step // self.every_n_steps > self._checked_at // self.every_n_steps:
            self._checked_at = step
            self._judge(trainer, self._watched.after_step(trainer))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.live:
            return
        news = self._watched.after_validation(trainer)
        if self._watched.changed_source:
            self._begin_anew(trainer)
        if self.all_validate:
            self._judge(trainer, news)
        else:
            self._deferred |= news

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.live:
            return
        news = self._watched.after_epoch(trainer, by_step=self.every_n_steps is not None)
        if not self.all_validate:
            deferred, self._deferred = self._deferred, {}
            news = deferred | news
        if not self._judge(trainer, news, epoch_ends=True) and self._stopper is not None:
            # The verdict stands; what was not allowed at the end of validation may be at that of the epoch.
            self._act(trainer, self._stopper.decision)
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

    def _end_of_worker(self, trainer: Any) -> None:
        """End as on an exception, in a worker process that leaves in the middle of training."""
        if not self.live:
            return
        error = WorkerError("an exception in a worker process")
        if self._best_model is None:
            self.finish(trainer, error)
        else:
            self._best_model.leave(trainer, error)

    # Judging

    def _judge(self, trainer: Any, news: dict[str, float], *, epoch_ends: bool = False) -> bool:
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
        if stopper.sides:
            news = self._with_sides(trainer, news)
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
        self._look_for_best(stopper)
        self.history.add([step, trainer.current_epoch, news, self._rates, decision.stop])
        if decision.stop:
            self._act(trainer, decision)
        if self._tells:
            self._log_check(trainer, decision, epoch_ends)
        if self.progress_bar:
            self._show_remaining(trainer, decision)
        return True

    def _act(self, trainer: Any, decision: Decision) -> None:
        """Tell the Trainer to stop if the verdict says so and min_epochs and min_steps allow it."""
        if self._stopped or not decision.stop or not trainer.fit_loop._can_stop_early:
            return
        self._stopped, self._stopped_epoch, self._verdict = True, trainer.current_epoch, decision
        self.say(trainer, f"stopping at epoch {trainer.current_epoch}: {decision.message}")
        trainer.should_stop = True

    def _with_sides(self, trainer: Any, news: dict[str, float]) -> dict[str, float]:
        """Hold a metric back until what its rule needs beside it has been seen, such as the first training loss."""
        stopper, step = self._stopper, trainer.global_step
        assert stopper is not None
        if self._aside and self._aside_at == step:
            news = self._aside | news
        waiting = {m for m, side in stopper.sides if side in self._watched.unseen and side not in news}
        self._aside = {metric: value for metric, value in news.items() if metric in waiting}
        self._aside_at = step
        if self.monitor in self._aside:
            stopper.note_best(self._aside[self.monitor], step)
            self._look_for_best(stopper)
        return {metric: value for metric, value in news.items() if metric not in waiting}

    def _look_for_best(self, stopper: Stopper) -> None:
        best = stopper.best_value
        if best != self._best_value:
            self._best_value = best
            self.pending = self.save_best

    def _begin_anew(self, trainer: Any) -> None:
        """Forget values of training that bore the name of a validation metric."""
        metric = self._watched.changed_source.pop()
        self._watched.changed_source.clear()
        self._warn_once(
            trainer, f"{metric!r} is logged by training and by validation; validation's is judged, from now on"
        )
        assert self._stopper is not None
        self._stopper.reset()
        self._best_value = None

    def _log_check(self, trainer: Any, decision: Decision, epoch_ends: bool) -> None:
        assert self._stopper is not None
        values = announce.numbers(decision)
        if self._stopper.best is not None:
            values["best"] = self._stopper.best.value
        # Lightning counts a step on before the end of the epoch, and logs that with the step before.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - epoch_ends
        announce.log_numbers(trainer, self.monitor if self.name is None else self.name, values, step, self._log)

    def _show_remaining(self, trainer: Any, decision: Decision) -> None:
        left = announce.left(decision)
        if left is not None and math.isfinite(left):
            trainer.progress_bar_metrics[f"{self.label}/left"] = int(left)

    def _miss(self, trainer: Any) -> None:
        """Deal with a metric that was never logged although everything that could log it has run."""
        if trainer.enable_validation and not trainer.fit_loop.epoch_loop.val_loop._has_run:
            return
        metric = sorted(self._watched.unseen)[0]
        text = missing_metric(type(self).__name__, metric, self._watched.available(trainer), trainer.current_epoch)
        if self.strict:
            raise RuntimeError(text)
        self._warn_once(trainer, text, about=metric)

    # Ending

    def finish(self, trainer: Any, exception: BaseException | None) -> None:
        """Say how training ended: log line, loggers, report; once per fit."""
        began, self.live = self.live, False
        if self._reported or self._stopper is None:
            return
        self._reported = True
        if not trainer.is_global_zero and trainer.local_rank != 0:
            return
        leaves_word, self._is_worker = self._is_worker, True  # what is reported is what was found here
        report = ending.report_of(self, trainer, exception)
        self._is_worker = leaves_word
        if leaves_word and trainer.local_rank == 0:
            self._write(trainer, verdict_file.left_by_worker(self._token), report)
        if not trainer.is_global_zero:
            return
        text = ending.sentence(report)
        self.say(trainer, text)
        if began:
            announce.log_verdict(trainer, self.label, text, self._log)
        folder = self._folder or str(trainer.default_root_dir)
        self._write(trainer, os.path.join(folder, f"convergence-{self.label}.json"), report)

    def _write(self, trainer: Any, path: str, report: dict[str, Any]) -> None:
        try:
            verdict_file.write(path, report)
        except OSError as error:
            self.say(trainer, f"could not write {path}: {error}", logging.WARNING)

    # Around it

    @property
    def _watched(self) -> Logged:
        assert self._logged is not None
        return self._logged

    def _new_stopper(self) -> Stopper:
        # What never comes is missed at the end of an epoch, whatever the number of checks by then.
        return Stopper(self.rule, monitor=self.monitor, mode=self.mode, unseen_limit=None)

    def forget_best(self) -> None:
        """Let the best start again: its model is lost."""
        assert self._stopper is not None
        self._stopper.forget_best()
        self._best_value = None

    def say(self, trainer: Any, text: str, level: int = logging.INFO) -> None:
        """Write a line to Lightning's log, on rank 0."""
        if trainer.is_global_zero:
            self._log.log(level, "%s(%r): %s", type(self).__name__, self.name or self.monitor, text)

    def _warn_once(self, trainer: Any, text: str, about: str = "") -> None:
        if (about or text) not in self._warned and trainer.is_global_zero:
            warnings.warn(f"{type(self).__name__}({self.monitor!r}): {text}", UserWarning, stacklevel=2)
        self._warned.add(about or text)


# What errors about arguments are to name is what users import.
RuleStopping.__init__.__qualname__ = "ConvergenceStopping.__init__"


class WorkerError(RuntimeError):
    """Training ended in a worker process without saying how."""


def _best_of(record: dict[str, Any] | None) -> Best | None:
    return None if record is None else Best(record["step"], float(record["value"]))


def _check_template(filename: str) -> None:
    try:
        list(string.Formatter().parse(filename))
    except ValueError as error:
        raise ValueError(
            f"filename must be a template such as '{{epoch}}-{{val_loss:.3f}}', got {filename!r}: {error}"
        ) from None
    if re.match("last", filename):
        raise ValueError(f"filename must not begin with 'last', which names the newest state, got {filename!r}")


def _log_folder(trainer: Any) -> str:
    """Where a run's own files go; a collective, since ranks may not know the logger's version."""
    folder = str(trainer.log_dir or trainer.default_root_dir)
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is None or getattr(logger, "log_dir", None) is not None:
        return folder
    # Loggers of hosted services share one folder for all runs; checkpoints go to the same place below it.
    name, version = trainer.strategy.broadcast((logger.name, logger.version))
    return os.path.join(folder, str(name), version if isinstance(version, str) else f"version_{version}")
