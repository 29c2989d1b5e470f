"""How far a value lies above a floor, as a fraction of the metric's size."""


def excess(value: float, floor: float, low: float, high: float) -> float:
    """Return (value - floor) as a fraction of abs(floor), or of the range if the metric touches or crosses zero.

    For a metric that keeps one sign this is value / floor - 1 up to the sign. One that touches or crosses zero has
    no meaningful ratio, so the range seen so far, high - low, takes the place of abs(floor).

    Parameters
    ----------
    value, floor : float
        The value, and what it is compared with.
    low, high : float
        Smallest and largest value of the metric so far.

    Examples
    --------
    >>> excess(1.5, 1.0, low=1.0, high=3.0)
    0.5
    >>> excess(-0.5, -1.0, low=-1.0, high=3.0)
    0.125
    """
    size = high - low if low <= 0 <= high else abs(floor)
    return (value - floor) / size if size > 0 else 0.0
