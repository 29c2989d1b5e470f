"""scikit-learn's three ways to stop: MLP, SGD and histogram gradient boosting."""

from dataclasses import dataclass
from typing import ClassVar, final

from convergence.parameters import check_amount, check_count
from convergence.presets.peer import CheckMemory, PeerRule, WindowMemory, WindowRule, also_called


@dataclass(frozen=True, repr=False)
class _NoImprovement(PeerRule):
    """MLP and SGD count alike; they differ in how many are too many."""

    patience: int = 10
    min_delta: float = 1e-4

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta", least=0)

    def check(self, memory: CheckMemory, loss: float) -> bool:
        if loss > memory.best - self.min_delta:
            memory.wait += 1
        else:
            memory.wait = 0
        if loss < memory.best:
            memory.keep(loss)
        return self.exhausted(memory.wait)

    def exhausted(self, wait: int) -> bool:
        """Return whether so many checks without improvement stop."""
        return wait > self.patience


@final
@dataclass(frozen=True, repr=False)
class SklearnMLP(_NoImprovement):
    """Stop where scikit-learn's MLP stops; made by `presets.sklearn_mlp`."""

    peer: ClassVar[str] = "scikit-learn's MLP"
    preset: ClassVar[str] = "sklearn_mlp"

    @property
    def span(self) -> int:
        return self.patience + 1


@final
@dataclass(frozen=True, repr=False)
class SklearnSGD(_NoImprovement):
    """Stop where scikit-learn's SGD stops; made by `presets.sklearn_sgd`."""

    peer: ClassVar[str] = "scikit-learn's SGD"
    preset: ClassVar[str] = "sklearn_sgd"

    patience: int = 5
    min_delta: float = 1e-3

    @property
    def span(self) -> int:
        return max(1, self.patience)

    def exhausted(self, wait: int) -> bool:
        return wait >= self.patience


@final
@dataclass(frozen=True, repr=False)
class SklearnHistGB(WindowRule):
    """Stop where scikit-learn's HistGradientBoosting stops; made by `presets.sklearn_hist_gb`."""

    peer: ClassVar[str] = "scikit-learn's HistGradientBoosting"
    preset: ClassVar[str] = "sklearn_hist_gb"
    memory_parameters: ClassVar[frozenset[str]] = frozenset({"patience"})

    patience: int = 10
    min_delta: float = 1e-7

    def __post_init__(self) -> None:
        check_count(self, "patience", least=0)
        check_amount(self, "min_delta", least=0)

    @property
    def reach(self) -> int:
        return self.patience + 1

    @property
    def span(self) -> int:
        return self.reach

    def judge(self, memory: WindowMemory, window: list[float]) -> bool:
        if len(window) < self.reach:
            return False
        needed = window[0] - self.min_delta
        return not any(loss < needed for loss in window[1:])


@also_called(patience="n_iter_no_change", min_delta="tol")
def sklearn_mlp(
    patience: int = 10, min_delta: float = 1e-4, *, n_iter_no_change: int | None = None, tol: float | None = None
) -> SklearnMLP:
    """Stop where `MLPClassifier` and `MLPRegressor` stop: more than `patience` epochs that gain less than `min_delta`.

    Parameters
    ----------
    patience : int
        Epochs without improvement that are tolerated: it stops at the next. (`fit` refuses 0.)
    min_delta : float
        Gain over the best so far, in the metric's unit, that an epoch has to reach; at least 0.
    n_iter_no_change, tol : optional
        scikit-learn's names for the two.

    Notes
    -----
    The best moves on any gain, so that a slow drip of gains below `min_delta` stops; a gain of exactly `min_delta`
    counts, and with 0 so does a tie. The trap: it stops one epoch later than most. NaN clears the wait and never
    becomes the best, so that NaN for ever never stops. O(1) per observation.

    Source: scikit-learn 1.9.1, `BaseMultilayerPerceptron._update_no_improvement_count`, read and run: the training loss
    with mode "min", the validation score with mode "max".

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.sklearn_mlp(patience=2), [3.0, 2.0, 2.5, 2.0, 2.1, 1.0], mode="min").stop_index
    4
    """
    return SklearnMLP(patience, min_delta)


@also_called(patience="n_iter_no_change", min_delta="tol")
def sklearn_sgd(
    patience: int = 5, min_delta: float = 1e-3, *, n_iter_no_change: int | None = None, tol: float | None = None
) -> SklearnSGD:
    """Stop where `SGDClassifier` and its kin stop: `patience` epochs in a row that gain less than `min_delta`.

    Parameters
    ----------
    patience : int
        Epochs without improvement at which to stop. (`fit` refuses 0.)
    min_delta : float
        Gain over the best so far, in the metric's unit, that an epoch has to reach; at least 0.
    n_iter_no_change, tol : optional
        scikit-learn's names for the two.

    Notes
    -----
    As `sklearn_mlp`, but one epoch earlier for the same number: the trap, in one library. O(1) per observation.

    Source: scikit-learn 1.9.1, `_plain_sgd`, read, and run with a validation score.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.sklearn_sgd(patience=2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return SklearnSGD(patience, min_delta)


@also_called(patience="n_iter_no_change", min_delta="tol")
def sklearn_hist_gb(
    patience: int = 10, min_delta: float = 1e-7, *, n_iter_no_change: int | None = None, tol: float | None = None
) -> SklearnHistGB:
    """Stop where `HistGradientBoosting` stops: none of the last `patience` values gained on the one before them.

    Parameters
    ----------
    patience : int
        Newest values that are compared with the one before them; with 0 the first stops. (`fit` refuses 0.)
    min_delta : float
        Gain, in the metric's unit, that one of them has to exceed; at least 0.
    n_iter_no_change, tol : optional
        scikit-learn's names for the two.

    Notes
    -----
    A window, not the best so far: a run that climbs back from a bad value goes on. The trap: after a NaN nothing has
    gained on it, so that one NaN stops a run that improves, `patience` rounds later. O(patience) per observation.

    Source: scikit-learn 1.9.1, `BaseHistGradientBoosting._should_stop`, read and run.

    Examples
    --------
    >>> from convergence import presets, replay
    >>> replay(presets.sklearn_hist_gb(patience=2), [3.0, 2.0, 2.5, 2.0, 1.0], mode="min").stop_index
    3
    """
    return SklearnHistGB(patience, min_delta)
