"""The table of recorded runs: task, architecture, optimizer, schedule, regime and number of seeds."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Setup:
    """How one group of runs is trained; the runs of a group differ in their seed only.

    Attributes
    ----------
    task, architecture, name : str
        Data set, model and a short name; together they name the group.
    regime : str
        What the set-up is there to show.
    budget_steps : int
        Planned and actual number of evaluations.
    optimizer, schedule : str
        How it is trained; `benchmarks.tasks` has the choices.
    lr : float
        Peak learning rate.
    seeds : int
        Number of runs, seeded 0, 1, ...
    batch_size : int
        Examples per update.
    train_size : int or None
        Keep only so many training examples.
    val_size : int or None
        Examples to validate on; a fifth of all unless given.
    label_noise : float
        Share of training labels that get another class; 1 shuffles them all.
    input_noise : float
        Spread of the noise added to the inputs of every batch: an augmentation.
    normalise : bool
        Whether inputs (and targets of a regression) are scaled.
    """

    task: str
    architecture: str
    name: str
    regime: str
    budget_steps: int
    optimizer: str
    schedule: str
    lr: float
    seeds: int = 2
    batch_size: int = 32
    train_size: int | None = None
    val_size: int | None = None
    label_noise: float = 0.0
    input_noise: float = 0.0
    normalise: bool = True

    @property
    def group(self) -> str:
        """Name shared by the runs of this set-up."""
        return f"{self.task}_{self.architecture}/{self.name}"


# fmt: off
SETUPS = [
    Setup("digits", "mlp", "adam", "learns", 80, "adam", "constant", 1e-3),
    Setup("digits", "mlp", "momentum", "learns", 150, "momentum", "constant", 0.01),
    Setup("digits", "mlp", "label_noise", "overfits", 150, "adam", "constant", 1e-3, label_noise=0.3),
    Setup("digits", "mlp", "few_examples", "overfits", 300, "momentum", "constant", 0.1, train_size=60),
    Setup("digits", "mlp", "rate_too_low", "flat", 60, "sgd", "constant", 1e-6),
    Setup("digits", "mlp", "shuffled_labels", "flat", 80, "sgd", "constant", 0.02, label_noise=1.0),
    Setup("digits", "mlp", "rate_too_high", "diverges", 40, "momentum", "constant", 5.0),
    Setup("digits", "mlp", "rising_rate", "diverges", 60, "momentum", "rising", 10.0),
    Setup("digits", "mlp", "step_decay", "scheduled", 120, "momentum", "step", 0.15, input_noise=0.5),
    Setup("digits", "mlp", "cosine", "scheduled", 120, "momentum", "cosine", 0.1, input_noise=0.4),
    Setup("digits", "mlp", "one_cycle", "scheduled", 50, "momentum", "one_cycle", 0.2),
    Setup("digits", "sigmoid_mlp", "sgd", "slow_start", 300, "sgd", "constant", 0.5),
    Setup("digits", "sigmoid_mlp", "adam", "slow_start", 100, "adam", "constant", 1e-3),
    Setup("digits", "mlp", "few_validation", "noisy_validation", 120, "adam", "constant", 1e-3, val_size=20),
    Setup("digits", "mlp", "raw", "no_normalisation", 100, "sgd", "constant", 0.01, normalise=False),
    Setup("digits", "cnn", "adam", "learns", 40, "adam", "constant", 2e-3),
    Setup("digits", "cnn", "label_noise", "overfits", 120, "adam", "constant", 5e-3, label_noise=0.4),
    Setup("digits", "cnn", "rate_too_high", "diverges", 25, "sgd", "constant", 20.0),
    Setup("digits", "cnn", "step_decay", "scheduled", 100, "momentum", "step", 0.1, input_noise=0.4),
    Setup("digits", "cnn", "step_label_noise", "scheduled", 80, "momentum", "step", 0.05, label_noise=0.2),
    Setup("digits", "cnn", "one_cycle", "scheduled", 30, "momentum", "one_cycle", 0.1),
    Setup("digits", "gru", "adam", "learns", 80, "adam", "constant", 2e-3),
    Setup("digits", "gru", "sgd", "slow_start", 150, "sgd", "constant", 0.03),
    Setup("digits", "gru", "cosine", "scheduled", 60, "adamw", "cosine", 0.02, input_noise=0.4),
    Setup("digits", "gru", "few_validation", "noisy_validation", 80, "rmsprop", "constant", 2e-3, val_size=20),
    Setup("digits", "autoencoder", "adam", "learns", 150, "adam", "constant", 1e-3),
    Setup("digits", "autoencoder", "warm_up", "slow_start", 120, "adam", "warm_up", 1e-3),
    Setup("digits", "autoencoder", "late_step", "scheduled", 120, "adam", "late_step", 0.01,
          batch_size=16, input_noise=0.3),
    Setup("digits", "autoencoder", "rate_too_high", "diverges", 30, "sgd", "constant", 50.0),
    Setup("digits", "autoencoder", "rising_rate", "diverges", 60, "momentum", "rising", 100.0),
    Setup("digits", "autoencoder", "raw", "no_normalisation", 100, "adam", "constant", 1e-3, normalise=False),
    Setup("digits", "autoencoder", "few_examples", "overfits", 400, "adam", "constant", 3e-3, train_size=30),
    Setup("digits", "sgd_classifier", "constant", "learns", 60, "sgd", "constant", 0.01, batch_size=128),
    Setup("digits", "sgd_classifier", "step_decay", "scheduled", 60, "sgd", "step", 1.0, batch_size=128),
    Setup("digits", "boosting", "stages", "learns", 60, "boosting", "constant", 0.1, seeds=1),
    Setup("digits", "logistic", "late_step", "scheduled", 60, "momentum", "late_step", 0.5,
          batch_size=16, input_noise=0.5),
    Setup("breast_cancer", "logistic", "sgd", "learns", 100, "sgd", "constant", 0.02),
    Setup("breast_cancer", "logistic", "step_decay", "scheduled", 80, "sgd", "step", 2.0,
          batch_size=16, input_noise=1.5),
    Setup("breast_cancer", "logistic", "few_validation", "noisy_validation", 80, "adam", "constant", 0.01,
          val_size=15, input_noise=1.0),
    Setup("breast_cancer", "logistic", "raw", "no_normalisation", 200, "adam", "constant", 1e-3, normalise=False),
    Setup("breast_cancer", "mlp", "adam", "learns", 60, "adam", "constant", 2e-4),
    Setup("breast_cancer", "mlp", "label_noise", "overfits", 200, "adam", "constant", 1e-3, label_noise=0.25),
    Setup("breast_cancer", "mlp", "rate_too_high", "diverges", 20, "sgd", "constant", 100.0),
    Setup("breast_cancer", "boosting", "label_noise", "overfits", 250, "boosting", "constant", 0.2, label_noise=0.3),
    Setup("breast_cancer", "sgd_classifier", "constant", "learns", 100, "sgd", "constant", 1e-3, batch_size=64),
    Setup("wine", "mlp", "adam", "learns", 100, "adam", "constant", 5e-4, batch_size=16),
    Setup("wine", "mlp", "rate_too_low", "flat", 40, "adam", "constant", 1e-7, batch_size=16),
    Setup("wine", "mlp", "few_validation", "noisy_validation", 100, "adam", "constant", 3e-3,
          val_size=12, input_noise=1.5),
    Setup("wine", "mlp", "label_noise", "overfits", 300, "adam", "constant", 1e-3, batch_size=16, label_noise=0.3),
    Setup("wine", "mlp", "raw", "no_normalisation", 250, "adam", "constant", 1e-3, batch_size=16, normalise=False),
    Setup("wine", "boosting", "stages", "learns", 20, "boosting", "constant", 0.2),
    Setup("diabetes", "mlp", "sgd", "learns", 80, "sgd", "constant", 0.005),
    Setup("diabetes", "mlp", "long", "overfits", 400, "adam", "constant", 1e-3),
    Setup("diabetes", "logistic", "rate_too_high", "diverges", 40, "sgd", "constant", 0.3),
    Setup("diabetes", "logistic", "far_too_high", "diverges", 30, "sgd", "constant", 0.4),
    Setup("diabetes", "mlp", "rising_rate", "diverges", 60, "sgd", "rising", 10.0),
    Setup("diabetes", "mlp", "cosine", "scheduled", 100, "sgd", "cosine", 0.05, batch_size=8, input_noise=1.0),
    Setup("diabetes", "mlp", "shuffled_targets", "flat", 60, "sgd", "constant", 3e-4, label_noise=1.0),
    Setup("diabetes", "logistic", "step_decay", "scheduled", 120, "sgd", "step", 0.08, batch_size=8),
    Setup("diabetes", "mlp", "few_validation", "noisy_validation", 100, "sgd", "constant", 0.02,
          batch_size=8, val_size=15),
    Setup("diabetes", "mlp", "raw", "no_normalisation", 150, "adam", "constant", 1e-3, normalise=False),
    Setup("diabetes", "boosting", "stages", "overfits", 300, "boosting", "constant", 0.1),
    Setup("diabetes", "boosting", "rate_too_low", "flat", 50, "boosting", "constant", 1e-5),
]
# fmt: on


def all_runs() -> Iterator[tuple[str, Setup, int]]:
    """Every run of the table.

    Yields
    ------
    tuple of str, Setup, int
        Run id, set-up and seed.
    """
    for setup in SETUPS:
        for seed in range(setup.seeds):
            yield f"{setup.group}/seed{seed}", setup, seed
