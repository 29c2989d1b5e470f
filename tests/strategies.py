"""Hypothesis strategies for the streams that a training run may give."""

from dataclasses import dataclass

from hypothesis import strategies as st

VALUES = st.one_of(
    st.integers(-3, 3).map(float),  # many ties
    st.integers(-12, 12).map(lambda i: i / 4),
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: float(f"{x:.3g}")),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
)


@dataclass(frozen=True)
class Update:
    """What one `Stopper.update` is handed."""

    value: float
    train: float
    step: int
    lr: float
    lr_ahead: float | None
    elapsed: float

    def feed(self, stopper, value=None):
        """Hand it over, with another value in place of its own if one is given."""
        metrics = {"m": self.value if value is None else value, "train": self.train, "other": 1.0}
        return stopper.update(metrics, step=self.step, lr=self.lr, lr_ahead=self.lr_ahead, elapsed=self.elapsed)


@st.composite
def runs(draw, most=40):
    """A run: unequal steps, a learning rate with rises and drops, NaN and infinities, ties."""
    updates, step = [], 0
    lr = 0.5
    for _ in range(draw(st.integers(1, most))):
        step += draw(st.sampled_from([0, 1, 1, 1, 5]))
        lr *= draw(st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5, 0.1, 2.0]))
        lr_ahead = draw(st.sampled_from([None, None, lr, lr / 10]))
        updates.append(Update(draw(VALUES), draw(VALUES), step, lr, lr_ahead, 1.5 * step))
    return updates
