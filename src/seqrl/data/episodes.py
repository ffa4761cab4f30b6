"""Episodes as flat arrays plus offsets: the one schema that every source fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seqrl.errors import DataError

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class EpisodeStore:
    """Logged episodes, one row per transition, episodes one after the other.

    Row t holds the observation *before* action t and the reward that action t earned. An episode ends `terminated` (a
    true end: nothing can be earned afterwards), `truncated` (a time limit) or neither (the recording was cut).

    Attributes:
        observations: (N, O) float32.
        actions: (N, A) float32.
        rewards: (N,) float32.
        offsets: (E + 1,) int64; episode e covers rows `offsets[e]` to `offsets[e + 1]`.
        terminated, truncated: (E,) bool.
        segments: (M + 1,) int64, boundaries of behaviour segments (in maze2d: one goal of the controller), at least
            as fine as the episodes; hindsight goals are never drawn across one. The episodes themselves by default.
        attributes: what is known of the origin: `name`, `environment` and the like.
    """

    observations: FloatArray
    actions: FloatArray
    rewards: FloatArray
    offsets: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    segments: np.ndarray
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_arrays(
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        ends: np.ndarray,
        terminals: np.ndarray,
        *,
        segment_ends: np.ndarray | None = None,
        attributes: Mapping[str, Any] | None = None,
        origin: str = "arrays",
    ) -> EpisodeStore:
        """Cut flat arrays into episodes, checking everything that would otherwise fail later and elsewhere.

        Args:
            observations: (N, O), actions: (N, A), rewards: (N,) numbers.
            ends: (N,) bool, the last row of an episode; rows after the last end make one more, cut episode.
            terminals: (N,) bool, which ends are true ends; must not be set elsewhere.
            segment_ends: (N,) bool, the last row of a behaviour segment; episode ends are added.
            origin: how to call the data in messages.

        Raises:
            DataError: no rows, disagreeing shapes, or NaN or infinity (named by array, row and column).
        """
        observations = _numbers(observations, "observations", 2, origin)
        actions = _numbers(actions, "actions", 2, origin)
        rewards = _numbers(rewards, "rewards", 1, origin)
        count = len(observations)
        if count == 0:
            raise DataError(f"{origin} holds no transitions; record at least one episode of two steps")
        for name, array in (("actions", actions), ("rewards", rewards), ("ends", ends), ("terminals", terminals)):
            if len(array) != count:
                raise DataError(
                    f"{origin}: {name} has {len(array)} rows and observations has {count}; one row per transition each"
                )
        ends, terminals = np.asarray(ends, bool), np.asarray(terminals, bool)
        if (terminals & ~ends).any():
            raise DataError(
                f"{origin}: row {int(np.argmax(terminals & ~ends))} is terminal but not the end of an episode"
            )
        stops = np.flatnonzero(ends) + 1
        if len(stops) == 0 or stops[-1] != count:
            stops = np.append(stops, count)
        offsets = np.concatenate([[0], stops]).astype(np.int64)
        last = stops - 1
        segments = offsets
        if segment_ends is not None:
            inner = np.flatnonzero(np.asarray(segment_ends, bool)) + 1
            segments = np.unique(np.concatenate([offsets, inner])).astype(np.int64)
        return EpisodeStore(
            observations,
            actions,
            rewards,
            offsets,
            terminals[last],
            ends[last] & ~terminals[last],
            segments,
            dict(attributes or {}),
        )

    @staticmethod
    def from_episodes(
        episodes: Sequence[Mapping[str, Any]], *, attributes: Mapping[str, Any] | None = None
    ) -> EpisodeStore:
        """Make a store from a list of episodes in memory.

        Args:
            episodes: each `{"observations": (n, O), "actions": (n, A), "rewards": (n,), "terminated": bool}`.

        Raises:
            DataError: an empty list, a missing array, or whatever `from_arrays` refuses.
        """
        if not episodes:
            raise DataError("the list of episodes is empty; give at least one episode")
        for number, episode in enumerate(episodes):
            missing = {"observations", "actions", "rewards", "terminated"} - set(episode)
            if missing:
                raise DataError(f"episode {number} lacks {', '.join(sorted(missing))}")
            lengths = {name: len(episode[name]) for name in ("observations", "actions", "rewards")}
            if len(set(lengths.values())) > 1 or not lengths["rewards"]:
                found = ", ".join(f"{count} {name}" for name, count in lengths.items())
                raise DataError(f"episode {number} has {found}; give one of each for every step, and one step at least")
        counts = [len(e["rewards"]) for e in episodes]
        ends = np.zeros(sum(counts), bool)
        terminals = np.zeros(sum(counts), bool)
        stops = np.cumsum(counts) - 1
        ends[stops] = True
        terminals[stops] = [bool(e["terminated"]) for e in episodes]
        return EpisodeStore.from_arrays(
            np.concatenate([np.asarray(e["observations"]) for e in episodes]),
            np.concatenate([np.asarray(e["actions"]) for e in episodes]),
            np.concatenate([np.asarray(e["rewards"]) for e in episodes]),
            ends,
            terminals,
            attributes=attributes,
            origin="the list of episodes",
        )

    def __len__(self) -> int:
        """N, transitions."""
        return len(self.rewards)

    @property
    def num_episodes(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(E,) transitions per episode."""
        return np.diff(self.offsets)

    def returns(self) -> np.ndarray:
        """(E,) float64 undiscounted return of each episode, as recorded (no termination penalty)."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.offsets[:-1])

    def complete(self) -> np.ndarray:
        """(E,) bool; False for an episode that the recording cut short."""
        return self.terminated | self.truncated

    def ends_of(self, boundaries: np.ndarray) -> np.ndarray:
        """(N,) int64: for each row, where its piece ends (exclusive), for `offsets` or `segments`."""
        return np.repeat(boundaries[1:], np.diff(boundaries))


def _numbers(array: Any, name: str, dims: int, origin: str) -> FloatArray:
    array = np.asarray(array)
    if array.ndim != dims or array.dtype.kind not in "fiub":
        wanted = "(transitions, dimensions)" if dims == 2 else "(transitions,)"
        raise DataError(f"{origin}: {name} has shape {array.shape} and type {array.dtype}; {wanted} numbers are needed")
    bad = ~np.isfinite(array)
    if bad.any():
        place = np.argwhere(bad)[0]
        where = f"row {place[0]}" + (f", column {place[1]}" if dims == 2 else "")
        raise DataError(f"{origin}: {name} holds {array[tuple(place)]} at {where}; remove or repair that episode")
    return np.ascontiguousarray(array, np.float32)
