"""Means with intervals over episodes and training seeds, and paired differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def interval(self) -> list[float] | None:
        """[low, high], or None where there is no interval, as JSON has no NaN."""
        return None if np.isnan(self.low) else [self.low, self.high]


def bootstrap(
    values: np.ndarray, counted: np.ndarray | None = None, *, samples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean over everything that counts, with a percentile interval from resampled rows.

    Rows are the independent units (start states); the columns of a row (the goals sought from one start) are resampled
    together, because they share that start. The interval speaks of episodes of one trained model, and says nothing of
    training seeds.

    Args:
        values: (n,) or (n, m).
        counted: bool of the same shape; False leaves an entry out. All count by default.

    Returns:
        NaN throughout where nothing counts.
    """
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    counted = np.ones_like(values, bool) if counted is None else np.asarray(counted, bool).reshape(values.shape)
    sums, counts = np.where(counted, values, 0.0).sum(1), counted.sum(1)
    if counts.sum() == 0:
        return Estimate(np.nan, np.nan, np.nan)
    if len(values) < 2:  # a single start says nothing of the spread
        return Estimate(float(sums.sum() / counts.sum()), np.nan, np.nan)
    rows = np.random.default_rng(seed).integers(len(values), size=(samples, len(values)))
    totals = counts[rows].sum(1)
    means = sums[rows].sum(1)[totals > 0] / totals[totals > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high))


def paired_difference(ours: np.ndarray, theirs: np.ndarray, counted: np.ndarray | None = None) -> Estimate:
    """Mean of `ours - theirs` over the same starts, with the interval of `bootstrap`."""
    return bootstrap(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64), counted)


def seed_difference(
    ours: np.ndarray,
    theirs: np.ndarray,
    counted: np.ndarray | None = None,
    *,
    paired: bool,
    samples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean of `ours - theirs` with a hierarchical bootstrap: training seeds are resampled, then starts.

    All runs begin in the same starts, so that one draw of starts serves all seeds of both sides: what is peculiar to a
    start does not average out over seeds, and must not seem to.

    Args:
        ours, theirs: (s, n, m) and (s', n, m): training seeds, starts, goals sought from one start (1 without goals).
        counted: (n, m) bool; False leaves an entry out. All count by default.
        paired: the seeds of both sides are the same, in the same order, and drawn together; else each side draws its
            own.

    Returns:
        NaN throughout where nothing counts; no interval where each side has one seed and one start.
    """
    ours, theirs = (np.asarray(side, np.float64) for side in (ours, theirs))
    counted = np.ones(ours.shape[1:], bool) if counted is None else np.asarray(counted, bool)
    counts = counted.sum(-1)  # (n,)
    if counts.sum() == 0:
        return Estimate(np.nan, np.nan, np.nan)
    sums = [np.where(counted, side, 0.0).sum(-1) for side in (ours, theirs)]  # (s, n) each
    mean = float((sums[0].mean(0) - sums[1].mean(0)).sum() / counts.sum())
    if len(counts) == 1 and len(ours) == len(theirs) == 1:
        return Estimate(mean, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    starts = _draws(rng, len(counts), samples)  # (samples, n)
    seeds = [_draws(rng, len(side), samples) / len(side) for side in sums]
    if paired:
        seeds[1] = seeds[0]
    differences = seeds[0] @ sums[0] - seeds[1] @ sums[1]  # (samples, n)
    totals = starts @ counts
    means = (starts * differences).sum(1)[totals > 0] / totals[totals > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(mean, float(low), float(high))


def _draws(rng: np.random.Generator, count: int, samples: int) -> np.ndarray:
    """(samples, count) how often each of `count` units was drawn, of as many draws with replacement."""
    return rng.multinomial(count, np.full(count, 1 / count), size=samples)
