"""OGBench's pointmaze: maps, tasks, physics, and its `stitch` recipe of recording.

All numbers are those of Park et al. 2025, OGBench, https://arxiv.org/abs/2410.20092: `ogbench.locomaze.maze` and
`point` of version 1.2.2, and its generator of locomotion data. A test steps both side by side.

Positions are `(x, y)` as OGBench observes them. Cells are named in the same order, `(cell along x, cell along y)`, and
the maps below stand as OGBench writes them: x runs to the right and y downwards, so that a cell here has OGBench's
indices in reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from seqrl.opengl import prepare_mujoco
from seqrl.worlds.maze import MAZES, Cell, Maze, find_maze

UNIT = 4.0
"""Side of a cell."""

STEP = 0.2
"""A step moves by this much times the action, whose parts lie in [-1, 1]."""

_RADIUS = 0.7  # of the ball
_CLEAR = _RADIUS + 1e-3  # farther than this from every wall, no contact acts
_SUBSTEPS = 5


def _maze(name: str, rows: tuple[str, ...], tasks: tuple[tuple[Cell, Cell], ...]) -> Maze:
    """A maze out of OGBench's map and its tasks, (row, column) each."""
    turned = tuple(((b, a), (d, c)) for (a, b), (c, d) in tasks)
    marked = [list(row) for row in rows]
    (_, (row, column)), *_ = tasks
    marked[row][column] = "G"
    columns = tuple("".join(each) for each in zip(*marked, strict=True))
    return Maze(
        name, columns, 1000, offset=1.0, state_size=2, unit=UNIT, place_offset=1.0, noise=1.0, radius=1.0, tasks=turned
    )


def _open(maze: Maze) -> tuple[str, ...]:
    """The map of D4RL's maze, which OGBench has as well, without D4RL's goal."""
    return tuple(row.replace("G", "O") for row in maze.rows)


POINTMAZES: Mapping[str, Maze] = {
    "medium": _maze(
        "medium",
        _open(MAZES["medium"]),
        (((1, 1), (6, 6)), ((6, 1), (1, 6)), ((5, 3), (4, 2)), ((6, 5), (6, 1)), ((2, 6), (1, 1))),
    ),
    "large": _maze(
        "large",
        _open(MAZES["large"]),
        (((1, 1), (7, 10)), ((5, 4), (7, 1)), ((7, 4), (1, 10)), ((3, 8), (5, 4)), ((1, 1), (5, 4))),
    ),
    "giant": _maze(
        "giant",
        (
            "################",
            "#O#OOOOOO##OOOO#",
            "#O#O##O#O#OO##O#",
            "#OOO#OO#OOO#OOO#",
            "#O###O######O#O#",
            "#OOO#OOO#OOOO#O#",
            "###O#O#OO#O#O###",
            "#OOO#OO#OOO#OOO#",
            "#O#O#O######O#O#",
            "#O###OOO#OOO##O#",
            "#OOOOO#OOO#OOOO#",
            "################",
        ),
        (((1, 1), (10, 14)), ((1, 14), (10, 1)), ((8, 14), (1, 1)), ((8, 3), (5, 12)), ((5, 9), (3, 8))),
    ),
}
"""A goal is reached within 1.0, and starts and goals lie within 1.0 of a cell's centre in each dimension."""


def find_pointmaze(name: str) -> Maze:
    """The pointmaze of that name.

    Raises:
        ConfigError: there is none.
    """
    return find_maze(name, POINTMAZES)


def pointmaze_mjcf(maze: Maze) -> str:
    """The MuJoCo model: a ball on two slide joints without damping, on a floor among walls of boxes with side 4.

    Nothing drives it: a step puts the ball elsewhere, and the contacts with the walls push it out of them.
    """
    half = UNIT / 2
    size = (len(maze.rows) * half, len(maze.rows[0]) * half)
    walls = "\n".join(
        f'    <geom type="box" pos="{x:g} {y:g} 1" size="{half} {half} 1" contype="1" conaffinity="1"/>'
        for x, y in (maze.centre_of(cell) for cell in sorted(maze.walls(), key=lambda cell: cell[::-1]))
    )
    middle = (2 * (len(maze.rows) - 3), 2 * (len(maze.rows[0]) - 3))
    return f"""
<mujoco model="pointmaze_{maze.name}">
  <compiler inertiafromgeom="true" angle="degree"/>
  <option timestep="0.02" integrator="RK4"/>
  <default>
    <joint limited="false" armature="0" damping="0"/>
    <geom condim="3" conaffinity="0" margin="0" friction="1 0.5 0.5" density="100" rgba="0.6 0.4 0.3 1"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" pos="{middle[0]} {middle[1]} 0" size="{size[0]} {size[1]} 0.2" conaffinity="1"/>
    <body name="ball">
      <geom name="ball" type="sphere" size="{_RADIUS}" pos="0 0 {_RADIUS}" rgba="0.2 0.4 0.8 1"/>
      <joint name="ball_x" type="slide" axis="1 0 0"/>
      <joint name="ball_y" type="slide" axis="0 1 0"/>
    </body>
{walls}
  </worldbody>
</mujoco>"""


