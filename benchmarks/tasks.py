"""Small real tasks: the data sets bundled with scikit-learn and the networks trained on them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.setups import Setup

Array = NDArray[Any]
Table = tuple[Array, Array, int]  # inputs, targets, number of classes (0: regression)
Network = tuple[Callable[[Any], Any], list[Any]]  # forward pass, parameters


class Part(NamedTuple):
    """Inputs and targets of one split."""

    x: Array
    y: Array


@dataclass(frozen=True)
class Data:
    """Train, validation and test parts of one run; ``classes`` is 0 for regression."""

    train: Part
    val: Part
    test: Part
    classes: int


# Data


def _bundled(name: str) -> Callable[[], Table]:
    def read() -> Table:
        from sklearn import datasets

        # diabetes comes scaled unless asked otherwise, and runs on raw inputs need it raw
        loaded = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
        classes = 0 if name == "diabetes" else len(loaded.target_names)
        return loaded.data.astype(np.float64), loaded.target, classes

    return read


READERS: dict[str, Callable[[], Table]] = {
    name: _bundled(name) for name in ("digits", "breast_cancer", "wine", "diabetes")
}


def _spoil(labels: Array, share: float, classes: int, rng: np.random.Generator) -> Array:
    """Give a share of the labels another class; a share of 1 shuffles all of them instead."""
    if share == 1:
        return rng.permutation(labels)
    chosen = rng.random(len(labels)) < share
    return np.where(chosen, (labels + rng.integers(1, classes, len(labels))) % classes, labels)


def load(setup: Setup, seed: int) -> Data:
    """Read, split, normalise and (where asked) spoil the data of one run.

    Parameters
    ----------
    setup : Setup
        The set-up of the run.
    seed : int
        Decides the split and the spoilt labels.

    Returns
    -------
    Data
        The three parts; a fifth of the rows is held out for the test.
    """
    rng = np.random.default_rng(seed)
    x, y, classes = READERS[setup.task]()
    order = rng.permutation(len(x))
    fifth = len(x) // 5
    test, val, train = np.split(order, [fifth, fifth + (setup.val_size or fifth)])
    train = train[: setup.train_size]
    if setup.normalise:
        # digits are pixels of 0..16, some of them nearly constant: dividing by their spread would blow those up
        centre, spread = (0.0, 16.0) if setup.task == "digits" else (x[train].mean(0), x[train].std(0))
        x = (x - centre) / spread
        if not classes:
            y = (y - y[train].mean()) / y[train].std()
    if setup.label_noise:
        y = y.copy()
        y[train] = _spoil(y[train], setup.label_noise, classes, rng)
    if setup.architecture == "autoencoder":
        y, classes = x, 0
    return Data(Part(x[train], y[train]), Part(x[val], y[val]), Part(x[test], y[test]), classes)


# Networks: one function per architecture, from the sizes of input and output


def _layers(sizes: list[int], activation: str = "ReLU") -> Network:
    from torch import nn

    layers: list[Any] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), getattr(nn, activation)()]
    network = nn.Sequential(*layers[:-1])
    return network, list(network.parameters())


def logistic(inputs: int, outputs: int) -> Network:
    """One linear layer."""
    return _layers([inputs, outputs])


def mlp(inputs: int, outputs: int) -> Network:
    """Two hidden layers of 64."""
    return _layers([inputs, 64, 64, outputs])


def sigmoid_mlp(inputs: int, outputs: int) -> Network:
    """Three hidden sigmoid layers of 48, which learn nothing for a while at the start."""
    return _layers([inputs, 48, 48, 48, outputs], "Sigmoid")


def autoencoder(inputs: int, outputs: int) -> Network:
    """A bottleneck of 10 between two layers of 48."""
    return _layers([inputs, 48, 10, 48, outputs])


def cnn(inputs: int, outputs: int) -> Network:
    """Two small convolutions on the 8x8 image and a linear layer."""
    from torch import nn

    network = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, outputs),
    )
    return network, list(network.parameters())


def gru(inputs: int, outputs: int) -> Network:
    """A GRU of 32 over the eight rows of the image, and a linear layer on its last state."""
    from torch import nn

    cell, head = nn.GRU(8, 32, batch_first=True), nn.Linear(32, outputs)
    return lambda x: head(cell(x.unflatten(1, (8, 8)))[0][:, -1]), [*cell.parameters(), *head.parameters()]


NETWORKS: dict[str, Callable[[int, int], Network]] = {
    function.__name__: function for function in (logistic, mlp, sigmoid_mlp, autoencoder, cnn, gru)
}
