"""Did an episode get where it was sent?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqrl.worlds.maze import SUCCESS_RADIUS


@dataclass(frozen=True)
class GoalOutcome:
    """Every start against every goal.

    Attributes:
        success: (n, m) bool, whether the episode from start i came to goal j.
        steps: (n, m) float, first step at the goal; NaN without success.
        time_at_goal: (n, m) share of the steps from the first arrival on that were spent there; NaN without success.
        entered: (n, m) bool, whether it was inside a region before it came to its goal, or at all if it never did.
    """

    success: np.ndarray
    steps: np.ndarray
    time_at_goal: np.ndarray
    entered: np.ndarray


def judge(
    paths: np.ndarray, goals: np.ndarray, regions: np.ndarray | None = None, *, radius: float = SUCCESS_RADIUS
) -> GoalOutcome:
    """Judge driven paths.

    Args:
        paths: (n, m, T + 1, 2) positions of the episode from start i toward goal j.
        goals: (m, 2), or (n, m, 2) where starts have goals of their own.
        regions: (k, 4) `x_low, y_low, x_high, y_high`, or None.
        radius: within which a goal is reached.
    """
    near = np.linalg.norm(paths - goals[..., None, :], axis=-1) <= radius  # (n, m, T + 1)
    success = near.any(-1)
    first = np.where(success, near.argmax(-1).astype(float), np.nan)
    after = near.shape[-1] - near.argmax(-1)
    share = np.where(success, near.sum(-1) / after, np.nan)
    boxes = np.zeros((0, 4)) if regions is None else regions
    inside = ((paths[..., None, :] > boxes[:, :2]) & (paths[..., None, :] < boxes[:, 2:])).all(-1).any(-1)
    arrived = near.cumsum(-1) > 0
    return GoalOutcome(success, first, share, (inside & ~arrived).any(-1))
