"""Numbers that environments tell beside their observations and rewards: the extras of a layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqrl.errors import ConfigError


def read_told(infos: Sequence[Mapping[str, Any]], sizes: Mapping[str, int], env_id: str) -> dict[str, np.ndarray]:
    """(B, n) float32 of each name, from what B environments told; NaN where one told nothing.

    Args:
        sizes: n by name.

    Raises:
        ConfigError: something else than so many numbers.
    """
    found = {name: np.full((len(infos), size), np.nan, np.float32) for name, size in sizes.items()}
    for name, size in sizes.items():
        for row, info in enumerate(infos):
            if name not in info:
                continue
            try:
                numbers = np.asarray(info[name], np.float32).reshape(-1)
            except (TypeError, ValueError):
                numbers = np.zeros(0, np.float32)
            if len(numbers) != size or not np.isfinite(numbers).all():
                raise ConfigError(
                    f"{env_id} tells {name!r} as {info[name]!r}; the checkpoint's layout needs {size} finite numbers"
                )
            found[name][row] = numbers
    return found
