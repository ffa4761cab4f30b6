"""Recordings of which a share of the observed numbers is hidden: what a partially observed world shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError

OBSERVED = "observed"
"""Name of the extra array (N, O) that says which numbers can be seen."""


def mask_observations(store: EpisodeStore, *, share: float = 0.5, seed: int = 0) -> EpisodeStore:
    """The episodes with every dimension of every observation hidden with a probability, for itself.

    What is hidden has the mean of its dimension, which is nothing but a mark: bins of equal shares give it one of its
    own, and a network sees zero once its inputs are normalised.

    Args:
        share: that probability, in [0, 1).
        seed: of the draws.

    Raises:
        ConfigError: a share outside [0, 1).
    """
    if not 0.0 <= share < 1.0:
        raise ConfigError(f"a share of {share:g} cannot be hidden; give 0 or more, and less than 1")
    observations = np.asarray(store.observations)
    observed = np.random.default_rng([seed, 6]).random(observations.shape) >= share
    means = observations.mean(0, dtype=np.float64).astype(np.float32)
    name = f"{store.attributes.get('name', 'arrays')}, {100 * share:g} % hidden"
    masked = replace(
        store,
        observations=np.where(observed, observations, means),
        extras={**store.extras, OBSERVED: observed},
    )
    return masked.described(name=name)
