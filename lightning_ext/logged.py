"""Which of the watched metrics Lightning has a new value of, and where it came from."""

from typing import Any


class Logged:
    """The values logged since the last look: none is ever handed out twice.

    Lightning's `callback_metrics` keeps a value until the next one comes, so a callback that reads it cannot tell an
    old value from a new one. Behind it are the collections of what the training and the validation loop logged; each
    value there is an object of its own until the next is computed, and that object tells.

    Parameters
    ----------
    metrics : tuple of str
        The names to watch, as `callback_metrics` has them.

    Notes
    -----
    A metric that validation logs is read from validation only, even if training logs the same name. A name that is in
    neither collection but was put into `callback_metrics` by hand is new when its tensor is another object.
    """

    def __init__(self, metrics: tuple[str, ...]) -> None:
        self.metrics = metrics
        self.unseen = set(metrics)
        self.changed_source: set[str] = set()
        """Metrics that came from training until validation brought values of the same name."""
        self._from_training: set[str] = set()
        self._taken: dict[str, Any] = {}
        self._names: dict[tuple[str, bool], tuple[int, dict[str, list[Any]]]] = {}

    def after_validation(self, trainer: Any) -> dict[str, float]:
        """Return what the validation that just ended logged."""
        results = trainer.fit_loop.epoch_loop.val_loop._results
        named = self._named("validation", results, False)
        trained = self._named("training", trainer.fit_loop.epoch_loop._results, False)
        news: dict[str, float] = {}
        for metric in self.metrics:
            if metric in named:
                self._take(metric, results, named[metric], False, news)
                if metric in self._from_training:
                    self._from_training.remove(metric)
                    self.changed_source.add(metric)
            elif metric not in trained:
                self._take_by_hand(metric, trainer, news)
        return news

    def after_epoch(self, trainer: Any, *, by_step: bool) -> dict[str, float]:
        """Return what the training epoch that just ended logged; `by_step`: values of single steps are not wanted."""
        results = trainer.fit_loop.epoch_loop._results
        named = self._named("training", results, False)
        validated = self._named("validation", trainer.fit_loop.epoch_loop.val_loop._results, False)
        news: dict[str, float] = {}
        for metric in self.metrics:
            if metric in validated:
                continue
            if metric not in named:
                self._take_by_hand(metric, trainer, news)
            elif not (by_step and metric in self._named("training", results, True)):
                self._take(metric, results, named[metric], False, news)
        self._from_training.update(news)
        return news

    def after_step(self, trainer: Any) -> dict[str, float]:
        """Return what the newest training steps logged."""
        results = trainer.fit_loop.epoch_loop._results
        named = self._named("training", results, True)
        validated = self._named("validation", trainer.fit_loop.epoch_loop.val_loop._results, False)
        news: dict[str, float] = {}
        for metric in self.metrics:
            if metric in named and metric not in validated:
                self._take(metric, results, named[metric], True, news)
        self._from_training.update(news)
        return news

    def available(self, trainer: Any) -> dict[str, list[str]]:
        """Return the names logged so far, by the loop that logged them."""
        loop = trainer.fit_loop.epoch_loop
        return {
            "validation": sorted(self._named("validation", loop.val_loop._results, False)),
            "training": sorted(self._named("training", loop._results, False)),
        }

    def _named(self, loop: str, results: Any, on_step: bool) -> dict[str, list[Any]]:
        """Results by the names under which they are known; looked up once per new key."""
        count, named = self._names.get((loop, on_step), (-1, {}))
        if count != len(results):
            named = {}
            for result in results.values():
                if on_step and not result.meta.on_step:
                    continue
                for name in dict.fromkeys(results._forked_name(result, on_step)):
                    named.setdefault(name, []).append(result)
            self._names[loop, on_step] = len(results), named
        return named

    def _take(self, metric: str, results: Any, found: list[Any], on_step: bool, news: dict[str, float]) -> None:
        for result in reversed(found):
            if result.has_reset:
                continue
            if on_step or not result.meta.on_epoch:
                token = result._forward_cache
            else:
                results._get_cache(result, on_step=False)
                token = result._computed
            if token is not None and token is not self._taken.get(metric):
                self._keep(metric, token, news)
            return

    def _take_by_hand(self, metric: str, trainer: Any, news: dict[str, float]) -> None:
        token = trainer._logger_connector._callback_metrics.get(metric)
        if token is not None and token is not self._taken.get(metric):
            self._keep(metric, token, news)

    def _keep(self, metric: str, token: Any, news: dict[str, float]) -> None:
        if getattr(token, "numel", lambda: 1)() != 1:
            raise ValueError(f"{metric!r} must be logged as one number, got a tensor of shape {tuple(token.shape)}")
        self._taken[metric] = token
        self.unseen.discard(metric)
        news[metric] = float(token)
