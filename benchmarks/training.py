"""Training loops that run to their full budget and yield what every step logged."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.setups import Setup
from benchmarks.tasks import NETWORKS, Array, Data, Part


class Evaluation(NamedTuple):
    """What one step logged: learning rate, seconds since the start, value of each (metric, split)."""

    lr: float
    seconds: float
    values: dict[tuple[str, str], float]


# Learning-rate schedules: the factor on the peak rate at a share of the planned length


def _one_cycle(done: float) -> float:
    if done < 0.3:
        return 0.04 + 0.96 * done / 0.3
    return 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) + 1e-4


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "step": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.8)),
    "late_step": lambda done: 0.05 if done >= 0.7 else 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "one_cycle": _one_cycle,
    "warm_up": lambda done: min(1.0, 1e-3 + (done / 0.4) ** 3),
    "rising": lambda done: 10.0 ** (4 * done - 4),
}


def _optimizer(name: str, parameters: list[Any], lr: float) -> Any:
    from torch import optim

    if name == "momentum":
        return optim.SGD(parameters, lr=lr, momentum=0.9)
    kinds = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}
    return kinds[name](parameters, lr=lr)


def _network_run(setup: Setup, seed: int, data: Data) -> Iterator[Evaluation]:
    import torch
    from torch.nn.functional import cross_entropy, mse_loss

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    kind = torch.long if data.classes else torch.float32
    parts = {
        name: (torch.as_tensor(part.x, dtype=torch.float32), torch.as_tensor(part.y.reshape(shape), dtype=kind))
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
        for shape in [(-1,) if data.classes else (len(part.x), -1)]
    }
    x, y = parts["train"]
    forward, parameters = NETWORKS[setup.architecture](x.shape[1], data.classes or y.shape[1])
    optimizer = _optimizer(setup.optimizer, parameters, setup.lr)
    loss_of = cross_entropy if data.classes else mse_loss
    start = time.perf_counter()
    for epoch in range(setup.budget_steps):
        batches = torch.randperm(len(x)).split(setup.batch_size)
        losses, rates = [], []
        for index, batch in enumerate(batches):
            rates.append(setup.lr * SCHEDULES[setup.schedule]((epoch + index / len(batches)) / setup.budget_steps))
            for group in optimizer.param_groups:
                group["lr"] = rates[-1]
            noise = setup.input_noise * torch.randn_like(x[batch]) if setup.input_noise else 0.0
            loss = loss_of(forward(x[batch] + noise), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        values = {("loss", "train"): float(np.mean(losses))}
        with torch.no_grad():
            output = {name: forward(parts[name][0]) for name in ("val", "test")}
            values |= {("loss", name): loss_of(output[name], parts[name][1]).item() for name in output}
            if data.classes:
                values["accuracy", "val"] = (output["val"].argmax(1) == parts["val"][1]).double().mean().item()
            elif setup.architecture != "autoencoder":
                spread = parts["val"][1].var(correction=0).item()
                values["r2", "val"] = 1 - values["loss", "val"] / spread
        yield Evaluation(max(rates), time.perf_counter() - start, values)


def _log_loss(probabilities: Array, part: Part, classes: int) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(part.y, probabilities, labels=range(classes)))


def _sgd_classifier_run(setup: Setup, seed: int, data: Data) -> Iterator[Evaluation]:
    from sklearn.linear_model import SGDClassifier

    rng = np.random.default_rng([seed, 1])  # not the stream that split the data
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=setup.lr, alpha=1e-6, random_state=seed)
    start = time.perf_counter()
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
        values["accuracy", "val"] = float(model.score(data.val.x, data.val.y))
        yield Evaluation(rate, time.perf_counter() - start, values)


def _boosting_run(setup: Setup, seed: int, data: Data) -> Iterator[Evaluation]:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    seconds: list[float] = []
    kind = GradientBoostingClassifier if data.classes else GradientBoostingRegressor
    model = kind(learning_rate=setup.lr, n_estimators=setup.budget_steps, random_state=seed)
    start = time.perf_counter()
    # the monitor only notes the time; what it returns, None, lets the fit go on
    model.fit(data.train.x, data.train.y, monitor=lambda *_: seconds.append(time.perf_counter() - start))
    parts = {"train": data.train, "val": data.val, "test": data.test}
    staged = model.staged_predict_proba if data.classes else model.staged_predict
    for second, *outputs in zip(seconds, *(staged(part.x) for part in parts.values()), strict=True):
        values: dict[tuple[str, str], float] = {}
        for (name, part), output in zip(parts.items(), outputs, strict=True):
            error = np.mean((output - part.y) ** 2) if not data.classes else _log_loss(output, part, data.classes)
            values["loss", name] = float(error)
        if data.classes:
            values["accuracy", "val"] = float(np.mean(outputs[1].argmax(1) == data.val.y))
        else:
            values["r2", "val"] = 1 - values["loss", "val"] / float(data.val.y.var())
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