class PointSimulation:
    """The ball of pointmaze. Its position is all its state: every step begins at rest.

    Where no wall is near, a step is an addition, which is what MuJoCo makes of it to the last bit; contacts are left to
    MuJoCo.
    """

    def __init__(self, maze: Maze) -> None:
        prepare_mujoco()
        import mujoco

        self.maze = maze
        self.model = mujoco.MjModel.from_xml_string(pointmaze_mjcf(maze))
        self.data = mujoco.MjData(self.model)
        self._step = mujoco.mj_step
        self._walls = np.stack([maze.centre_of(cell) for cell in maze.walls()])

    def step(self, positions: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(B, 2) float64: where balls get from positions (B, 2) by actions (B, 2) in [-1, 1]."""
        moved: np.ndarray = positions + STEP * actions
        beside = np.maximum(np.abs(moved[:, None] - self._walls) - UNIT / 2, 0.0)
        for row in np.flatnonzero((np.square(beside).sum(-1) < _CLEAR**2).any(1)):
            self.data.qpos[:], self.data.qvel[:] = moved[row], 0.0
            self.data.qacc_warmstart[:] = 0.0
            self._step(self.model, self.data, _SUBSTEPS)
            moved[row] = self.data.qpos
        return moved


def record_stitch(
    maze: Maze,
    count: int,
    *,
    seed: int,
    action_noise: float,
    cells_apart: int,
    episode_steps: int,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, np.ndarray]:
    """Record `count` transitions in D4RL's layout by OGBench's `stitch` recipe; a function of its arguments.

    An episode starts in any cell and goes to a cell that is `cells_apart` away, or stays where there is none; having
    arrived, it goes to and fro about the middle of that cell until its end. The action is the direction to the middle
    of the next cell on a shortest way, of length 1, plus Gaussian noise, clipped to [-1, 1]. Where two ways are equally
    short, the choice may be another than OGBench's. The reward is that of the first task's goal, whatever the goal.

    Args:
        progress: called with how many rows are new.

    Returns:
        `observations`, `actions`, `infos/goal` (N, 2), `rewards` (N,) float32, `terminals`, `timeouts` (N,) bool.
    """
    rng, simulation = np.random.default_rng(seed), PointSimulation(maze)
    cells = np.array(maze.free_cells())
    ways, far = _ways(maze), [_cells_apart(maze, cell, cells_apart) for cell in maze.free_cells()]
    parts: list[dict[str, np.ndarray]] = []
    left = -(-count // episode_steps)  # episodes
    while left:
        episodes = min(left, 1000)
        left -= episodes
        start = rng.integers(len(cells), size=episodes)
        goals = np.array([far[cell][rng.integers(len(far[cell]))] for cell in start])
        places = np.stack([maze.place_of((int(row), int(column))) for row, column in cells[start]])
        begin = places + rng.uniform(-maze.noise, maze.noise, places.shape)
        parts.append(_walk(simulation, ways, begin, goals, action_noise, episode_steps, rng))
        progress(episodes * episode_steps)
    arrays = {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
    arrays["timeouts"] = np.arange(1, count + 1) % episode_steps == 0
    arrays["timeouts"][-1] = True
    return arrays | {"terminals": np.zeros(count, bool)}


def _ways(maze: Maze) -> np.ndarray:
    """(rows, columns, rows, columns, 2) float64: of a goal's cell and a cell, the middle of the cell to go to next."""
    size = (len(maze.rows), len(maze.rows[0]))
    ways = np.zeros((*size, *size, 2))
    for goal in maze.free_cells():
        for cell, following in maze.next_cells(goal).items():
            ways[(*goal, *cell)] = maze.centre_of(following)
    return ways


def _cells_apart(maze: Maze, cell: Cell, steps: int) -> list[Cell]:
    """The cells that many cells away by the shortest way; the cell itself where there is none."""
    return [other for other, away in maze.distances(cell).items() if away == steps] or [cell]


def _walk(
    simulation: PointSimulation,
    ways: np.ndarray,
    positions: np.ndarray,
    goals: np.ndarray,
    action_noise: float,
    steps: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Episodes side by side, from (B, 2) positions toward (B, 2) cells; their rows one episode after the other."""
    maze, seen, done, earned = simulation.maze, [], [], []
    for _ in range(steps):
        cells = maze.cells_of(positions)
        ahead = ways[goals[:, 0], goals[:, 1], cells[:, 0], cells[:, 1]] - positions
        direction = ahead / (np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-6)
        noisy = direction + action_noise * rng.standard_normal(direction.shape)
        actions = noisy.clip(-1.0, 1.0).astype(np.float32)  # what is applied is the float32 that is recorded
        seen.append(positions)
        done.append(actions)
        positions = simulation.step(positions, actions)
        earned.append(np.linalg.norm(positions - maze.target, axis=1) <= maze.radius)
    arrays = {"observations": np.stack(seen, 1), "actions": np.stack(done, 1), "rewards": np.stack(earned, 1)}
    places = np.stack([maze.place_of((int(row), int(column))) for row, column in goals])
    arrays["infos/goal"] = np.repeat(places[:, None], steps, axis=1)
    return {name: array.reshape(-1, *array.shape[2:]).astype(np.float32) for name, array in arrays.items()}
