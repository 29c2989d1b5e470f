"""Installed early stopping of estimators, driven as in `live_loops`: scikit-learn, LightGBM, XGBoost and CatBoost."""

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.live_loops import Stop


class Refused(ValueError):
    """The peer itself cannot be given these values."""


def sklearn_mlp(patience: int = 10, min_delta: float = 1e-4) -> Stop:
    """`_update_no_improvement_count`: the training loss where lower is better, else the score; without a fit."""
    kind = import_module("sklearn.neural_network").MLPClassifier

    def stop(values: Sequence[float], mode: str) -> int:
        scored = mode == "max"
        mlp = kind(n_iter_no_change=patience, tol=min_delta)
        mlp._no_improvement_count, mlp.coefs_, mlp.intercepts_ = 0, [], []
        mlp.loss_curve_, mlp.best_loss_ = [], math.inf
        mlp.validation_scores_, mlp.best_validation_score_ = [], -math.inf
        scores = iter(values)
        mlp._score = lambda X, y, sample_weight: next(scores)
        for i, value in enumerate(values):
            mlp.loss_curve_.append(value)
            mlp._update_no_improvement_count(scored, None, None, None)
            if mlp._no_improvement_count > mlp.n_iter_no_change:
                return i
        return -1

    return stop


def sklearn_sgd(patience: int = 5, min_delta: float = 1e-3) -> Stop:
    """A real `fit` with early stopping, whose validation score is played back; negated where lower is better."""
    from sklearn.linear_model import SGDClassifier

    features, labels = np.array([[0.0], [1.0]]), np.array([0, 1])

    def stop(values: Sequence[float], mode: str) -> int:
        scores = chain((value if mode == "max" else -value for value in values), repeat(0.0))

        class Playing(SGDClassifier):  # type: ignore[misc]
            def _make_validation_split(self, y: Any, sample_mask: Any) -> Any:
                return np.array([False, True])

            def _make_validation_score_cb(self, *args: Any, **kwargs: Any) -> Any:
                return lambda coef, intercept: next(scores)

        # One epoch more than there are values: a stop at the last one is not the end.
        model = Playing(
            early_stopping=True, n_iter_no_change=patience, tol=min_delta, max_iter=len(values) + 1, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            epochs = model.fit(features, labels).n_iter_
        return epochs - 1 if epochs <= len(values) else -1

    return stop


def sklearn_hist_gb(patience: int = 10, min_delta: float = 1e-7) -> Stop:
    """`_should_stop` on the scores so far, without a fit; negated where lower is better."""
    kind = import_module("sklearn.ensemble").HistGradientBoostingRegressor
    model = kind(n_iter_no_change=patience, tol=min_delta)

    def stop(values: Sequence[float], mode: str) -> int:
        scores: list[float] = []
        for i, value in enumerate(values):
            scores.append(value if mode == "max" else -value)
            if model._should_stop(scores):
                return i
        return -1

    return stop


def lightgbm(patience: int, min_delta: float = 0.0) -> Stop:
    """The callback called with an environment for each round, without a model."""
    package = import_module("lightgbm")
    environment, stopped = package.callback.CallbackEnv, package.callback.EarlyStopException

    def stop(values: Sequence[float], mode: str) -> int:
        callback = package.early_stopping(patience, verbose=False, min_delta=min_delta)
        for i, value in enumerate(values):
            results = [package.EvalResult("valid", "m", value, mode == "max")]
            with suppress(stopped):
                callback(environment(None, {}, i, 0, len(values) + 1, results))
                continue
            return i
        return -1

    return stop


def xgboost(patience: int, min_delta: float = 0.0) -> Stop:
    """`after_iteration` with a log that grows, without a model."""
    kind = import_module("xgboost.callback").EarlyStopping
    model = SimpleNamespace(set_attr=lambda **attributes: None)

    def stop(values: Sequence[float], mode: str) -> int:
        callback = kind(rounds=patience, maximize=mode == "max", min_delta=min_delta)
        scores: list[float] = []
        log = {"valid": {"m": scores}}
        for i, value in enumerate(values):
            scores.append(value)
            if callback.after_iteration(model, i, log):
                return i
        return -1

    return stop


def catboost(patience: int = 20, *, od_pval: float = 0.0, od_type: str = "IncToDec") -> Stop:
    """A real training on four rows, whose evaluation metric is played back.

    Raises `Refused` where CatBoost ends with an error: at a value that is not finite, before it stops.
    """
    package = import_module("catboost")
    features, labels = np.arange(4.0)[:, None], np.arange(4.0)
    train, held_out = package.Pool(features, labels), package.Pool(features[:3], labels[:3])
    level = {} if od_type == "Iter" else {"od_pval": od_pval}

    def stop(values: Sequence[float], mode: str) -> int:
        scores = chain(values, repeat(values[-1] if len(values) else 0.0))

        class Played:
            def __deepcopy__(self, memo: Any) -> Any:
                return self  # CatBoost trains with copies of its parameters

            def is_max_optimal(self) -> bool:
                return mode == "max"

            def evaluate(self, approxes: Any, target: Any, weight: Any) -> tuple[float, float]:
                return (next(scores) if len(target) == 3 else 0.0), 1.0

            def get_final_error(self, error: float, weight: float) -> float:
                return error

        model = package.CatBoostRegressor(
            iterations=len(values) + 1,  # one more than there are values: a stop at the last one is not the end
            eval_metric=Played(),
            od_type=od_type,
            od_wait=patience,
            **level,
            use_best_model=False,
            depth=1,
            learning_rate=1e-3,
            boost_from_average=False,
            thread_count=1,
            verbose=False,
            allow_writing_files=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that numba is not there to speed up the metric
            try:
                model.fit(train, eval_set=held_out)
            except package.CatBoostError as error:
                raise Refused(f"CatBoost ends with an error: {error}") from None
        return model.tree_count_ - 1 if model.tree_count_ <= len(values) else -1

    return stop
