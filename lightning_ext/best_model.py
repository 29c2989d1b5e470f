"""BestModel: keeps the best weights where its stopper says they are the best, and brings them back."""

import logging
import os
import uuid
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import proxy

import torch

from convergence import Best
from lightning_ext import whole_files
from lightning_ext.host_copy import HostCopy
from lightning_ext.namespaces import overrides

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import ModelCheckpoint as NativeModelCheckpoint
else:
    NativeModelCheckpoint = object

_IN_EVERY_CHECKPOINT = ("state_dict", "epoch", "global_step", "loops", "pytorch-lightning_version")


class BestKeeping(NativeModelCheckpoint):
    """The checkpoint callback that a ConvergenceStopping brings along; users do not make it.

    It decides nothing: the stopper's tracker does, and this one saves at its turn among the checkpoint callbacks,
    after everything else has run. Where the user has no ModelCheckpoint it stands in for Lightning's default one and
    keeps `last.ckpt`, the newest state, beside the best.

    A checkpoint is written under another name in the same directory and then renamed, so that under a checkpoint's
    own name there is never half of one. The old best goes after the new one, and after a `last.ckpt` that knows it.

    Parameters
    ----------
    stopping : ConvergenceStopping
        The stopper that it belongs to.
    """

    namespace: str
    dirpath: Any
    _lightning_version: str

    def __init__(self, stopping: Any) -> None:
        super().__init__(
            dirpath=stopping.dirpath,
            filename=stopping.filename or f"best-{stopping.label}-{{epoch}}-{{step}}",
            monitor=stopping.monitor,
            mode=stopping.mode,
            save_top_k=1,
            save_weights_only=stopping.save_weights_only or stopping.keep == "memory",
        )
        self.stopping = stopping
        self.writes_last = False
        self.primary = False
        self.replaced: Any = None
        self._given_dirpath: Any = self.dirpath
        self.begin()

    def begin(self) -> None:
        """Forget the last run."""
        self.dirpath = self._given_dirpath
        self.best_model_path = ""
        self.last_model_path = ""
        self.best_model_score = None
        self.best_k_models: dict[str, Any] = {}
        self.kept: Best | None = None
        self.resumed = False
        self.finished = False
        self._writer = whole_files.writer()
        self._run = uuid.uuid4().hex
        self._named = ""
        self._writing = False
        self._copy = HostCopy()
        self._held: dict[str, Any] = {}
        self._stale: list[str] = []
        self._written: set[str] = set()
        self._from_state: set[str] = set()
        self._last_saved_at: tuple[int, int] | None = None

    @property
    def state_key(self) -> str:
        key: str = self._generate_state_key(monitor=self.monitor, mode=self.mode, name=self.stopping.label)
        return key

    # What a checkpoint has to remember is in the stopper's state.

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        del state_dict

    def dump(self) -> dict[str, Any]:
        """Return what the stopper's state carries for this one."""
        if not self._writing:  # somebody else's checkpoint
            self._named = self.best_model_path
        state: dict[str, Any] = {
            "run": self._run,
            "best_model_path": self.best_model_path,
            "last_model_path": self.last_model_path,
            "kept": None if self.kept is None else list(self.kept),
            "stale": list(self._stale),
        }
        if self._held:
            state["held"] = {**self._held, "state_dict": self._copy.read()}
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `dump` returned."""
        self._run = str(state["run"])
        self.best_model_path = str(state["best_model_path"])
        self.last_model_path = str(state["last_model_path"])
        self.kept = None if state["kept"] is None else Best(*state["kept"])
        self._stale = [str(path) for path in state["stale"]]
        self._from_state = {self.best_model_path, *self._stale}
        held = state.get("held")
        if held is not None:
            self._copy.take(held["state_dict"])
            self._held = {key: value for key, value in held.items() if key != "state_dict"}

    # Lightning's hooks: the stopper was there first and has said what is due.

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.stopping.keep == "memory" and self._sharded(trainer):
            raise ValueError(
                f"keep='memory' cannot hold the shards of {type(trainer.strategy).__name__}: use keep='disk'"
            )
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._writer, self._run = trainer.strategy.broadcast((whole_files.writer(), self._run))
        if trainer.is_global_zero and os.path.isdir(self.dirpath):
            whole_files.remove_parts(self.dirpath)
        if self.resumed:
            self._take_up(trainer)
            self._copy.settle()
        elif self._given_dirpath is not None and trainer.ckpt_path is None:
            left = sorted(self._find_last_checkpoints(trainer))
            if left:
                self._say(trainer, f"this run starts anew; to go on from the last one pass ckpt_path={left[-1]!r}")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._copy.settle()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.stopping.pending:
            self._keep(trainer)
            self._copy.settle()  # the module's own hook comes next

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.stopping.live:
            return
        if self.stopping.pending:
            self._keep(trainer)
        if overrides(pl_module, "on_validation_end"):
            self._copy.settle()  # the module's own hook comes next
        self._clean(trainer)
        within = trainer.val_check_batch != trainer.num_training_batches
        if self.writes_last and within and self.stopping.all_validate:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.stopping.live:
            return
        if self.stopping.pending:
            self._keep(trainer)
        self._clean(trainer)
        if self.writes_last:
            self._save_last(trainer)
        self._copy.settle()  # other callbacks may change weights when the next epoch starts

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.stopping.live:
            return
        if self.writes_last:
            self._save_last(trainer)
        self._finish(trainer)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        # A fit that had nothing left to do comes here alone.
        if self.finished or trainer.fast_dev_run:
            return
        if self.resumed:
            self._take_up(trainer, trains=False)
        self._finish(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if not self.finished and self.stopping.live:
            self.leave(trainer, exception)

    def _finish(self, trainer: Any) -> None:
        if self._held:
            self._save_held(trainer)
        if self.stopping.restore_best:
            self._restore(trainer)
        self._remove_stale(trainer)
        self._end(trainer, None)

    def leave(self, trainer: Any, exception: BaseException) -> None:
        """Do what can be done alone: other ranks may be gone, and nothing may hide the exception."""
        for part in (self._write_alone, self._restore_alone, self._end):
            try:
                part(trainer, exception)
            except Exception as error:
                self._say(trainer, f"on the way out: {error}", logging.WARNING)

    def _write_alone(self, trainer: Any, exception: BaseException) -> None:
        if self._sharded(trainer):
            self._say(trainer, "sharded weights are neither saved nor restored on an exception", logging.WARNING)
            return
        if self.stopping.pending and not isinstance(exception, OSError):
            self._take(trainer)  # interrupted between the verdict and the copy: the weights are still the same
        if self._held and trainer.is_global_zero:
            self._write_held(trainer, self._held_path_alone())

    def _restore_alone(self, trainer: Any, exception: BaseException) -> None:
        if self.stopping.restore_best and not self._sharded(trainer):
            self._restore(trainer, alone=True)

    def _end(self, trainer: Any, exception: BaseException | None) -> None:
        self.finished = True
        self._held, self._copy = {}, HostCopy()
        self.stopping.finish(trainer, exception)

    # Keeping

    def _keep(self, trainer: Any) -> None:
        if self.stopping.keep == "memory":
            self._take(trainer)
        else:
            self._save_best(trainer)

    def _kept_now(self, path: str = "") -> None:
        self.kept = self.stopping.best
        self.stopping.pending = False
        self._score(path)

    def _score(self, path: str) -> None:
        if self.kept is not None:
            self.best_model_score = torch.tensor(self.kept.value, dtype=torch.float64, device="cpu")
            if path:
                self.best_k_models = {path: self.best_model_score}

    def _take(self, trainer: Any) -> None:
        checkpoint = self._checkpoint(trainer, weights_only=True)
        self._copy.take(checkpoint.pop("state_dict"))
        known = {*_IN_EVERY_CHECKPOINT, *_hyper_parameters(trainer), whole_files.MARK}
        self._held = {
            "epoch": checkpoint["epoch"],
            "global_step": checkpoint["global_step"],
            "name": os.path.basename(self.format_checkpoint_name(self._metrics(trainer))),
            "more": {key: deepcopy(value) for key, value in checkpoint.items() if key not in known},
        }
        self._kept_now()

    def _save_best(self, trainer: Any) -> None:
        metrics, old, kept, stale = self._metrics(trainer), self.best_model_path, self.kept, self._stale
        path = self._free_path(trainer, lambda version: self.format_checkpoint_name(metrics, ver=version), old)
        # The file's own state names it as the best, and the old one as to be removed.
        self.best_model_path, self.kept = path, self.stopping.best
        if self.writes_last and not self._sharded(trainer):
            self._name_last(trainer)  # a run resumed from the best goes on with the same last.ckpt
        self._stale = [*stale, old] if old and old != path else stale
        try:
            self._write(trainer, path, self.save_weights_only, what="the best model")
        except BaseException as error:
            self.best_model_path, self.kept, self._stale = old, kept, stale
            if isinstance(error, OSError) and old:
                raise OSError(f"{error}; the best model before it is intact: {old}") from error
            raise
        self._kept_now(path)
        if not self.writes_last:
            self._clean(trainer)
        elif not self.save_weights_only:
            self._save_last(trainer, same_as=path)
        self._tell_loggers(trainer)

    def _save_last(self, trainer: Any, same_as: str | None = None) -> None:
        moment = (trainer.global_step, trainer.fit_loop.epoch_progress.current.processed)
        if moment == self._last_saved_at:
            return
        old = self.last_model_path
        self._name_last(trainer)
        path = self.last_model_path
        self._write(trainer, path, False, what="the last state", same_as=same_as)
        self._last_saved_at = moment
        self._remove_stale(trainer)
        if old and old != path and self._should_remove_checkpoint(trainer, old, path):
            trainer.strategy.remove_checkpoint(old)
        if self.replaced is not None:
            self.replaced.best_model_path = path  # what that one calls its best is the newest
        if not same_as:
            self._tell_loggers(trainer)

    def _name_last(self, trainer: Any) -> None:
        path = self.last_model_path
        if not path or Path(path).parent != Path(self.dirpath) or self._sharded(trainer):
            self.last_model_path = self._free_path(trainer, self._last_name, "")

    def _save_held(self, trainer: Any) -> None:
        """Write the weights that are held in memory; every rank comes here."""
        path = self._held_name(None)
        error: Exception | None = None
        if self._is_ours(trainer, path, self.kept):
            self._written.add(path)
        else:
            path = self._free_path(trainer, self._held_name, "")
        if trainer.is_global_zero and path not in self._written:
            try:
                self._write_held(trainer, path)
            except Exception as failed:
                error = _named(failed, "the best model", path)
        self._all_or_none(trainer, error, path)
        self.best_model_path = path
        self._score(path)
        self._tell_loggers(trainer)

    def _write_held(self, trainer: Any, path: str) -> None:
        part = whole_files.part_of(path, self._writer)
        try:
            with whole_files.at_once(trainer.strategy):
                trainer.strategy.save_checkpoint(self._held_checkpoint(trainer), part)
            whole_files.publish(part, path)
        except BaseException:
            whole_files.remove(part)
            raise
        self._written.add(path)
        self.best_model_path = path
        self._score(path)

    def _held_checkpoint(self, trainer: Any) -> dict[str, Any]:
        connector = trainer._checkpoint_connector
        return {
            "epoch": self._held["epoch"],
            "global_step": self._held["global_step"],
            "pytorch-lightning_version": self._lightning_version,
            "state_dict": self._copy.read(),
            "loops": connector._get_loops_state_dict(),
            **_hyper_parameters(trainer),
            **self._held["more"],
            whole_files.MARK: self._mark(),
        }

    # Files

    def _checkpoint(self, trainer: Any, *, weights_only: bool) -> dict[str, Any]:
        """The Trainer's checkpoint of this moment; in one of weights only, what callbacks do to the weights as well.

        Lightning leaves that out: under weight averaging, the averaged weights that validation measured.
        """
        checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only)
        if weights_only:
            keys = set(checkpoint)
            for callback in trainer.callbacks:
                callback.on_save_checkpoint(trainer, trainer.lightning_module, checkpoint)
            checkpoint = {key: value for key, value in checkpoint.items() if key in keys}
        return {**checkpoint, whole_files.MARK: self._mark()}

    def _mark(self) -> dict[str, Any]:
        """What tells this run's files from those of others with the same name."""
        return {"run": self._run, "kept": None if self.kept is None else list(self.kept)}

    def _is_ours(self, trainer: Any, path: str, kept: Best | None = None) -> bool:
        """Whether a file is this run's, and of that best if one is given; all ranks come here."""
        if self._sharded(trainer):
            return bool(self.file_exists(path, trainer))
        mark: dict[str, Any] = {}
        if trainer.is_global_zero and self._fs.exists(path):
            mark = whole_files.mark_of(self._fs, path)
            if not mark and path in self._from_state and self._trusts_its_checkpoint(trainer):
                mark = whole_files.mark_of(self._fs, path, trusted=True)
        ours = mark.get("run") == self._run and (kept is None or mark.get("kept") == list(kept))
        return bool(trainer.strategy.broadcast(ours))

    def _metrics(self, trainer: Any) -> dict[str, Any]:
        best = torch.tensor(self.stopping.best.value, dtype=torch.float64, device="cpu")
        return {**self._monitor_candidates(trainer), self.monitor: best}

    def _held_name(self, version: int | None) -> str:
        path = os.path.join(self.dirpath, str(self._held["name"]))
        if version is None:
            return path
        return f"{path.removesuffix(self.FILE_EXTENSION)}{self.CHECKPOINT_JOIN_CHAR}v{version}{self.FILE_EXTENSION}"

    def _held_path_alone(self) -> str:
        path, version = self._held_name(None), self.STARTING_VERSION
        while self._fs.exists(path):
            path, version = self._held_name(version), version + 1
        return path

    def _last_name(self, version: int | None) -> str:
        name: str = self.format_checkpoint_name({}, self.CHECKPOINT_NAME_LAST, ver=version)
        return name

    def _free_path(self, trainer: Any, name: Any, current: str) -> str:
        """The first name that no file has but `current`, which is to be replaced."""
        path: str = trainer.strategy.broadcast(name(None))
        version = self.STARTING_VERSION
        while (path != current or self._sharded(trainer)) and self.file_exists(path, trainer):
            path = trainer.strategy.broadcast(name(version))
            version += 1
        return path

    def _write(self, trainer: Any, path: str, weights_only: bool, *, what: str, same_as: str | None = None) -> None:
        """Write a checkpoint of this moment, through the strategy; all ranks come here, and all fail or none."""
        if same_as is not None:
            linked = trainer.is_global_zero and whole_files.link(same_as, path, self._writer)
            if trainer.strategy.broadcast(linked):
                return
        part = whole_files.part_of(path, self._writer)
        try:
            error: Exception | None = None
            self._writing = True
            try:
                checkpoint = self._checkpoint(trainer, weights_only=weights_only)
                with whole_files.at_once(trainer.strategy):
                    trainer.strategy.save_checkpoint(checkpoint, part)
            except Exception as failed:
                error = _named(failed, what, path)
            self._all_or_none(trainer, error, path)
            if trainer.is_global_zero:
                try:
                    whole_files.publish(part, path)
                except OSError as failed:
                    error = _named(failed, what, path)
            self._all_or_none(trainer, error, path)
        except BaseException:
            if trainer.is_global_zero:
                whole_files.remove(part)
            raise
        finally:
            self._writing = False
        self._written.add(path)

    def _all_or_none(self, trainer: Any, error: Exception | None, path: str) -> None:
        if not trainer.strategy.reduce_boolean_decision(error is None, all=True):
            raise error or OSError(f"another process could not write {path}")

    def _clean(self, trainer: Any) -> None:
        """Remove old bests where no `last.ckpt` of ours does: once another's checkpoint, if any, names the new one."""
        others = [c for c in trainer.checkpoint_callbacks if c is not self]
        if not self.writes_last and self._stale and (not others or self._named == self.best_model_path):
            self._remove_stale(trainer)

    def _remove_stale(self, trainer: Any) -> None:
        stale, self._stale = self._stale, []
        for path in stale:
            if path != self.best_model_path and self._should_remove_checkpoint(trainer, path, self.best_model_path):
                trainer.strategy.remove_checkpoint(path)

    def _tell_loggers(self, trainer: Any) -> None:
        # Loggers hold on to one checkpoint callback: the user's, if there is one.
        if trainer.is_global_zero and self.primary:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    # Going on from a checkpoint

    def _take_up(self, trainer: Any, *, trains: bool = True) -> None:
        """Find the best model of the sessions before, or say that it is lost and keep the best from here on."""
        self._stale = [path for path in self._stale if self._is_ours(trainer, path)]
        best = self.stopping.best
        if best is None:
            return
        if self.kept == best and self._held:
            if self.stopping.keep == "disk":
                self._save_held(trainer)
                self._held, self._copy = {}, HostCopy()
        elif self.kept == best and self._found(trainer, best):
            self._remove_stale(trainer)
        elif trains and best.step == trainer.global_step:
            self._held = {}
            if not self.best_model_path or not self._is_ours(trainer, self.best_model_path):
                self.best_model_path = ""
            self._keep(trainer)  # the weights that came with the checkpoint are the best
        else:
            where = f"at {self.best_model_path}" if self.best_model_path else "in the checkpoint"
            hope = "; the best from here on is kept" if trains else ""
            text = f"the best model so far ({best.value:.6g} at step {best.step:.12g}) is not {where}{hope}"
            self._say(trainer, text, logging.WARNING)
            self.best_model_path, self._held = "", {}
            if trains:
                self.kept = None
                self.stopping.forget_best()
        self._score(self.best_model_path)

    def _found(self, trainer: Any, best: Best) -> bool:
        """Whether the best file is where it was, or else under the same name here or beside the checkpoint."""
        if not self.best_model_path:
            return False
        name = os.path.basename(self.best_model_path)
        beside = os.path.dirname(os.path.abspath(str(trainer.ckpt_path or self.best_model_path)))
        for path in (self.best_model_path, os.path.join(self.dirpath, name), os.path.join(beside, name)):
            if self._is_ours(trainer, path, best):
                self.best_model_path = path
                return True
        return False

    # Bringing back

    def _restore(self, trainer: Any, *, alone: bool = False) -> None:
        module, path = trainer.lightning_module, self.best_model_path
        if not self._held and not path:
            self._say(trainer, "no best model to restore", logging.WARNING)
            return
        if self._held:
            checkpoint: dict[str, Any] | None = self._held_checkpoint(trainer)
        elif self._sharded(trainer):
            trainer.strategy.load_model_state_dict(trainer.strategy.load_checkpoint(path), strict=module.strict_loading)
            return
        elif alone or trainer.strategy.reduce_boolean_decision(self._fs.exists(path), all=True):
            checkpoint = self._load_file(trainer, path)
        else:  # nodes without a common file system: rank 0 has it
            checkpoint = trainer.strategy.broadcast(self._load_file(trainer, path) if trainer.is_global_zero else None)
        if checkpoint is not None:
            module.on_load_checkpoint(checkpoint)
            module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)

    def _load_file(self, trainer: Any, path: str) -> dict[str, Any] | None:
        """Load a checkpoint for its weights; None, and a warning, where that cannot be."""
        try:
            with self._fs.open(path, "rb") as file:
                try:
                    checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                except Exception:
                    # Only what this run wrote, or a run that the user resumed without weights_only, may hold objects.
                    if path not in self._written and not self._trusts_its_checkpoint(trainer):
                        raise
                    file.seek(0)
                    checkpoint = torch.load(file, map_location="cpu", weights_only=False)
        except Exception as error:
            self._say(trainer, f"could not restore the best model from {path}: {error}", logging.WARNING)
            return None
        for key in ("optimizer_states", "lr_schedulers", "callbacks"):
            checkpoint.pop(key, None)
        return checkpoint

    def _trusts_its_checkpoint(self, trainer: Any) -> bool:
        """Whether the checkpoint that this run was resumed from cannot have been loaded with weights_only."""
        if not trainer.ckpt_path:
            return False
        try:
            torch.load(trainer.ckpt_path, map_location="cpu", weights_only=True)
        except Exception as error:
            return type(error).__name__ == "UnpicklingError"
        return False

    @staticmethod
    def _sharded(trainer: Any) -> bool:
        """Whether each rank holds a part of the weights, so that saving and loading take all of them."""
        return bool(trainer.strategy.restore_checkpoint_after_setup)

    def _say(self, trainer: Any, text: str, level: int = logging.INFO) -> None:
        self.stopping.say(trainer, text, level)


def _named(error: Exception, what: str, path: str) -> Exception:
    return OSError(f"could not write {what} to {path}: {error}") if isinstance(error, OSError) else error


def _hyper_parameters(trainer: Any) -> dict[str, Any]:
    """What a checkpoint says of the hyperparameters, as Lightning writes it."""
    found: dict[str, Any] = {}
    for owner in (trainer.lightning_module, trainer.datamodule):
        if owner is not None and owner.hparams:
            if hasattr(owner, "_hparams_name"):
                found[owner.CHECKPOINT_HYPER_PARAMS_NAME] = owner._hparams_name
            found[owner.CHECKPOINT_HYPER_PARAMS_KEY] = dict(owner.hparams)
    return found
