"""Lamps with switches: a small environment of several choices at once, which wrappers are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, MultiBinary, MultiDiscrete

LAMPS = ("seqrl-check/Lamps-v0", "seqrl-check/LampsInParts-v0")
"""Ids in which lamps are seen as they are, and in a dict with their number."""


class Lamps(gymnasium.Env[Any, Any]):
    """Lamps that are switched by choices of several values; seen as they are, or with their number in a dict."""

    def __init__(self, parts: bool = False) -> None:
        self.parts = parts
        lamps = MultiBinary(3)
        self.observation_space = Dict({"lamps": lamps, "lit": Box(0.0, 3.0, (1,), np.float64)}) if parts else lamps
        self.action_space = MultiDiscrete([3, 2])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.lamps = self.np_random.integers(2, size=3).astype(np.int8)
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.lamps[int(action[0])] = action[1]
        return self._see(), float(self.lamps.sum()), False, False, {}

    def _see(self) -> Any:
        lamps = self.lamps.copy()
        return {"lamps": lamps, "lit": lamps.sum(keepdims=True, dtype=np.float64)} if self.parts else lamps


@contextmanager
def registered_lamps() -> Iterator[None]:
    """The environments under their ids, which no list shows afterwards."""
    for env_id, parts in zip(LAMPS, (False, True), strict=True):
        gymnasium.register(env_id, f"{__name__}:Lamps", max_episode_steps=20, kwargs={"parts": parts})
    try:
        yield
    finally:
        for env_id in LAMPS:
            del gymnasium.registry[env_id]
