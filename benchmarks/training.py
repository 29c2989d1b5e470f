"""Training loops that run to their full budget and yield what every evaluation logged."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.generated import Array
from benchmarks.networks import CODE, NETWORKS, Network
from benchmarks.setups import Setup
from benchmarks.tasks import Data, Part


class Evaluation(NamedTuple):
    """What one evaluation logged: learning rate, CPU seconds since the start, value of each (metric, split)."""

    lr: float
    seconds: float
    values: dict[tuple[str, str], float]


# Learning-rate schedules: the factor on the peak rate at a share of the planned length


def _one_cycle(done: float) -> float:
    if done < 0.3:
        return 0.04 + 0.96 * done / 0.3
    return 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) + 1e-4


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _restarts(done: float) -> float:
    """Three cosines, each twice as long as the one before."""
    start, length = next(cycle for cycle in ((3 / 7, 4 / 7), (1 / 7, 2 / 7), (0.0, 1 / 7)) if done >= cycle[0])
    return 0.01 + 0.99 * _cosine((done - start) / length)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "step": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.8)),
    "early_step": lambda done: 0.1 if done >= 0.3 else 1.0,
    "late_step": lambda done: 0.05 if done >= 0.7 else 1.0,
    "exponential": lambda done: 0.005**done,
    "cosine": _cosine,
    "restarts": _restarts,
    "one_cycle": _one_cycle,
    "warm_up": lambda done: min(1.0, 0.01 + done / 0.1),
    "slow_warm_up": lambda done: min(1.0, 1e-3 + (done / 0.4) ** 3),
    "warm_up_cosine": lambda done: min(1.0, 0.01 + done / 0.1) * _cosine(max(0.0, (done - 0.1) / 0.9)),
    "rising": lambda done: 10.0 ** (4 * done - 4),
}


def _optimizer(setup: Setup, parameters: list[Any]) -> Any:
    from torch import optim

    options: dict[str, Any] = {"lr": setup.lr, "weight_decay": setup.weight_decay}
    if setup.optimizer in ("momentum", "nesterov"):
        return optim.SGD(parameters, momentum=0.9, nesterov=setup.optimizer == "nesterov", **options)
    kinds = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "adagrad": "Adagrad"}
    return getattr(optim, kinds[setup.optimizer])(parameters, **options)


# Losses: the mean over a batch, of the output of a network and the targets


def _cross_entropy(output: Any, y: Any) -> Any:
    from torch.nn.functional import cross_entropy

    return cross_entropy(output.flatten(0, -2), y.flatten())


def _squared(output: Any, y: Any) -> Any:
    return ((output - y) ** 2).mean()


def _gaussian(output: Any, y: Any) -> Any:
    """Negative log likelihood of a normal distribution of which the network tells mean and log variance."""
    mean, log_variance = output.split(1, dim=1)
    return 0.5 * (log_variance + (y - mean) ** 2 / log_variance.exp() + math.log(2 * math.pi)).mean()


def _elbo(output: Any, y: Any) -> Any:
    """Negative evidence lower bound per pixel, for pixels with normal noise of spread 0.15."""
    image, mean, log_variance = output.split([y.shape[1], CODE, CODE], dim=1)
    pixels = ((y - image) ** 2).mean() / (2 * 0.15**2) + math.log(0.15 * math.sqrt(2 * math.pi))
    divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1).mean()
    return pixels + divergence / y.shape[1]


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "cross_entropy": _cross_entropy,
    "squared": _squared,
    "gaussian": _gaussian,
    "elbo": _elbo,
}


def _score(data: Data, setup: Setup, output: Any, y: Any) -> dict[str, float]:
    if data.classes:
        asked = y >= 0
        return {"accuracy": (output.argmax(-1) == y)[asked].double().mean().item()}
    if setup.architecture in ("autoencoder", "vae"):
        return {}
    return {"r2": 1 - (((output[:, :1] - y) ** 2).mean() / y.var(correction=0)).item()}


def initial_network(setup: Setup, seed: int, data: Data) -> Network:
    """Build the network of a run as it is before the first update; seed torch and keep it to one thread.

    Parameters
    ----------
    setup : Setup
        What to train and how.
    seed : int
        Decides the weights.
    data : Data
        What `load` returned for the same set-up and seed.

    Returns
    -------
    Network
        Forward pass and parameters; runs that differ only in the order of their examples have the same.
    """
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    forward, parameters = NETWORKS[setup.architecture](data)
    if setup.init != 1:
        with torch.no_grad():
            for weight in parameters:
                weight.mul_(setup.init)
    return forward, parameters


def _batches(setup: Setup, seed: int, targets: Array) -> Iterator[Any]:
    """Yield the rows of one batch after another, epoch after epoch without end."""
    import torch

    order = torch.Generator().manual_seed(seed + 1000)  # not the stream of the weights
    by_label = torch.as_tensor(np.argsort(targets, kind="stable")) if setup.ordered else None
    while True:
        rows = torch.randperm(len(targets), generator=order) if by_label is None else by_label
        yield from rows.split(setup.batch_size)


def _network_run(setup: Setup, seed: int, data: Data) -> Iterator[Evaluation]:
    import torch

    def tensors(part: Part) -> tuple[Any, Any]:
        x = torch.as_tensor(part.x, dtype=torch.long if data.tokens else torch.float32)
        if data.classes:
            return x, torch.as_tensor(part.y, dtype=torch.long)
        return x, torch.as_tensor(part.y, dtype=torch.float32).reshape(len(x), -1)

    forward, parameters = initial_network(setup, seed, data)
    optimizer = _optimizer(setup, parameters)
    loss_of = LOSSES[data.loss]
    x, y = tensors(data.train)
    held_out = {"val": tensors(data.val), "test": tensors(data.test)}
    held_out_x = torch.cat([part[0] for part in held_out.values()])
    batches = _batches(setup, seed, data.train.y)
    updates = setup.updates or math.ceil(len(x) / setup.batch_size)
    start = time.process_time()
    for step in range(setup.budget_steps):
        losses, rates = [], []
        for index in range(updates):
            rates.append(setup.lr * SCHEDULES[setup.schedule]((step + index / updates) / setup.budget_steps))
            for group in optimizer.param_groups:
                group["lr"] = rates[-1]
            batch = next(batches)
            inputs = x[batch]
            if setup.input_noise:
                inputs = inputs + setup.input_noise * torch.randn_like(inputs)
            loss = loss_of(forward(inputs), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        values = {("loss", "train"): float(np.mean(losses))}
        with torch.no_grad():
            outputs = forward(held_out_x).split([len(part[0]) for part in held_out.values()])
            for (name, (_, wanted)), output in zip(held_out.items(), outputs, strict=True):
                values["loss", name] = loss_of(output, wanted).item()
                values |= {(metric, name): value for metric, value in _score(data, setup, output, wanted).items()}
        yield Evaluation(max(rates), time.process_time() - start, values)


def _log_loss(probabilities: Array, part: Part, classes: int) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(part.y, probabilities, labels=range(classes)))


def _sgd_classifier_run(setup: Setup, seed: int, data: Data) -> Iterator[Evaluation]:
    from sklearn.linear_model import SGDClassifier

    rng = np.random.default_rng([seed, 1])  # not the stream that split the data
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=setup.lr, alpha=1e-6, random_state=seed)
    start = time.process_time()
    for epoch in range(setup.budget_steps):
        order = rng.permutation(len(data.train.x))
        batches = np.split(order, range(setup.batch_size, len(order), setup.batch_size))
        rate = setup.lr * SCHEDULES[setup.schedule](epoch / setup.budget_steps)
        model.set_params(eta0=rate)
        losses = []
        for batch in batches:
            part = Part(data.train.x[batch], data.train.y[batch])
            fitted = hasattr(model, "coef_")  # before the first update every class is as likely
            loss = _log_loss(model.predict_proba(part.x), part, data.classes) if fitted else math.log(data.classes)
            losses.append(loss)
            model.partial_fit(part.x, part.y, classes=range(data.classes))
        values = {("loss", "train"): float(np.mean(losses))}
        for name, part in (("val", data.val), ("test", data.test)):
            values["loss", name] = _log_loss(model.predict_proba(part.x), part, data.classes)
            values["accuracy", name] = float(model.score(part.x, part.y))
        yield Evaluation(rate, time.process_time() - start, values)


def _boosting_run(setup: Setup, seed: int, data: Data) -> Iterator[Evaluation]:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    seconds: list[float] = []
    kind = GradientBoostingClassifier if data.classes else GradientBoostingRegressor
    model = kind(learning_rate=setup.lr, n_estimators=setup.budget_steps, random_state=seed)
    start = time.process_time()
    # the monitor only notes the time; what it returns, None, lets the fit go on
    model.fit(data.train.x, data.train.y, monitor=lambda *_: seconds.append(time.process_time() - start))
    parts = {"train": data.train, "val": data.val, "test": data.test}
    staged = model.staged_predict_proba if data.classes else model.staged_predict
    for second, *outputs in zip(seconds, *(staged(part.x) for part in parts.values()), strict=True):
        values: dict[tuple[str, str], float] = {}
        for (name, part), output in zip(parts.items(), outputs, strict=True):
            error = np.mean((output - part.y) ** 2) if not data.classes else _log_loss(output, part, data.classes)
            values["loss", name] = float(error)
            if name != "train" and data.classes:
                values["accuracy", name] = float(np.mean(output.argmax(1) == part.y))
            elif name != "train":
                values["r2", name] = 1 - values["loss", name] / float(part.y.var())
        yield Evaluation(setup.lr, second, values)


def train(setup: Setup, seed: int, data: Data) -> Iterator[Evaluation]:
    """Train one run to its full budget, whatever its values do.

    Parameters
    ----------
    setup : Setup
        What to train and how.
    seed : int
        Decides the initial weights and the order of the batches.
    data : Data
        What `load` returned for the same set-up and seed.

    Yields
    ------
    Evaluation
        One for each step, ``setup.budget_steps`` in all.
    """
    runs = {"sgd_classifier": _sgd_classifier_run, "boosting": _boosting_run}
    yield from runs.get(setup.architecture, _network_run)(setup, seed, data)
