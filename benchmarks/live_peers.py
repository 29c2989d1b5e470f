"""The peers whose own installed code can be run over recorded curves, each with its preset and a sweep."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks import live_estimators, live_loops
from benchmarks.families import PEER_COUNTS
from benchmarks.live_estimators import Refused
from benchmarks.live_loops import Stop
from benchmarks.peers import quiet
from convergence import MetricRule, presets

IntArray = npt.NDArray[np.int64]
Parameters = dict[str, Any]

COUNTS = tuple({"patience": patience} for patience in PEER_COUNTS)


class Curve(Protocol):
    """What a sweep reads of a curve: values so that lower is better, and the mode they were logged in."""

    @property
    def loss(self) -> npt.NDArray[np.float64]:
        """Values so that lower is better."""
        ...

    @property
    def mode(self) -> str:
        """Whether lower or higher is better in the metric's own unit."""
        ...


@dataclass(frozen=True)
class LivePeer:
    """A peer: its name, the packages that hold it (any of them), its preset, its driver, and what to sweep.

    `make(**parameters)` imports the package and returns a function from values and mode to the index of the first
    stop, -1 for never; `family(**parameters)` is the preset that stops there too. One that needs a millisecond for each
    value is run over `most` curves.
    """

    name: str
    packages: tuple[str, ...]
    family: Callable[..., MetricRule]
    make: Callable[..., Stop]
    sweep: tuple[Parameters, ...] = COUNTS
    most: int | None = None

    def default(self) -> str | None:
        """Return the preset with the peer's own defaults; None where the peer has none that stop."""
        try:
            return repr(self.family())
        except TypeError:
            return None

    def absent(self) -> str:
        """Return why it cannot be run here, with the command that installs it; nothing if it can."""
        try:
            with quiet():
                for mode in ("min", "max"):
                    self.make(**self.sweep[0])([1.0, 0.5, 0.7], mode)
        except ImportError as error:
            return f"absent ({error}): pip install {self.packages[0]}"
        # A peer of a version that we do not know is named with its error; it must not end the measurement.
        except Exception as error:
            return f"failed ({error!r}) with the installed {self.packages[0]}"
        return ""

    def version(self) -> str:
        """Return the version of the first of its packages that is installed."""
        for package in self.packages:
            try:
                return f"{package} {version(package.partition('[')[0])}"
            except PackageNotFoundError:
                continue
        return ""


_NO_DELTA = tuple(counts | {"min_delta": 0.0, "threshold_mode": "abs"} for counts in COUNTS)
_PLATEAUS = tuple(
    {"std": std, "num_results": count, "grace_period": count}
    for count in (4, 10, 30)
    for std in (0.0003, 0.001, 0.01, 0.1)
)
_LEVELS = tuple({"od_pval": level} for level in (1e-5, 1e-2, 0.1, 0.5, 0.9, 0.99))
_ITER = tuple(counts | {"od_type": "Iter"} for counts in COUNTS)

LIVE_PEERS = {
    peer.name: peer
    for peer in (
        LivePeer(
            "Lightning EarlyStopping", ("pytorch-lightning", "lightning"), presets.lightning, live_loops.lightning
        ),
        LivePeer("Keras EarlyStopping", ("keras",), presets.keras, live_loops.keras, ({"patience": 0}, *COUNTS)),
        LivePeer("Ignite EarlyStopping", ("pytorch-ignite",), presets.ignite, live_loops.ignite),
        LivePeer(
            "Transformers EarlyStoppingCallback",
            ("transformers",),
            presets.huggingface,
            live_loops.huggingface,
        ),
        LivePeer("skorch EarlyStopping", ("skorch",), presets.skorch, live_loops.skorch),
        LivePeer(
            "torch ReduceLROnPlateau, abs 0", ("torch",), presets.torch_plateau, live_loops.torch_plateau, _NO_DELTA
        ),
        LivePeer("torch ReduceLROnPlateau", ("torch",), presets.torch_plateau, live_loops.torch_plateau),
        LivePeer("LightGBM early_stopping", ("lightgbm",), presets.lightgbm, live_estimators.lightgbm),
        LivePeer("XGBoost EarlyStopping", ("xgboost",), presets.xgboost, live_estimators.xgboost),
        LivePeer("CatBoost IncToDec", ("catboost",), presets.catboost, live_estimators.catboost, _LEVELS, 600),
        LivePeer("CatBoost Iter", ("catboost",), presets.catboost, live_estimators.catboost, _ITER, 600),
        LivePeer("scikit-learn MLP", ("scikit-learn",), presets.sklearn_mlp, live_estimators.sklearn_mlp),
        LivePeer("scikit-learn SGD", ("scikit-learn",), presets.sklearn_sgd, live_estimators.sklearn_sgd, COUNTS, 600),
        LivePeer("scikit-learn HistGB", ("scikit-learn",), presets.sklearn_hist_gb, live_estimators.sklearn_hist_gb),
        LivePeer("Optuna PatientPruner", ("optuna",), presets.optuna_patient, live_loops.optuna_patient),
        LivePeer("Ray TrialPlateauStopper", ("ray[tune]",), presets.ray_plateau, live_loops.ray_plateau, _PLATEAUS),
    )
}
NAMES = tuple(LIVE_PEERS)


def sweep(name: str, curves: Iterable[Curve]) -> tuple[tuple[str, ...], IntArray, dict[str, Any]]:
    """Return where a peer's own code stops on curves, for each member of its sweep.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    curves : iterable of Curve
        Each is handed over in its own unit and mode.

    Returns
    -------
    members : tuple of str
        The presets with the same parameters.
    stops : int array, shape (members, curves)
        Index of the first stop; -1 for never, and where the peer cannot be given the curve.
    about : dict
        Package and version, the preset with its defaults, seconds, which curves the peer refused under any member, and
        the first reason.

    Raises
    ------
    ImportError
        If the peer is not installed, or cannot be run, with the command that installs it.
    """
    peer = LIVE_PEERS[name]
    if why := peer.absent():
        raise ImportError(why)
    played = [(to_list(curve), curve.mode) for curve in curves]
    stops = np.full((len(peer.sweep), len(played)), -1, np.int64)
    refused: dict[int, str] = {}
    begun = time.perf_counter()
    with quiet():
        for row, parameters in enumerate(peer.sweep):
            stop = peer.make(**parameters)
            for i, (values, mode) in enumerate(played):
                try:
                    stops[row, i] = stop(values, mode)
                except Refused as error:
                    refused[i] = str(error)
    about: dict[str, Any] = {
        "package": peer.version(),
        "default": peer.default(),
        "seconds": time.perf_counter() - begun,
        "refused": len(refused),
        "refused_because": next(iter(refused.values()), None),
        "refused_curves": sorted(refused),
    }
    return tuple(repr(peer.family(**parameters)) for parameters in peer.sweep), stops, about


def to_list(curve: Curve) -> Sequence[float]:
    """Return a curve's values in the metric's own unit, as Python floats."""
    values: list[float] = (curve.loss if curve.mode == "min" else -curve.loss).tolist()
    return values
