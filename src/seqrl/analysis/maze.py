"""Pictures of driven and imagined paths in a maze."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.files import write_file
from seqrl.worlds.maze import Maze

SHADES = 12  # of a path's color, from its start to its end
ACROSS = 3  # strategies side by side, where there is one goal
IMAGINED = 6  # starts at most whose imagined paths are drawn in a panel


@dataclass(frozen=True)
class PathPanel:
    """A strategy, drawn once for each goal.

    Attributes:
        label: of the strategy.
        goals: (m, 2).
        paths: (n, runs, T + 1, 2) driven positions; with one run, the same paths are drawn for every goal.
        success: (n, m) bool.
        steps: (n, m) until the goal was reached; NaN where it was not.
        counted: (n, m) bool; starts too near a goal are left out.
        plans: (b, H, 2) imagined positions, and (b,) the flat number `start * runs + run` of their episodes.
        regions: (k, 4) `x_low, y_low, x_high, y_high` that the episodes were judged by; success then is that of those
            which were inside none before.
    """

    label: str
    goals: np.ndarray
    paths: np.ndarray
    success: np.ndarray
    steps: np.ndarray
    counted: np.ndarray
    plans: Sequence[tuple[np.ndarray, np.ndarray]]
    regions: np.ndarray | None = None


def draw_paths(path: Path, maze: Maze, panels: Sequence[PathPanel]) -> Path:
    """Draw strategies as rows and goals as columns; with one goal each, strategies side by side.

    Paths that reached the goal are blue, the others orange, both the more saturated the more time has passed; what
    follows the arrival is grey. Imagined paths lie over them in black. Observation x runs downwards, as the rows of the
    maze do.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure

    height, width = len(maze.rows), len(maze.rows[0])
    size = 3.2
    cells = [(panel, column) for panel in panels for column in range(len(panel.goals))]
    counts = {len(panel.goals) for panel in panels}
    columns = counts.pop() if len(counts) == 1 and counts != {1} else min(len(cells), ACROSS)
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(size * columns, (size * height / width + 0.3) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[len(cells) :]:
        axes.set_axis_off()
    for (panel, column), axes in zip(cells, grid, strict=False):
        goal = panel.goals[column]
        _walls(axes, maze)
        _draw_regions(axes, panel.regions)
        _panel(axes, panel, column)
        axes.plot(goal[1], goal[0], "*", color="tab:red", markersize=14, markeredgecolor="white", zorder=5)
        counted = panel.counted[:, column]
        share = 100 * panel.success[counted, column].mean() if counted.any() else float("nan")
        axes.set_title(f"{panel.label}: {share:.0f} % to ({goal[0]:g}, {goal[1]:g})", fontsize=9)
    judged = " and kept out of the hatched regions" if any(each.regions is not None for each in panels) else ""
    imagined = ", black: imagined" if any(len(panel.plans) for panel in panels) else ""
    words = f"blue: reached the star{judged} (grey: afterwards), orange: did not{imagined}"
    figure.suptitle(textwrap.fill(words, 46 * columns), fontsize=9)
    with write_file(path) as file:
        figure.savefig(file, dpi=110, format="png")
    return path


def _walls(axes: Any, maze: Maze) -> None:
    solid = np.array([[character == "#" for character in row] for row in maze.rows], float)
    axes.imshow(solid, cmap="Greys", vmin=0, vmax=1.6, extent=maze.extent, interpolation="nearest")
    left, right, bottom, top = maze.extent
    margin = 0.6 * maze.unit
    axes.set_xlim(left + margin, right - margin)  # most of the outer wall says nothing
    axes.set_ylim(bottom - margin, top + margin)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_regions(axes: Any, regions: np.ndarray | None) -> None:
    from matplotlib.patches import Rectangle

    for low_x, low_y, high_x, high_y in [] if regions is None else regions:
        corner, width, height = (low_y, low_x), high_y - low_y, high_x - low_x  # x runs downwards
        axes.add_patch(
            Rectangle(corner, width, height, facecolor="none", edgecolor="tab:red", hatch="////", linewidth=0.8)
        )


def _panel(axes: Any, panel: PathPanel, column: int) -> None:
    runs = panel.paths.shape[1]
    run = column if runs > 1 else 0
    for start in np.flatnonzero(panel.counted[:, column]):
        driven = panel.paths[start, run]
        reached = bool(panel.success[start, column])
        stop = int(panel.steps[start, column]) + 1 if reached else len(driven)
        axes.plot(driven[stop - 1 :, 1], driven[stop - 1 :, 0], color="0.8", linewidth=0.8, zorder=1)
        pieces = np.array_split(np.arange(stop - 1), SHADES)
        for saturation, piece in zip(np.linspace(0.3, 1.0, SHADES), pieces, strict=True):
            if len(piece):
                x, y = driven[piece[0] : piece[-1] + 2].T
                axes.plot(y, x, color=_shade("tab:blue" if reached else "tab:orange", saturation), linewidth=0.8)
        axes.plot(driven[0, 1], driven[0, 0], "o", color="black", markersize=2)
    starts = np.flatnonzero(panel.counted[:, column])
    every = max(4, -(-len(starts) // IMAGINED))
    shown = {int(start) * runs + run for start in starts[::every]}
    for positions, episodes in panel.plans:
        for imagined, episode in zip(positions, episodes, strict=True):
            if int(episode) in shown:
                axes.plot(imagined[:, 1], imagined[:, 0], color="black", linewidth=0.9, zorder=4)


def _shade(color: str, saturation: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = (1.0 - saturation * (1.0 - part) for part in to_rgb(color))
    return red, green, blue
