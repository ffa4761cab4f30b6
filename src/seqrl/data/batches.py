"""Windows gathered into batches, one class for every kind of batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from seqrl.config import WindowConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.windows import B, Windows
from seqrl.layout import Layout
from seqrl.types import CodeBatch, TokenBatch, ValueBatch, VectorBatch


class TokenWindows(Windows[TokenBatch]):
    """Windows of tokens; past the end stand termination tokens.

    Args:
        tokens: (N, K) integers, the store's transitions, tokenized.
        termination_token: V; also the null goal.
        goal_columns: which columns of `tokens` hold the dimensions of the goal; by default as for one token per scalar.
        difference_columns: which hold the field `difference`, where a termination token says that no transition
            follows; by default as for one token per scalar.
    """

    def __init__(
        self,
        store: EpisodeStore,
        tokens: np.ndarray,
        layout: Layout,
        settings: WindowConfig,
        *,
        termination_token: int,
        goal_columns: Sequence[int] | None = None,
        difference_columns: Sequence[int] | None = None,
        episodes: np.ndarray | None = None,
    ) -> None:
        super().__init__(store, layout, settings, episodes=episodes)
        self._tokens = tokens
        self._end = termination_token
        self._goal_columns = _goal_scalars(layout) if goal_columns is None else list(goal_columns)
        columns = _difference_scalars(layout) if difference_columns is None else list(difference_columns)
        self._differs = np.isin(np.arange(tokens.shape[1]), columns)

    def batch(self, indices: np.ndarray, generator: np.random.Generator) -> TokenBatch:
        found = self.rows(indices, generator)
        tokens = self._tokens[found.rows].astype(np.int64)
        tokens[~found.real] = self._end
        goal = None
        if found.goals is not None:
            goal = self._tokens[found.goals][:, self._goal_columns].astype(np.int64)
            goal[found.goals < 0] = self._end
        mask = np.broadcast_to(found.learnt[..., None], tokens.shape).copy()
        if self._differs.any():
            last = ~found.followed[..., None] & self._differs
            tokens[last] = self._end
            # Where nobody knows what follows, the model reads an end that is none: nothing is learnt from it.
            unknown = last & ~found.ends_learnt[:, None, None]
            mask &= ~np.logical_or.accumulate(unknown, axis=-1)
        return TokenBatch(_tensor(tokens), _tensor(mask), None if goal is None else _tensor(goal))


class _WindowsOfValues(Windows[B]):
    """Windows of (N, S) float32 `values`, the store's transitions, normalised."""

    def __init__(
        self,
        store: EpisodeStore,
        values: np.ndarray,
        layout: Layout,
        settings: WindowConfig,
        *,
        episodes: np.ndarray | None = None,
    ) -> None:
        super().__init__(store, layout, settings, episodes=episodes)
        self._values = values
        self._goal_columns = _goal_scalars(layout)


class VectorWindows(_WindowsOfValues[VectorBatch]):
    """Windows of normalised values; past the end stand zeros, which are no transitions that anybody made."""

    learns_ends = False

    def batch(self, indices: np.ndarray, generator: np.random.Generator) -> VectorBatch:
        found = self.rows(indices, generator)
        values = self._values[found.rows]
        values[~found.real] = 0.0
        goal = None
        if found.goals is not None:
            goal = self._values[found.goals][:, self._goal_columns]
            goal[found.goals < 0] = np.nan
        mask, starts = _tensor(found.learnt), _tensor(found.starts)
        return VectorBatch(_tensor(values), mask, None if goal is None else _tensor(goal), starts)


class ValueWindows(_WindowsOfValues[ValueBatch]):
    """Windows of normalised values for an autoencoder, which tells ends by NaN."""

    def batch(self, indices: np.ndarray, generator: np.random.Generator) -> ValueBatch:
        found = self.rows(indices, generator)
        values = self._values[found.rows]
        values[~found.real] = np.nan
        return ValueBatch(_tensor(values), _tensor(found.learnt))


class CodeWindows(Windows[CodeBatch]):
    """Windows of codes, which were made of the same windows of values once; see `values_from`.

    Args:
        codes: (N, n) integers, the codes of the window that starts at each row of the store.
        values: (N, S) float32, the store's transitions, normalised.
        steps_per_code: transitions that a code stands for.
    """

    def __init__(
        self,
        store: EpisodeStore,
        codes: np.ndarray,
        values: np.ndarray,
        layout: Layout,
        settings: WindowConfig,
        *,
        steps_per_code: int,
        episodes: np.ndarray | None = None,
    ) -> None:
        super().__init__(store, layout, settings, episodes=episodes)
        self._codes, self._values, self._steps = codes, values, steps_per_code
        self._observation = layout.field("observation").slice

    def batch(self, indices: np.ndarray, generator: np.random.Generator) -> CodeBatch:
        found = self.rows(indices, generator)
        first = found.rows[:, 0]
        codes = self._codes[first].astype(np.int64)
        mask = found.learnt[:, :: self._steps][:, : codes.shape[1]].copy()  # a code counts where its first step does
        state = self._values[first][:, self._observation].copy()
        return CodeBatch(_tensor(codes), _tensor(mask), _tensor(state))


def values_from(
    store: EpisodeStore, values: np.ndarray, starts: np.ndarray, settings: WindowConfig, layout: Layout
) -> np.ndarray:
    """(B, T, S) windows of (N, S) values that start at (B,) rows of a store, NaN past the end of the episode."""
    stops = store.offsets[np.searchsorted(store.offsets, starts, side="right")]
    rows = starts[:, None] + np.arange(settings.length) * layout.stride
    real = rows < stops[:, None]
    found: np.ndarray = values[np.where(real, rows, starts[:, None])]
    found[~real] = np.nan
    return found


def _difference_scalars(layout: Layout) -> list[int]:
    """Which of the S scalars tell how the observation changes; empty without that field."""
    return [*range(layout.size)[layout.field("difference").slice]] if layout.has("difference") else []


def _goal_scalars(layout: Layout) -> list[int]:
    """Which of the S scalars are the dimensions of the goal; empty without a goal."""
    dims = () if layout.goal is None else layout.goal.dims
    return [layout.field("observation").start + dim for dim in dims]


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)
