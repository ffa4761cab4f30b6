"""Actions as an environment takes them: within its bounds, whole where it counts, and of its own type."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.formats.spaces import count_choices, first_choices
from seqrl.layout import as_counts


class ActionBounds:
    """The action space of an environment, a `Box`, or a space of choices, which are counted from 0.

    Attributes:
        low, high: the bounds, of the space's own type and shape; for choices (A,), 0 and their number less 1.
        whole: whether actions are whole numbers, as choices and boxes of an integer type are.
    """

    def __init__(self, space: Any) -> None:
        choices = count_choices(space)
        self._space, self._first = space, None if choices is None else first_choices(space)
        if choices is None:
            self.low, self.high = space.low, space.high
        else:
            counts = np.array(as_counts(choices), np.float64)
            self.low, self.high = np.zeros(len(counts)), counts - 1
        self.whole = choices is not None or self.low.dtype.kind in "iub"
        self._low, self._high = _as_floats(self.low, np.inf), _as_floats(self.high, -np.inf)

    def carry_out(self, actions: np.ndarray) -> np.ndarray:
        """(B, A) float64 of (B, A) actions: clipped, and whole ones rounded to the nearest."""
        clipped = np.clip(actions, self._low, self._high)
        return clipped.round() if self.whole else clipped

    def convert(self, action: np.ndarray) -> Any:
        """One (A,) action that was carried out, as the environment wants it."""
        if self._first is not None:
            chosen = (action.astype(np.int64) + self._first).reshape(self._space.shape)
            return chosen.astype(self._space.dtype) if chosen.ndim else int(chosen)
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
