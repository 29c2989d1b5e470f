"""How training ended: the report that is written, and the sentence that is logged."""

from typing import Any

from convergence import Best
from lightning_ext import verdict_file
from lightning_ext.schedule import largest, timer_of

CONFIGURATION = (
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
"""The options of a ConvergenceStopping that a report and a checkpoint name, beside the rule."""


def ended_by(stopping: Any, trainer: Any, exception: BaseException | None) -> str:
    """Return what ended training: the rule, a limit of the Trainer, another callback, or an exception's name."""
    if exception is not None:
        return str(exception) if type(exception).__name__ == "WorkerError" else type(exception).__name__
    if stopping.stopped:
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


def report_of(stopping: Any, trainer: Any, exception: BaseException | None) -> dict[str, Any]:
    """Return the report of a run, as JSON-able data but for NaN and infinities."""
    verdict = verdict_file.told(stopping.decision)
    return {
        "version": 1,
        "name": stopping.name,
        "monitor": stopping.monitor,
        "mode": stopping.mode,
        "ended_by": ended_by(stopping, trainer, exception),
        "stopped": stopping.stopped,
        "stopped_epoch": stopping.stopped_epoch,
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "verdict": verdict,
        "reason": verdict["reason"],
        "message": verdict["message"],
        "evidence": verdict["evidence"],
        "rule": repr(stopping.rule),
        "configuration": {key: getattr(stopping, key) for key in CONFIGURATION},
        "changes": list(stopping.changes),
        "best": _plain(stopping.best),
        "kept": _plain(stopping.kept),
        "best_model_path": stopping.best_model_path,
        "last_model_path": stopping.last_model_path,
        "history_every": stopping.history.every,
        "history": [
            {"step": step, "epoch": epoch, "metrics": news, "lr": lr, "stop": stop}
            for step, epoch, news, lr, stop in stopping.history.rows()
        ],
    }


def sentence(report: dict[str, Any]) -> str:
    """Return a report's gist in one line."""
    text = f"training ended by {report['ended_by']}: {report['message']}"
    best, kept = report["best"], report["kept"]
    if best is not None:
        text += f"; best {report['monitor']} {best['value']:.6g} at step {best['step']:.12g}"
    if report["best_model_path"]:
        other = "" if kept == best or kept is None else f" is that of {kept['value']:.6g} at step {kept['step']:.12g}"
        text += f", kept in {report['best_model_path']}" if not other else f"; the model kept{other}"
    if report["last_model_path"] and not report["stopped"]:
        text += f"; to go on: ckpt_path={report['last_model_path']!r}"
    return text


def _plain(best: Best | None) -> dict[str, float] | None:
    return None if best is None else {"step": best.step, "value": best.value}


class History:
    """The checks of a run; beyond `most` rows only every second, fourth, ... of them.

    Examples
    --------
    >>> history = History(most=4)
    >>> for step in range(6):
    ...     history.add([step, 0, {"val_loss": 1.0}, [0.1], False])
    >>> [row[0] for row in history.rows()], history.every
    ([0, 2, 4], 2)
    """

    def __init__(self, most: int = 4096) -> None:
        self.most = most
        self.every = 1
        self.count = 0
        self._rows: list[list[Any]] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def add(self, row: list[Any]) -> None:
        """Add step, epoch, metrics, learning rates (as of `rates_of`) and whether to stop."""
        if self.count % self.every == 0:
            self._rows.append(row)
            if len(self._rows) > self.most:
                self._rows = self._rows[::2]
                self.every *= 2
        self.count += 1

    def rows(self) -> list[list[Any]]:
        """Return the rows, each with its largest learning rate; rates on a device are waited for here, once."""
        for row in self._rows:
            if isinstance(row[3], list):
                row[3] = largest(row[3])
        return self._rows

    def dump(self) -> dict[str, Any]:
        """Return the history as plain data."""
        rows = [[step, epoch, dict(news), lr, stop] for step, epoch, news, lr, stop in self.rows()]
        return {"every": self.every, "count": self.count, "rows": rows}

    def load(self, data: dict[str, Any]) -> None:
        """Go on from what `dump` returned."""
        self.every, self.count = int(data["every"]), int(data["count"])
        self._rows = [list(row) for row in data["rows"]]
