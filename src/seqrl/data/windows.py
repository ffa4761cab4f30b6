"""Training windows: T consecutive transitions, padded past the end, with a goal from what comes after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError, DataError
from seqrl.layout import Goal, Layout
from seqrl.types import Batch


@dataclass(frozen=True)
class WindowSettings:
    """How windows are cut.

    Attributes:
        length: T, transitions, 2 or more.
        terminate_truncated: past the end of an episode, termination tokens are learnt even where the end was a time
            limit or a cut, as the published system does; False learns them at true ends only, and nothing elsewhere.

    Raises:
        ConfigError: a window of less than two transitions.
    """

    length: int
    terminate_truncated: bool = True

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ConfigError(f"window.length={self.length} is too short; a window needs 2 transitions or more")


class Windows:
    """All windows of some episodes, gathered a batch at a time.

    A window starts at every step of an episode but its last. Past the end stand termination tokens; positions past
    the length of the longest episode of the store carry no loss. With a goal in the layout a window also stops
    carrying loss where its behaviour segment ends, because from there on the data pursue another goal.

    Args:
        store: the episodes.
        tokens: (N, K) integers, the store's transitions, tokenized.
        layout: says whether there is a goal, and how it is drawn.
        settings: how windows are cut.
        termination_token: V; also the null goal.
        episodes: (E',) which episodes to use; all by default.

    Raises:
        DataError: no episode has two steps.
    """

    def __init__(
        self,
        store: EpisodeStore,
        tokens: np.ndarray,
        layout: Layout,
        settings: WindowSettings,
        *,
        termination_token: int,
        episodes: np.ndarray | None = None,
    ) -> None:
        self._tokens = tokens
        self.goal = layout.goal
        self.discount = layout.discount
        self.length = settings.length
        self.termination_token = termination_token
        # Episodes and segments are looked up when a batch is gathered: nothing here is as long as the data.
        chosen = np.arange(store.num_episodes) if episodes is None else np.asarray(episodes, np.int64)
        self._first_rows, self._episode_stops = store.offsets[:-1][chosen], store.offsets[1:][chosen]
        self._offsets = np.concatenate([[0], np.cumsum(store.lengths[chosen] - 1)])  # of each episode's windows
        if self._offsets[-1] == 0:
            raise DataError("no window fits: every episode has a single step; record episodes of two steps or more")
        self._ends_learnt = (store.terminated | settings.terminate_truncated)[chosen]
        self._segments = store.segments
        self._longest = int(store.lengths.max())

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def batch(self, indices: np.ndarray, generator: np.random.Generator) -> Batch:
        """Gather windows.

        Args:
            indices: (B,) into the windows.
            generator: draws goals and their dropout, where the layout has a goal.
        """
        episodes = np.searchsorted(self._offsets, indices, side="right") - 1
        starts = self._first_rows[episodes] + indices - self._offsets[episodes]
        episode_stops = self._episode_stops[episodes]
        stops = self._segments[np.searchsorted(self._segments, starts, side="right")] if self.goal else episode_stops
        rows = starts[:, None] + np.arange(self.length)
        real = rows < stops[:, None]
        tokens = self._tokens[np.where(real, rows, starts[:, None])].astype(np.int64)
        tokens[~real] = self.termination_token
        # Loss is carried up to the stop, or on into the termination tokens, to the length of the longest episode.
        ends_learnt = self._ends_learnt[episodes] & (stops == episode_stops)
        learnt_stops = np.where(ends_learnt, self._first_rows[episodes] + self._longest, stops)
        learnt = rows < learnt_stops[:, None]
        mask = np.broadcast_to(learnt[..., None], tokens.shape)
        prefix = None if self.goal is None else self._goals(self.goal, starts, stops, episode_stops, generator)
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(np.ascontiguousarray(mask)),
            None if prefix is None else torch.from_numpy(prefix),
        )

    def _goals(
        self,
        goal: Goal,
        starts: np.ndarray,
        stops: np.ndarray,
        episode_stops: np.ndarray,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """(B, P) goal tokens: a state at or after the end of the window's real part, inside its segment."""
        draws = generator.random((len(starts), 2))
        # The last state that may be drawn: the one reached by the segment's last action, if recorded.
        last = np.where(stops < episode_stops, stops, stops - 1)
        first = np.minimum(np.minimum(starts + self.length, stops), last)
        if goal.draw == "uniform":
            rows = first + np.floor(draws[:, 0] * (last - first + 1)).astype(np.int64)
        elif goal.draw == "geometric" and self.discount < 1:
            steps = np.floor(np.log1p(-draws[:, 0]) / np.log(max(self.discount, 1e-6)))
            rows = np.minimum(first + steps.astype(np.int64), last)
        else:  # geometric with discount 1 has an infinite mean: the last one, too
            rows = last
        tokens = self._tokens[rows][:, list(goal.dims)].astype(np.int64)
        tokens[draws[:, 1] < goal.dropout] = self.termination_token
        return tokens
