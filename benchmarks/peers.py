"""What our rules are timed beside: plain Python and other libraries' early stopping; and how all take turns."""

import gc
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

NEVER = 10**9
"""A patience that no run here exhausts."""

# Time that a busy machine gives to others does not count, where that clock is fine enough.
CLOCK = "process_time" if time.get_clock_info("process_time").resolution <= 1e-6 else "perf_counter"

Run = Callable[[], object]
Prepare = Callable[[Sequence[float]], Run]
"""Makes a fresh contender and its inputs; only the run that it returns, over all values, is timed."""


def calls(update: Callable[[Any], object], inputs: Sequence[Any]) -> Run:
    """Return a run that hands each input to `update`."""

    def run() -> None:
        for item in inputs:
            update(item)

    return run


class Spread(NamedTuple):
    """Seconds over the rounds."""

    median: float
    fastest: float
    slowest: float


def take_turns(contenders: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, Spread]:
    """Time each contender once per round, so that noise of the machine hits all alike.

    Parameters
    ----------
    contenders : mapping of str to callable
        Makes a fresh contender; only the run that it returns is timed.
    rounds : int
        Rounds that count; one more goes before, to warm up.
    """
    names, clock = list(contenders), getattr(time, CLOCK)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.freeze()  # what the peers imported stays: without it every collection would walk all of it
    gc.disable()
    try:
        for turn in range(rounds + 1):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                run = contenders[name]()
                start = clock()
                run()
                elapsed = clock() - start
                if turn:
                    seconds[name].append(elapsed)
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return {name: Spread(statistics.median(s), min(s), max(s)) for name, s in seconds.items()}


class PlainPatience:
    """Patience as most people write it."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = math.inf
        self.wait = 0

    def update(self, value: float) -> bool:
        """Return whether to stop."""
        if value < self.best:
            self.best = value
            self.wait = 0
        else:
            self.wait += 1
        return self.wait >= self.patience


def _inline(values: Sequence[float]) -> Run:
    def run() -> None:
        best, wait, patience = math.inf, 0, NEVER
        for value in values:
            if value < best:
                best = value
                wait = 0
            else:
                wait += 1
            if wait >= patience:
                break

    return run


INLINE, METHOD = "plain loop, inline", "plain object, update(value)"
PLAIN: dict[str, Prepare] = {
    INLINE: _inline,
    METHOD: lambda values: calls(PlainPatience(NEVER).update, values),
}


class Peer(NamedTuple):
    """A peer, the call of it that is timed, the packages that hold it (any of them), and how to load it."""

    name: str
    call: str
    packages: tuple[str, ...]
    load: Callable[[], Prepare]


def lightning_class() -> Any:
    """Return Lightning's EarlyStopping, of whichever of its two packages is installed.

    Raises
    ------
    ImportError
        If neither is.
    """
    try:
        from pytorch_lightning.callbacks import EarlyStopping
    except ImportError:
        from lightning.pytorch.callbacks import EarlyStopping
    return EarlyStopping


def lightning_rows(matrix: npt.NDArray[np.float64], patience: int) -> Callable[[], list[int]]:
    """Return a run of Lightning's class over the rows of a matrix, each up to its first stop.

    Parameters
    ----------
    matrix : array (curves, observations)
        The curves; their tensors are built here, so that they are not charged to Lightning.
    patience : int
        Its patience.

    Returns
    -------
    callable
        Returns the index of each row's first stop, -1 for never.

    Raises
    ------
    ImportError
        If Lightning is not installed.
    """
    import torch

    kind = lightning_class()
    rows = [list(torch.from_numpy(row)) for row in matrix]

    def stop_of(row: list[Any]) -> int:
        check = kind("val_loss", min_delta=0.0, patience=patience, mode="min")._evaluate_stopping_criteria
        for i, tensor in enumerate(row):
            if check(tensor)[0]:
                return i
        return -1

    return lambda: [stop_of(row) for row in rows]


def _lightning() -> Prepare:
    import torch

    kind = lightning_class()

    def prepare(values: Sequence[float]) -> Run:
        callback = kind("val_loss", min_delta=0.0, patience=NEVER, mode="min")
        return calls(callback._evaluate_stopping_criteria, [torch.tensor(value) for value in values])

    return prepare


def _plateau() -> Prepare:
    import torch
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    def prepare(values: Sequence[float]) -> Run:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        return calls(ReduceLROnPlateau(optimizer, patience=NEVER, threshold=0.0).step, values)

    return prepare


def _ignite() -> Prepare:
    from ignite.engine import Engine
    from ignite.handlers import EarlyStopping

    def prepare(values: Sequence[float]) -> Run:
        engine, newest = Engine(lambda engine, batch: None), iter(values)
        # The score function is the user's part: as short as can be.
        handler = EarlyStopping(NEVER, lambda engine: next(newest), engine, mode="min")
        return calls(handler, [engine] * len(values))

    return prepare


def _keras() -> Prepare:
    os.environ["KERAS_BACKEND"] = "torch"
    from keras.callbacks import EarlyStopping

    def prepare(values: Sequence[float]) -> Run:
        callback = EarlyStopping("val_loss", patience=NEVER, mode="min")
        callback.on_train_begin()
        on_epoch_end = callback.on_epoch_end
        logs = [{"val_loss": value} for value in values]

        def run() -> None:
            for epoch, log in enumerate(logs):
                on_epoch_end(epoch, log)

        return run

    return prepare


def _ray() -> Prepare:
    from ray.tune.stopper import TrialPlateauStopper

    def prepare(values: Sequence[float]) -> Run:
        # No standard deviation is below zero: never stops.
        stopper = TrialPlateauStopper("val_loss", std=0.0, num_results=10)
        results = [{"val_loss": value} for value in values]

        def run() -> None:
            for result in results:
                stopper("trial", result)

        return run

    return prepare


LIGHTNING = "Lightning EarlyStopping"

PEERS = (
    Peer(LIGHTNING, "_evaluate_stopping_criteria(tensor)", ("pytorch-lightning", "lightning"), _lightning),
    Peer("torch ReduceLROnPlateau", "step(value)", ("torch",), _plateau),
    Peer("Ignite EarlyStopping", "__call__(engine)", ("pytorch-ignite",), _ignite),
    Peer("Keras EarlyStopping", "on_epoch_end(epoch, logs), torch backend", ("keras",), _keras),
    Peer("Ray TrialPlateauStopper", "__call__(trial, result)", ("ray[tune]",), _ray),
)
CALLS = {peer.name: peer.call for peer in PEERS}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the peers' warnings out of the output; their logging is left as it is, since it is part of their cost."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load() -> tuple[dict[str, Prepare], dict[str, str]]:
    """Return the peers that can be timed, held to one CPU thread, and for each of the others why not."""
    present, absent = {}, {}
    with suppress(ImportError):
        import torch

        torch.set_num_threads(1)
    for peer in PEERS:
        try:
            present[peer.name] = peer.load()
            present[peer.name]([1.0, 0.5, 0.7])()
        except ImportError as error:
            absent[peer.name] = f"absent ({error}): pip install {peer.packages[0]}"
        # A peer of a version that we do not know is named with its error; it must not end the measurement.
        except Exception as error:
            absent[peer.name] = f"failed ({error!r}) with the installed {peer.packages[0]}"
    return present, absent


def versions() -> dict[str, str | None]:
    """Return the versions of Python, numpy, torch and the peers; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    packages = ("numpy", "torch", *(name.partition("[")[0] for peer in PEERS for name in peer.packages))
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
