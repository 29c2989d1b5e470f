"""Data sets that are drawn at random: of a generator and a number of examples, inputs and targets."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Draw = Callable[[np.random.Generator, int], tuple[Array, Array]]

LETTERS = 8
"""Size of the alphabet of the sequences."""

MODULUS = 23
"""Modulus of the additions; there are MODULUS squared examples in all."""

IGNORED = -100
"""Target of a position that is not asked for."""


def spirals(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Two spirals of one turn and a half around each other."""
    label = rng.integers(0, 2, count)
    turn = np.sqrt(rng.random(count)) * 3 * np.pi
    angle = turn + np.pi * label
    points = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) / (3 * np.pi)
    return points + rng.normal(0, 0.02, points.shape), label


def parity(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Parity of the first 3 of 20 signs."""
    signs = rng.choice([-1.0, 1.0], (count, 20))
    return signs, (signs[:, :3].prod(1) > 0).astype(int)


def xor(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Signs of two directions among 30, multiplied; the points lie around four centres."""
    signs = rng.choice([-1.0, 1.0], (count, 2))
    x = rng.normal(0, 1.0, (count, 30))
    x[:, :2] += 2 * signs
    return x, (signs.prod(1) > 0).astype(int)


def friedman(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Friedman's first regression: five inputs that count, five that do not, noise of spread 1."""
    x = rng.random((count, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return x, y + rng.normal(0, 1, count)


def teacher(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Outputs of a random network with 8 hidden units on 20 inputs, with noise of a third of their spread."""
    x = rng.normal(0, 1, (count, 20))
    y = np.tanh(x @ rng.normal(0, 0.5, (20, 8))) @ rng.normal(0, 1, 8)
    return x, y + rng.normal(0, y.std() / 3, count)


def wave(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """A sine of one input among four, with noise that grows with another one."""
    x = rng.uniform(-1, 1, (count, 4))
    return x, np.sin(4 * x[:, 0]) + np.exp(1.5 * x[:, 1] - 3) * rng.normal(0, 1, count)


def sines(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Next value of the noisy sum of two sines after 16 values of it."""
    time = np.arange(17)
    period, phase = rng.uniform(4, 16, (2, count, 1)), rng.uniform(0, 2 * np.pi, (2, count, 1))
    series = np.sin(2 * np.pi * time / period + phase).sum(0) + rng.normal(0, 0.1, (count, 17))
    return series[:, :16, None], series[:, 16]


def adding(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Sum of the two marked ones of 12 numbers."""
    numbers, marks = rng.random((count, 12)), np.zeros((count, 12))
    for half in (slice(0, 6), slice(6, 12)):
        marks[:, half] = rng.permuted(np.tile([1.0, 0, 0, 0, 0, 0], (count, 1)), axis=1)
    return np.stack([numbers, marks], axis=2), (numbers * marks).sum(1)


def bars(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Noisy images of 8x8 pixels: a row, a column, a diagonal or a square, somewhere."""
    label, images = rng.integers(0, 4, count), np.zeros((count, 8, 8))
    for image, kind, at, off in zip(images, label, rng.integers(0, 6, count), rng.integers(0, 6, count), strict=True):
        if kind == 0:
            image[at, :] = 1
        elif kind == 1:
            image[:, at] = 1
        elif kind == 2:
            image[range(8), (np.arange(8) + at) % 8] = 1
        else:
            image[at : at + 3, off : off + 3] = 1
    return (images + rng.normal(0, 0.6, images.shape)).reshape(count, 64), label


def markov(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Next letter of texts of 16, in which a letter depends on the two before it."""
    odds = rng.dirichlet(np.full(LETTERS, 0.15), (LETTERS, LETTERS)).cumsum(2)
    text = rng.integers(0, LETTERS, (count, 17))
    for at in range(2, 17):
        chosen = odds[text[:, at - 2], text[:, at - 1]] > rng.random((count, 1))
        text[:, at] = chosen.argmax(1)
    return text[:, :-1], text[:, 1:]


def copying(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Six letters, said a second time; only the second time is asked for."""
    letters = rng.integers(0, LETTERS, (count, 6))
    text = np.concatenate([letters, letters], axis=1)
    asked = text[:, 1:].copy()
    asked[:, :5] = IGNORED
    return text[:, :-1], asked


def modular(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """All sums of two numbers modulo a prime, in random order."""
    pairs = rng.permutation(MODULUS**2)
    x = np.stack([pairs // MODULUS, pairs % MODULUS], axis=1)
    return x, x.sum(1) % MODULUS
