"""Means and success rates with intervals over episodes and training seeds, and paired differences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_Z = 1.959963984540054  # 97.5 % of a normal distribution lie below


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


def success_rate(success: np.ndarray, counted: np.ndarray | None = None, *, drives: int | None = None) -> Estimate:
    """Percentage of successes, with Wilson's score interval.

    Unlike a bootstrap it has a width where all episodes ended alike: no success in 10 episodes is [0, 28], not [0, 0].

    Args:
        success: (n, m) or (n,) bool, from start i toward goal j.
        counted: bool of the same shape; False leaves an entry out. All count by default.
        drives: columns of episodes that were really run: 1 where one episode from each start was judged by all m goals.
            Such a start is one trial, not m. As many as there are goals by default.

    Returns:
        NaN throughout where nothing counts.
    """
    reached = np.asarray(success, bool).reshape(len(success), -1)
    counts = np.ones_like(reached) if counted is None else np.asarray(counted, bool).reshape(reached.shape)
    if not counts.any():
        return Estimate(np.nan, np.nan, np.nan)
    rate = float((reached & counts).sum() / counts.sum())
    low, high = wilson(rate, int(counts.any(1).sum()) if drives == 1 else int(counts.sum()))
    return Estimate(100.0 * rate, 100.0 * low, 100.0 * high)


def wilson(rate: float, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927) 209-212,
    doi:10.1080/01621459.1927.10502953. `scipy.stats.binomtest` has it for whole numbers of successes only.

    Args:
        rate: of successes, 0 to 1.
        trials: 1 or more.
    """
    z2 = _Z**2
    middle = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z / (1 + z2 / trials) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    return max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half))


def rate_difference(
    ours: np.ndarray,
    theirs: np.ndarray,
    counted: np.ndarray | None = None,
    *,
    paired: bool,
    drives: int | None = None,
) -> Estimate:
    """Points by which one success rate is above another, over the same starts.

    The interval is that of `seed_difference`, widened to Newcombe's of all episodes together where it is narrower: two
    of two successes against none of two is [+17, +100], where a bootstrap has no width.

    Args:
        ours, theirs: (s, n, m) and (s', n, m) bool, as for `seed_difference`.
        counted: (n, m) bool; False leaves an entry out. All count by default.
        paired: the seeds of both sides are the same, in the same order.
        drives: 1 where episodes of one side were judged by all goals, see `success_rate`.

    Returns:
        NaN throughout where nothing counts; in percent points.
    """
    ours, theirs = np.asarray(ours, bool), np.asarray(theirs, bool)
    counted = np.ones(ours.shape[1:], bool) if counted is None else np.asarray(counted, bool)
    spread = seed_difference(100.0 * ours, 100.0 * theirs, counted, paired=paired)
    if np.isnan(spread.mean):
        return spread
    trials = int(counted.any(-1).sum() if drives == 1 else counted.sum())
    left, right = ours[:, counted], theirs[:, counted]
    correlation = _correlate(left, right, trials * len(left)) if paired else 0.0
    rates = float(left.mean()), float(right.mean())
    low, high = newcombe(*rates, trials * len(left), trials * len(right), correlation)
    bounds = np.array([[100.0 * low, 100.0 * high], [spread.low, spread.high]])
    return Estimate(spread.mean, float(np.nanmin(bounds[:, 0])), float(np.nanmax(bounds[:, 1])))


def newcombe(
    ours: float, theirs: float, our_trials: int, their_trials: int, correlation: float = 0.0
) -> tuple[float, float]:
    """The 95 % hybrid score interval of the difference of two shares, from Wilson's interval of each.

    Source: R. G. Newcombe, Statistics in Medicine 17 (1998): independent shares, 873-890, method 10; paired ones,
    2635-2650, method 10.

    Args:
        ours, theirs: shares, 0 to 1.
        our_trials, their_trials: 1 or more.
        correlation: of paired trials, 0 of independent ones.
    """
    (our_low, our_high), (their_low, their_high) = wilson(ours, our_trials), wilson(theirs, their_trials)

    def width(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first**2 - 2 * correlation * first * second + second**2))

    low = ours - theirs - width(ours - our_low, their_high - theirs)
    high = ours - theirs + width(our_high - ours, theirs - their_low)
    return max(-1.0, low), min(1.0, high)


def _correlate(ours: np.ndarray, theirs: np.ndarray, trials: int) -> float:
    """Newcombe's phi of bool pairs, as if there were so many of them; a positive one is corrected for continuity."""
    both, only_ours = float((ours & theirs).mean()) * trials, float((ours & ~theirs).mean()) * trials
    only_theirs, neither = float((~ours & theirs).mean()) * trials, float((~ours & ~theirs).mean()) * trials
    product = both * neither - only_ours * only_theirs
    if product > 0:
        product = max(product - trials / 2, 0.0)
    margins = (both + only_ours) * (only_theirs + neither) * (both + only_theirs) * (only_ours + neither)
    return product / math.sqrt(margins) if margins > 0 else 0.0


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


def seed_mean(values: np.ndarray, counted: np.ndarray | None = None) -> Estimate:
    """Mean of (s, n, m) over training seeds, starts and goals, with the interval of `seed_difference`."""
    return seed_difference(values, np.zeros_like(values, np.float64), counted, paired=True)


def seed_rate(success: np.ndarray, counted: np.ndarray | None = None, *, drives: int | None = None) -> Estimate:
    """Percentage of successes over training seeds.

    Of one seed it has Wilson's interval. Of several it has that of `seed_mean`, widened to Wilson's of all episodes
    together where it is narrower: a bootstrap of episodes that all ended alike has no width.

    Args:
        success: (s, n, m) bool.
        counted, drives: as for `success_rate`.
    """
    reached = np.asarray(success, bool)
    counts = np.ones_like(reached) if counted is None else np.broadcast_to(np.asarray(counted, bool), reached.shape)
    pooled = success_rate(reached.reshape(-1, reached.shape[-1]), counts.reshape(-1, reached.shape[-1]), drives=drives)
    if len(reached) == 1 or pooled.interval is None:
        return pooled
    spread = seed_mean(100.0 * reached, counts[0])
    if spread.interval is None:
        return pooled
    return Estimate(pooled.mean, min(pooled.low, spread.low), max(pooled.high, spread.high))


def _draws(rng: np.random.Generator, count: int, samples: int) -> np.ndarray:
    """(samples, count) how often each of `count` units was drawn, of as many draws with replacement."""
    return rng.multinomial(count, np.full(count, 1 / count), size=samples)
