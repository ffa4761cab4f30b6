"""Gymnasium's spaces of choices: how many values there are, and what the first of each is called."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.layout import Choices, as_choices


def count_choices(space: Any) -> Choices | None:
    """How many values each number of a `Discrete`, `MultiDiscrete` or `MultiBinary` space has; None of other spaces."""
    from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete

    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete):
        return as_choices(space.nvec.reshape(-1).tolist())
    if isinstance(space, MultiBinary):
        return as_choices([2] * int(np.prod(space.shape)))
    return None


def first_choices(space: Any) -> np.ndarray:
    """(n,) int64 what the first value of each number is called; zeros where the space does not say."""
    start = np.asarray(getattr(space, "start", 0), np.int64)
    return np.broadcast_to(start.reshape(-1) if start.ndim else start, (int(np.prod(space.shape)),))


def is_served(space: Any) -> bool:
    """Whether values of a space become numbers in a row: boxes and spaces of choices."""
    from gymnasium.spaces import Box

    return isinstance(space, Box) or count_choices(space) is not None
