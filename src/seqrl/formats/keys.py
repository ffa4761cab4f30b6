"""From named arrays to episodes: which keys make up which layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from seqrl.data.checks import flags, row_count
from seqrl.errors import DataError
from seqrl.formats.flat import INFO_KEYS, FlatEpisodes

TERMINALS = ("terminals", "terminations", "terminated")
TIMEOUTS = ("timeouts", "truncations", "truncated")
_NEEDED = (
    "needed are observations, actions, rewards, and either offsets or both terminals and timeouts (the guide "
    '"Your own data" has the layouts)'
)
_KNOWN = {"observations", "actions", "rewards", "offsets", "final_observations", "next_observations", "segment_ends"}


def by_keys(
    arrays: Mapping[str, np.ndarray], *, origin: str, attributes: Mapping[str, Any], lenient: bool = False
) -> FlatEpisodes:
    """Cut named arrays into episodes, by the rule that their keys speak of.

    - `offsets` (E + 1,): episode e covers rows `offsets[e]` to `offsets[e + 1]`. `terminals` and `timeouts`, of N rows
      or of E episodes, say how it ended; without them it is truncated.
    - `terminals` and `timeouts` (N,): an episode ends where either is set, and terminates where the first is.
    - `terminals` alone, beside `masks` or without `rewards`: OGBench, where they end episodes without terminating
      them. A mask of 0 in an end's row means that the task was complete: that end is terminal.

    `terminations`, `terminated` and `truncations`, `truncated` are other names of the two.

    Args:
        lenient: take `terminals` beside rewards for the only ends instead of refusing (inspection).

    Raises:
        DataError: what is missing, or does not have a row per transition.
    """
    found = ", ".join(sorted(arrays)) or "no arrays"
    terminal_key, timeout_key = _one_of(TERMINALS, arrays, origin), _one_of(TIMEOUTS, arrays, origin)
    ogbench = terminal_key == "terminals" and timeout_key is None and "offsets" not in arrays
    ogbench = ogbench and ("rewards" not in arrays or "masks" in arrays or "valids" in arrays)
    missing = [key for key in ("observations", "actions", "rewards") if key not in arrays]
    if ogbench:
        missing = [key for key in missing if key != "rewards"]
    if "offsets" not in arrays and not ogbench:
        missing += [name for name, key in (("terminals", terminal_key), ("timeouts", timeout_key)) if key is None]
    remarks: list[str] = []
    if lenient and missing == ["timeouts"]:
        missing = []
        remarks.append(
            "there are no timeouts: only terminals end episodes here, and resets at time limits are not seen"
        )
    if missing:
        raise DataError(f"{origin} lacks {' and '.join(missing)}; it has {found}; {_NEEDED}")
    observations, actions = arrays["observations"], arrays["actions"]
    count = row_count(observations, origin)
    rewards = arrays["rewards"] if "rewards" in arrays else np.zeros(count, np.float32)
    if "rewards" not in arrays:
        remarks.append("no rewards were recorded: they are 0 here")
    if rewards.shape == (count, 1):
        rewards = rewards.reshape(-1)
    for name, array in (("observations", observations), ("actions", actions), ("rewards", rewards)):
        if array.dtype.kind not in "fiub" or 0 in array.shape[1:]:
            raise DataError(f"{origin}: {name} has shape {array.shape} and type {array.dtype}; numbers are needed")
        if array.ndim == 0 or len(array) != count:
            raise DataError(
                f"{origin}: {name} has shape {array.shape} and observations has {count} rows; one row per transition"
            )
    if "offsets" in arrays:
        layout = "offsets"
        ends, terminals, timeouts = _ends_of_offsets(arrays, terminal_key, timeout_key, count, origin)
        if terminal_key is None:
            remarks.append("nothing says how episodes ended: all count as truncated, none as terminated")
    else:
        layout = "ogbench" if ogbench else "flags"
        terminals = flags(arrays[str(terminal_key)], str(terminal_key), count, origin)
        timeouts = np.zeros(count, bool)
        if timeout_key is not None:
            timeouts = flags(arrays[timeout_key], timeout_key, count, origin)
        ends = terminals | timeouts
        ends[-1:] = True  # rows after the last end are one more episode, which the recording cut
        if ogbench:
            complete = np.zeros(count, bool)
            if "masks" in arrays:
                complete = ~flags(arrays["masks"], "masks", count, origin)
            terminals, timeouts = terminals & complete, terminals & ~complete
    others = {
        INFO_KEYS.get(key, key): array
        for key, array in arrays.items()
        if key not in {*_KNOWN, *TERMINALS, *TIMEOUTS, "masks", "valids"} and array.ndim and len(array) == count
    }
    segment_ends = None
    if "segment_ends" in arrays:
        segment_ends = flags(arrays["segment_ends"], "segment_ends", count, origin)
    flat = FlatEpisodes(
        origin,
        layout,
        observations,
        actions,
        rewards,
        ends,
        terminals,
        timeouts & ~terminals,
        segment_ends=segment_ends,
        extras=others,
        attributes=attributes,
        remarks=tuple(remarks),
    )
    if "valids" in arrays:
        flat = _without_invalid(flat, flags(arrays["valids"], "valids", count, origin))
    return dataclasses.replace(flat, final_observations=_final_observations(arrays, flat))


def _one_of(names: tuple[str, ...], arrays: Mapping[str, np.ndarray], origin: str) -> str | None:
    found = [name for name in names if name in arrays]
    if len(found) > 1:
        raise DataError(f"{origin} has {' and '.join(found)}, which mean the same; keep one of them")
    return found[0] if found else None


def _ends_of_offsets(
    arrays: Mapping[str, np.ndarray], terminal_key: str | None, timeout_key: str | None, count: int, origin: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) ends, terminals and timeouts."""
    offsets = arrays["offsets"]
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 2:
        raise DataError(
            f"{origin}: offsets has shape {offsets.shape} and type {offsets.dtype}; whole numbers are needed: 0, the "
            "row where the second episode starts, and so on, and last the number of rows"
        )
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != count or (np.diff(offsets) < 1).any():
        raise DataError(f"{origin}: offsets must rise from 0 to {count}, the number of rows, without repeating any")
    last = offsets[1:] - 1
    ends, terminals, timeouts = np.zeros((3, count), bool)
    ends[last] = True
    terminated = _per_episode(arrays, terminal_key, offsets, origin)
    truncated = _per_episode(arrays, timeout_key, offsets, origin)
    terminals[last] = False if terminated is None else terminated
    timeouts[last] = ~terminals[last] if truncated is None else truncated
    return ends, terminals, timeouts


