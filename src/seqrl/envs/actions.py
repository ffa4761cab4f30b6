"""Actions as an environment takes them: within its bounds, whole where it counts, and of its own type."""

from __future__ import annotations

from typing import Any

import numpy as np


class ActionBounds:
    """The action space of an environment, a `Box` or a `Discrete`, whose values are counted from 0.

    Attributes:
        low, high: the bounds, of the space's own type and shape; for discrete actions 0 and their number less 1.
        whole: whether actions are whole numbers, as choices and boxes of an integer type are.
    """

    def __init__(self, space: Any) -> None:
        self._first = None if hasattr(space, "low") else int(space.start)
        if self._first is None:
            self.low, self.high = space.low, space.high
        else:
            self.low, self.high = np.zeros(1), np.full(1, space.n - 1.0)
        self.whole = self._first is not None or self.low.dtype.kind in "iub"
        self._low, self._high = _as_floats(self.low, np.inf), _as_floats(self.high, -np.inf)

    def carry_out(self, actions: np.ndarray) -> np.ndarray:
        """(B, A) float64 of (B, A) actions: clipped, and whole ones rounded to the nearest."""
        clipped = np.clip(actions, self._low, self._high)
        return clipped.round() if self.whole else clipped

    def convert(self, action: np.ndarray) -> Any:
        """One (A,) action that was carried out, as the environment wants it."""
        if self._first is not None:
            return int(action[0]) + self._first
        return action.reshape(self.low.shape).astype(self.low.dtype)


def _as_floats(bounds: np.ndarray, inwards: float) -> np.ndarray:
    """(A,) float64, of whole numbers the nearest that is not beyond: 2**63 - 1 would become 2**63, which overflows."""
    floats = bounds.reshape(-1).astype(np.float64)
    if bounds.dtype.kind not in "iu":
        return floats
    beyond = [
        int(a) > int(b) if inwards < 0 else int(a) < int(b) for a, b in zip(floats, bounds.reshape(-1), strict=True)
    ]
    return np.where(beyond, np.nextafter(floats, inwards), floats)
