"""A graph of landmarks: places of the data, and how many steps the data took from one to the next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree

from seqrl.archives import check_archive
from seqrl.config import LandmarksConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import CheckpointError, DataError, explain_unread, is_damage
from seqrl.files import write_file

_ARRAYS = {"nodes": 2, "sources": 1, "targets": 1, "steps": 1}  # and how many dimensions they have


@dataclass(frozen=True)
class LandmarkGraph:
    """Directed: from A to B there may be a way and none back.

    Attributes:
        nodes: (n, G) float32, each a state of the data, in the dimensions of the goal.
        sources, targets: (m,) int64, the nodes of each edge, sorted by source.
        steps: (m,) float32, above 0, how many steps the data took along the edge.
        settings: that it was fitted with.
    """

    nodes: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    steps: np.ndarray
    settings: dict[str, float] = field(default_factory=dict)

    @classmethod
    def promise(cls) -> LandmarkGraph:
        """A graph without nodes, which stands for one that is still to be fitted where settings are checked."""
        nothing = np.zeros(0, np.int64)
        return cls(np.zeros((0, 0), np.float32), nothing, nothing, np.zeros(0, np.float32))

    @cached_property
    def _tree(self) -> KDTree:
        """Made once: guides ask it in every step."""
        return KDTree(self.nodes)

    def find_nearest(self, positions: np.ndarray) -> np.ndarray:
        """(...) numbers of the nodes that are nearest to (..., G) positions."""
        found: np.ndarray = self._tree.query(positions)[1]
        return found

    @cached_property
    def _reached(self) -> np.ndarray:
        """Numbers of the nodes that an edge leads to."""
        return np.unique(self.targets)

    def find_nearest_reached(self, positions: np.ndarray) -> np.ndarray:
        """As `find_nearest`, among the nodes that an edge leads to: in others, episodes of the data only began."""
        return self._reached[KDTree(self.nodes[self._reached]).query(positions)[1]]

    def count_steps_to(self, node: int, steps: np.ndarray | None = None) -> np.ndarray:
        """(n,) steps of the shortest way from every node to one; infinite where there is none.

        Args:
            steps: (m,) of the edges, instead of the data's.
        """
        count, weights = len(self.nodes), self.steps if steps is None else steps
        backwards = csr_array((weights, (self.targets, self.sources)), shape=(count, count))
        found: np.ndarray = dijkstra(backwards, indices=node)
        return found

    def save(self, path: Path) -> None:
        """Write the graph; a reader finds it whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with write_file(path) as file:
            np.savez(file, settings=np.array(json.dumps(self.settings)), **arrays)

    @classmethod
    def read(cls, path: Path) -> LandmarkGraph:
        """Read a graph that `save` wrote; checksums are compared first.

        Raises:
            CheckpointError: the file is damaged, no graph, or cannot be read.
        """
        try:
            with path.open("rb") as file:
                check_archive(file)
                with np.load(file, allow_pickle=False) as archive:
                    settings = json.loads(str(archive["settings"]))
                    arrays = {name: archive[name] for name in _ARRAYS}
            _check_graph(**arrays)
        except Exception as error:  # a header that somebody wrote by hand can lead NumPy anywhere
            if not is_damage(error):
                raise CheckpointError(explain_unread(path, error)) from error
            raise CheckpointError(
                f"{str(path)!r} is no readable graph of landmarks ({str(error).strip() or type(error).__name__}); "
                "remove it and train again, which makes it anew"
            ) from error
        return cls(settings=settings, **arrays)


def _check_graph(nodes: np.ndarray, sources: np.ndarray, targets: np.ndarray, steps: np.ndarray) -> None:
    """Raise ValueError for arrays that are no graph."""
    for name, array in {"nodes": nodes, "sources": sources, "targets": targets, "steps": steps}.items():
        if array.ndim != _ARRAYS[name] or array.dtype.kind not in ("iu" if name in ("sources", "targets") else "f"):
            raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}")
    if not len(sources) == len(targets) == len(steps):
        raise ValueError("its edges have different numbers of ends")
    ends = np.concatenate([sources, targets])
    if not np.isfinite(nodes).all() or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError("it holds numbers that are no places or no steps")
    if ends.size and not (ends.min() >= 0 and ends.max() < len(nodes)):
        raise ValueError("an edge leads to a node that it has not")