def _per_episode(
    arrays: Mapping[str, np.ndarray], key: str | None, offsets: np.ndarray, origin: str
) -> np.ndarray | None:
    """(E,) bool, from flags of episodes or of rows."""
    if key is None:
        return None
    if len(arrays[key]) == len(offsets) - 1:
        return flags(arrays[key], key, len(offsets) - 1, origin)
    rows = flags(arrays[key], key, int(offsets[-1]), origin)
    last = offsets[1:] - 1
    if rows.sum() != rows[last].sum():
        row = int(np.flatnonzero(rows & ~np.isin(np.arange(len(rows)), last))[0])
        raise DataError(f"{origin}: {key} is set in row {row}, which is not the last of its episode by offsets")
    return rows[last]


def _without_invalid(flat: FlatEpisodes, valid: np.ndarray) -> FlatEpisodes:
    """OGBench's compact form repeats the end flag in a row that has no successor; that row is dropped."""
    ends = flat.ends[valid]
    ends[-1:] = True
    return dataclasses.replace(
        flat,
        observations=flat.observations[valid],
        actions=flat.actions[valid],
        rewards=flat.rewards[valid],
        ends=ends,
        terminals=flat.terminals[valid],
        timeouts=flat.timeouts[valid],
        segment_ends=None if flat.segment_ends is None else flat.segment_ends[valid],
        extras={key: array[valid] for key, array in flat.extras.items()},
    )


def _final_observations(arrays: Mapping[str, np.ndarray], flat: FlatEpisodes) -> np.ndarray | None:
    last = flat.offsets[1:] - 1
    wanted = (len(last), *flat.observations.shape[1:])
    if "final_observations" in arrays and arrays["final_observations"].shape == wanted:
        return arrays["final_observations"]
    if "next_observations" in arrays and arrays["next_observations"].shape == flat.observations.shape:
        return arrays["next_observations"][last]
    return None
