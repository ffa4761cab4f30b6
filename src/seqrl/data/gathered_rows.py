"""Rows of several arrays as one: what subsets and mixes of episodes hold in place of copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

CHUNK_ROWS = 65_536  # rows that are looked at together wherever arrays may be larger than memory


class Rows:
    """Rows of other arrays in an order of their own, gathered when they are read; making one copies nothing.

    `len`, `shape`, `dtype`, `ndim`, `rows[3]`, `rows[10:20]`, `rows[indices]`, `rows[a:b, :2]` and `np.asarray(rows)`
    do what they do for an array of shape (N, ...), and return copies. Made by `select_rows` and `join_rows`.

    Args:
        sources: arrays of one trailing shape.
        source, first: (R,) of each run of rows, the array it lies in and its first row there.
        counts: (R,) how many rows each run has, 1 or more.
    """

    def __init__(self, sources: Sequence[np.ndarray], source: np.ndarray, first: np.ndarray, counts: np.ndarray):
        self.sources = tuple(sources)
        self.source = source
        self.first = first
        self.offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.shape: tuple[int, ...] = (int(self.offsets[-1]), *self.sources[0].shape[1:])
        self.ndim = len(self.shape)
        self.dtype: np.dtype[Any] = np.result_type(*self.sources)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(each, slice | int) for each in rest):
            raise IndexError("rows of several arrays take one array of indices, then slices and integers")
        if isinstance(rows, slice):
            index = np.arange(*rows.indices(len(self)))
        else:
            index = np.asarray(rows)
            index = np.flatnonzero(index) if index.dtype == bool and len(index) == len(self) else index
        found = self._gather(index.reshape(-1)).reshape(*index.shape, *self.shape[1:])
        return found[(slice(None),) * index.ndim + tuple(rest)] if rest else found[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows of several arrays cannot become one array without a copy")
        whole = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for first in range(0, len(self), CHUNK_ROWS):
            whole[first : first + CHUNK_ROWS] = self[first : first + CHUNK_ROWS]
        return whole

    def _gather(self, index: np.ndarray) -> np.ndarray:
        """(n, ...) copies of (n,) rows."""
        if index.dtype.kind not in "iu":
            raise IndexError(f"rows are chosen by integers or bools, not by {index.dtype}")
        index = np.where(index < 0, index + len(self), index)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"there are {len(self)} rows; an index lies outside")
        run = np.searchsorted(self.offsets, index, side="right") - 1
        source, row = self.source[run], self.first[run] + index - self.offsets[run]
        found = np.empty((len(index), *self.shape[1:]), self.dtype)
        for number, array in enumerate(self.sources):
            here = source == number
            found[here] = array[row[here]]
        return found


def select_rows(array: np.ndarray | Rows, starts: np.ndarray, stops: np.ndarray) -> np.ndarray | Rows:
    """The rows `starts[i]` to `stops[i]` (none empty) one after the other: a view where they lie so already."""
    rows = _rows(array)
    low = np.searchsorted(rows.offsets, starts, side="right") - 1
    high = np.searchsorted(rows.offsets, stops, side="left")
    run, piece = join_ranges(low, high), np.repeat(np.arange(len(starts)), high - low)
    begin = np.maximum(rows.offsets[run], starts[piece])
    end = np.minimum(rows.offsets[run + 1], stops[piece])
    return _joined(rows.sources, rows.source[run], rows.first[run] + begin - rows.offsets[run], end - begin)


def join_rows(arrays: Sequence[np.ndarray | Rows]) -> np.ndarray | Rows:
    """Arrays of one trailing shape, one after the other."""
    parts = [_rows(array) for array in arrays]
    shifts = np.cumsum([0, *(len(part.sources) for part in parts[:-1])])
    return _joined(
        [source for part in parts for source in part.sources],
        np.concatenate([part.source + shift for part, shift in zip(parts, shifts, strict=True)]),
        np.concatenate([part.first for part in parts]),
        np.concatenate([np.diff(part.offsets) for part in parts]),
    )


def measure_deviations(array: np.ndarray | Rows) -> np.ndarray:
    """(D,) float64 standard deviations of the columns of (N, D) numbers, or (1,) of (N,), a chunk at a time."""
    origin = np.asarray(array[:1], np.float64)  # near the mean, so that the sums lose no digits
    total = squares = np.zeros(1)
    for first in range(0, len(array), CHUNK_ROWS):
        chunk = array[first : first + CHUNK_ROWS] - origin
        total, squares = total + chunk.sum(0), squares + (chunk**2).sum(0)
    variance = squares / len(array) - (total / len(array)) ** 2
    found: np.ndarray = np.sqrt(np.maximum(variance, 0.0)).reshape(-1)
    return found


def join_ranges(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """`starts[0], starts[0] + 1, ..., stops[0] - 1, starts[1], ...` as one array."""
    counts = stops - starts
    return np.repeat(stops - np.cumsum(counts), counts) + np.arange(counts.sum())


def _rows(array: np.ndarray | Rows) -> Rows:
    zero = np.zeros(1, np.int64)
    return array if isinstance(array, Rows) else Rows([array], zero, zero, np.array([len(array)]))


def _joined(
    sources: Sequence[np.ndarray], source: np.ndarray, first: np.ndarray, counts: np.ndarray
) -> np.ndarray | Rows:
    """Rows with as few runs and sources as possible; a view where one run is left."""
    cuts = (source[1:] != source[:-1]) | (first[1:] != first[:-1] + counts[:-1])
    heads = np.flatnonzero(np.append(True, cuts))
    used, source = np.unique(source[heads], return_inverse=True)
    first, counts = first[heads], np.add.reduceat(counts, heads)
    if len(heads) == 1:
        return sources[int(used[0])][int(first[0]) : int(first[0] + counts[0])]
    return Rows([sources[int(number)] for number in used], source, first, counts)


def chunks_of(array: np.ndarray | Rows) -> Iterator[memoryview]:
    """The bytes of an array, some rows at a time."""
    for first in range(0, len(array), CHUNK_ROWS):
        yield np.ascontiguousarray(array[first : first + CHUNK_ROWS]).data
