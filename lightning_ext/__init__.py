"""PyTorch Lightning callbacks around the convergence engine: stop training, keep the best model, say why.

Lightning exists under two names, `pytorch_lightning` and `lightning.pytorch`, whose classes do not mix. The names here
are those of the namespace that is already imported; if both or neither are, of `pytorch_lightning` if it is installed,
else of `lightning.pytorch`. `for_namespace` gives those of one.

Examples
--------
>>> from lightning_ext import ConvergenceStopping
>>> ConvergenceStopping("val_loss", rule="Patience(5) | NonFinite()").mode
'min'
"""

from typing import Any

from lightning_ext.namespaces import default_namespace, for_namespace

__all__ = ["BestModel", "ConvergenceStopping", "EarlyStopping", "for_namespace"]

_CLASSES = ("BestModel", "ConvergenceStopping", "EarlyStopping")


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLASSES})


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(for_namespace(default_namespace()), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
