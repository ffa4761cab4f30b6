"""Rewards and returns-to-go as the Trajectory Transformer sees them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.signal import lfilter

from seqrl.data.episodes import EpisodeStore
from seqrl.layout import Layout


def penalised_rewards(store: EpisodeStore, penalty: float | None) -> np.ndarray:
    """(N,) float64 rewards, replaced by `penalty` in the last step of terminated episodes.

    Time limits are no ends and stay as they are. None leaves all rewards.
    """
    rewards = store.rewards.astype(np.float64)
    if penalty is not None:
        rewards[store.offsets[1:][store.terminated] - 1] = penalty
    return rewards


def returns_to_go(rewards: np.ndarray, offsets: np.ndarray, discount: float) -> np.ndarray:
    """(N,) float64 `sum_{k>=0} gamma^k r_{t+1+k}` within the episode: what follows step t, without `r_t` itself.

    A linear recurrence run backwards through each episode, exact to float64 rounding.
    """
    values = np.zeros(len(rewards))
    for start, stop in pairwise(offsets):
        following = rewards[start + 1 : stop]
        values[start : stop - 1] = lfilter([1.0], [1.0, -discount], following[::-1])[::-1]
    return values


def transitions(store: EpisodeStore, layout: Layout) -> np.ndarray:
    """(N, S) float32: every field of the layout, in its order."""
    rewards = penalised_rewards(store, layout.termination_penalty)
    columns = {"observation": store.observations, "action": store.actions, "reward": rewards[:, None]}
    if layout.has("value"):
        columns["value"] = returns_to_go(rewards, store.offsets, layout.discount)[:, None]
    return np.concatenate([columns[f.name] for f in layout.fields], axis=1, dtype=np.float32)
