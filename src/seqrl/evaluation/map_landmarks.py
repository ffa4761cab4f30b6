"""The oracle among landmarks: a graph made of the maze's map, which nothing learnt from data knows."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from seqrl.data.landmarks import LandmarkGraph
from seqrl.errors import ConfigError
from seqrl.worlds.maze import Maze

_FAR = 12  # steps of the edges that tell how fast the data go: of shorter ones, rounding is too large a part


def graph_of_map(maze: Maze, fitted: LandmarkGraph) -> LandmarkGraph:
    """Landmarks in the middle of every free cell and between every two of them, with the true ways between those.

    Edges are as long as the fitted graph allows, and take the steps that the data take for that distance.

    Args:
        fitted: of the data, for their speed.

    Raises:
        ConfigError: no edge of the data is long enough to tell it.
    """
    ways = np.linalg.norm(fitted.nodes[fitted.targets] - fitted.nodes[fitted.sources], axis=1)
    far = fitted.steps >= _FAR
    if not far.any():
        raise ConfigError(f"map_landmarks=true wants to know the data's speed, and no edge takes {_FAR} steps or more")
    pace = float(np.median(fitted.steps[far] / ways[far]))  # steps of a distance of 1
    number = {cell: index for index, cell in enumerate(maze.free_cells())}
    places, sources, targets = [maze.centre_of(cell) for cell in number], [], []
    for (row, column), index in number.items():
        for neighbour in ((row + 1, column), (row, column + 1)):
            if neighbour in number:
                middle = len(places)
                places.append((places[index] + places[number[neighbour]]) / 2)
                sources += [index, middle]
                targets += [middle, number[neighbour]]
    nodes = np.stack(places)
    halves = csr_array((np.full(len(sources), maze.unit / 2), (sources, targets)), shape=(len(nodes), len(nodes)))
    steps = pace * dijkstra(halves, directed=False)
    horizon = float(fitted.settings.get("horizon", fitted.steps.max()))
    begin, end = np.nonzero((steps > 0) & (steps <= horizon))
    return LandmarkGraph(nodes.astype(np.float32), begin, end, steps[begin, end].astype(np.float32), fitted.settings)
