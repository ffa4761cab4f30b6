"""Mazes as grids: maps, free cells, shortest paths. Pure numpy: no simulator, no environment.

Positions in the three mazes that are written here are the point mass's joint coordinates, D4RL's observation frame. The
walls are drawn at `(row + 1, column + 1)` and the ball's body at `(1.2, 1.2)`, so that a cell's centre lies at `(row -
0.2, column - 0.2)` and the position `(row, column)` inside the cell, 0.2 off its centre (Fu et al. 2020,
`d4rl/pointmaze/maze_model.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqrl.errors import ConfigError, did_you_mean

Cell = tuple[int, int]

CELL_OFFSET = 0.2
"""Of D4RL's positions; see `Maze.offset`."""

SUCCESS_RADIUS = 0.5
"""The sparse reward is 1 within this distance of the target."""


@dataclass(frozen=True)
class Maze:
    """A grid of square cells.

    Attributes:
        name: such as `umaze`.
        rows: the map, `#` a wall, `O` free, `G` the free cell with the evaluation target.
        max_episode_steps: time limit of an episode; in D4RL's mazes, also that of one goal of its controller.
        offset: what a position, in cells, lacks to the coordinates in which cell (row, column) is centred at (row,
            column).
        state_size: numbers that an exact start consists of: position and velocity, or a position alone.
        unit: side of a cell, in the units of positions.
        place_offset: as `offset`, of the position in a cell that starts and goals lie around.
        noise: starts are drawn uniformly within this distance of that position, in each dimension.
        radius: a goal is reached within this distance.
        tasks: start and goal cell of each of the benchmark's own tasks.
    """

    name: str
    rows: tuple[str, ...]
    max_episode_steps: int
    offset: float = CELL_OFFSET
    state_size: int = 4
    unit: float = 1.0
    place_offset: float = 0.0
    noise: float = 0.1
    radius: float = SUCCESS_RADIUS
    tasks: tuple[tuple[Cell, Cell], ...] = ()

    @property
    def target(self) -> np.ndarray:
        """(2,) float64 position of the fixed evaluation target."""
        return self.place_of(next(cell for cell in _cells(self.rows) if self.rows[cell[0]][cell[1]] == "G"))

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges of the map in the units of positions: first column, last column, last row, first row."""
        low = -0.5 - self.offset
        edges = (low, len(self.rows[0]) + low, len(self.rows) + low, low)
        left, right, bottom, top = (edge * self.unit for edge in edges)
        return left, right, bottom, top

    def place_of(self, cell: Cell) -> np.ndarray:
        """(2,) the position in a cell that starts and goals lie around."""
        place: np.ndarray = (np.array(cell, np.float64) - self.place_offset) * self.unit
        return place

    def centre_of(self, cell: Cell) -> np.ndarray:
        """(2,) the position of a cell's centre."""
        centre: np.ndarray = (np.array(cell, np.float64) - self.offset) * self.unit
        return centre

    def is_free(self, cell: Cell) -> bool:
        row, column = cell
        return 0 <= row < len(self.rows) and 0 <= column < len(self.rows[0]) and self.rows[row][column] != "#"

    def free_cells(self) -> list[Cell]:
        """Every cell that is no wall, by row, then column."""
        return [cell for cell in _cells(self.rows) if self.is_free(cell)]

    def walls(self) -> list[Cell]:
        """Every wall cell, by row, then column."""
        return [cell for cell in _cells(self.rows) if not self.is_free(cell)]

    def cell_of(self, position: np.ndarray) -> Cell:
        """The cell in which a position (2,) lies."""
        row, column = self.cells_of(np.asarray(position)[:2])
        return int(row), int(column)

    def cells_of(self, positions: np.ndarray) -> np.ndarray:
        """(..., 2) int64 cells of positions (..., 2)."""
        return np.rint(np.asarray(positions, np.float64) / self.unit + self.offset).astype(np.int64)

    def next_cells(self, goal: Cell) -> dict[Cell, Cell]:
        """The shortest-path policy toward `goal`: from every cell, the neighbour to go to (the goal stays).

        Ties go to the first of up, down, left, right, so that the policy is a function of the maze alone.

        Raises:
            ConfigError: `goal` is a wall or lies outside.
        """
        distances = self.distances(goal)
        policy: dict[Cell, Cell] = {}
        for cell in distances:
            reachable = [n for n in _neighbours(cell) if n in distances]
            policy[cell] = cell if cell == goal else min(reachable, key=distances.__getitem__)
        return policy

    def distances(self, goal: Cell) -> dict[Cell, int]:
        """Steps from every cell to `goal` through free cells, by breadth-first search.

        Raises:
            ConfigError: `goal` is a wall or lies outside.
        """
        if not self.is_free(goal):
            raise ConfigError(f"cell {goal} of maze {self.name!r} is a wall; free cells are {self.free_cells()}")
        distances, queue = {goal: 0}, deque([goal])
        while queue:
            cell = queue.popleft()
            for neighbour in _neighbours(cell):
                if self.is_free(neighbour) and neighbour not in distances:
                    distances[neighbour] = distances[cell] + 1
                    queue.append(neighbour)
        return distances

    def path_cells(self, start: Cell, goal: Cell) -> list[Cell]:
        """A shortest path, both ends included.

        Raises:
            ConfigError: an end is a wall or lies outside.
        """
        policy = self.next_cells(goal)
        if start not in policy:
            raise ConfigError(f"cell {start} of maze {self.name!r} is a wall; free cells are {self.free_cells()}")
        path = [start]
        while path[-1] != goal:
            path.append(policy[path[-1]])
        return path


