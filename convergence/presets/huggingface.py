"""EarlyStoppingCallback of Hugging Face's Trainer."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, also_called


@final
@dataclass(frozen=True, repr=False)
class HuggingFace(PeerRule):
    """Stop where Transformers' EarlyStoppingCallback stops; made by `presets.huggingface`."""

    peer: ClassVar[str] = "Transformers' EarlyStoppingCallback"
    preset: ClassVar[str] = "huggingface"

    patience: int = 1
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta")

    @property
    def span(self) -> int:
        return max(1, self.patience)

    def check(self, memory: CheckMemory, loss: float) -> bool:
        gained = loss < memory.best
        if memory.checks == 1 or (gained and abs(loss - memory.best) > self.min_delta):
            memory.wait = 0
        else:
            memory.wait += 1
        if gained:
            # The Trainer's best, which moves on any gain.
            memory.keep(loss)
        return memory.wait >= self.patience


@also_called(patience="early_stopping_patience", min_delta="early_stopping_threshold")
def huggingface(
    patience: int = 1,
    min_delta: float = 0.0,
    *,
    early_stopping_patience: int | None = None,
    early_stopping_threshold: float | None = None,
) -> HuggingFace:
    """Stop where `EarlyStoppingCallback` stops in a Trainer: `patience` evaluations without a gain beyond `min_delta`.

    Parameters
    ----------
    patience : int
        Evaluations without improvement at which to stop; with 0 the first evaluation stops.
    min_delta : float
        Gain over the best so far, in the metric's unit, that an evaluation has to exceed.
    early_stopping_patience, early_stopping_threshold : optional
        The callback's names for the two.

    Notes
    -----
    The trap: the best is the Trainer's and moves on any gain, so that a slow drip of gains below `min_delta` stops.
    NaN is a miss; the first evaluation never is one. O(1) per observation.

    Source: transformers 5.23.0, `EarlyStoppingCallback.check_metric_value` and `Trainer._determine_best_metric`, read
    and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.huggingface(patience=2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return HuggingFace(patience, min_delta)
