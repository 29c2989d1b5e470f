"""Peers' early stopping as rules: each stops at the index at which the peer stops, its oddities included.

Move over with a preset and see that nothing changes; then choose a rule of ours. Where a peer has them, `patience` and
`min_delta` come first, whatever their order there.
"""

from convergence.presets.autogluon import autogluon
from convergence.presets.catboost import catboost
from convergence.presets.composer import composer
from convergence.presets.fastai import fastai
from convergence.presets.huggingface import huggingface
from convergence.presets.ignite import ignite
from convergence.presets.keras import keras
from convergence.presets.lightgbm import lightgbm
from convergence.presets.lightning import lightning
from convergence.presets.optuna_patient import optuna_patient
from convergence.presets.ray_plateau import ray_plateau
from convergence.presets.sklearn import sklearn_hist_gb, sklearn_mlp, sklearn_sgd
from convergence.presets.skorch import skorch
from convergence.presets.torch_plateau import torch_plateau
from convergence.presets.ultralytics import ultralytics
from convergence.presets.xgboost import xgboost

__all__ = [
    "autogluon",
    "catboost",
    "composer",
    "fastai",
    "huggingface",
    "ignite",
    "keras",
    "lightgbm",
    "lightning",
    "optuna_patient",
    "ray_plateau",
    "sklearn_hist_gb",
    "sklearn_mlp",
    "sklearn_sgd",
    "skorch",
    "torch_plateau",
    "ultralytics",
    "xgboost",
]
