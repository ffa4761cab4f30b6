"""The one rule that cuts a recording into episodes: its keys say the layout, and flags may mean several things."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from seqrl.data.checks import count_rows, read_flags
from seqrl.errors import DataError
from seqrl.formats.ends import (
    TERMINALS,
    TIMEOUTS,
    Ends,
    end_by_flags,
    end_by_masks,
    end_by_offsets,
    find_key,
    has_timeouts,
    with_last,
)
from seqrl.formats.flat import INFO_KEYS, FlatEpisodes
from seqrl.formats.hdf5 import GOALS
from seqrl.formats.recording import Recording

_STEPS = ("observations", "actions", "rewards")
_FINALS = ("final_observations", "next_observations")
TRAINING_KEYS = (*_STEPS, "offsets", *TERMINALS, *TIMEOUTS, "masks", "valids", "segment_ends", GOALS)
"""All that decides what is trained on; what else a file holds is for inspection and conversion."""
_NEEDED = (
    "needed are observations, actions, rewards, and either offsets or both terminals and timeouts (the guide "
    '"Your own data" has the layouts)'
)


def layout_of(recording: Recording) -> str:
    """Which of the layouts of `cut_episodes` the keys make up: `offsets`, `flags` or `ogbench`."""
    arrays = recording.arrays
    if "offsets" in arrays:
        return "offsets"
    alone = "terminals" in arrays and not set(TIMEOUTS) & set(arrays)
    return "ogbench" if alone and ("rewards" not in arrays or {"masks", "valids"} & set(arrays)) else "flags"


def cut_episodes(recording: Recording, rule: str | None = None, time_limit: int | None = None) -> FlatEpisodes:
    """Cut a recording into episodes and behaviour segments, as its layout says.

    - `offsets`: episode e covers rows `offsets[e]` to `offsets[e + 1]` of the key `offsets` (E + 1,). `terminals` and
      `timeouts`, of N rows or of E episodes, say how it ended; without them it is truncated.
    - `ogbench`: `terminals` alone, beside `masks` or without `rewards`. They end episodes without terminating them. A
      mask of 0 in an end's row means that the task was complete: that end is terminal.
    - `flags`: `terminals` and mostly `timeouts` (N,), which the rule reads.

    `terminations`, `terminated` and `truncations`, `truncated` are other names of the two. Rows that `valids` marks by
    0 are dropped. Segments end with episodes, where `segment_ends` says so, where flags say so that end no episode,
    and where the goal of whoever acted changes (`infos/goal`).

    Args:
        rule: how to read flags, whatever else the keys make up. `timeouts` ends an episode at every terminal and
            timeout; `terminals` at terminals alone, for files without timeouts whose episodes all end terminally;
            `time_limit` at terminals and every `time_limit` rows, for files that lack their timeouts. Under the other
            two nothing ends terminally: `recordings` is one episode between two resets, at timeouts or, where there
            are none, at terminals; `stream` cuts one recording without resets (maze2d), whose flags only say that the
            next goal began, into pieces of `time_limit` rows. By default the keys decide, and flags mean `timeouts`.
        time_limit: rows; needed by `time_limit` and `stream`.

    Returns:
        The episodes. They are `refused` where flags without timeouts are to mean `timeouts`: then they are cut at
        terminals, for a look at them.

    Raises:
        DataError: what is missing, or does not have a row per transition.
    """
    layout = layout_of(recording) if rule is None else "flags"
    _check_keys(recording, layout)
    observations, actions, rewards = _steps(recording)
    count = len(observations)
    if layout == "offsets":
        ends = end_by_offsets(recording, count)
    elif layout == "ogbench":
        ends = end_by_masks(recording, count)
    else:
        ends = end_by_flags(recording, count, rule or "timeouts", time_limit)
    remarks = ends.remarks if "rewards" in recording.arrays else ("no rewards were recorded: they are 0 here",)
    remarks += _of_other_lengths(recording.arrays, count)
    flat = FlatEpisodes(
        recording.origin,
        layout,
        observations,
        actions,
        rewards,
        ends.ends,
        ends.terminals,
        ends.timeouts,
        segment_ends=_segment_ends(recording, ends),
        extras=_extras(recording.arrays, count),
        attributes=recording.attributes,
        remarks=remarks,
        refused=ends.refused,
    )
    if "valids" in recording.arrays:
        flat = _drop_invalid(flat, read_flags(recording.arrays["valids"], "valids", count, recording.origin))
    return dataclasses.replace(flat, final_observations=_final_observations(recording.arrays, flat)).in_columns()


def _check_keys(recording: Recording, layout: str) -> None:
    arrays = recording.arrays
    missing = [key for key in _STEPS if key not in arrays and not (key == "rewards" and layout == "ogbench")]
    if layout == "flags" and find_key(TERMINALS, recording) is None:
        missing += ["terminals"] if has_timeouts(recording) else ["terminals", "timeouts"]
    if missing:
        raise DataError(f"{recording.origin} lacks {' and '.join(missing)}; it has {recording.listing()}; {_NEEDED}")


def _steps(recording: Recording) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, actions and rewards, N rows each."""
    arrays, origin = recording.arrays, recording.origin
    count = count_rows(arrays["observations"], origin)
    rewards = arrays["rewards"] if "rewards" in arrays else np.zeros(count, np.float32)
    if rewards.shape == (count, 1):
        rewards = rewards.reshape(-1)
    found = {"observations": arrays["observations"], "actions": arrays["actions"], "rewards": rewards}
    for name, array in found.items():
        if array.dtype.kind not in "fiub" or 0 in array.shape[1:]:
            raise DataError(f"{origin}: {name} has shape {array.shape} and type {array.dtype}; numbers are needed")
        if array.ndim == 0 or len(array) != count:
            raise DataError(
                f"{origin}: {name} has shape {array.shape} and observations has {count} rows; one row per transition"
            )
    return found["observations"], found["actions"], rewards


