"""What every source of episodes refuses, in the same words."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.data.rows import CHUNK_ROWS
from seqrl.errors import ConfigError, DataError


def numbers(array: Any, name: str, dims: int, origin: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Contiguous float32 of an array of so many dimensions; the array itself where it is that already.

    Raises:
        DataError: another shape, no dimensions in a row, no real numbers, or NaN or infinity, named by row and column.
    """
    array = np.asarray(array)
    if array.ndim != dims or array.dtype.kind not in "fiub" or 0 in array.shape[1:]:
        wanted = "(transitions, dimensions)" if dims == 2 else "(transitions,)"
        raise DataError(f"{origin}: {name} has shape {array.shape} and type {array.dtype}; {wanted} numbers are needed")
    for first in range(0, len(array), CHUNK_ROWS):  # arrays that are mapped from a file may be larger than memory
        chunk = array[first : first + CHUNK_ROWS]
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(chunk.astype(np.float32, copy=False))
        if bad.any():
            place = tuple(np.argwhere(bad)[0])
            where = f"row {first + place[0]}" + (f", column {place[1]}" if dims == 2 else "")
            raise DataError(f"{origin}: {name} holds {chunk[place]} at {where}; remove or repair that episode")
    return np.ascontiguousarray(array, np.float32)


def flags(array: np.ndarray, name: str, count: int, origin: str) -> np.ndarray:
    """(count,) bool of booleans, or of numbers that are 0 or 1.

    Raises:
        DataError: another shape, or other values.
    """
    if array.size != count or array.shape[:1] != (count,) or array.dtype.kind not in "fiub":
        raise DataError(f"{origin}: {name} has shape {array.shape} and type {array.dtype}; ({count},) flags are needed")
    array = array.reshape(-1)
    odd = ~np.isin(array, (0, 1))
    if odd.any():
        raise DataError(f"{origin}: {name} holds {array[odd][0]} at row {int(np.argmax(odd))}; flags are 0 or 1")
    return array.astype(bool)


def row_count(observations: np.ndarray, origin: str) -> int:
    """N.

    Raises:
        DataError: a single number, which has no rows.
    """
    if observations.ndim == 0:
        raise DataError(f"{origin}: observations is a single number; (transitions, dimensions) numbers are needed")
    return len(observations)


def refuse_discrete(actions: np.ndarray, origin: str) -> None:
    """Refuse actions of one whole number each, which is how choices are recorded.

    Raises:
        DataError: saying so, and how to give amounts.
    """
    if actions.dtype.kind in "iub" and actions.shape[1:] in ((), (1,)):
        raise DataError(f"{discrete(origin, f'one {actions.dtype} per step')}; give amounts as floats")


def discrete(origin: str, what: str) -> str:
    """The refusal of actions that are choices."""
    return (
        f"{origin} has discrete actions ({what}); layouts are made of continuous numbers, whose bins have an order, so "
        "that only data with real-valued action vectors can be used"
    )


def check_max_transitions(max_transitions: int | None) -> None:
    """Refuse fewer than two rows, before any file is touched.

    Raises:
        ConfigError: saying so.
    """
    if max_transitions is not None and max_transitions < 2:
        raise ConfigError(f"data.max_transitions={max_transitions} is too few; give 2 or more, or null for all")


def whole_episodes(stops: np.ndarray, max_transitions: int | None, origin: str) -> int:
    """How many whole episodes fit into so many rows; all of them where None is given.

    Args:
        stops: (E,) the rows after the episodes' last ones.

    Raises:
        DataError: the first episode is longer.
    """
    if max_transitions is None:
        return len(stops)
    fitting = int(np.searchsorted(stops, max_transitions, side="right"))
    if fitting == 0 and len(stops):
        raise DataError(
            f"data.max_transitions={max_transitions} keeps no whole episode of {origin}, whose first has {stops[0]} "
            "steps; give at least that many"
        )
    return fitting
