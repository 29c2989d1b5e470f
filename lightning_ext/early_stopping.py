"""EarlyStopping: Lightning's own callback, interface and behaviour, over plain floats.

`EarlyStopping`, `EarlyStoppingReason` and `log` of this module are those of the namespace in use.
"""

import math
from ctypes import c_float
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_ext.namespaces import default_namespace, for_namespace, refuse_foreign_trainer

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import EarlyStopping as NativeEarlyStopping
else:
    NativeEarlyStopping = object

_NUMBERS = (int, float, type(None))


class FloatEarlyStopping(NativeEarlyStopping):
    """Stop when a metric has not improved for `patience` checks: Lightning's EarlyStopping, change the import only.

    Same constructor, attributes, state, messages and stops as Lightning 2.6, also where it is odd: patience 0 is 1, a
    resumed run takes back the checkpoint's patience, a stop that min_epochs did not allow is not forgotten, a stale
    metric is counted again. `ConvergenceStopping` is where those are mended. A check reads the metric once and works
    on Python floats, rounded as the metric's own precision would.

    Parameters
    ----------
    monitor : str
        Name of the logged metric.
    min_delta : float
        Change in the metric's unit that counts as improvement; added to the best.
    patience : int
        Checks without improvement after which training stops.
    verbose : bool
        Log each improvement and the stop.
    mode : {"min", "max"}
        Whether lower or higher is better.
    strict : bool
        Raise if the metric is missing at a check.
    check_finite : bool
        Stop when the metric is NaN or infinite.
    stopping_threshold : float, optional
        Stop once the metric is better than this.
    divergence_threshold : float, optional
        Stop once the metric is worse than this.
    check_on_train_epoch_end : bool, optional
        Check at the end of the training epoch rather than of validation; None lets the Trainer's settings say.
    log_rank_zero_only : bool
        Log on rank 0 only.
    name : str, optional
        Goes into the state key, so that two with the same monitor and mode can be in one Trainer.

    Raises
    ------
    MisconfigurationException
        If mode is neither "min" nor "max".
    RuntimeError
        At a check, if the metric is missing and strict is set.

    Examples
    --------
    >>> from lightning_ext import EarlyStopping
    >>> EarlyStopping("val_loss", patience=5).state_key
    "EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}"
    """

    namespace: str
    _native: Any
    _misconfigured: type[Exception]
    _reasons: Any

    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: str = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        log_rank_zero_only: bool = False,
        *,
        name: str | None = None,
    ) -> None:
        # In place of Lightning's own constructor, which makes a tensor for the best score.
        super(self._native, self).__init__()
        if mode not in self.mode_dict:
            raise self._misconfigured(f"`mode` can be {', '.join(self.mode_dict)}, got {mode}")
        self.monitor = monitor
        self.min_delta = min_delta
        self.patience = patience
        self.verbose = verbose
        self.mode = mode
        self.strict = strict
        self.check_finite = check_finite
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.wait_count = 0
        self.stopped_epoch = 0
        self.stopping_reason = self._reasons.NOT_STOPPED
        self.stopping_reason_message: str | None = None
        self._check_on_train_epoch_end = check_on_train_epoch_end
        self.log_rank_zero_only = log_rank_zero_only
        self._name = name
        self.min_delta *= 1 if self.monitor_op == torch.gt else -1
        self._best: float = math.inf if self.monitor_op == torch.lt else -math.inf
        self._best_dtype = torch.get_default_dtype()

    @property
    def best_score(self) -> Tensor:
        """The best so far, as a tensor on the host."""
        return torch.tensor(self._best, dtype=self._best_dtype, device="cpu")

    @best_score.setter
    def best_score(self, value: Tensor | float) -> None:
        self._best = value.item() if isinstance(value, Tensor) else value
        self._best_dtype = value.dtype if isinstance(value, Tensor) else torch.get_default_dtype()

    @property
    def state_key(self) -> str:
        named = {} if self._name is None else {"name": self._name}
        key: str = self._generate_state_key(monitor=self.monitor, mode=self.mode, **named)
        return key

    @property
    def _legacy_state_key(self) -> type:
        # Before 1.5, Lightning kept states by class.
        return self._native if type(self).__base__ is FloatEarlyStopping else type(self)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        refuse_foreign_trainer(self, trainer)
        super().setup(trainer, pl_module, stage)

    def _validate_condition_metric(self, logs: dict[str, Tensor]) -> bool:
        # Lightning's writes its message before it looks.
        if logs.get(self.monitor) is not None:
            return True
        missing: bool = super()._validate_condition_metric(logs)
        return missing

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        if not isinstance(current, Tensor):
            raise TypeError(f"the value of {self.monitor} must be a tensor, got {type(current).__name__}")
        stop_at, diverge_at = self.stopping_threshold, self.divergence_threshold
        plain = type(stop_at) in _NUMBERS and type(diverge_at) in _NUMBERS and type(self.min_delta) in _NUMBERS
        if not (plain and self._fits(current) and self._compares_as_ever()):
            outcome: tuple[bool, str | None] = super()._evaluate_stopping_criteria(current)
            return outcome
        single = current.dtype == torch.float32
        value = current.item()
        lower = self.mode == "min"
        if self.check_finite and not math.isfinite(value):
            return True, self._stopped(
                self._reasons.NON_FINITE_METRIC,
                f"Monitored metric {self.monitor} = {value} is not finite. Previous best value was {self._best:.3f}.",
            )
        if stop_at is not None:
            bound = c_float(stop_at).value if single else stop_at
            if value < bound if lower else value > bound:
                text = f"{self.monitor} = {value} {self.order_dict[self.mode]} {stop_at}."
                return True, self._stopped(self._reasons.STOPPING_THRESHOLD, f"Stopping threshold reached: {text}")
        if diverge_at is not None:
            bound = c_float(diverge_at).value if single else diverge_at
            if value > bound if lower else value < bound:
                text = f"{self.monitor} = {value} {self.order_dict[self.mode]} {diverge_at}."
                return True, self._stopped(self._reasons.DIVERGENCE_THRESHOLD, f"Divergence threshold reached: {text}")
        needed = value - self.min_delta
        if single and self.min_delta:
            needed = c_float(value - c_float(self.min_delta).value).value
        if needed < self._best if lower else needed > self._best:
            reason = self._improvement_message(current)
            self._best = value
            self._best_dtype = current.dtype
            self.wait_count = 0
            return False, reason
        self.wait_count += 1
        if self.wait_count < self.patience:
            return False, None
        return True, self._stopped(
            self._reasons.PATIENCE_EXHAUSTED,
            f"Monitored metric {self.monitor} did not improve in the last {self.wait_count} records."
            f" Best score: {self._best:.3f}.",
        )

    def _improvement_message(self, current: Tensor) -> str:
        if not self._fits(current):
            message: str = super()._improvement_message(current)
            return message
        value = current.item()
        if not math.isfinite(self._best):
            return f"Metric {self.monitor} improved. New best score: {value:.3f}"
        gain = abs(self._best - value)
        gain = c_float(gain).value if current.dtype == torch.float32 else gain
        return (
            f"Metric {self.monitor} improved by {gain:.3f} >= min_delta = {abs(self.min_delta)}."
            f" New best score: {value:.3f}"
        )

    def _fits(self, current: Tensor) -> bool:
        """Whether floats give what tensors would: single or double precision, the same as the best's."""
        dtype = current.dtype
        same = dtype is self._best_dtype or not math.isfinite(self._best)
        return same and (dtype is torch.float32 or dtype is torch.float64)

    def _compares_as_ever(self) -> bool:
        """Whether a subclass left alone what says which of two values is better."""
        own = type(self)
        return own.monitor_op is self._native.monitor_op and own.mode_dict is self._native.mode_dict

    def _stopped(self, reason: Any, text: str) -> str:
        self.stopping_reason = reason
        return f"{text} Signaling Trainer to stop."


# What errors about arguments are to name is what users import.
FloatEarlyStopping.__init__.__qualname__ = "EarlyStopping.__init__"


def __getattr__(name: str) -> Any:
    if name in ("EarlyStopping", "EarlyStoppingReason", "log"):
        return getattr(for_namespace(default_namespace()), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