def _segment_ends(recording: Recording, ends: Ends) -> np.ndarray | None:
    """(N,) bool, the last rows of behaviour segments; None where they are the episodes' own."""
    arrays, count = recording.arrays, len(ends.ends)
    found = ends.marks.copy()
    if "segment_ends" in arrays:
        found |= read_flags(arrays["segment_ends"], "segment_ends", count, recording.origin)
    if GOALS in arrays:
        if arrays[GOALS].shape[:1] != (count,):
            raise DataError(
                f"{recording.origin}: {GOALS} has shape {arrays[GOALS].shape} and observations has {count} rows; one "
                "row per transition"
            )
        goals = arrays[GOALS].reshape(count, -1) if count else np.zeros((0, 1))
        found[:-1] |= (goals[1:] != goals[:-1]).any(axis=1)
    return found if (found & ~ends.ends).any() else None


def _extras(arrays: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    found = {key: array for key, array in _others(arrays).items() if len(array) == count}
    return {INFO_KEYS.get(key, key): array for key, array in found.items()}


def _others(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    known = {*TRAINING_KEYS, *_FINALS} - {GOALS}
    return {key: array for key, array in arrays.items() if key not in known and array.ndim}


def _of_other_lengths(arrays: Mapping[str, np.ndarray], count: int) -> tuple[str, ...]:
    """A sentence on each array that has not a row for each step; those in groups are notes of whoever recorded."""
    return tuple(
        f"{key!r} has {len(array):,} rows where there are {count:,} steps, so that it is left out"
        for key, array in _others(arrays).items()
        if len(array) != count and "/" not in key.removeprefix("infos/")
    )


def _drop_invalid(flat: FlatEpisodes, valid: np.ndarray) -> FlatEpisodes:
    """OGBench's compact form repeats the end flag in a row that has no successor; that row is dropped."""
    return dataclasses.replace(
        flat,
        observations=flat.observations[valid],
        actions=flat.actions[valid],
        rewards=flat.rewards[valid],
        ends=with_last(flat.ends[valid]),
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
