"""Training windows: T consecutive transitions, padded past the end, with a goal from what comes after."""

from __future__ import annotations

from collections.abc import Sequence
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
        length: T, transitions, 1 or more; models of tokens need 2.
        terminate_truncated: past the end of an episode, termination tokens are learnt even where the end was a time
            limit or a cut, as the published system does; False learns them at true ends only, and nothing elsewhere.

    Raises:
        ConfigError: a window without transitions.
    """

    length: int
    terminate_truncated: bool = True

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"window.length={self.length} is too short; a window needs 1 transition or more")


class Windows:
    """All windows of some episodes, gathered a batch at a time.

    A window holds every `layout.stride`-th step and starts at every step of an episode but its last. Past the end stand
    termination tokens; positions past the length of the longest episode of the store carry no loss, and where numbers
    pad the window, none past the end does. A window with a goal also stops carrying loss where its behaviour segment
    ends, because from there on the data pursue another goal; one with the null goal is what it would be in a layout
    without goals.

    Args:
        store: the episodes.
        tokens: (N, K) integers, the store's transitions, tokenized; or (N, S) float32, their normalised values.
        layout: says whether there is a goal, and how it is drawn.
        settings: how windows are cut.
        termination_token: V; also the null goal. None for values: `padding` pads them, and NaN stands for no goal.
        goal_columns: which columns of `tokens` hold the dimensions of the goal; by default as for one token per scalar.
        episodes: (E',) which episodes to use; all by default.

    Raises:
        DataError: no episode has two steps.
        ConfigError: a stride that passes the end of every episode.
    """

    def __init__(
        self,
        store: EpisodeStore,
        tokens: np.ndarray,
        layout: Layout,
        settings: WindowSettings,
        *,
        termination_token: int | None,
        goal_columns: Sequence[int] | None = None,
        padding: float = 0.0,
        episodes: np.ndarray | None = None,
    ) -> None:
        self._tokens = tokens
        self.goal = layout.goal
        self.discount = layout.discount
        self.length = settings.length
        self.stride = layout.stride
        self._padding = padding if termination_token is None else termination_token
        self._no_goal = np.nan if termination_token is None else termination_token
        self._dtype = np.float32 if termination_token is None else np.int64
        if goal_columns is None:
            goal_columns = [layout.field("observation").start + dim for dim in layout.goal.dims] if layout.goal else []
        self._goal_columns = list(goal_columns)
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
        # Zeros that pad vectors are no transitions that anybody made; codes (padded by NaN) know of ends, as tokens do.
        knows_ends = termination_token is not None or np.isnan(padding)
        self._ends_learnt = (store.terminated | settings.terminate_truncated)[chosen] & knows_ends
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
        stops, prefix = episode_stops, None
        if self.goal is not None:
            draws = generator.random((len(starts), 2))
            null = draws[:, 1] < self.goal.dropout
            ends = self._segments[np.searchsorted(self._segments, starts, side="right")]
            prefix = self._goals(self.goal, starts, ends, episode_stops, draws[:, 0])
            prefix[null] = self._no_goal
            stops = np.where(null, episode_stops, ends)  # without a goal, what comes after it is no other pursuit
        rows = starts[:, None] + np.arange(self.length) * self.stride
        real = rows < stops[:, None]
        tokens = self._tokens[np.where(real, rows, starts[:, None])].astype(self._dtype)
        tokens[~real] = self._padding
        # Loss is carried up to the stop, or on into the termination tokens, to the length of the longest episode.
        ends_learnt = self._ends_learnt[episodes] & (stops == episode_stops)
        learnt_stops = np.where(ends_learnt, self._first_rows[episodes] + self._longest, stops)
        learnt = rows < learnt_stops[:, None]
        mask = np.broadcast_to(learnt[..., None], tokens.shape)
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(mask.copy()),
            None if prefix is None else torch.from_numpy(prefix),
            torch.from_numpy(starts - self._first_rows[episodes]),
        )

    def _goals(
        self,
        goal: Goal,
        starts: np.ndarray,
        stops: np.ndarray,
        episode_stops: np.ndarray,
        draws: np.ndarray,
    ) -> np.ndarray:
        """(B, G) goal tokens or values: a state at or after the end of the window's real part, inside its segment.

        Args:
            starts, stops, episode_stops: (B,) rows of the windows, their segments and their episodes.
            draws: (B,) uniform numbers.
        """
        # The last state that may be drawn: the one reached by the segment's last action, if recorded.
        last = np.where(stops < episode_stops, stops, stops - 1)
        first = np.minimum(np.minimum(starts + self.length * self.stride, stops), last)
        if goal.draw == "uniform":
            rows = first + np.floor(draws * (last - first + 1)).astype(np.int64)
        elif goal.draw == "geometric" and self.discount < 1:
            steps = np.floor(np.log1p(-draws) / np.log(max(self.discount, 1e-6)))
            rows = np.minimum(first + steps.astype(np.int64), last)
        else:  # geometric with discount 1 has an infinite mean: the last one, too
            rows = last
        goals: np.ndarray = self._tokens[rows][:, self._goal_columns].astype(self._dtype)
        return goals
