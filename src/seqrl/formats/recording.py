"""D4RL's HDF5 layout: one flat array per key, one row per transition, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.data.checks import flags, row_count, whole_episodes
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError, DataError, did_you_mean
from seqrl.formats.files import opened_hdf5, plain

REQUIRED_KEYS = ("observations", "actions", "rewards", "terminals")
EPISODE_RULES = ("timeouts", "terminals", "time_limit", "recordings", "stream")


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

    with opened_hdf5(path) as file:
        found = {key: file.get(key) for key in (*REQUIRED_KEYS, "timeouts", "infos/goal")}
        arrays = {key: np.asarray(item[()]) for key, item in found.items() if isinstance(item, h5py.Dataset)}
        missing = [key for key in REQUIRED_KEYS if key not in arrays]
        if missing:
            raise DataError(
                f"{path.name} lacks {', '.join(missing)}; it has {', '.join(sorted(file)) or 'no keys'}, and D4RL's "
                f"layout needs {', '.join(REQUIRED_KEYS)}"
            )
        attributes = {key: plain(value) for key, value in file.attrs.items()}
    count = row_count(arrays["observations"], path.name)
    goals = arrays.get("infos/goal")
    if goals is not None and goals.shape[:1] != (count,):
        raise DataError(
            f"{path.name}: infos/goal has shape {goals.shape} and observations has {count} rows; one row per transition"
        )
    return Recording(
        path,
        arrays["observations"],
        arrays["actions"],
        arrays["rewards"].reshape(-1) if arrays["rewards"].shape[1:] == (1,) else arrays["rewards"],
        flags(arrays["terminals"], "terminals", count, path.name),
        flags(arrays["timeouts"], "timeouts", count, path.name) if "timeouts" in arrays else None,
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
    marked = ends if episodes == "recordings" else recording.terminals | timeouts
    segment_ends = marked | _goal_ends(recording)
    keep = len(ends)
    if max_transitions is not None and max_transitions < keep:
        stops = np.flatnonzero(np.append(ends[:-1], True)) + 1
        keep = int(stops[whole_episodes(stops, max_transitions, recording.path.name) - 1])
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
