"""Where episodes end, and how: by flags, by offsets, or by the masks of OGBench."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from seqrl.data.checks import read_flags
from seqrl.errors import DataError
from seqrl.formats.recording import Recording

TERMINALS = ("terminals", "terminations", "terminated")
TIMEOUTS = ("timeouts", "truncations", "truncated")
EpisodeRule = Literal["timeouts", "terminals", "time_limit", "recordings", "stream"]
EPISODE_RULES: tuple[EpisodeRule, ...] = get_args(EpisodeRule)
"""What flags may mean; `seqrl.formats.cutting.cut_episodes` describes each."""


@dataclass(frozen=True)
class Ends:
    """(N,) bool each, as in `FlatEpisodes`; `marks` are rows after which behaviour changed, ends or not."""

    ends: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    marks: np.ndarray
    remarks: tuple[str, ...] = ()
    refused: str = ""


def find_key(names: tuple[str, ...], recording: Recording) -> str | None:
    """Which of several names for one thing a recording uses, or None.

    Raises:
        DataError: it uses more than one.
    """
    found = [name for name in names if name in recording.arrays]
    if len(found) > 1:
        raise DataError(f"{recording.origin} has {' and '.join(found)}, which mean the same; keep one of them")
    return found[0] if found else None


def has_timeouts(recording: Recording) -> bool:
    """Whether time limits are told apart from steps."""
    return any(key in recording.arrays for key in TIMEOUTS)


def end_by_flags(recording: Recording, count: int, rule: str, time_limit: int | None) -> Ends:
    """The layout `flags`, read by one of EPISODE_RULES."""
    terminal_key, timeout_key = find_key(TERMINALS, recording), find_key(TIMEOUTS, recording)
    assert terminal_key is not None
    terminals = read_flags(recording.arrays[terminal_key], terminal_key, count, recording.origin)
    resets = terminals
    if timeout_key is not None:
        timeouts = read_flags(recording.arrays[timeout_key], timeout_key, count, recording.origin)
        resets = timeouts if rule == "recordings" else terminals | timeouts
    true_ends = np.zeros(count, bool) if rule in ("recordings", "stream") else terminals
    ends = resets
    if rule == "terminals":
        ends = terminals
    elif rule in ("time_limit", "stream"):
        assert time_limit is not None
        ends = true_ends | _time_limits(true_ends, time_limit)
    unknown = rule == "timeouts" and timeout_key is None
    return Ends(
        with_last(ends),
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


def with_last(ends: np.ndarray) -> np.ndarray:
    """Rows after the last end are one more episode, which the recording cut."""
    ends = ends.copy()
    ends[-1:] = True
    return ends


def end_by_masks(recording: Recording, count: int) -> Ends:
    """The layout `ogbench`."""
    terminals = read_flags(recording.arrays["terminals"], "terminals", count, recording.origin)
    complete = np.zeros(count, bool)
    if "masks" in recording.arrays:
        complete = ~read_flags(recording.arrays["masks"], "masks", count, recording.origin)
    return Ends(with_last(terminals), terminals & complete, terminals & ~complete, terminals)


def end_by_offsets(recording: Recording, count: int) -> Ends:
    """The layout `offsets`."""
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
    terminated = _per_episode(recording, find_key(TERMINALS, recording), offsets)
    truncated = _per_episode(recording, find_key(TIMEOUTS, recording), offsets)
    terminals[last] = False if terminated is None else terminated
    timeouts[last] = True if truncated is None else truncated
    assumed = ("nothing says how episodes ended: all count as truncated, none as terminated",) * (terminated is None)
    return Ends(ends, terminals, timeouts & ~terminals, ends, assumed)


def _per_episode(recording: Recording, key: str | None, offsets: np.ndarray) -> np.ndarray | None:
    """(E,) bool, from flags of episodes or of rows."""
    if key is None:
        return None
    array, origin = recording.arrays[key], recording.origin
    if len(array) == len(offsets) - 1:
        return read_flags(array, key, len(offsets) - 1, origin)
    rows = read_flags(array, key, int(offsets[-1]), origin)
    last = offsets[1:] - 1
    if rows.sum() != rows[last].sum():
        row = int(np.flatnonzero(rows & ~np.isin(np.arange(len(rows)), last))[0])
        raise DataError(f"{origin}: {key} is set in row {row}, which is not the last of its episode by offsets")
    return rows[last]
