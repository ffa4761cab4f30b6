"""Training windows: T consecutive transitions, padded past the end, with a goal from what comes after."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from seqrl.config import WindowConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError, DataError
from seqrl.layout import Goal, Layout
from seqrl.types import Batch

B = TypeVar("B", bound=Batch)


WindowSettings = WindowConfig  # its name in scripts of before


@dataclass(frozen=True)
class WindowRows:
    """Where windows lie in a store.

    Attributes:
        rows: (B, T) int64 row of every transition; past the end, that of the window's first.
        real: (B, T) bool, False past the end.
        learnt: (B, T) bool, False where nothing is to be learnt.
        followed: (B, T) bool, whether the episode goes on with another transition.
        ends_learnt: (B,) bool, whether the end of the episode is learnt.
        goals: (B,) int64 row of the goal, -1 for the null goal; None where the layout has no goal.
        starts: (B,) int64, steps from the beginning of the episode to that of the window.
    """

    rows: np.ndarray
    real: np.ndarray
    learnt: np.ndarray
    followed: np.ndarray
    ends_learnt: np.ndarray
    goals: np.ndarray | None
    starts: np.ndarray


class Windows(ABC, Generic[B]):
    """All windows of some episodes, gathered a batch at a time; one subclass for every type of batch.

    A window holds every `layout.stride`-th step and starts at every step of an episode but its last. Positions past the
    length of the longest episode of the store carry no loss. A window with a goal also stops carrying loss where its
    behaviour segment ends, because from there on the data pursue another goal; one with the null goal is what it would
    be in a layout without goals.

    Args:
        store: the episodes.
        layout: says whether there is a goal, and how it is drawn.
        settings: how windows are cut.
        episodes: (E',) which episodes to use; all by default.

    Attributes:
        learns_ends: whether what stands past the end of an episode tells of the end, and is learnt.

    Raises:
        DataError: no episode has two steps.
        ConfigError: a stride that passes the end of every episode.
    """

    learns_ends = True

    def __init__(
        self, store: EpisodeStore, layout: Layout, settings: WindowConfig, *, episodes: np.ndarray | None = None
    ) -> None:
        self.goal = layout.goal
        self.length = settings.length
        self.stride = layout.stride
        # Episodes and segments are looked up when a batch is gathered: nothing here is as long as the data.
        chosen = np.arange(store.num_episodes) if episodes is None else np.asarray(episodes, np.int64)
        self._first_rows, self._episode_stops = store.offsets[:-1][chosen], store.offsets[1:][chosen]
        self._offsets = np.concatenate([[0], np.cumsum(store.lengths[chosen] - 1)])  # of each episode's windows
        if self._offsets[-1] == 0:
            raise DataError("no window fits: every episode has a single step; record episodes of two steps or more")
        if settings.length > 1 and layout.stride >= store.lengths.max():
            raise ConfigError(
                f"layout.stride={layout.stride} passes the end of every episode (the longest has {store.lengths.max()} "
                "steps), so that no window would hold a second transition; give less"
            )
        self._ends_learnt = (store.terminated | settings.terminate_truncated)[chosen] & self.learns_ends
        self._segments = store.segments
        self._longest = int(store.lengths.max())

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @abstractmethod
    def batch(self, indices: np.ndarray, generator: np.random.Generator) -> B:
        """Gather windows.

        Args:
            indices: (B,) into the windows.
            generator: draws goals and their dropout, where the layout has a goal.
        """

    def rows(self, indices: np.ndarray, generator: np.random.Generator) -> WindowRows:
        """Where windows lie; arguments as for `batch`."""
        episodes = np.searchsorted(self._offsets, indices, side="right") - 1
        starts = self._first_rows[episodes] + indices - self._offsets[episodes]
        episode_stops = self._episode_stops[episodes]
        stops, goals = episode_stops, None
        if self.goal is not None:
            draws = generator.random((len(starts), 2))
            null = draws[:, 1] < self.goal.dropout
            ends = self._segments[np.searchsorted(self._segments, starts, side="right")]
            goals = np.where(null, -1, self._goal_rows(self.goal, starts, ends, episode_stops, draws[:, 0]))
            stops = np.where(null, episode_stops, ends)  # without a goal, what comes after it is no other pursuit
        rows = starts[:, None] + np.arange(self.length) * self.stride
        real = rows < stops[:, None]
        # Loss is carried up to the stop, or on past the end, to the length of the longest episode.
        ends_learnt = self._ends_learnt[episodes]
        learnt_stops = np.where(
            ends_learnt & (stops == episode_stops), self._first_rows[episodes] + self._longest, stops
        )
        learnt = rows < learnt_stops[:, None]
        return WindowRows(
            rows=np.where(real, rows, starts[:, None]),
            real=real,
            learnt=learnt,
            followed=rows + self.stride < episode_stops[:, None],
            ends_learnt=ends_learnt,
            goals=goals,
            starts=starts - self._first_rows[episodes],
        )

    def _goal_rows(
        self,
        goal: Goal,
        starts: np.ndarray,
        stops: np.ndarray,
        episode_stops: np.ndarray,
        draws: np.ndarray,
    ) -> np.ndarray:
        """(B,) rows of goals: a state at or after the end of the window's real part, inside its segment.

        Args:
            starts, stops, episode_stops: (B,) rows of the windows, their segments and their episodes.
            draws: (B,) uniform numbers.
        """
        # The last state that may be drawn: the one reached by the segment's last action, if recorded.
        last = np.where(stops < episode_stops, stops, stops - 1)
        first = np.minimum(np.minimum(starts + self.length * self.stride, stops), last)
        if goal.draw == "uniform":
            rows = first + np.floor(draws * (last - first + 1)).astype(np.int64)
        elif goal.draw == "geometric" and goal.discount < 1:
            steps = np.floor(np.log1p(-draws) / np.log(max(goal.discount, 1e-6)))
            rows = np.minimum(first + steps.astype(np.int64), last)
        else:  # geometric with discount 1 has an infinite mean: the last one, too
            rows = last
        found: np.ndarray = rows
        return found
