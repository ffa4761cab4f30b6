"""What recorded episodes look like, and what may be wrong with them; works where training would refuse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seqrl.errors import DataError
from seqrl.formats.flat import FlatEpisodes

PERCENTILES = (1, 50, 99)
HISTOGRAM_BINS = 20
JUMP_FACTOR = 4.0
"""A step counts as a jump beyond this multiple of the 99th percentile of surprise."""
STEADY = 0.5
"""Observations move steadily if the median surprise is below this; that of noise is 1."""
START_DEVIATIONS = 5.0
"""An observation looks like a start if no dimension is farther than this from the mean of the starts."""
SAMPLED_ROWS = 20_000


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


@dataclass(frozen=True)
class Inspection:
    """Everything that `seqrl data inspect` tells.

    Attributes:
        source, layout: what was read, and by which rule it was cut into episodes.
        name, env_id: as training would call it; None where nothing is known.
        transitions, episodes, terminated, truncated, cut: counts; cut episodes ended with the recording.
        lengths, returns: of the episodes: minimum, mean, median, maximum, standard deviation. Returns are undiscounted
            and cover finite ones only.
        return_histogram, length_histogram: (edges, counts).
        columns: one per dimension.
        boundaries: None without two rows.
        remarks: what reading had to assume.
        warnings: what may be wrong, a sentence each.
    """

    source: str
    layout: str
    name: str | None
    env_id: str | None
    transitions: int
    episodes: int
    terminated: int
    truncated: int
    cut: int
    lengths: dict[str, float]
    returns: dict[str, float]
    length_histogram: tuple[list[float], list[int]]
    return_histogram: tuple[list[float], list[int]]
    columns: list[Column]
    boundaries: Boundaries | None
    remarks: list[str]
    warnings: list[str]

    def plain(self) -> dict[str, Any]:
        """For JSON: NaN and infinity stand nowhere."""
        return asdict(self)


def inspect(flat: FlatEpisodes) -> Inspection:
    """Look at episodes; NaN, ties, constants and strange ends are reported, not refused."""
    offsets = flat.offsets
    lengths = np.diff(offsets)
    last = offsets[1:] - 1
    terminated, truncated = flat.terminals[last], flat.timeouts[last]
    rewards = _matrix(flat.rewards)[:, 0]
    with np.errstate(invalid="ignore"):
        returns = np.add.reduceat(rewards, offsets[:-1]) if len(lengths) else np.zeros(0)
    columns = [
        *_columns("observation", flat.observations),
        *_columns("action", flat.actions),
        _column("reward", rewards),
    ]
    boundaries = _boundaries(flat) if len(flat.ends) > 1 else None
    finite = returns[np.isfinite(returns)]
    name, env_id = flat.attributes.get("name"), flat.attributes.get("env_id")
    report = Inspection(
        source=flat.origin,
        layout=flat.layout,
        name=None if name is None else str(name),
        env_id=None if env_id is None else str(env_id),
        transitions=len(flat.ends),
        episodes=len(lengths),
        terminated=int(terminated.sum()),
        truncated=int(truncated.sum()),
        cut=int((~terminated & ~truncated).sum()),
        lengths=_summary(lengths),
        returns=_summary(finite),
        length_histogram=_histogram(lengths),
        return_histogram=_histogram(finite),
        columns=columns,
        boundaries=boundaries,
        remarks=list(flat.remarks),
        warnings=[],
    )
    report.warnings.extend(_warnings(report, lengths, int((~np.isfinite(returns)).sum())))
    if len(flat.ends) and not any(column.nan or column.infinite for column in columns):
        try:
            flat.store()
        except DataError as error:
            report.warnings.append(f"training refuses it: {error}")
    return report


def _matrix(array: np.ndarray) -> np.ndarray:
    """(N, D) float64, infinite where float32 would be."""
    values = np.asarray(array, np.float64).reshape(len(array), int(np.prod(np.shape(array)[1:])))
    beyond = np.abs(values) > np.finfo(np.float32).max
    return np.where(beyond, np.copysign(np.inf, values), values) if beyond.any() else values


def _columns(field: str, array: np.ndarray) -> list[Column]:
    return [_column(f"{field} {number}", values) for number, values in enumerate(_matrix(array).T)]


def _column(name: str, values: np.ndarray) -> Column:
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


def _summary(values: np.ndarray) -> dict[str, float]:
    if len(values) == 0:
        return {}
    return {
        "minimum": float(values.min()),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "maximum": float(values.max()),
        "std": float(values.std()),
    }


def _histogram(values: np.ndarray) -> tuple[list[float], list[int]]:
    if len(values) == 0:
        return [], []
    counts, edges = np.histogram(np.asarray(values, np.float64), bins=HISTOGRAM_BINS)
    return edges.tolist(), counts.tolist()


def _boundaries(flat: FlatEpisodes) -> Boundaries:
    observations, actions = _matrix(flat.observations), _matrix(flat.actions)
    finite = np.isfinite(observations)
    rows = np.maximum(finite.sum(0), 1)
    centered = np.where(finite, observations - np.where(finite, observations, 0.0).sum(0) / rows, 0.0)
    scale = np.sqrt((centered**2).sum(0) / rows)
    scaled = centered / np.where(scale > 0, scale, 1.0)  # 0 where there is no number: such rows are not usable
    usable = finite.all(1) & np.isfinite(actions).all(1)
    pairs = usable[:-1] & usable[1:]
    inside = ~flat.ends[:-1]
    surprise = np.full(len(pairs), np.nan)
    fitted = np.flatnonzero(pairs & inside)
    if len(fitted) >= 2:
        inputs = np.concatenate([scaled, np.nan_to_num(actions), np.ones((len(scaled), 1))], axis=1)[:-1]
        steps = np.diff(scaled, axis=0)
        sample = fitted[:: max(1, len(fitted) // SAMPLED_ROWS)]
        weights = np.linalg.lstsq(inputs[sample], steps[sample], rcond=None)[0]
        surprise[pairs] = np.sqrt(((steps[pairs] - inputs[pairs] @ weights) ** 2).mean(1))
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


def _warnings(report: Inspection, lengths: np.ndarray, broken_returns: int) -> Iterator[str]:
    if report.transitions == 0:
        yield "there are no transitions"
        return
    for column in report.columns:
        if column.nan or column.infinite:
            yield f"{column.name} holds {column.nan} NaN and {column.infinite} infinite values: training refuses them"
    if broken_returns:
        yield f"{broken_returns} episodes have no finite return"
    constants = [column.name for column in report.columns if column.distinct == 1]
    if constants:
        yield f"constant: {', '.join(constants)}"
    single = int((lengths == 1).sum())
    if single:
        yield f"{single} episodes have a single step, where no training window starts"
    if report.episodes == 1:
        yield "there is one episode only: nothing can be held out for validation"
    yield from _boundary_warnings(report.boundaries)


def _boundary_warnings(found: Boundaries | None) -> Iterator[str]:
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
