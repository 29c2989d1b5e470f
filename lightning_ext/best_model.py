"""BestModel: keeps the best weights where its stopper says they are the best, and brings them back."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import proxy

import torch

from lightning_ext.host_copy import HostCopy

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import ModelCheckpoint as NativeModelCheckpoint
else:
    NativeModelCheckpoint = object


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
        self.copy = HostCopy()
        self.resumed = False
        self.finished = False
        self._own: set[str] = set()
        self._stale: list[str] = []
        self._held: dict[str, Any] = {}
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
        state: dict[str, Any] = {
            "best_model_path": self.best_model_path,
            "last_model_path": self.last_model_path,
            "stale": list(self._stale),
        }
        if self._held:
            state["held"] = {**self._held, "state_dict": self.copy.read()}
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `dump` returned."""
        self.best_model_path = str(state["best_model_path"])
        self.last_model_path = str(state["last_model_path"])
        self.resumed = bool(self.best_model_path or self.last_model_path)
        self._stale = [str(path) for path in state["stale"]]
        held = state.get("held")
        if held is not None and self.stopping.keep == "memory":
            self.copy.put(held["state_dict"])
            self._held = {key: value for key, value in held.items() if key != "state_dict"}

    # Lightning's hooks: the stopper was there first and has said what is due.

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not self.resumed:
            return
        if self.best_model_path and not self._fs.exists(self.best_model_path):
            best = self.stopping.best
            here = str(trainer.ckpt_path or "")
            if best is not None and best.step == trainer.global_step and here:
                self.best_model_path = here
            else:
                self._say(trainer, f"the best model so far is no longer at {self.best_model_path}", logging.WARNING)
                self.best_model_path = ""
        self._remove_stale(trainer)
        self._remove_parts(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.copy.settle()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.stopping.pending:
            self._keep(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.stopping.live:
            return
        if self.stopping.pending:
            self._keep(trainer)
        within = trainer.val_check_batch != trainer.num_training_batches
        if self.writes_last and within and self.stopping.all_validate:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.stopping.live:
            return
        if self.stopping.pending:
            self._keep(trainer)
        if self.writes_last:
            self._save_last(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.stopping.live:
            return
        if self.writes_last:
            self._save_last(trainer)
        if self._held:
            self._save_held(trainer)
        if self.stopping.restore_best:
            self._restore(trainer)
        self.finished = True
        self.stopping.finish(trainer, None)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        # A fit that had nothing left to do comes here alone.
        if self.finished or trainer.fast_dev_run:
            return
        if self._held:
            self._save_held(trainer)
        if self.stopping.restore_best:
            self._restore(trainer)
        self.finished = True
        self.stopping.finish(trainer, None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        # The other ranks may be gone: nothing here may wait for them, and nothing may hide the exception.
        if self.finished or not self.stopping.live:
            return
        self.finished = True
        try:
            if self._sharded(trainer):
                self._say(trainer, "sharded weights are neither saved nor restored on an exception", logging.WARNING)
            else:
                if self.stopping.pending and not isinstance(exception, OSError):
                    self._take(trainer)  # interrupted between the verdict and the copy: the weights are still the same
                if self._held and trainer.is_global_zero:
                    self._write_held(trainer)
                if self.stopping.restore_best:
                    self._restore(trainer, alone=True)
        except Exception as error:
            self._say(trainer, f"on the way out: {error}", logging.WARNING)
        self.stopping.finish(trainer, exception)

    # Keeping

    def _keep(self, trainer: Any) -> None:
        self.best_model_score = torch.tensor(self.stopping.best.value, dtype=torch.float64, device="cpu")
        if self.stopping.keep == "memory":
            self._take(trainer)
        else:
            self._save_best(trainer)
        self.stopping.pending = False

    def _take(self, trainer: Any) -> None:
        self.copy.take(trainer.strategy.lightning_module_state_dict())
        name = self.format_checkpoint_name(self._metrics(trainer))
        self._held = {"epoch": trainer.current_epoch, "global_step": trainer.global_step, "name": name}

    def _save_best(self, trainer: Any) -> None:
        metrics, old = self._metrics(trainer), self.best_model_path
        path = self._free_path(trainer, lambda version: self.format_checkpoint_name(metrics, ver=version), old)
        # The file's own state names it as the best, and the old one as to be removed.
        self.best_model_path = path
        stale = self._stale
        self._stale = [*stale, old] if old and old != path else stale
        try:
            self._write(trainer, path, self.save_weights_only, what="the best model")
        except BaseException as error:
            self.best_model_path, self._stale = old, stale
            if isinstance(error, OSError) and old:
                raise OSError(f"{error}; the best model before it is intact: {old}") from error
            raise
        self.best_k_models = {path: self.best_model_score}
        if self.writes_last and not self.save_weights_only:
            self._save_last(trainer, same_as=path)
        self._remove_stale(trainer)
        self._tell_loggers(trainer)

    def _save_last(self, trainer: Any, same_as: str | None = None) -> None:
        moment = (trainer.global_step, trainer.fit_loop.epoch_progress.current.processed)
        if moment == self._last_saved_at:
            return
        path = self.last_model_path
        if not path or Path(path).parent != Path(self.dirpath):
            path = self._free_path(trainer, self._last_name, "")
        self.last_model_path = path
        self._write(trainer, path, False, what="the last state", same_as=same_as)
        self._last_saved_at = moment
        if self.replaced is not None:
            self.replaced.best_model_path = path  # what that one calls its best is the newest
        if not same_as:
            self._tell_loggers(trainer)

    def _save_held(self, trainer: Any) -> None:
        """Write the weights that are held in memory; every rank comes here."""
        error: Exception | None = None
        path = self._free_path(trainer, self._held_name, "")
        if trainer.is_global_zero:
            try:
                self._write_held(trainer, path)
            except Exception as failed:
                error = _named(failed, "the best model", path)
        self._all_or_none(trainer, error, path)
        self.best_model_path = path
        self.best_k_models = {path: self.best_model_score}
        self._tell_loggers(trainer)

    def _write_held(self, trainer: Any, path: str | None = None) -> None:
        if path is None:
            path, version = self._held_name(None), self.STARTING_VERSION
            while self._fs.exists(path):
                path, version = self._held_name(version), version + 1
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
        checkpoint["state_dict"] = dict(self.copy.read())
        checkpoint["epoch"], checkpoint["global_step"] = self._held["epoch"], self._held["global_step"]
        with _complete(path) as part:
            trainer.strategy.save_checkpoint(checkpoint, part)
        self.best_model_path = path

    # Files

    def _metrics(self, trainer: Any) -> dict[str, Any]:
        return {**self._monitor_candidates(trainer), self.monitor: self.best_model_score}

    def _held_name(self, version: int | None) -> str:
        name = str(self._held["name"])
        if version is None:
            return name
        return f"{name.removesuffix(self.FILE_EXTENSION)}{self.CHECKPOINT_JOIN_CHAR}v{version}{self.FILE_EXTENSION}"

    def _last_name(self, version: int | None) -> str:
        name: str = self.format_checkpoint_name({}, self.CHECKPOINT_NAME_LAST, ver=version)
        return name

    def _free_path(self, trainer: Any, name: Any, current: str) -> str:
        """The first name that is no other run's file; a resumed run writes its own names again."""
        path: str = trainer.strategy.broadcast(name(None))
        version = self.STARTING_VERSION
        while path != current and path not in self._own and not self.resumed and self.file_exists(path, trainer):
            path = trainer.strategy.broadcast(name(version))
            version += 1
        self._own.add(path)
        return path

    def _write(self, trainer: Any, path: str, weights_only: bool, *, what: str, same_as: str | None = None) -> None:
        """Write a checkpoint of this moment, through the strategy; all ranks come here, and all fail or none."""
        error: Exception | None = None
        linked = False
        if same_as is not None:
            linked = trainer.strategy.broadcast(_link(same_as, path) if trainer.is_global_zero else False)
        if not linked:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only)
            try:
                with _complete(path, acts=trainer.is_global_zero) as part:
                    trainer.strategy.save_checkpoint(checkpoint, part)
                    if self._sharded(trainer):
                        trainer.strategy.barrier("best_model")
            except Exception as failed:
                error = _named(failed, what, path)
        self._all_or_none(trainer, error, path)

    def _all_or_none(self, trainer: Any, error: Exception | None, path: str) -> None:
        if not trainer.strategy.reduce_boolean_decision(error is None, all=True):
            raise error or OSError(f"rank 0 could not write {path}")

    def _remove_stale(self, trainer: Any) -> None:
        for path in self._stale:
            if path != self.best_model_path and self._should_remove_checkpoint(trainer, path, self.best_model_path):
                trainer.strategy.remove_checkpoint(path)
        self._stale = []

    def _remove_parts(self, trainer: Any) -> None:
        """Remove what a killed session of this run left half written."""
        if not trainer.is_global_zero or not os.path.isdir(self.dirpath):
            return
        stem = re.sub(r"\{.*", "", self.filename or "")
        for found in Path(self.dirpath).glob(".*.part"):
            if found.name[1:].startswith((stem or "best", self.CHECKPOINT_NAME_LAST)):
                _remove(str(found))

    def _tell_loggers(self, trainer: Any) -> None:
        # Loggers hold on to one checkpoint callback: the user's, if there is one.
        if trainer.is_global_zero and self.primary:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    # Bringing back

    def _restore(self, trainer: Any, *, alone: bool = False) -> None:
        module = trainer.lightning_module
        if self._held:
            module.load_state_dict(self.copy.read(), strict=module.strict_loading)
            return
        path = self.best_model_path
        if not path:
            self._say(trainer, "no best model to restore", logging.WARNING)
            return
        if self._sharded(trainer):
            trainer.strategy.load_model_state_dict(trainer.strategy.load_checkpoint(path), strict=module.strict_loading)
            return
        here = self._fs.exists(path)
        if alone or trainer.strategy.reduce_boolean_decision(here, all=True):
            checkpoint = self._read(path)
        else:  # nodes without a common file system: rank 0 has it
            checkpoint = trainer.strategy.broadcast(self._read(path) if trainer.is_global_zero else None)
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)

    def _read(self, path: str) -> dict[str, Any]:
        with self._fs.open(path, "rb") as file:
            return _read(file, trusted=path in self._own)

    @staticmethod
    def _sharded(trainer: Any) -> bool:
        """Whether each rank holds a part of the weights, so that saving and loading take all of them."""
        return bool(trainer.strategy.restore_checkpoint_after_setup)

    def _say(self, trainer: Any, text: str, level: int) -> None:
        self.stopping.say(trainer, text, level)


@contextmanager
def _complete(path: str, *, acts: bool = True) -> Iterator[str]:
    """Give the name to write to; what is there afterwards gets its own name in one step, or goes if writing failed."""
    if "://" in path:  # an object store shows nothing before it is whole
        yield path
        return
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name}.part")
    try:
        yield part
        if acts:
            _publish(part, path)
    except BaseException:
        if acts:
            _remove(part)
        raise


def _publish(part: str, path: str) -> None:
    if not (os.path.isdir(part) and os.path.exists(path)):
        os.replace(part, path)
        return
    # A folder does not replace another: both are whole at each moment.
    old = f"{part}.old"
    os.replace(path, old)
    os.replace(part, path)
    _remove(old)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        Path(path).unlink(missing_ok=True)


def _link(path: str, other: str) -> bool:
    """Give a file a second name; False where the file system cannot."""
    try:
        with _complete(other) as part:
            Path(part).unlink(missing_ok=True)
            os.link(path, part)
    except OSError:
        return False
    return True


def _named(error: Exception, what: str, path: str) -> Exception:
    return OSError(f"could not write {what} to {path}: {error}") if isinstance(error, OSError) else error


def _read(file: Any, *, trusted: bool) -> dict[str, Any]:
    """Load a checkpoint; only one that this run wrote may hold more than tensors and plain data."""
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:
        if not trusted:
            raise
        file.seek(0)
        checkpoint = torch.load(file, map_location="cpu", weights_only=False)
    return checkpoint
