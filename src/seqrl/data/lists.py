"""Episodes as people hold them, a list of dictionaries, to flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqrl.errors import DataError


def join(
    episodes: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """The episodes one after the other.

    Args:
        names: keys of every episode with a row per step.

    Returns:
        (N, ...) arrays by name, (E,) int64 lengths, (E,) bool terminated, (E,) bool truncated.

    Raises:
        DataError: no episode, or one that lacks something or does not fit together, by its number.
    """
    if isinstance(episodes, Mapping):
        raise DataError("a single episode was given; give a list of episodes")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    ends = []
    for number, episode in enumerate(episodes):
        missing = {*names, "terminated"} - set(episode)
        if missing:
            raise DataError(f"episode {number} lacks {', '.join(sorted(missing))}")
        arrays = {name: _array(episode[name], name, number) for name in names}
        rows = {name: len(array) for name, array in arrays.items()}
        if len(set(rows.values())) > 1 or not rows[names[0]]:
            found = ", ".join(f"{count} {name}" for name, count in rows.items())
            raise DataError(f"episode {number} has {found}; give one of each for every step, and one step at least")
        for name, array in arrays.items():
            parts[name].append(array)
        ended = _flag(episode["terminated"], "terminated", number)
        limited = _flag(episode.get("truncated", not ended), "truncated", number)
        if ended and limited:
            raise DataError(f"episode {number} is both terminated and truncated; it can end in one way only")
        ends.append((rows[names[0]], ended, limited))
    if not ends:
        raise DataError("the list of episodes is empty; give at least one episode")
    for name, each in parts.items():
        shapes = {array.shape[1:] for array in each}
        if len(shapes) > 1:
            raise DataError(
                f"the list of episodes: {name} has rows of different shapes, {sorted(shapes)}; make them one"
            )
    lengths, terminated, truncated = (np.array(column) for column in zip(*ends, strict=True))
    return {name: np.concatenate(each) for name, each in parts.items()}, lengths, terminated, truncated


def _array(value: Any, name: str, number: int) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"episode {number}: {name} cannot be made an array; give rows of one length") from error
    if array.ndim == 0:
        raise DataError(f"episode {number}: {name} is {value!r}; give one row for every step")
    return array


def _flag(value: Any, name: str, number: int) -> bool:
    flag = np.asarray(value)
    if flag.size != 1:
        raise DataError(
            f"episode {number}: {name} has shape {flag.shape}; give one bool that says how the episode ended"
        )
    return bool(flag.reshape(()))
