"""Extras as fields of a transition: arrays that data record beside their steps, checked as they are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.data.checks import find_no_choice
from seqrl.data.episodes import EpisodeStore
from seqrl.data.gathered_rows import CHUNK_ROWS
from seqrl.errors import DataError
from seqrl.layout import Field, Layout


def check_extras(store: EpisodeStore, layout: Layout) -> None:
    """Refuse, before a training, extras that `read_extra` would refuse in its midst.

    Raises:
        DataError: see `read_extra`.
    """
    for field in (*layout.contexts, *layout.outcomes):
        for first in range(0, len(store), CHUNK_ROWS):  # they may be larger than memory
            read_extra(store, layout, field, first, min(first + CHUNK_ROWS, len(store)))


def read_extra(
    store: EpisodeStore, layout: Layout, field: Field, first: int, stop: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(n, size) rows `first` to `stop` of the extra that a field stands for.

    Raises:
        DataError: another size, no numbers, NaN or infinity, choices that nobody declared or none of those declared.
    """
    width, counts = store.sizes.get("extras", {}).get(field.name), layout.choices(field.name)
    name = f"{store.attributes.get('name', 'arrays')}: {field.name!r}"
    if width != field.size:
        has = "is not recorded beside the steps" if width is None else f"has {width} numbers in a row"
        raise DataError(f"{name} {has}, and the model's layout has {field.size}; give data like those of then")
    rows = np.asarray(store.extras[field.name][first:stop])
    if rows.dtype.kind not in "fiub":
        raise DataError(f"{name} is of type {rows.dtype}; layout.fields.{field.name} needs numbers")
    if rows.dtype.kind in "iu" and not counts:
        raise DataError(
            f"{name} holds whole numbers ({rows.dtype}): if they are choices, say how many there are by "
            f'data.categories.{field.name}=N, or attributes={{"num_{field.name}": N}}; if they are amounts, record '
            "them as floats"
        )
    with np.errstate(over="ignore"):
        found = rows.reshape(len(rows), -1).astype(np.float32)
    odd = ~np.isfinite(found)
    if odd.any():
        row, column = np.argwhere(odd)[0]
        raise DataError(f"{name} holds {found[row, column]} at row {first + row}; remove or repair that episode")
    if counts and (none := find_no_choice(found, counts)) is not None:
        row, column = none
        where = f"row {first + row}" + (f", column {column}" if len(counts) > 1 else "")
        raise DataError(
            f"{name} holds {found[none]:g} at {where}; of {counts[column]} choices the numbers are 0 to "
            f"{counts[column] - 1}"
        )
    return found
