"""Frames that Matplotlib draws: mazes from above, and stick figures where no OpenGL works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from seqrl.worlds.maze import Maze

SIZE = 320  # pixels; a multiple of 16, which H.264 wants


def draw_maze(maze: Maze, positions: np.ndarray, goals: np.ndarray) -> Iterator[np.ndarray]:
    """Rows run downwards and columns to the right, as the map is written."""
    figure, axes = _figure()
    walls = np.array([[character == "#" for character in row] for row in maze.rows], float)
    axes.imshow(walls, cmap="Greys", vmin=0, vmax=1.6, extent=maze.extent, interpolation="nearest")
    (trace,) = axes.plot([], [], color="tab:blue", linewidth=1)
    (goal,) = axes.plot([], [], "*", color="tab:red", markersize=12)
    (ball,) = axes.plot([], [], "o", color="tab:blue", markersize=7)
    began = 0
    for time in range(len(positions)):
        began = time + 1 if np.isnan(positions[time]).any() else began
        trace.set_data(positions[began : time + 1, 1], positions[began : time + 1, 0])
        goal.set_data(goals[time : time + 1, 1], goals[time : time + 1, 0])
        ball.set_data(positions[time : time + 1, 1], positions[time : time + 1, 0])
        yield _pixels(figure)


def draw_sticks(model: Any, qpos: np.ndarray) -> Iterator[np.ndarray]:
    """Every capsule as a line and every other geom as a point, seen from the side (x to the right, z up)."""
    import mujoco
    from matplotlib.collections import LineCollection

    figure, axes = _figure()
    axes.axhline(0.0, color="0.7", linewidth=1)
    limbs = LineCollection([], colors="tab:blue", linewidths=4, capstyle="round")
    axes.add_collection(limbs)
    data = mujoco.MjData(model)
    is_capsule = model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE
    shown = np.flatnonzero(model.geom_bodyid > 0)  # body 0 is the world
    half = np.where(is_capsule, model.geom_size[:, 1], 0.0)
    for frame in qpos:
        data.qpos[:] = frame
        mujoco.mj_kinematics(model, data)
        axis = half[:, None] * data.geom_xmat[:, [2, 5, 8]]  # the capsule's own z axis
        ends = np.stack([data.geom_xpos - axis, data.geom_xpos + axis], axis=1)[shown][:, :, [0, 2]]
        limbs.set_segments(list(ends))
        middle = ends.mean(axis=(0, 1))
        axes.set_xlim(middle[0] - 1.5, middle[0] + 1.5)
        axes.set_ylim(middle[1] - 1.5, middle[1] + 1.5)
        yield _pixels(figure)


def _figure() -> tuple[Any, Any]:
    """A square figure without pyplot, whose global state belongs to the user."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE / 80, SIZE / 80), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_aspect("equal")
    return figure, axes


def _pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3].copy()
