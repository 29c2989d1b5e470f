"""The callbacks for a Trainer of `lightning.pytorch`."""

import logging

from lightning.pytorch import __version__
from lightning.pytorch import callbacks as native
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason, log
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_ext.best_model import BestKeeping
from lightning_ext.convergence_stopping import RuleStopping
from lightning_ext.early_stopping import FloatEarlyStopping

__all__ = ["BestModel", "ConvergenceStopping", "EarlyStopping", "EarlyStoppingReason", "log"]


class EarlyStopping(FloatEarlyStopping, native.EarlyStopping):
    __doc__ = FloatEarlyStopping.__doc__
    namespace = "lightning.pytorch"
    _native = native.EarlyStopping
    _misconfigured = MisconfigurationException
    _reasons = EarlyStoppingReason


class BestModel(BestKeeping, native.ModelCheckpoint):
    __doc__ = BestKeeping.__doc__
    namespace = "lightning.pytorch"
    _lightning_version = __version__


class ConvergenceStopping(RuleStopping, native.EarlyStopping):
    __doc__ = RuleStopping.__doc__
    namespace = "lightning.pytorch"
    _native = native.EarlyStopping
    _best_model_class = BestModel
    _checkpoint_class = native.ModelCheckpoint
    _reasons = EarlyStoppingReason
    _log = logging.getLogger("lightning.pytorch.convergence")