def fit_landmarks(store: EpisodeStore, dims: Sequence[int], config: LandmarksConfig, *, seed: int = 0) -> LandmarkGraph:
    """Find the landmarks of a data set and count the steps between them.

    Nodes are a greedy cover of the recorded states: drawn in random order, each one that no node is near to becomes
    one. Every state counts for its nearest node. An edge leads from u to v where at least `support` pairs of states, up
    to `horizon` steps apart and in one episode, go from u to v; it takes the `quantile` of their numbers of steps: not
    the least, which a single lucky or noisy piece would decide, and no distance, which knows no walls.

    Args:
        store: episodes.
        dims: of the observation, which the goal is made of.
        seed: of the order.

    Raises:
        DataError: more landmarks than `max_nodes`, or no edge.
    """
    positions = np.ascontiguousarray(np.asarray(store.observations)[:, list(dims)], np.float32)
    nodes = _cover(positions, config, np.random.default_rng(seed))
    near = KDTree(nodes).query(positions)[1].astype(np.int64)
    episode = np.repeat(np.arange(store.num_episodes), store.lengths)
    pairs, apart, counts = [], [], []
    for steps in range(1, config.horizon + 1):
        same = episode[:-steps] == episode[steps:]
        found, count = np.unique(near[:-steps][same] * len(nodes) + near[steps:][same], return_counts=True)
        pairs.append(found)
        counts.append(count)
        apart.append(np.full(len(found), steps))
    pair, step, count = (np.concatenate(each) for each in (pairs, apart, counts))
    order = np.lexsort((step, pair))
    edges, steps_of = _quantiles(pair[order], step[order], count[order], config)
    sources, targets = edges // len(nodes), edges % len(nodes)
    real = sources != targets
    if not real.any():
        raise DataError(
            f"no two of {len(nodes)} landmarks are linked by {config.support} pieces of up to {config.horizon} steps; "
            "set landmarks.spacing to more, or landmarks.support to less"
        )
    return LandmarkGraph(nodes, sources[real], targets[real], steps_of[real].astype(np.float32), vars(config).copy())


def _cover(positions: np.ndarray, config: LandmarksConfig, rng: np.random.Generator) -> np.ndarray:
    """(n, G): no two are nearer than the spacing, and every position is that near to one."""
    tree, free = KDTree(positions), np.ones(len(positions), bool)
    chosen: list[int] = []
    for number in rng.permutation(len(positions)):
        if not free[number]:
            continue
        if len(chosen) == config.max_nodes:
            raise DataError(
                f"landmarks {config.spacing:g} apart are more than {config.max_nodes}; set landmarks.spacing to more, "
                "or landmarks.max_nodes"
            )
        chosen.append(number)
        free[tree.query_ball_point(positions[number], config.spacing)] = False
    return positions[chosen]


def _quantiles(
    pair: np.ndarray, step: np.ndarray, count: np.ndarray, config: LandmarksConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Edges with enough support and the quantile of their steps, of counts sorted by pair and step."""
    edges, first = np.unique(pair, return_index=True)
    total = np.add.reduceat(count, first)
    before = np.cumsum(count) - np.repeat(
        np.cumsum(total) - total, np.diff([*first, len(pair)])
    )  # up to each, in its pair
    reached = before >= np.ceil(config.quantile * np.repeat(total, np.diff([*first, len(pair)])))
    where = np.flatnonzero(reached)
    _, earliest = np.unique(pair[where], return_index=True)
    supported = total >= config.support
    return edges[supported], step[where[earliest]][supported]
