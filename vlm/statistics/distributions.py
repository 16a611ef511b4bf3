"""Quantiles and tails of the usual distributions, since numpy brings none.

Sources, named again where they are used: Abramowitz & Stegun, *Handbook of Mathematical Functions* (1964), by formula
number; Benjamini & Hochberg (1995) and, with weights, Genovese, Roeder & Wasserman (2006).
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_NORMAL = NormalDist()
_TINY = 1e-300
_erfc: Callable[[FloatArray], FloatArray] = np.vectorize(math.erfc, otypes=[np.float64])
_log_gamma: Callable[[FloatArray], FloatArray] = np.vectorize(math.lgamma, otypes=[np.float64])


def normal_quantile(chance: float) -> float:
    return _NORMAL.inv_cdf(chance)


def normal_upper(z: FloatArray) -> FloatArray:
    """Return P(Z >= z) of the standard normal distribution (A&S 26.2.29)."""
    return 0.5 * _erfc(np.asarray(z, dtype=np.float64) / math.sqrt(2.0))


def beta_lower(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b): P(Beta(a, b) <= x).

    The continued fraction A&S 26.5.8 evaluated forwards (Lentz 1976), on the side where it converges fast. ``a`` and ``b``
    need not be whole, so it is the binomial tail of an effective number of labels, too: P(Bin(n, p) >= k) = I_p(k, n-k+1)
    (A&S 26.5.24).
    """
    if x <= 0.0 or b <= 0.0:
        return 0.0
    if x >= 1.0 or a <= 0.0:
        return 1.0
    return 1.0 - _beta_fraction(1.0 - x, b, a) if x > (a + 1) / (a + b + 2) else _beta_fraction(x, a, b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 500):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away_from_zero(1.0 + step * d)
            c = _away_from_zero(1.0 + step / c)
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return min(1.0, front * fraction)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def beta_quantile(chance: float, a: float, b: float) -> float:
    """Return the x with P(Beta(a, b) <= x) = chance, by halving: 60 steps are beyond a float's precision here."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_lower(middle, a, b) < chance else (low, middle)
    return (low + high) / 2


def chi_square_upper(value: float, freedom: int) -> float:
    """Return P(X >= value) of chi-square: the incomplete gamma function by its series (A&S 6.5.29) or fraction (6.5.31)."""
    a, x = freedom / 2.0, value / 2.0
    if x <= 0.0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1.0 / a
        n = a
        while term > total * 1e-16:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1.0 - front * total)
    b = x + 1.0 - a
    c, d = 1.0 / _TINY, 1.0 / b
    fraction = d
    for i in range(1, 10_000):
        step = -i * (i - a)
        b += 2.0
        d = 1.0 / _away_from_zero(step * d + b)
        c = _away_from_zero(b + step / c)
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return min(1.0, front * fraction)


def hypergeometric_upper(hits: IntArray, drawn: IntArray, marked: int | IntArray, total: int | IntArray) -> FloatArray:
    """Return P(X >= hits) where ``drawn`` of ``total`` are drawn, ``marked`` of them being marked: Fisher's exact tail.

    The probability of ``hits`` by log-gamma, the further terms by the ratio of neighbours (A&S 26.1.21), until they no
    longer count. Up to the mean the tail is no evidence for anything: it is given as 1, so that the sums stay short.
    """
    x, n, k, t = np.broadcast_arrays(*(np.asarray(part, dtype=np.float64) for part in (hits, drawn, marked, total)))
    tail = np.ones(x.shape)
    tested = np.flatnonzero((x * t > n * k).ravel())
    if not tested.size:
        return tail
    x, n, k, t = (part.ravel()[tested] for part in (x, n, k, t))
    log_term = _log_choose(k, x) + _log_choose(t - k, n - x) - _log_choose(t, n)
    term = np.ones(x.shape)
    summed = np.ones(x.shape)
    while True:
        term = term * np.maximum(n - x, 0) * np.maximum(k - x, 0) / ((x + 1) * (t - n - k + x + 1))
        if not np.any(term > summed * 1e-12):
            break
        summed += term
        x = x + 1
    tail.ravel()[tested] = np.minimum(1.0, np.exp(log_term + np.log(summed)))
    return tail


def _log_choose(n: FloatArray, k: FloatArray) -> FloatArray:
    return _log_gamma(n + 1) - _log_gamma(k + 1) - _log_gamma(n - k + 1)


def discovery_rates(p_values: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Return each p-value corrected for having tried all of them: the false discovery rate at which it would be found.

    Benjamini & Hochberg (1995); with weights, which must be 1 on average, Genovese, Roeder & Wasserman (2006): p is divided by its
    weight first, so that a family of many tests can be given no more budget than a family of few.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not p.size:
        return p.copy()
    if weights is not None:
        p = p / weights
    order = np.argsort(p)[::-1]
    ranks = np.arange(p.size, 0, -1)
    found = np.empty(p.size)
    found[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * p.size / ranks))
    return found
