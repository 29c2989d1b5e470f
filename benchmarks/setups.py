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
        What the set-up is there to show, one of `REGIMES`.
    budget_steps : int
        Planned and actual number of evaluations.
    optimizer, schedule : str
        How it is trained; `benchmarks.training` has the choices.
    lr : float
        Peak learning rate.
    seeds : int
        Number of runs, seeded 0, 1, ...
    batch_size : int
        Examples per update.
    updates : int or None
        Updates per evaluation; an epoch unless given.
    train_size : int or None
        Training examples; those that are left, or 1,000 generated ones, unless given.
    val_size : int or None
        Examples to validate on; a fifth of all, or 300 generated ones, unless given.
    label_noise : float
        Share of training labels that get another class; of a regression, share of the targets that are shuffled.
        1 shuffles them all.
    input_noise : float
        Spread of the noise added to the inputs of every batch: an augmentation.
    weight_decay : float
        As the optimizer understands it.
    init : float
        Factor on the initial weights.
    normalise : bool
        Whether inputs (and targets of a regression) are scaled.
    ordered : bool
        Whether every epoch goes through the examples in the order of their labels.
    """

    task: str
    architecture: str
    name: str
    regime: str
    budget_steps: int
    optimizer: str
    schedule: str
    lr: float
    seeds: int = 4
    batch_size: int = 32
    updates: int | None = None
    train_size: int | None = None
    val_size: int | None = None
    label_noise: float = 0.0
    input_noise: float = 0.0
    weight_decay: float = 0.0
    init: float = 1.0
    normalise: bool = True
    ordered: bool = False

    @property
    def group(self) -> str:
        """Name shared by the runs of this set-up."""
        return f"{self.task}_{self.architecture}/{self.name}"


REGIMES = (
    "learns",
    "scheduled",
    "overfits",
    "slow_start",
    "grokking",
    "flat",
    "diverges",
    "noisy_validation",
    "no_normalisation",
    "ordered",
)

# fmt: off
SETUPS = [
    # constant rates that suit, to the end
    Setup("digits", "mlp", "adam", "learns", 50, "adam", "constant", 3e-4),
    Setup("digits", "mlp", "momentum", "learns", 100, "momentum", "constant", 0.002),
    Setup("digits", "mlp", "adagrad", "learns", 100, "adagrad", "constant", 0.01),
    Setup("digits", "mlp", "rmsprop", "learns", 30, "rmsprop", "constant", 3e-4),
    Setup("digits", "mlp", "evaluated_often", "learns", 1000, "sgd", "constant", 0.03, updates=4),
    Setup("digits", "cnn", "adam", "learns", 30, "adam", "constant", 2e-3),
    Setup("digits", "cnn", "nesterov", "learns", 50, "nesterov", "constant", 0.01),
    Setup("digits", "gru", "adam", "learns", 50, "adam", "constant", 2e-3),
    Setup("digits", "lstm", "rmsprop", "learns", 50, "rmsprop", "constant", 1e-3),
    Setup("digits", "autoencoder", "adam", "learns", 150, "adam", "constant", 1e-3),
    Setup("digits", "autoencoder", "momentum", "learns", 200, "momentum", "constant", 0.3),
    Setup("digits", "vae", "adam", "learns", 100, "adam", "constant", 1e-3),
    Setup("digits", "vae", "rmsprop", "learns", 200, "rmsprop", "constant", 5e-4),
    Setup("digits", "linear", "sgd", "learns", 200, "sgd", "constant", 0.03),
    Setup("digits", "sgd_classifier", "constant", "learns", 50, "sgd", "constant", 0.01, batch_size=128),
    Setup("digits", "boosting", "stages", "learns", 50, "boosting", "constant", 0.05, train_size=300),
    Setup("breast_cancer", "linear", "sgd", "learns", 100, "sgd", "constant", 0.02),
    Setup("breast_cancer", "sgd_classifier", "constant", "learns", 100, "sgd", "constant", 1e-3, batch_size=64),
    Setup("breast_cancer", "mlp", "adam", "learns", 30, "adam", "constant", 2e-4),
    Setup("wine", "mlp", "adam", "learns", 100, "adam", "constant", 5e-4, batch_size=16),
    Setup("wine", "linear", "adagrad", "learns", 50, "adagrad", "constant", 0.05, batch_size=16),
    Setup("wine", "boosting", "stages", "learns", 20, "boosting", "constant", 0.1),
    Setup("diabetes", "mlp", "sgd", "learns", 50, "sgd", "constant", 0.005),
    Setup("diabetes", "linear", "adam", "learns", 200, "adam", "constant", 2e-3),
    Setup("friedman", "mlp", "adam", "learns", 100, "adam", "constant", 5e-4),
    Setup("friedman", "linear", "sgd", "learns", 20, "sgd", "constant", 0.002),
    Setup("friedman", "boosting", "stages", "learns", 300, "boosting", "constant", 0.05),
    Setup("teacher", "mlp", "adam", "learns", 30, "adam", "constant", 3e-4, train_size=4000, batch_size=64),
    Setup("spirals", "mlp", "adam", "learns", 200, "adam", "constant", 2e-3),
    Setup("spirals", "mlp", "nesterov", "learns", 500, "nesterov", "constant", 0.02, updates=15),
    Setup("xor", "wide_mlp", "momentum", "learns", 100, "momentum", "constant", 0.003, train_size=8000, updates=40),
    Setup("wave", "mlp", "adam", "learns", 100, "adam", "constant", 5e-4, train_size=4000, updates=60),
    Setup("wave", "wide_mlp", "rmsprop", "learns", 300, "rmsprop", "constant", 1e-3, updates=15),
    Setup("sines", "gru", "adam", "learns", 50, "adam", "constant", 2e-3),
    Setup("sines", "mlp", "adam", "learns", 50, "adam", "constant", 1e-3),
    Setup("bars", "cnn", "adam", "learns", 30, "adam", "constant", 1e-3, train_size=2000),
    Setup("markov", "gru", "adam", "learns", 30, "adam", "constant", 3e-3),
    Setup("markov", "lstm", "adagrad", "learns", 50, "adagrad", "constant", 0.03),
    Setup("markov", "transformer", "adam", "learns", 30, "adam", "constant", 1e-3),

    # rates that fall (or rise first) as planned
    Setup("digits", "mlp", "step", "scheduled", 100, "momentum", "step", 0.15, input_noise=0.5),
    Setup("digits", "mlp", "cosine", "scheduled", 100, "momentum", "cosine", 0.1, input_noise=0.4),
    Setup("digits", "mlp", "one_cycle", "scheduled", 50, "momentum", "one_cycle", 0.15, input_noise=0.4),
    Setup("digits", "mlp", "restarts", "scheduled", 140, "momentum", "restarts", 0.1, input_noise=0.4),
    Setup("digits", "mlp", "warm_up_cosine", "scheduled", 60, "adamw", "warm_up_cosine", 0.02, weight_decay=0.1),
    Setup("digits", "mlp", "step_evaluated_often", "scheduled", 1000, "sgd", "step", 0.5,
          updates=4, batch_size=8, input_noise=0.5),
    Setup("digits", "cnn", "step", "scheduled", 60, "momentum", "step", 0.1, input_noise=0.4),
    Setup("digits", "cnn", "step_label_noise", "scheduled", 50, "momentum", "step", 0.05, label_noise=0.2),
    Setup("digits", "cnn", "one_cycle", "scheduled", 30, "momentum", "one_cycle", 0.1),
    Setup("digits", "cnn", "restarts", "scheduled", 70, "nesterov", "restarts", 0.1, input_noise=0.4),
    Setup("digits", "gru", "cosine", "scheduled", 60, "adamw", "cosine", 0.02, input_noise=0.4),
    Setup("digits", "gru", "step", "scheduled", 50, "adam", "step", 0.03, input_noise=0.4),
    Setup("digits", "lstm", "late_step", "scheduled", 50, "adam", "late_step", 0.03, input_noise=0.4),
    Setup("digits", "autoencoder", "late_step", "scheduled", 100, "adam", "late_step", 0.01,
          batch_size=16, input_noise=0.3),
    Setup("digits", "autoencoder", "restarts", "scheduled", 70, "adam", "restarts", 0.015, batch_size=16),
    Setup("digits", "vae", "step", "scheduled", 80, "adam", "step", 0.02, batch_size=16),
    Setup("digits", "vae", "one_cycle", "scheduled", 50, "adam", "one_cycle", 0.03),
    Setup("digits", "autoencoder", "cosine", "scheduled", 60, "adam", "cosine", 0.015, batch_size=16, input_noise=0.2),
    Setup("digits", "linear", "late_step", "scheduled", 60, "momentum", "late_step", 0.5,
          batch_size=16, input_noise=0.5),
    Setup("breast_cancer", "linear", "step", "scheduled", 80, "sgd", "step", 2.0, batch_size=16, input_noise=1.5),
    Setup("bars", "cnn", "exponential", "scheduled", 50, "momentum", "exponential", 0.1, batch_size=16, train_size=3000,
          updates=60, input_noise=0.3),
    Setup("sines", "lstm", "cosine", "scheduled", 50, "adam", "cosine", 0.03, train_size=3000, updates=40),
    Setup("teacher", "wide_mlp", "cosine", "scheduled", 100, "sgd", "cosine", 0.15, batch_size=16,
          train_size=4000, updates=60),
    Setup("diabetes", "linear", "step", "scheduled", 120, "sgd", "step", 0.1, batch_size=8),
    Setup("friedman", "mlp", "step", "scheduled", 60, "adam", "step", 0.03, batch_size=16, train_size=2000),
    Setup("friedman", "mlp", "warm_up_cosine", "scheduled", 100, "momentum", "warm_up_cosine", 0.1,
          batch_size=16, train_size=4000, updates=60),
    Setup("friedman", "linear", "late_step", "scheduled", 50, "sgd", "late_step", 0.07, batch_size=4, train_size=400),
    Setup("teacher", "mlp", "early_step", "scheduled", 50, "adam", "early_step", 0.02, train_size=10_000, updates=100),
    Setup("teacher", "linear", "restarts", "scheduled", 140, "sgd", "restarts", 0.08, batch_size=8, train_size=400),
    Setup("spirals", "mlp", "cosine", "scheduled", 200, "adam", "cosine", 0.03, input_noise=0.15),
    Setup("spirals", "mlp", "late_step", "scheduled", 300, "momentum", "late_step", 0.1, updates=15, input_noise=0.15),
    Setup("wave", "mlp", "step", "scheduled", 100, "adam", "step", 0.02, batch_size=16),
    Setup("wave", "wide_mlp", "restarts", "scheduled", 280, "adam", "restarts", 0.05, updates=15),
    Setup("sines", "gru", "step", "scheduled", 50, "adam", "step", 0.03),
    Setup("sines", "mlp", "one_cycle", "scheduled", 50, "adam", "one_cycle", 0.03),
    Setup("bars", "cnn", "step", "scheduled", 40, "momentum", "step", 0.1, train_size=2000, label_noise=0.1),
    Setup("bars", "mlp", "exponential", "scheduled", 50, "momentum", "exponential", 0.2,
          train_size=2000, input_noise=0.5),
    Setup("markov", "transformer", "warm_up_cosine", "scheduled", 40, "adamw", "warm_up_cosine", 0.01,
          weight_decay=0.1, train_size=4000, updates=30),
    Setup("markov", "gru", "step", "scheduled", 40, "adam", "step", 0.05),
    Setup("markov", "lstm", "cosine", "scheduled", 40, "adam", "cosine", 0.05, train_size=4000, updates=40),
    Setup("xor", "wide_mlp", "late_step", "scheduled", 200, "sgd", "late_step", 0.3, train_size=20_000, updates=50,
          batch_size=8),

    # spoilt labels, or few examples
    Setup("digits", "mlp", "label_noise_10", "overfits", 150, "adam", "constant", 1e-3, label_noise=0.1),
    Setup("digits", "mlp", "label_noise_30", "overfits", 100, "adam", "constant", 1e-3, label_noise=0.3),
    Setup("digits", "mlp", "few_examples", "overfits", 300, "momentum", "constant", 0.05, train_size=60,
          label_noise=0.1),
    Setup("digits", "cnn", "label_noise", "overfits", 80, "adam", "constant", 5e-3, label_noise=0.4),
    Setup("digits", "gru", "few_examples", "overfits", 200, "adam", "constant", 5e-3, train_size=100, label_noise=0.2),
    Setup("digits", "autoencoder", "few_examples", "overfits", 500, "adam", "constant", 3e-3, train_size=30),
    Setup("digits", "vae", "few_examples", "overfits", 500, "adam", "constant", 2e-3, train_size=40),
    Setup("digits", "linear", "few_examples", "overfits", 300, "adam", "constant", 0.02, train_size=100,
          label_noise=0.3),
    Setup("breast_cancer", "mlp", "label_noise", "overfits", 200, "adam", "constant", 1e-3, label_noise=0.25),
    Setup("breast_cancer", "boosting", "label_noise", "overfits", 250, "boosting", "constant", 0.2, label_noise=0.3),
    Setup("wine", "mlp", "label_noise", "overfits", 300, "adam", "constant", 1e-3, batch_size=16, label_noise=0.3),
    Setup("wine", "boosting", "label_noise", "overfits", 50, "boosting", "constant", 0.2, label_noise=0.4),
    Setup("diabetes", "mlp", "long", "overfits", 300, "adam", "constant", 1e-3),
    Setup("diabetes", "boosting", "stages", "overfits", 300, "boosting", "constant", 0.1),
    Setup("friedman", "mlp", "few_examples", "overfits", 500, "adam", "constant", 1e-3, train_size=100,
          label_noise=0.2),
    Setup("friedman", "boosting", "label_noise", "overfits", 300, "boosting", "constant", 0.2,
          train_size=200, label_noise=0.3),
    Setup("teacher", "mlp", "few_examples", "overfits", 200, "adam", "constant", 5e-4, train_size=150,
          label_noise=0.2),
    Setup("teacher", "wide_mlp", "label_noise", "overfits", 100, "momentum", "constant", 2e-3, train_size=400,
          label_noise=0.2),
    Setup("spirals", "mlp", "label_noise", "overfits", 500, "adam", "constant", 5e-3, train_size=200,
          label_noise=0.4),
    Setup("xor", "mlp", "few_examples", "overfits", 150, "adam", "constant", 5e-4, train_size=500),
    Setup("wave", "mlp", "few_examples", "overfits", 200, "adam", "constant", 1e-3, train_size=150),
    Setup("sines", "mlp", "few_examples", "overfits", 200, "adam", "constant", 3e-3, train_size=60, label_noise=0.2),
    Setup("bars", "cnn", "few_examples", "overfits", 150, "adam", "constant", 5e-3, train_size=80),
    Setup("markov", "gru", "few_examples", "overfits", 300, "adam", "constant", 0.01, train_size=30),
    Setup("markov", "transformer", "few_examples", "overfits", 100, "adam", "constant", 2e-3, train_size=40),

    # nothing for a while, then something
    Setup("digits", "sigmoid_mlp", "sgd", "slow_start", 200, "sgd", "constant", 0.5),
    Setup("digits", "sigmoid_mlp", "adam", "slow_start", 100, "adam", "constant", 3e-4),
    Setup("digits", "gru", "sgd", "slow_start", 100, "sgd", "constant", 0.05),
    Setup("digits", "mlp", "small_weights", "slow_start", 200, "sgd", "constant", 0.05, init=0.15),
    Setup("digits", "autoencoder", "slow_warm_up", "slow_start", 120, "adam", "slow_warm_up", 1e-3),
    Setup("parity", "wide_mlp", "sgd", "slow_start", 300, "sgd", "constant", 0.04, train_size=4000, updates=20),
    Setup("parity", "mlp", "adam", "slow_start", 100, "adam", "constant", 5e-4, train_size=4000, updates=30),
    Setup("parity", "wide_mlp", "momentum", "slow_start", 500, "momentum", "constant", 5e-3,
          train_size=4000, updates=10),
    Setup("adding", "gru", "adam", "slow_start", 200, "adam", "constant", 4e-4, train_size=4000, updates=15),
    Setup("adding", "lstm", "adam", "slow_start", 300, "adam", "constant", 5e-4, train_size=4000, updates=12),
    Setup("copying", "transformer", "adam", "slow_start", 100, "adam", "constant", 2e-4, train_size=4000, updates=25),
    Setup("copying", "gru", "adam", "learns", 200, "adam", "constant", 2e-3, train_size=4000, updates=20),
    Setup("spirals", "mlp", "sgd", "slow_start", 500, "sgd", "constant", 0.03, updates=15, init=0.5),

    # the training examples are known by heart long before the others are understood
    Setup("modular", "wide_mlp", "weight_decay", "grokking", 300, "adamw", "constant", 0.01,
          batch_size=320, updates=15, weight_decay=1.0),
    Setup("modular", "wide_mlp", "less_decay", "grokking", 500, "adamw", "constant", 0.01,
          batch_size=320, updates=15, weight_decay=0.5),
    Setup("modular", "wide_mlp", "evaluated_often", "grokking", 1000, "adamw", "constant", 5e-3,
          batch_size=320, updates=5, weight_decay=1.0),
    Setup("modular", "wide_mlp", "large_weights", "grokking", 500, "adamw", "constant", 5e-3,
          batch_size=320, updates=10, weight_decay=1.0, init=2.0),
    Setup("modular", "transformer", "weight_decay", "grokking", 200, "adamw", "constant", 2e-3,
          batch_size=320, updates=12, weight_decay=1.0),

    # nothing, to the end
    Setup("digits", "mlp", "rate_too_low", "flat", 60, "sgd", "constant", 1e-6),
    Setup("digits", "mlp", "shuffled_labels", "flat", 80, "sgd", "constant", 0.02, label_noise=1.0),
    Setup("wine", "mlp", "rate_too_low", "flat", 30, "adam", "constant", 1e-7, batch_size=16),
    Setup("diabetes", "mlp", "shuffled_targets", "flat", 50, "sgd", "constant", 3e-4, label_noise=1.0),
    Setup("diabetes", "boosting", "rate_too_low", "flat", 50, "boosting", "constant", 1e-5),
    Setup("markov", "gru", "rate_too_low", "flat", 30, "adam", "constant", 1e-7),
    Setup("bars", "cnn", "rate_too_low", "flat", 100, "sgd", "constant", 1e-6, updates=15),
    Setup("parity", "linear", "not_linear", "flat", 200, "sgd", "constant", 2e-3,
          train_size=4000, updates=10, init=0.1),
    Setup("xor", "linear", "not_linear", "flat", 100, "sgd", "constant", 1e-3, train_size=2000, init=0.1),

    # rates that are too high, or become so
    Setup("digits", "mlp", "rate_too_high", "diverges", 40, "momentum", "constant", 5.0),
    Setup("digits", "mlp", "rising_rate", "diverges", 60, "momentum", "rising", 10.0),
    Setup("digits", "cnn", "rate_too_high", "diverges", 20, "sgd", "constant", 20.0),
    Setup("digits", "autoencoder", "rate_too_high", "diverges", 30, "sgd", "constant", 50.0),
    Setup("digits", "autoencoder", "rising_rate", "diverges", 60, "momentum", "rising", 100.0),
    Setup("breast_cancer", "mlp", "rate_too_high", "diverges", 20, "sgd", "constant", 100.0),
    Setup("diabetes", "linear", "rate_too_high", "diverges", 50, "sgd", "constant", 0.3),
    Setup("diabetes", "linear", "far_too_high", "diverges", 30, "sgd", "constant", 0.4),
    Setup("friedman", "mlp", "one_cycle_too_high", "diverges", 100, "adam", "one_cycle", 1.0),
    Setup("diabetes", "mlp", "rising_rate", "diverges", 60, "sgd", "rising", 10.0),
    Setup("wave", "mlp", "rate_too_high", "diverges", 50, "momentum", "constant", 0.05),
    Setup("sines", "gru", "rate_too_high", "diverges", 30, "adam", "constant", 0.3),
    Setup("markov", "transformer", "one_cycle_too_high", "diverges", 30, "adam", "one_cycle", 0.1),

    # a handful of examples to validate on
    Setup("digits", "mlp", "few_validation", "noisy_validation", 100, "adam", "constant", 1e-3, val_size=20),
    Setup("digits", "gru", "few_validation", "noisy_validation", 50, "rmsprop", "constant", 2e-3, val_size=20),
    Setup("breast_cancer", "linear", "few_validation", "noisy_validation", 80, "adam", "constant", 0.01,
          val_size=15, input_noise=1.0),
    Setup("wine", "mlp", "few_validation", "noisy_validation", 100, "adam", "constant", 3e-3,
          val_size=12, input_noise=1.5),
    Setup("diabetes", "mlp", "few_validation", "noisy_validation", 100, "sgd", "constant", 0.02,
          batch_size=8, val_size=15),
    Setup("spirals", "mlp", "few_validation", "noisy_validation", 200, "momentum", "constant", 0.05,
          val_size=15, updates=20),

    # inputs and targets as they come
    Setup("digits", "mlp", "raw", "no_normalisation", 100, "sgd", "constant", 0.01, normalise=False),
    Setup("digits", "autoencoder", "raw", "no_normalisation", 100, "adam", "constant", 1e-3, normalise=False),
    Setup("breast_cancer", "linear", "raw", "no_normalisation", 200, "adam", "constant", 1e-3, normalise=False),
    Setup("wine", "mlp", "raw", "no_normalisation", 200, "adam", "constant", 1e-3, batch_size=16, normalise=False),
    Setup("diabetes", "mlp", "raw", "no_normalisation", 150, "adam", "constant", 1e-3, normalise=False),

    # pairs of one start: examples in the order of their labels, and in random order
    Setup("digits", "mlp", "ordered", "ordered", 50, "sgd", "constant", 0.1, ordered=True),
    Setup("digits", "mlp", "shuffled", "learns", 50, "sgd", "constant", 0.1),
    Setup("digits", "cnn", "ordered", "ordered", 40, "adam", "constant", 1e-3, ordered=True),
    Setup("digits", "cnn", "shuffled", "learns", 40, "adam", "constant", 1e-3),
    Setup("breast_cancer", "linear", "ordered", "ordered", 100, "sgd", "constant", 0.3, ordered=True),
    Setup("breast_cancer", "linear", "shuffled", "learns", 100, "sgd", "constant", 0.3),
    Setup("wine", "mlp", "ordered", "ordered", 100, "momentum", "constant", 0.01, batch_size=16, ordered=True),
    Setup("wine", "mlp", "shuffled", "learns", 100, "momentum", "constant", 0.01, batch_size=16),
    Setup("friedman", "mlp", "ordered", "ordered", 100, "sgd", "constant", 0.02, ordered=True),
    Setup("friedman", "mlp", "shuffled", "learns", 100, "sgd", "constant", 0.02),
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
