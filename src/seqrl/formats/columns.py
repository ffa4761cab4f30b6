"""What one dimension of recorded episodes looks like: range, ties, and what is no number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PERCENTILES = (1, 50, 99)
HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class Column:
    """One dimension of observation or action, or the reward.

    Attributes:
        name: such as `observation 3`.
        minimum, maximum, mean, std, percentiles: of the finite values; None where there are none.
        distinct: how many different finite values.
        most_common: share of the most frequent finite value, in [0, 1]: 1 is a constant, large is a tie that
            quantile bins have to survive.
        nan, infinite: how many; numbers beyond float32 count as infinite, as they would in training.
    """

    name: str
    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    percentiles: tuple[float, ...] | None
    distinct: int
    most_common: float
    nan: int
    infinite: int


def describe_columns(field: str, array: np.ndarray) -> list[Column]:
    """Of every dimension of (N, D) numbers."""
    return [describe_column(f"{field} {number}", values) for number, values in enumerate(as_matrix(array).T)]


def describe_column(name: str, values: np.ndarray) -> Column:
    """Of (N,) float64, infinite where float32 would be."""
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    finite = values[np.isfinite(values)] if nan or infinite else values
    if len(finite) == 0:
        return Column(name, None, None, None, None, None, 0, 0.0, nan, infinite)
    distinct, counts = np.unique(finite, return_counts=True)
    return Column(
        name,
        float(distinct[0]),
        float(distinct[-1]),
        float(finite.mean()),
        float(finite.std()),
        tuple(float(p) for p in np.percentile(finite, PERCENTILES)),
        len(distinct),
        float(counts.max() / len(finite)),
        nan,
        infinite,
    )


def as_matrix(array: np.ndarray) -> np.ndarray:
    """(N, D) float64, infinite where float32 would be."""
    values = np.asarray(array, np.float64).reshape(len(array), int(np.prod(np.shape(array)[1:])))
    beyond = np.abs(values) > np.finfo(np.float32).max
    return np.where(beyond, np.copysign(np.inf, values), values) if beyond.any() else values


def summarise(values: np.ndarray) -> dict[str, float]:
    """Minimum, mean, median, maximum and standard deviation by name; nothing of no values."""
    if len(values) == 0:
        return {}
    return {
        "minimum": float(values.min()),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "maximum": float(values.max()),
        "std": float(values.std()),
    }


def count_bins(values: np.ndarray) -> tuple[list[float], list[int]]:
    """(edges, counts) of a histogram; two empty lists for no values."""
    if len(values) == 0:
        return [], []
    counts, edges = np.histogram(np.asarray(values, np.float64), bins=HISTOGRAM_BINS)
    return edges.tolist(), counts.tolist()