def _cells(rows: tuple[str, ...]) -> list[Cell]:
    return [(row, column) for row in range(len(rows)) for column in range(len(rows[0]))]


def _neighbours(cell: Cell) -> list[Cell]:
    row, column = cell
    return [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]


MAZES: Mapping[str, Maze] = {
    "umaze": Maze("umaze", ("#####", "#GOO#", "###O#", "#OOO#", "#####"), 300),
    "medium": Maze(
        "medium",
        ("########", "#OO##OO#", "#OO#OOO#", "##OOO###", "#OO#OOO#", "#O#OO#O#", "#OOO#OG#", "########"),
        600,
    ),
    "large": Maze(
        "large",
        (
            "############",
            "#OOOO#OOOOO#",
            "#O##O#O#O#O#",
            "#OOOOOO#OOO#",
            "#O####O###O#",
            "#OO#O#OOOOO#",
            "##O#O#O#O###",
            "#OO#OOO#OGO#",
            "############",
        ),
        800,
    ),
}


def find_maze(name: str, mazes: Mapping[str, Maze] = MAZES) -> Maze:
    """The maze of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in mazes:
        raise ConfigError(f"there is no maze {name!r}.{did_you_mean(name, mazes)} Mazes: {', '.join(mazes)}")
    return mazes[name]


def is_success(position: np.ndarray, target: np.ndarray, radius: float = SUCCESS_RADIUS) -> bool:
    """Whether a position (2,) earns the sparse reward for a target (2,)."""
    return float(np.linalg.norm(position - target)) <= radius


def draw_starts(
    maze: Maze, cells: list[list[int]] | None, per_cell: int, seed: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Start states (n, 4) and their cells: `per_cell` in each of the given cells, or as many spread over all.

    Positions are uniform within the maze's noise of a cell's place, velocities normal with deviation 0.1, as D4RL
    resets. Where the environment has no velocity, states are (n, 2).

    Raises:
        ConfigError: no cell, or one that is a wall or lies outside the maze.
    """
    rng = np.random.default_rng([seed, 5])
    if cells is None:
        free = maze.free_cells()
        chosen = [free[i] for i in rng.integers(len(free), size=per_cell)]
    else:
        chosen = [(int(row), int(column)) for row, column in cells for _ in range(per_cell)]
    if not chosen:
        raise ConfigError(f"start_cells={cells} names no cell; free: {maze.free_cells()}")
    for cell in chosen:
        if not maze.is_free(cell):
            raise ConfigError(f"start cell {list(cell)} is no free cell of the maze; free: {maze.free_cells()}")
    places = np.stack([maze.place_of(cell) for cell in chosen])
    positions = places + rng.uniform(-maze.noise, maze.noise, (len(chosen), 2))
    states = np.concatenate([positions, 0.1 * rng.normal(size=(len(chosen), 2))], axis=1)
    return states[:, : maze.state_size], chosen


def find_far_pairs(maze: Maze, cells: list[tuple[int, int]], goals: np.ndarray, min_cells: float) -> np.ndarray:
    """(n, m) bool: whether the shortest path from a start's cell to a goal's has more than `min_cells` steps.

    Raises:
        ConfigError: a goal inside a wall.
    """
    far = np.zeros((len(cells), len(goals)), bool)
    for j, goal in enumerate(goals):
        cell = maze.cell_of(goal)
        if not maze.is_free(cell):
            raise ConfigError(f"goal {goal.tolist()} lies in a wall; free cells: {maze.free_cells()}")
        distances = maze.distances(cell)
        far[:, j] = [distances[start] > min_cells for start in cells]
    return far
