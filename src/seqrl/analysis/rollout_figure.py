"""A picture of futures that models imagined under recorded actions, beside what came."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.analysis.hopper import advance, locate_joints
from seqrl.files import write_file

_COLORS = {"recorded": "black", "Trajectory Transformer": "tab:blue", "ensemble": "tab:orange"}
_SHOWN = 12  # rollouts of each model
_POSES = 11


def draw_rollouts(
    path: Path,
    future: np.ndarray,
    rollouts: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
    *,
    names: Sequence[str],
    poses: bool,
    title: str,
) -> Path:
    """Draw what came and what was imagined of one reference, dimension by dimension, and the errors of all.

    Args:
        future: (H, O) of one reference.
        rollouts: by label, (M, H, O) of the same.
        errors: by label, (H, 3) quartiles of the distance to what came, over references and rollouts.
        names: of the dimensions to draw, the first ones.
        poses: whether the observations are Hopper's, whose figure then is drawn.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure

    rows = 2 + 3 * poses
    figure = Figure(figsize=(11, 2.5 * rows), dpi=110, layout="constrained")
    grid = figure.add_gridspec(rows, 4, height_ratios=[0.75] * (3 * poses) + [1, 1])
    if poses:
        everything = {"recorded": future, **{label: each[0] for label, each in rollouts.items()}}
        for row, (label, observations) in enumerate(everything.items()):
            _draw_poses(figure.add_subplot(grid[row, :]), label, observations)
    for column, name in enumerate(names[:4]):
        _draw_dimension(figure.add_subplot(grid[rows - 2, column]), future[:, column], rollouts, column, name)
    _draw_errors(figure.add_subplot(grid[rows - 1, :]), errors)
    figure.suptitle(textwrap.fill(title, 120), fontsize=9)
    with write_file(path) as file:
        figure.savefig(file, format="png")
    return path


def _draw_poses(axes: Any, label: str, observations: np.ndarray) -> None:
    """The figure every few steps; the torso's place is the sum of its velocities."""
    chosen = np.linspace(0, len(observations) - 1, _POSES).astype(int)
    far = np.abs(observations).max(-1) > 50  # nothing that could be drawn beside the others
    for number, step in enumerate(chosen):
        if far[: step + 1].any():
            axes.text(number * 0.9, 0.5, "gone", fontsize=8, color="tab:red", ha="center")
            continue
        points = locate_joints(observations[step], number * 0.9)
        axes.plot(points[:, 0], points[:, 1], "-o", color=_COLORS[label], linewidth=2, markersize=2)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_aspect("equal")
    axes.set_xlim(-0.9, 0.9 * _POSES - 0.3)
    axes.set_ylim(-0.25, 2.0)
    axes.set_xticks(0.9 * np.arange(_POSES), [f"{step + 1}" for step in chosen], fontsize=7)
    axes.set_yticks([])
    way = "" if far.any() else f", {advance(observations)[-1]:.2f} m on"
    axes.set_title(f"{label}: poses by step{way}", fontsize=9, loc="left")


def _draw_dimension(
    axes: Any, recorded: np.ndarray, rollouts: Mapping[str, np.ndarray], column: int, name: str
) -> None:
    steps = np.arange(1, len(recorded) + 1)
    for label, each in rollouts.items():
        for one in each[:_SHOWN]:
            axes.plot(steps, one[:, column], color=_COLORS[label], linewidth=0.7, alpha=0.45)
    axes.plot(steps, recorded, color=_COLORS["recorded"], linewidth=1.6)
    reach = recorded.max() - recorded.min()
    axes.set_ylim(recorded.min() - reach, recorded.max() + reach)
    axes.set_title(name, fontsize=9)
    axes.set_xlabel("steps ahead")
    axes.grid(alpha=0.25)


def _draw_errors(axes: Any, errors: Mapping[str, np.ndarray]) -> None:
    for label, quartiles in errors.items():
        steps = np.arange(1, len(quartiles) + 1)
        axes.plot(steps, quartiles[:, 1], color=_COLORS[label], label=f"{label}, median")
        axes.fill_between(steps, quartiles[:, 0], quartiles[:, 2], color=_COLORS[label], alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel("steps ahead; the band holds the middle half of all rollouts")
    axes.set_ylabel("RMS distance, deviations")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25, which="both")
