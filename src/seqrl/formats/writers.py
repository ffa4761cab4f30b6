"""Recorded episodes to HDF5 (D4RL's layout), NPZ and Minari; whole or not at all, over nothing unless asked to."""

from __future__ import annotations

import numpy as np

from seqrl.data.checks import LINKED
from seqrl.errors import DataError
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.hdf5_writing import write_hdf5
from seqrl.formats.minari import MINARI
from seqrl.formats.minari_writing import announce_namespace, write_minari
from seqrl.formats.npz import write_npz
from seqrl.formats.targets import check_target, find_place, write_whole


def write_episodes(flat: FlatEpisodes, target: str, *, overwrite: bool = False) -> list[str]:
    """Write episodes.

    Args:
        target: its suffix, or `minari:`, says the format.

    Returns:
        What the format could not keep, a sentence each.

    Raises:
        ConfigError: as `check_target`.
        DataError: episodes that no store could be made of, or with arrays of other files than their own; or a place
            that cannot be written to.
    """
    check_target(target, overwrite=overwrite)
    if LINKED in flat.attributes:  # a copy may be handed on; who made the file is not to choose what goes with it
        others = ", ".join(flat.attributes[LINKED])
        raise DataError(f"{flat.origin} has links into {others}, of which no copy is made; copy them into it by hand")
    flat.store()  # what is written can be read
    path = find_place(target)
    notes: list[str] = []
    if target.startswith(MINARI):
        notes = [] if flat.final_observations is not None else [_REPEATED]
        write_whole(
            path, lambda new: write_minari(flat, target.removeprefix(MINARI), new), folder=True, overwrite=overwrite
        )
        announce_namespace(target.removeprefix(MINARI))
    elif path.suffix == ".npz":
        write_whole(path, lambda new: write_npz(new, _arrays_by_offsets(flat), flat.attributes), overwrite=overwrite)
    else:
        last = flat.offsets[1:-1] - 1  # of all episodes but the last
        cut = int((~flat.terminals[last] & ~flat.timeouts[last]).sum())
        notes = [f"{cut} episodes that were cut count as timeouts: D4RL's layout has no other word"] if cut else []
        write_whole(path, lambda new: write_hdf5(new, _arrays_by_flags(flat), flat.attributes), overwrite=overwrite)
    return notes


_REPEATED = "the observations after the last actions are not known: Minari's copies repeat the last observation there"


def _arrays_by_flags(flat: FlatEpisodes) -> dict[str, np.ndarray]:
    """D4RL's layout. Every end but a true one is a timeout; a cut episode can be left open only at the very end."""
    timeouts = flat.ends & ~flat.terminals
    timeouts[-1] &= flat.timeouts[-1]
    return {**_steps(flat), "terminals": flat.terminals, "timeouts": timeouts, **_further(flat)}


def _arrays_by_offsets(flat: FlatEpisodes) -> dict[str, np.ndarray]:
    offsets = flat.offsets
    last = offsets[1:] - 1
    ends = {"offsets": offsets, "terminated": flat.terminals[last], "truncated": flat.timeouts[last]}
    return {**_steps(flat), **ends, **_further(flat)}


def _steps(flat: FlatEpisodes) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(flat, name)) for name in ("observations", "actions", "rewards")}


_RESERVED = {"observations", "actions", "rewards", "terminals", "timeouts", "offsets", "terminated", "truncated"}


def _further(flat: FlatEpisodes) -> dict[str, np.ndarray]:
    """Extras, and what not every recording has."""
    extras = {key: array for key, array in flat.extras.items() if key not in _RESERVED}
    found = {"final_observations": flat.final_observations, "segment_ends": flat.segment_ends}
    return extras | {key: array for key, array in found.items() if array is not None}
