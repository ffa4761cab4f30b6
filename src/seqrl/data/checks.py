"""What every source of episodes refuses, in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqrl.data.gathered_rows import CHUNK_ROWS
from seqrl.errors import DataError

_SIDE = 32  # pixels
_CHANNELS = (1, 3, 4)


def is_picture(shape: Sequence[int], dtype: Any) -> bool:
    """Whether the numbers of a row are an image, or a stack of them: many bytes in rows and columns, or channels."""
    sides = sorted(shape)
    if len(sides) < 2 or sides[-2] < _SIDE:
        return False
    return bool(np.dtype(dtype) == np.uint8) or (len(sides) == 3 and sides[0] in _CHANNELS)


def check_numbers(array: Any, name: str, dims: int, origin: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Contiguous float32 of an array of so many dimensions; the array itself where it is that already.

    Raises:
        DataError: another shape, no dimensions in a row, no real numbers, or NaN or infinity, named by row and column.
    """
    array = np.asarray(array)
    if dims == 2 and is_picture(array.shape[1:], array.dtype):
        raise DataError(
            f"{origin}: {name} holds images of shape {array.shape[1:]}, and seqrl learns from vectors; record the "
            "simulator's state, or what an encoder makes of each image"
        )
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


def read_flags(array: np.ndarray, name: str, count: int, origin: str) -> np.ndarray:
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


def count_rows(observations: np.ndarray, origin: str) -> int:
    """N.

    Raises:
        DataError: a single number, which has no rows.
    """
    if observations.ndim == 0:
        raise DataError(f"{origin}: observations is a single number; (transitions, dimensions) numbers are needed")
    return len(observations)


DISCRETE = {"observations": "num_observations", "actions": "num_actions"}
"""Attributes of episodes that say how many values discrete observations or actions have: a number, or a list of one for
each number in a row."""

LINKED = "linked_files"
"""Attribute of episodes that names the other files which arrays were taken from."""


def read_counts(given: Any) -> tuple[int, ...] | None:
    """How many values each number in a row has, of an attribute: a count, or a list of them; None of anything else."""
    given = given[()] if isinstance(given, np.ndarray) and not given.ndim else given
    listed = list(given) if isinstance(given, list | tuple | np.ndarray) else [given]
    if not all(isinstance(each, int | np.integer) and not isinstance(each, bool) and each >= 1 for each in listed):
        return None
    return tuple(map(int, listed)) or None


def check_choices(array: Any, name: str, given: Any, origin: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(N, n) float32 of N rows of n choices, each numbered from 0.

    Args:
        given: how many values there are, for each of the n where there are several.

    Raises:
        DataError: a count that is none, another number of numbers in a row than counts, or a number that is no choice.
    """
    counts = read_counts(given)
    if counts is None:
        raise DataError(
            f"{origin}: {DISCRETE[name]} is {given!r}; give the number of values, 1 or more, or a list of one for each "
            "number in a row"
        )
    array = np.asarray(array)
    columns = check_numbers(array[:, None] if array.ndim == 1 else array, name, 2, origin)
    if columns.shape[1] != len(counts):
        stand = f"{counts[0]} discrete values one stands" if len(counts) == 1 else f"{counts} values one each stand"
        raise DataError(f"{origin}: {name} has shape {array.shape}; of {stand} in a row")
    for first in range(0, len(columns), CHUNK_ROWS):
        chunk = columns[first : first + CHUNK_ROWS]
        odd = find_no_choice(chunk, counts)
        if odd is not None:
            row, column = odd
            where = f"row {first + row}" + (f", column {column}" if len(counts) > 1 else "")
            said = f"{DISCRETE[name]}={given}" if len(counts) == 1 else f"{counts[column]} of them"
            raise DataError(
                f"{origin}: {name} holds {chunk[odd]:g} at {where}; with {said} the values are 0 to "
                f"{counts[column] - 1}"
            )
    return columns


def find_no_choice(rows: np.ndarray, counts: Sequence[int]) -> tuple[int, int] | None:
    """Row and column of the first of (N, n) numbers that is none of its (n,) counts of choices, 0 and up."""
    odd = (rows != np.floor(rows)) | (rows < 0) | (rows >= np.asarray(counts))
    if not odd.any():
        return None
    row, column = np.argwhere(odd)[0]
    return int(row), int(column)


def refuse_discrete(array: np.ndarray, name: str, origin: str) -> None:
    """Refuse one whole number in a row, which is how choices are recorded, where nobody said how many there are.

    An observation of one integer may be an amount as well, if it stands in a column of its own.

    Raises:
        DataError: saying how to declare them, and how to give amounts.
    """
    shapes: tuple[tuple[int, ...], ...] = ((), (1,)) if name == "actions" else ((),)
    if array.ndim and array.dtype.kind in "iub" and array.shape[1:] in shapes:
        more = f"; {int(array.max()) + 1} or more here" if array.size else ""
        raise DataError(
            f"{origin} has discrete {name} (one {array.dtype} per step): say how many values there are by data=arrays "
            f'data.{DISCRETE[name]}=N, or attributes={{"{DISCRETE[name]}": N}}{more}; or give amounts as floats'
        )


def refuse_different(what: str, values: Sequence[Any], names: Sequence[str]) -> None:
    """Refuse to mix stores that disagree on something.

    Raises:
        DataError: naming what each of the stores has.
    """
    if any(value != values[0] for value in values):
        listed = ", ".join(f"{value or 'no'} in {name}" for value, name in zip(values, names, strict=True))
        raise DataError(f"{what} cannot be mixed: {listed}; mix data of one environment")


def count_whole_episodes(stops: np.ndarray, max_transitions: int | None, origin: str) -> int:
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
