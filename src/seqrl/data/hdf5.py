"""D4RL's HDF5 layout: one flat array per key, one row per transition, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError, DataError, did_you_mean

REQUIRED_KEYS = ("observations", "actions", "rewards", "terminals")
EPISODE_RULES = ("timeouts", "terminals", "time_limit", "recordings", "stream")
SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Recording:
    """The arrays of one file, N rows each.

    Attributes:
        path: where they were read.
        observations, actions, rewards: (N, O), (N, A), (N,) numbers, not yet checked.
        terminals: (N,) bool.
        timeouts: (N,) bool, or None where the file has none.
        goals: (N, G) goal of the moment of whoever acted (`infos/goal`), or None.
        attributes: the file's own attributes, as plain Python values.
    """

    path: Path
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray | None
    goals: np.ndarray | None
    attributes: Mapping[str, Any]


def check_episode_rule(episodes: str, time_limit: int | None, *, more: tuple[str, ...] = ()) -> None:
    """Refuse an unknown rule or a time limit under two steps, before any file is touched.

    Args:
        more: what is allowed beside the rules.

    Raises:
        ConfigError: naming the rules there are.
    """
    rules = (*more, *EPISODE_RULES)
    if episodes not in rules:
        raise ConfigError(
            f"data.episodes={episodes!r} is unknown.{did_you_mean(episodes, rules)} Rules: {', '.join(rules)}"
        )
    if time_limit is not None and time_limit < 2:
        raise ConfigError(f"data.time_limit={time_limit} is too short; give 2 steps or more")


def read_recording(path: Path) -> Recording:
    """Read a file in D4RL's layout.

    Raises:
        DataError: the file is missing, no HDF5, cut short, or lacks a required key.
    """
    import h5py

    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}; give data.path the path of a D4RL HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in REQUIRED_KEYS if not isinstance(file.get(key), h5py.Dataset)]
            if missing:
                found = ", ".join(sorted(file)) or "no keys"
                raise DataError(
                    f"{path.name} lacks {', '.join(missing)}; it has {found}, and D4RL's layout needs "
                    f"{', '.join(REQUIRED_KEYS)}"
                )
            arrays = {key: np.asarray(file[key][()]) for key in REQUIRED_KEYS}
            timeouts = file["timeouts"][()] if "timeouts" in file else None
            goals = np.asarray(file["infos/goal"][()]) if "infos/goal" in file else None
            attributes = {key: _plain(value) for key, value in file.attrs.items()}
    except OSError as error:
        raise DataError(unreadable(path, error)) from error
    flags = {"terminals": np.asarray(arrays["terminals"])}
    if timeouts is not None:
        flags["timeouts"] = np.asarray(timeouts)
    _check_rows(path, len(arrays["observations"]) if arrays["observations"].ndim else 0, flags, goals)
    return Recording(
        path,
        arrays["observations"],
        arrays["actions"],
        arrays["rewards"].reshape(-1) if arrays["rewards"].shape[1:] == (1,) else arrays["rewards"],
        flags["terminals"].reshape(-1).astype(bool),
        flags["timeouts"].reshape(-1).astype(bool) if "timeouts" in flags else None,
        goals,
        attributes,
    )


def episodes_of(
    recording: Recording,
    *,
    episodes: str,
    time_limit: int | None,
    max_transitions: int | None,
    attributes: Mapping[str, Any],
) -> EpisodeStore:
    """Cut a recording into episodes and behaviour segments.

    Args:
        episodes: `timeouts` ends an episode at every terminal and timeout; `terminals` at terminals alone, for files
            without timeouts whose episodes all end terminally; `time_limit` at terminals and every `time_limit` rows,
            for files that lack their timeouts. Under the other two nothing ends terminally: `recordings` is one
            episode between two resets, at timeouts or, where the file has none, at terminals; `stream` cuts one
            recording without resets (maze2d), whose flags only say that the next goal began, into pieces of
            `time_limit` rows.
        max_transitions: keep whole episodes from the start, up to this many rows.

    Raises:
        DataError: what `EpisodeStore.from_arrays` refuses, no episode with two steps, or a rule that wants timeouts
            for a file that has none.
    """
    if episodes == "timeouts" and recording.timeouts is None:
        raise DataError(
            f"{recording.path.name} has no timeouts, so that resets cannot be told from steps; set "
            "data.episodes=time_limit data.time_limit=1000 (the task's limit), or data.episodes=terminals where every "
            "episode ends terminally"
        )
    nothing = np.zeros_like(recording.terminals)
    terminals = nothing if episodes in ("recordings", "stream") else recording.terminals
    timeouts = recording.timeouts if recording.timeouts is not None else nothing
    if episodes == "timeouts":
        ends = terminals | timeouts
    elif episodes == "terminals":
        ends = terminals
    elif episodes == "recordings":
        ends = timeouts if recording.timeouts is not None else recording.terminals
    else:
        assert time_limit is not None
        ends = terminals | _time_limits(terminals, time_limit)
    flags = ends if episodes == "recordings" else recording.terminals | timeouts
    segment_ends = flags | _goal_ends(recording)
    keep = _rows_to_keep(ends, max_transitions, recording.path.name)
    store = EpisodeStore.from_arrays(
        recording.observations[:keep],
        recording.actions[:keep],
        recording.rewards[:keep],
        ends[:keep],
        terminals[:keep],
        segment_ends=segment_ends[:keep],
        attributes=attributes,
        origin=recording.path.name,
    )
    if store.lengths.max() < 2:
        raise DataError(
            f"{recording.path.name} holds only episodes of one step, where no training window can start; check its "
            "terminals and timeouts"
        )
    return store


def _goal_ends(recording: Recording) -> np.ndarray:
    """(N,) bool, rows after which the goal of the behaviour changes."""
    ends = np.zeros(len(recording.terminals), bool)
    if recording.goals is not None:
        goals = recording.goals.reshape(len(ends), -1)
        ends[:-1] = (goals[1:] != goals[:-1]).any(axis=1)
    return ends


def _time_limits(terminals: np.ndarray, time_limit: int) -> np.ndarray:
    """(N,) bool, every `time_limit`-th row, counted from the start and anew after each terminal."""
    rows = np.arange(len(terminals))
    starts = np.maximum.accumulate(np.where(np.concatenate([[True], terminals[:-1]]), rows, 0)) if len(rows) else rows
    limits: np.ndarray = (rows - starts) % time_limit == time_limit - 1
    return limits


def _rows_to_keep(ends: np.ndarray, max_transitions: int | None, name: str) -> int:
    if max_transitions is None or max_transitions >= len(ends):
        return len(ends)
    stops = np.flatnonzero(ends) + 1
    fitting = stops[stops <= max_transitions]
    if len(fitting) == 0:
        first = int(stops[0]) if len(stops) else len(ends)
        raise DataError(
            f"data.max_transitions={max_transitions} keeps no whole episode of {name}, whose first has {first} steps; "
            "give at least that many"
        )
    return int(fitting[-1])


def _check_rows(path: Path, count: int, flags: Mapping[str, np.ndarray], goals: np.ndarray | None) -> None:
    named = {**flags, **({} if goals is None else {"infos/goal": goals})}
    for key, array in named.items():
        if array.ndim == 0 or len(array) != count:
            raise DataError(
                f"{path.name}: {key} has shape {array.shape} and observations has {count} rows; one row per transition"
            )
        if key in flags and (array.size != count or array.dtype.kind not in "fiub"):
            raise DataError(f"{path.name}: {key} has shape {array.shape} and type {array.dtype}; ({count},) is needed")


def unreadable(path: Path, error: OSError) -> str:
    """One sentence that tells why HDF5 refuses a file: another kind, damaged, cut short or forbidden."""
    if isinstance(error, PermissionError):
        return f"{str(path)!r} may not be read; check its permissions"
    with path.open("rb") as file:
        start = file.read(len(SIGNATURE))
    if not start:
        return f"{path.name} is an empty file; fetch or make it again"
    if start != SIGNATURE:
        return f"{path.name} is not an HDF5 file; give data.path a file in D4RL's HDF5 layout"
    if "truncated" in str(error) or "read failed" in str(error).lower():
        return f"{path.name} is a truncated HDF5 file of {path.stat().st_size} bytes; fetch or make it again"
    return f"{path.name} is a damaged HDF5 file ({error}); fetch or make it again"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
