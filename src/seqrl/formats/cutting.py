"""The one rule that cuts a recording into episodes: its keys say the layout, and flags may mean several things."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from seqrl.data.checks import flags, row_count
from seqrl.errors import DataError
from seqrl.formats.flat import INFO_KEYS, FlatEpisodes
from seqrl.formats.hdf5 import GOALS
from seqrl.formats.recording import Recording

TERMINALS = ("terminals", "terminations", "terminated")
TIMEOUTS = ("timeouts", "truncations", "truncated")
EpisodeRule = Literal["timeouts", "terminals", "time_limit", "recordings", "stream"]
EPISODE_RULES: tuple[EpisodeRule, ...] = get_args(EpisodeRule)
"""What flags may mean; `cut_episodes` describes each."""

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


def has_timeouts(recording: Recording) -> bool:
    """Whether time limits are told apart from steps."""
    return any(key in recording.arrays for key in TIMEOUTS)


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
        ends = _ends_by_offsets(recording, count)
    elif layout == "ogbench":
        ends = _ends_by_masks(recording, count)
    else:
        ends = _ends_by_flags(recording, count, rule or "timeouts", time_limit)
    remarks = ends.remarks if "rewards" in recording.arrays else ("no rewards were recorded: they are 0 here",)
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
        flat = _drop_invalid(flat, flags(recording.arrays["valids"], "valids", count, recording.origin))
    return dataclasses.replace(flat, final_observations=_final_observations(recording.arrays, flat)).in_columns()


@dataclass(frozen=True)
class _Ends:
    """(N,) bool each, as in `FlatEpisodes`; `marks` are rows after which behaviour changed, ends or not."""

    ends: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    marks: np.ndarray
    remarks: tuple[str, ...] = ()
    refused: str = ""


def _check_keys(recording: Recording, layout: str) -> None:
    arrays = recording.arrays
    missing = [key for key in _STEPS if key not in arrays and not (key == "rewards" and layout == "ogbench")]
    if layout == "flags" and _one_of(TERMINALS, recording) is None:
        missing += ["terminals"] if has_timeouts(recording) else ["terminals", "timeouts"]
    if missing:
        raise DataError(f"{recording.origin} lacks {' and '.join(missing)}; it has {recording.listing()}; {_NEEDED}")


def _one_of(names: tuple[str, ...], recording: Recording) -> str | None:
    found = [name for name in names if name in recording.arrays]
    if len(found) > 1:
        raise DataError(f"{recording.origin} has {' and '.join(found)}, which mean the same; keep one of them")
    return found[0] if found else None


def _steps(recording: Recording) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, actions and rewards, N rows each."""
    arrays, origin = recording.arrays, recording.origin
    count = row_count(arrays["observations"], origin)
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


def _ends_by_flags(recording: Recording, count: int, rule: str, time_limit: int | None) -> _Ends:
    terminal_key, timeout_key = _one_of(TERMINALS, recording), _one_of(TIMEOUTS, recording)
    assert terminal_key is not None
    terminals = flags(recording.arrays[terminal_key], terminal_key, count, recording.origin)
    resets = terminals
    if timeout_key is not None:
        timeouts = flags(recording.arrays[timeout_key], timeout_key, count, recording.origin)
        resets = timeouts if rule == "recordings" else terminals | timeouts
    true_ends = np.zeros(count, bool) if rule in ("recordings", "stream") else terminals
    ends = resets
    if rule == "terminals":
        ends = terminals
    elif rule in ("time_limit", "stream"):
        assert time_limit is not None
        ends = true_ends | _time_limits(true_ends, time_limit)
    unknown = rule == "timeouts" and timeout_key is None
    return _Ends(
        _with_last(ends),
        true_ends,
        ends & ~true_ends,
        resets,
        ("there are no timeouts: only terminals end episodes here, and resets at time limits are not seen",) * unknown,
        f"{recording.origin} has no timeouts, so that resets cannot be told from steps; write timeouts as well (all 0 "
        "where every episode ends terminally), or read it by data=d4rl with data.episodes=time_limit "
        "data.time_limit=1000 (the task's limit) or data.episodes=terminals"
        if unknown
        else "",
    )


def _time_limits(terminals: np.ndarray, time_limit: int) -> np.ndarray:
    """(N,) bool, every `time_limit`-th row, counted from the start and anew after each terminal."""
    rows = np.arange(len(terminals))
    starts = np.maximum.accumulate(np.where(np.concatenate([[True], terminals[:-1]]), rows, 0)) if len(rows) else rows
    limits: np.ndarray = (rows - starts) % time_limit == time_limit - 1
    return limits


def _with_last(ends: np.ndarray) -> np.ndarray:
    """Rows after the last end are one more episode, which the recording cut."""
    ends = ends.copy()
    ends[-1:] = True
    return ends


def _ends_by_masks(recording: Recording, count: int) -> _Ends:
    terminals = flags(recording.arrays["terminals"], "terminals", count, recording.origin)
    complete = np.zeros(count, bool)
    if "masks" in recording.arrays:
        complete = ~flags(recording.arrays["masks"], "masks", count, recording.origin)
    return _Ends(_with_last(terminals), terminals & complete, terminals & ~complete, terminals)


def _ends_by_offsets(recording: Recording, count: int) -> _Ends:
    offsets, origin = recording.arrays["offsets"], recording.origin
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
    terminated = _per_episode(recording, _one_of(TERMINALS, recording), offsets)
    truncated = _per_episode(recording, _one_of(TIMEOUTS, recording), offsets)
    terminals[last] = False if terminated is None else terminated
    timeouts[last] = True if truncated is None else truncated
    assumed = ("nothing says how episodes ended: all count as truncated, none as terminated",) * (terminated is None)
    return _Ends(ends, terminals, timeouts & ~terminals, ends, assumed)


def _per_episode(recording: Recording, key: str | None, offsets: np.ndarray) -> np.ndarray | None:
    """(E,) bool, from flags of episodes or of rows."""
    if key is None:
        return None
    array, origin = recording.arrays[key], recording.origin
    if len(array) == len(offsets) - 1:
        return flags(array, key, len(offsets) - 1, origin)
    rows = flags(array, key, int(offsets[-1]), origin)
    last = offsets[1:] - 1
    if rows.sum() != rows[last].sum():
        row = int(np.flatnonzero(rows & ~np.isin(np.arange(len(rows)), last))[0])
        raise DataError(f"{origin}: {key} is set in row {row}, which is not the last of its episode by offsets")
    return rows[last]


def _segment_ends(recording: Recording, ends: _Ends) -> np.ndarray | None:
    """(N,) bool, the last rows of behaviour segments; None where they are the episodes' own."""
    arrays, count = recording.arrays, len(ends.ends)
    found = ends.marks.copy()
    if "segment_ends" in arrays:
        found |= flags(arrays["segment_ends"], "segment_ends", count, recording.origin)
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
    known = {*TRAINING_KEYS, *_FINALS} - {GOALS}
    found = {key: array for key, array in arrays.items() if key not in known and array.ndim and len(array) == count}
    return {INFO_KEYS.get(key, key): array for key, array in found.items()}


def _drop_invalid(flat: FlatEpisodes, valid: np.ndarray) -> FlatEpisodes:
    """OGBench's compact form repeats the end flag in a row that has no successor; that row is dropped."""
    return dataclasses.replace(
        flat,
        observations=flat.observations[valid],
        actions=flat.actions[valid],
        rewards=flat.rewards[valid],
        ends=_with_last(flat.ends[valid]),
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
