"""Recorded episodes as files and libraries give them: cut into episodes, their numbers not yet checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seqrl.data.checks import DISCRETE, count_whole_episodes
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import DataError

INFO_KEYS = {"qpos": "infos/qpos", "qvel": "infos/qvel"}
"""OGBench's and our names of what D4RL's files keep in a group."""


@dataclass(frozen=True)
class FlatEpisodes:
    """Episodes one after the other, one row per transition, as they were recorded: NaN and all.

    What is trained on is the `EpisodeStore` that `store()` makes of it; inspection and conversion need what a store
    would refuse or drop.

    Attributes:
        origin: how to call the data in messages.
        layout: what said where episodes end: in a file `offsets`, `flags` or `ogbench`; else `minari`, `collected` or
            `store`.
        observations, actions: (N, O), (N, A) numbers.
        rewards: (N,) numbers.
        ends: (N,) bool, the last row of an episode; the last row of all is one.
        terminals, timeouts: (N,) bool, which ends are true ends and which are time limits; the others were cut.
        segment_ends: (N,) bool, the last row of a behaviour segment; None where nothing is known of segments.
        final_observations: (E, O) numbers, the observation that followed each episode's last action; None if not kept.
        extras: further arrays of N rows, such as `infos/qpos`.
        attributes: what is known of the origin; `name` and `env_id` mean what they mean in `EpisodeStore`.
        remarks: what reading had to assume, a sentence each.
        refused: why nothing can be trained on them as they were cut, a sentence; empty where it can.
    """

    origin: str
    layout: str
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    segment_ends: np.ndarray | None = None
    final_observations: np.ndarray | None = None
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    refused: str = ""

    @staticmethod
    def of(store: EpisodeStore, origin: str) -> FlatEpisodes:
        """The episodes of a store, read into memory."""
        ends, terminals, timeouts, segment_ends = np.zeros((4, len(store)), bool)
        last = store.offsets[1:] - 1
        ends[last] = True
        terminals[last], timeouts[last] = store.terminated, store.truncated
        segment_ends[store.segments[1:] - 1] = True
        return FlatEpisodes(
            origin,
            "store",
            np.asarray(store.observations),
            np.asarray(store.actions),
            store.rewards,
            ends,
            terminals,
            timeouts,
            segment_ends=None if np.array_equal(store.segments, store.offsets) else segment_ends,
            extras={INFO_KEYS.get(name, name): np.asarray(array) for name, array in store.extras.items()},
            attributes=store.attributes,
        )

    @property
    def offsets(self) -> np.ndarray:
        """(E + 1,) int64, as in `EpisodeStore`; E is 0 without rows."""
        return np.concatenate([[0], np.flatnonzero(self.ends) + 1]).astype(np.int64)

    def first(self, max_transitions: int | None) -> FlatEpisodes:
        """Whole episodes from the start, up to so many rows; None keeps all, and so does what is `refused` anyway.

        Raises:
            DataError: the first episode is longer.
        """
        if self.refused or max_transitions is None or max_transitions >= len(self.ends):
            return self
        offsets = self.offsets
        episodes = count_whole_episodes(offsets[1:], max_transitions, self.origin)
        rows = int(offsets[episodes])
        return dataclasses.replace(
            self,
            observations=self.observations[:rows],
            actions=self.actions[:rows],
            rewards=self.rewards[:rows],
            ends=self.ends[:rows],
            terminals=self.terminals[:rows],
            timeouts=self.timeouts[:rows],
            segment_ends=None if self.segment_ends is None else self.segment_ends[:rows],
            final_observations=None if self.final_observations is None else self.final_observations[:episodes],
            extras={key: array[:rows] for key, array in self.extras.items()},
        )

    def in_columns(self) -> FlatEpisodes:
        """The same, with discrete observations and actions (N, 1) where they were recorded as (N,)."""
        named = {"observations": self.observations, "actions": self.actions}
        if self.final_observations is not None:
            named["final_observations"] = self.final_observations
        declared = {name for name, key in DISCRETE.items() if self.attributes.get(key) is not None}
        changed: dict[str, Any] = {
            name: array[:, None]
            for name, array in named.items()
            if array.ndim == 1 and name.removeprefix("final_") in declared
        }
        return dataclasses.replace(self, **changed)

    def store(self) -> EpisodeStore:
        """The episodes to train on.

        Raises:
            DataError: they are `refused`, have no rows, NaN or infinity, or shapes that disagree.
        """
        if self.refused:
            raise DataError(self.refused)
        store = EpisodeStore.from_arrays(
            self.observations,
            self.actions,
            self.rewards,
            self.ends,
            self.terminals,
            segment_ends=self.segment_ends,
            extras=self._rename_extras(),
            attributes=self.attributes,
            origin=self.origin,
        )
        last = store.offsets[1:] - 1
        return dataclasses.replace(store, truncated=self.timeouts[last] & ~store.terminated)

    def _rename_extras(self) -> dict[str, np.ndarray]:
        """The extras by the names that a layout gives them."""
        found: dict[str, np.ndarray] = {}
        for key, array in self.extras.items():
            name = key.removeprefix("infos/")
            if name in found and not np.array_equal(found[name], array):
                raise DataError(f"{self.origin} holds two different arrays {name!r} and 'infos/{name}'; rename one")
            found[name] = array
        return found
