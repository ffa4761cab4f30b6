"""Stretches of recorded episodes that a model is to foretell from what came before and from the actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqrl.analysis.masking import OBSERVED
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transitions
from seqrl.errors import DataError
from seqrl.layout import Layout


@dataclass(frozen=True)
class References:
    """Stretches of `past + 1 + H` transitions: known ones, the present one, and those to be foretold.

    Of the transitions from the present one on the actions are given, and of the present one the observation.

    Attributes:
        values: (B, past + 1 + H, S) float32 transitions as the layout has them.
        observed: (B, past + 1 + H, O) bool, which numbers of the observations can be seen.
        past: transitions that are known before the present one.
        observation, action: which of the S scalars they are.
        rows: (B,) where in the recording the stretches begin.
    """

    values: np.ndarray
    observed: np.ndarray
    past: int
    observation: slice
    action: slice
    rows: np.ndarray

    def __len__(self) -> int:
        """B."""
        return len(self.values)

    @property
    def horizon(self) -> int:
        """H."""
        return self.values.shape[1] - self.past - 1

    @property
    def present(self) -> np.ndarray:
        """(B, O) the observations from which on the future is foretold."""
        return self.values[:, self.past, self.observation]

    @property
    def future(self) -> np.ndarray:
        """(B, H, O) the observations that came."""
        return self.values[:, self.past + 1 :, self.observation]

    @property
    def future_observed(self) -> np.ndarray:
        """(B, H, O) bool, which numbers of them can be seen."""
        return self.observed[:, self.past + 1 :]

    @property
    def actions(self) -> np.ndarray:
        """(B, H, A) the action of the present transition and those that followed it, one before each observation."""
        return self.values[:, self.past : -1, self.action]


def pick_references(
    store: EpisodeStore, layout: Layout, episodes: Sequence[int] | np.ndarray, *, past: int, horizon: int, count: int
) -> References:
    """Stretches of some episodes, evenly spread over all places where one may begin.

    Args:
        episodes: numbers of those that may be used, such as the held-out ones.
        count: B, or as many as there are places.

    Raises:
        DataError: none of the episodes is long enough.
    """
    length = past + 1 + horizon
    chosen = np.sort(np.asarray(episodes, np.int64))
    starts = [np.arange(store.offsets[e], store.offsets[e + 1] - length + 1) for e in chosen]
    places = np.concatenate(starts) if starts else np.zeros(0, np.int64)
    if not len(places):
        longest = int(store.lengths[chosen].max()) if len(chosen) else 0
        raise DataError(
            f"none of the {len(chosen)} held-out episodes has {length} steps (the longest has {longest}); give a "
            "shorter --horizon, or data with longer episodes"
        )
    count = min(count, len(places))
    rows = places[((np.arange(count) + 0.5) * len(places) / count).astype(np.int64)]
    around = rows[:, None] + np.arange(length)
    observation, action = layout.field("observation"), layout.field("action")
    observed = np.ones((count, length, observation.size), bool)
    if OBSERVED in store.extras:
        observed = np.stack([np.asarray(store.extras[OBSERVED][row : row + length], bool) for row in rows])
    values = transitions(store, layout)[around]
    return References(values, observed, past, observation.slice, action.slice, rows)
