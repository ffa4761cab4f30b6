"""What recorded episodes look like, and what may be wrong with them; works where training would refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seqrl.errors import DataError
from seqrl.formats.boundaries import Boundaries, find_boundaries, warn_of_boundaries
from seqrl.formats.columns import Column, as_matrix, count_bins, describe_column, describe_columns, summarise
from seqrl.formats.flat import FlatEpisodes


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
        columns: one per dimension of observation and action, and the reward.
        extras: likewise of the arrays that are recorded beside, by the name that a layout gives them.
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
    extras: list[Column]
    boundaries: Boundaries | None
    remarks: list[str]
    warnings: list[str]

    def plain(self) -> dict[str, Any]:
        """For JSON: NaN and infinity stand nowhere."""
        return asdict(self)


def inspect_episodes(flat: FlatEpisodes) -> Inspection:
    """Look at episodes; NaN, ties, constants and strange ends are reported, not refused."""
    offsets = flat.offsets
    lengths = np.diff(offsets)
    last = offsets[1:] - 1
    terminated, truncated = flat.terminals[last], flat.timeouts[last]
    rewards = as_matrix(flat.rewards)[:, 0]
    with np.errstate(invalid="ignore"):
        returns = np.add.reduceat(rewards, offsets[:-1]) if len(lengths) else np.zeros(0)
    columns = [
        *describe_columns("observation", flat.observations),
        *describe_columns("action", flat.actions),
        describe_column("reward", rewards),
    ]
    boundaries = find_boundaries(flat) if len(flat.ends) > 1 else None
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
        lengths=summarise(lengths),
        returns=summarise(finite),
        length_histogram=count_bins(lengths),
        return_histogram=count_bins(finite),
        columns=columns,
        extras=list(_describe_extras(flat.extras)),
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


def _describe_extras(extras: Mapping[str, np.ndarray]) -> Iterator[Column]:
    """Of every dimension of the extras that hold numbers."""
    for key, array in extras.items():
        name = key.removeprefix("infos/")
        if np.asarray(array).dtype.kind not in "biuf":
            continue
        values = as_matrix(array)
        if values.shape[1] == 1:
            yield describe_column(name, values[:, 0])
        else:
            yield from describe_columns(name, values)


def _warnings(report: Inspection, lengths: np.ndarray, broken_returns: int) -> Iterator[str]:
    if report.transitions == 0:
        yield "there are no transitions"
        return
    for column in report.columns:
        if column.nan or column.infinite:
            yield f"{column.name} holds {column.nan} NaN and {column.infinite} infinite values: training refuses them"
    if broken_returns:
        yield f"{broken_returns} episodes have no finite return"
    for column in report.extras:
        if column.nan or column.infinite:
            yield (
                f"{column.name} holds {column.nan} NaN and {column.infinite} infinite values: training refuses them "
                "where its layout has the field"
            )
    constants = [column.name for column in (*report.columns, *report.extras) if column.distinct == 1]
    if constants:
        yield f"constant: {', '.join(constants)}"
    single = int((lengths == 1).sum())
    if single:
        yield f"{single} episodes have a single step, where no training window starts"
    if report.episodes == 1:
        yield "there is one episode only: nothing can be held out for validation"
    yield from warn_of_boundaries(report.boundaries)
