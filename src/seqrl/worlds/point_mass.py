"""Physics of maze2d: the point mass of D4RL's maze2d-*-v1 on MuJoCo's own bindings."""

from __future__ import annotations

import numpy as np

from seqrl.opengl import prepare_mujoco
from seqrl.worlds.maze import Maze

MAX_SPEED = 5.0
"""Each velocity component is clipped to +-5 before a step."""


def maze_mjcf(maze: Maze) -> str:
    """The MuJoCo model: a ball on two slide joints, gear 100, damping 1, among walls of boxes with side 1.

    The contact margin of 0.002 stands on the ball alone. D4RL gives it to every geom and MuJoCo takes the larger of
    two margins up to 3.4 but their sum from 3.5 on; this way both give D4RL's 0.002. The ground plane is left out: it
    can only push along z, where the ball has no freedom.
    """
    walls = "\n".join(
        f'    <geom name="wall_{row}_{column}" type="box" pos="{row + 1} {column + 1} 0" size="0.5 0.5 0.2"'
        ' rgba="0.6 0.4 0.3 1"/>'
        for row, column in maze.walls()
    )
    return f"""
<mujoco model="maze2d_{maze.name}">
  <compiler inertiafromgeom="true" angle="radian"/>
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <default>
    <joint damping="1" limited="false"/>
    <geom friction=".5 .1 .1" density="1000" margin="0" condim="1" contype="2" conaffinity="1"/>
    <motor gear="100" ctrllimited="true" ctrlrange="-1 1"/>
  </default>
  <worldbody>
    <body name="ball" pos="1.2 1.2 0">
      <geom name="ball" type="sphere" size="0.1" margin="0.002" contype="1" rgba="0.2 0.4 0.8 1"/>
      <joint name="ball_x" type="slide" axis="1 0 0"/>
      <joint name="ball_y" type="slide" axis="0 1 0"/>
    </body>
{walls}
  </worldbody>
  <actuator>
    <motor joint="ball_x"/>
    <motor joint="ball_y"/>
  </actuator>
</mujoco>"""


class PointMaze:
    """The simulation: a state of position and velocity, stepped by a force. No rewards, no episodes.

    The state (4,) float64 is `(x, y, v_x, v_y)`, x along the rows of the map and y along its columns.
    """

    def __init__(self, maze: Maze) -> None:
        prepare_mujoco()
        import mujoco

        self.maze = maze
        self.model = mujoco.MjModel.from_xml_string(maze_mjcf(maze))
        self.data = mujoco.MjData(self.model)
        self._step = mujoco.mj_step

    @property
    def state(self) -> np.ndarray:
        """(4,) float64, a copy."""
        return np.concatenate([self.data.qpos, self.data.qvel])

    def set_state(self, state: np.ndarray) -> None:
        """Put the ball at position and velocity (4,), forgetting what the solver remembers of earlier contacts."""
        self.data.qpos[:], self.data.qvel[:] = state[:2], state[2:]
        self.data.qacc_warmstart[:] = 0.0

    def step(self, action: np.ndarray) -> np.ndarray:
        """Apply a force (2,), which the model clips to [-1, 1], for 0.01 s; returns the new state (4,)."""
        np.clip(self.data.qvel, -MAX_SPEED, MAX_SPEED, out=self.data.qvel)
        self.data.ctrl[:] = action
        self._step(self.model, self.data)
        return self.state

    def random_state(self, rng: np.random.Generator) -> np.ndarray:
        """(4,) a start as D4RL draws it: uniform within 0.1 of a free cell's position, velocity 0.1 * normal."""
        return np.concatenate([self.random_position(rng), 0.1 * rng.standard_normal(2)])

    def random_position(self, rng: np.random.Generator) -> np.ndarray:
        """(2,) a free cell drawn uniformly, plus uniform noise in [-0.1, 0.1]; starts and goals are drawn so."""
        cells = self.maze.free_cells()
        return np.array(cells[rng.integers(len(cells))], np.float64) + rng.uniform(-0.1, 0.1, 2)
