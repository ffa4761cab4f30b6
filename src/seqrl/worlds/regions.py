"""Cutting recordings of a maze so that no episode joins two of its regions: what a method can stitch together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.worlds.maze import Maze


def find_regions(maze: Maze, apart: Sequence[Sequence[Sequence[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """The two regions of an option `apart`, (n, 2) and (m, 2) cells.

    Raises:
        ConfigError: not two lists of free cells, or a cell in both.
    """
    try:
        first, second = (np.array(cells, np.int64).reshape(len(cells), 2) for cells in apart)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"data.apart={apart} is no pair of lists of cells; write [[[3,1]],[[1,1]]]") from error
    for row, column in (*first, *second):
        if not maze.is_free((int(row), int(column))):
            raise ConfigError(f"data.apart names cell {[int(row), int(column)]}; free cells are {maze.free_cells()}")
    if not len(first) or not len(second) or (first[:, None] == second[None]).all(-1).any():
        raise ConfigError(f"data.apart={apart} needs two regions, one cell at least each, that share none")
    return first, second


def cut_apart(store: EpisodeStore, maze: Maze, first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> EpisodeStore:
    """The same rows as episodes of which none visits both regions.

    Wherever the recording goes from one region to the other, it is cut between its last row in the one and its first
    in the other, at a place drawn evenly from the rows between, so that what lies between the regions is seen from
    both. A piece counts as cut by the recording: neither terminated nor truncated.

    Args:
        store: positions are the first two dimensions of its observations.
        first, second: (n, 2) and (m, 2) cells of the regions.
        seed: of the places.
    """
    cells = maze.cells_of(store.observations[:, :2])
    region = np.zeros(len(store), np.int64)
    for number, chosen in ((1, first), (2, second)):
        region[(cells[:, None] == chosen[None]).all(-1).any(1)] = number
    rows = np.flatnonzero(region)
    episode = np.searchsorted(store.offsets, rows, side="right")
    crossing = np.flatnonzero((region[rows[1:]] != region[rows[:-1]]) & (episode[1:] == episode[:-1]))
    cuts = np.random.default_rng([seed, 7]).integers(rows[crossing] + 1, rows[crossing + 1] + 1)
    offsets = np.unique(np.concatenate([store.offsets, cuts])).astype(np.int64)
    parent = np.searchsorted(store.offsets, offsets[:-1], side="right") - 1
    whole = np.diff(offsets) == store.lengths[parent]
    return replace(
        store,
        offsets=offsets,
        terminated=store.terminated[parent] & np.isin(offsets[1:], store.offsets),
        truncated=store.truncated[parent] & whole,
        segments=np.unique(np.concatenate([store.segments, cuts])).astype(np.int64),
    )
