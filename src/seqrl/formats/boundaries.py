"""Whether episodes end where observations say so: surprising steps inside them, and none across their boundaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from seqrl.formats.columns import as_matrix
from seqrl.formats.flat import FlatEpisodes

JUMP_FACTOR = 4.0
"""A step counts as a jump beyond this multiple of the 99th percentile of surprise."""
STEADY = 0.5
"""Observations move steadily if the median surprise is below this; that of noise is 1."""
START_DEVIATIONS = 5.0
"""An observation looks like a start if no dimension is farther than this from the mean of the starts."""
SAMPLED_ROWS = 20_000


@dataclass(frozen=True)
class Boundaries:
    """Where episodes end, held against how observations move.

    The surprise of a step is the root mean square over dimensions, in standard deviations, of what a linear model of
    the data's own steps fails to predict of the next observation.

    Attributes:
        usual_surprise: median and 99th percentile inside episodes; None without enough finite rows.
        jumps: rows inside an episode after which the observation jumps, JUMP_FACTOR times the 99th percentile or more.
        restarts: rows inside an episode after which the observation looks like those that episodes start from, while
            it did not before: the end of an episode that was not recorded. Not looked for where starts look like
            any other observation.
        boundaries: how many pairs of neighbouring episodes there are.
        continuous: how many of them are no surprise: the second goes on where the first ended. 0 where steps inside
            episodes are as surprising (STEADY), so that nothing can be told.
        surprise_inside, surprise_across: histograms for the picture, `edges` being powers of ten.
    """

    usual_surprise: tuple[float, float] | None
    jumps: list[int]
    restarts: list[int]
    boundaries: int
    continuous: int
    edges: list[float]
    surprise_inside: list[int]
    surprise_across: list[int]


def find_boundaries(flat: FlatEpisodes) -> Boundaries:
    """Hold the ends of episodes, two rows at least, against how observations move."""
    observations, actions = as_matrix(flat.observations), as_matrix(flat.actions)
    scaled = _scale(observations)
    usable = np.isfinite(observations).all(1) & np.isfinite(actions).all(1)
    inside = ~flat.ends[:-1]
    surprise = _surprise(scaled, actions, usable, inside)
    known = surprise[inside & np.isfinite(surprise)]
    usual = None
    jumps: list[int] = []
    continuous = 0
    if len(known):
        usual = float(np.median(known)), float(np.percentile(known, 99))
        jumps = np.flatnonzero(inside & (surprise > max(JUMP_FACTOR * usual[1], 1e-6))).tolist()
        if usual[0] < STEADY:
            continuous = int((surprise[~inside] <= max(usual[1], 1e-6)).sum())
    edges = 10.0 ** np.linspace(-5, 2, 36)
    return Boundaries(
        usual,
        jumps,
        _restarts(flat, scaled, usable),
        int((~inside).sum()),
        continuous,
        edges.tolist(),
        np.histogram(np.clip(known, edges[0], edges[-1]), edges)[0].tolist(),
        np.histogram(np.clip(surprise[~inside & np.isfinite(surprise)], edges[0], edges[-1]), edges)[0].tolist(),
    )


def _scale(observations: np.ndarray) -> np.ndarray:
    """(N, O) in standard deviations from the mean of the finite ones; 0 where there is no number."""
    finite = np.isfinite(observations)
    rows = np.maximum(finite.sum(0), 1)
    centered = np.where(finite, observations - np.where(finite, observations, 0.0).sum(0) / rows, 0.0)
    scale = np.sqrt((centered**2).sum(0) / rows)
    scaled: np.ndarray = centered / np.where(scale > 0, scale, 1.0)
    return scaled


def _surprise(scaled: np.ndarray, actions: np.ndarray, usable: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(N - 1,) of the step from each row to the next; NaN where a row has something that is no number."""
    pairs = usable[:-1] & usable[1:]
    surprise = np.full(len(pairs), np.nan)
    fitted = np.flatnonzero(pairs & inside)
    if len(fitted) >= 2:
        inputs = np.concatenate([scaled, np.nan_to_num(actions), np.ones((len(scaled), 1))], axis=1)[:-1]
        steps = np.diff(scaled, axis=0)
        sample = fitted[:: max(1, len(fitted) // SAMPLED_ROWS)]
        weights = np.linalg.lstsq(inputs[sample], steps[sample], rcond=None)[0]
        surprise[pairs] = np.sqrt(((steps[pairs] - inputs[pairs] @ weights) ** 2).mean(1))
    return surprise


def _restarts(flat: FlatEpisodes, scaled: np.ndarray, usable: np.ndarray) -> list[int]:
    first = flat.offsets[:-1]
    first = first[usable[first]]
    if len(first) < 5:
        return []
    center, spread = scaled[first].mean(0), np.maximum(scaled[first].std(0), 1e-6)
    alike = usable & (np.abs(scaled - center) <= START_DEVIATIONS * spread).all(1)
    if alike.mean() > 0.05:  # starts are anywhere: being like one says nothing
        return []
    return np.flatnonzero(alike[1:] & ~alike[:-1] & ~flat.ends[:-1]).tolist()


def warn_of_boundaries(found: Boundaries | None) -> Iterator[str]:
    """What may be wrong with them, a sentence each."""
    if found is None or found.usual_surprise is None:
        return
    if found.jumps:
        yield (
            f"the observation jumps at {len(found.jumps)} places inside episodes (after {_rows(found.jumps)}), "
            f"{JUMP_FACTOR:g} times farther than 99 % of the steps or more: resets that were not recorded as ends?"
        )
    if found.restarts:
        yield (
            f"at {len(found.restarts)} places inside episodes (after {_rows(found.restarts)}) the observation returns "
            "to where episodes start: resets that were not recorded as ends?"
        )
    if found.boundaries and found.continuous > 0.5 * found.boundaries:
        yield (
            f"the observation goes on across {found.continuous} of {found.boundaries} boundaries between episodes, as "
            "if nothing had been reset: pieces of one stream, as in D4RL's maze2d?"
        )


def _rows(rows: list[int]) -> str:
    shown = ", ".join(str(row) for row in rows[:5])
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}{', ...' if len(rows) > 5 else ''}"
