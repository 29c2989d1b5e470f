"""Small tasks: data sets bundled with scikit-learn or drawn at random, split, scaled and spoilt for one run."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks import generated
from benchmarks.generated import Array, Draw
from benchmarks.setups import Setup

HELD_OUT = 300
"""Generated examples to validate on, and to test on."""


class Part(NamedTuple):
    """Inputs and targets of one split."""

    x: Array
    y: Array


@dataclass(frozen=True)
class Data:
    """The parts of one run, the loss to train on (see `benchmarks.training`), and the sizes of its network.

    ``tokens`` is the number of different inputs where those are letters, else 0.
    """

    train: Part
    val: Part
    test: Part
    loss: str
    outputs: int
    tokens: int = 0

    @property
    def classes(self) -> int:
        """Number of classes; 0 if the targets are numbers."""
        return self.outputs if self.loss == "cross_entropy" else 0


@dataclass(frozen=True)
class Task:
    """Where the data come from and what is to be learnt.

    ``spread`` divides the inputs; without it every input gets mean 0 and spread 1. Without ``draw`` the data set is
    the one that scikit-learn bundles under the task's name.
    """

    loss: str
    outputs: int
    draw: Draw | None = None
    tokens: int = 0
    spread: float | None = None


TASKS = {
    # pixels of 0..16, some of them nearly constant: dividing by their own spread would blow those up
    "digits": Task("cross_entropy", 10, spread=16.0),
    "breast_cancer": Task("cross_entropy", 2),
    "wine": Task("cross_entropy", 3),
    "diabetes": Task("squared", 1),
    "spirals": Task("cross_entropy", 2, generated.spirals),
    "parity": Task("cross_entropy", 2, generated.parity, spread=1.0),
    "xor": Task("cross_entropy", 2, generated.xor),
    "friedman": Task("squared", 1, generated.friedman),
    "teacher": Task("squared", 1, generated.teacher),
    "wave": Task("gaussian", 2, generated.wave),
    "sines": Task("squared", 1, generated.sines, spread=1.0),
    "adding": Task("squared", 1, generated.adding, spread=1.0),
    "bars": Task("cross_entropy", 4, generated.bars, spread=1.0),
    "markov": Task("cross_entropy", generated.LETTERS, generated.markov, generated.LETTERS),
    "copying": Task("cross_entropy", generated.LETTERS, generated.copying, generated.LETTERS),
    "modular": Task("cross_entropy", generated.MODULUS, generated.modular, generated.MODULUS),
}


def _bundled(name: str) -> tuple[Array, Array]:
    from sklearn import datasets

    # diabetes comes scaled unless asked otherwise, and runs on raw inputs need it raw
    loaded = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    return loaded.data.astype(np.float64), loaded.target


def _spoil(targets: Array, share: float, classes: int, rng: np.random.Generator) -> Array:
    """Give a share of the labels another class, or shuffle a share of the numbers; a share of 1 shuffles all."""
    if share == 1:
        return rng.permutation(targets)
    chosen = rng.random(targets.shape) < share
    if classes:
        return np.where(chosen, (targets + rng.integers(1, classes, targets.shape)) % classes, targets)
    spoilt = targets.copy()
    spoilt[chosen] = rng.permutation(targets[chosen])
    return spoilt


def load(setup: Setup, seed: int) -> Data:
    """Read or draw, split, normalise and (where asked) spoil the data of one run.

    Parameters
    ----------
    setup : Setup
        The set-up of the run.
    seed : int
        Decides the generated examples, the split and the spoilt labels.

    Returns
    -------
    Data
        The three parts; a fifth of the rows, or 300 generated ones, is held out for the test.
    """
    task = TASKS[setup.task]
    rng = np.random.default_rng(seed)
    if task.draw is None:
        x, y = _bundled(setup.task)
        held_out = len(x) // 5
    else:
        held_out = HELD_OUT
        x, y = task.draw(rng, (setup.train_size or 1000) + (setup.val_size or held_out) + held_out)
        held_out = min(held_out, len(x) // 5)  # there are few examples of modular addition
    order = rng.permutation(len(x))
    test, val, train = np.split(order, [held_out, held_out + (setup.val_size or held_out)])
    train = train[: setup.train_size]
    if setup.normalise and not task.tokens:
        centre, spread = (0.0, task.spread) if task.spread else (x[train].mean(0), x[train].std(0))
        x = (x - centre) / spread
        if task.loss != "cross_entropy":
            y = (y - y[train].mean()) / y[train].std()
    if setup.label_noise:
        y = y.copy()
        classes = task.outputs if task.loss == "cross_entropy" else 0
        y[train] = _spoil(y[train], setup.label_noise, classes, rng)
    loss, outputs = task.loss, task.outputs
    if setup.architecture in ("autoencoder", "vae"):
        y, outputs = x, x.shape[1]
        loss = "squared" if setup.architecture == "autoencoder" else "elbo"
    train_part, val_part, test_part = (Part(x[rows], y[rows]) for rows in (train, val, test))
    return Data(train_part, val_part, test_part, loss, outputs, task.tokens)
