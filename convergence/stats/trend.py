"""Is a series falling? Rank tests and robust noise, whatever its scale and its outliers."""

import math

import numpy as np

from convergence.lanes import FloatArray

LONGEST = 128
"""Points that a rank test looks at; longer series are taken by the medians of blocks, which also tames noise."""


def mann_kendall(values: FloatArray) -> float:
    """Return the Z statistic of the Mann-Kendall trend test: negative when the series falls.

    S = sum over i < j of sign(y_j - y_i), with the variance corrected for ties and S for continuity.

    Parameters
    ----------
    values : array of float, shape (n,)
        Finite values in order; more than 128 are first reduced to the medians of blocks.

    Returns
    -------
    float
        About standard normal without a trend; 0 for fewer than 3 values or a constant series.

    Notes
    -----
    Autocorrelation makes abs(Z) larger than it should be. O(n**2) for n up to 128.

    Mann (1945); Kendall (1975), "Rank Correlation Methods".

    Examples
    --------
    >>> round(mann_kendall(np.array([5.0, 4.0, 4.5, 3.0, 2.0])), 2)
    -1.71
    """
    y = block_medians(values, LONGEST)
    n = len(y)
    if n < 3:
        return 0.0
    score = float(np.sum(np.triu(np.sign(y[None, :] - y[:, None]), 1)))
    _, ties = np.unique(y, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18
    if variance <= 0:
        return 0.0
    return (score - math.copysign(min(abs(score), 1.0), score)) / math.sqrt(variance)


def falling_p(values: FloatArray) -> float:
    """Return the one-sided p-value of the Mann-Kendall test for a falling series.

    Examples
    --------
    >>> falling_p(np.arange(20.0)[::-1]) < 1e-6
    True
    """
    from scipy.special import ndtr  # here, because it takes longer to import than all else together

    return float(ndtr(mann_kendall(values)))


def block_medians(values: FloatArray, longest: int) -> FloatArray:
    """Return at most `longest` values: the series itself, or the medians of equal blocks of it.

    Examples
    --------
    >>> block_medians(np.array([1.0, 2.0, 3.0, 10.0, 11.0, 12.0]), 2)
    array([ 2., 11.])
    """
    if len(values) <= longest:
        return values
    return np.array([np.median(block) for block in np.array_split(values, longest)])


def noise(values: FloatArray) -> float:
    """Return the standard deviation of the noise around a slow trend: 1.4826 * MAD of the differences / sqrt(2).

    0 for fewer than 3 values.

    Examples
    --------
    >>> noise(np.array([5.0, 4.0, 3.0, 2.0]))
    0.0
    """
    if len(values) < 3:
        return 0.0
    steps = np.diff(values)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2))
