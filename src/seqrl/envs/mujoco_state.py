"""The simulator behind an environment, where it is MuJoCo."""

from __future__ import annotations

from typing import Any


def find_mujoco(env: Any) -> Any | None:
    """The `MjData` of an environment, or what stands for it; None where MuJoCo does not simulate it.

    Environments of Gymnasium keep it in `data`, ours in that of their `simulation`.
    """
    inner = env.unwrapped
    for data in (getattr(inner, "data", None), getattr(getattr(inner, "simulation", None), "data", None)):
        if hasattr(data, "qpos") and hasattr(data, "qvel"):
            return data
    return None
