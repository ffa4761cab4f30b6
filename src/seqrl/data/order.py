"""Which windows a training step sees: a pure function of seed and step, so that nothing needs to be remembered."""

from __future__ import annotations

import numpy as np

from seqrl.errors import ConfigError

SHUFFLED_IN_MEMORY = 2**26
"""Windows up to which an epoch's order is kept, 4 bytes each in every rank; the order of more is computed."""


class StepOrder:
    """Cuts seeded permutations of the windows into batches, one permutation per epoch.

    The order depends on neither the number of ranks nor on where a run was resumed.

    Args:
        num_windows: how many windows there are.
        batch_size: windows per step over all ranks. With fewer windows than that, a batch repeats windows.
        seed: of permutations and goal draws.
    """

    def __init__(self, num_windows: int, batch_size: int, seed: int) -> None:
        self.num_windows = num_windows
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = -1
        self._order = np.zeros(0, np.int32)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches per epoch, at least 1; the remainder is left out."""
        return max(1, self.num_windows // self.batch_size)

    def batch(self, step: int) -> np.ndarray:
        """(batch_size,) window indices of a global step, 0 being the first."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self.num_windows > SHUFFLED_IN_MEMORY:
            places = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
            return permuted(places % self.num_windows, self.num_windows, [self.seed, 0, epoch])
        if epoch != self._epoch:
            self._order = np.arange(self.num_windows, dtype=np.int32)  # SHUFFLED_IN_MEMORY fits
            np.random.default_rng([self.seed, 0, epoch]).shuffle(self._order)
            self._epoch = epoch
        places = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        return self._order[places % self.num_windows].astype(np.int64)

    def generator(self, step: int) -> np.random.Generator:
        """For the random draws inside the batch of a global step."""
        return np.random.default_rng([self.seed, 1, step])


def permuted(places: np.ndarray, size: int, seed: list[int]) -> np.ndarray:
    """Where (n,) places of a pseudo-random permutation of `range(size)` lead to, without making the permutation.

    Four rounds of a Feistel network over the smallest square power of two that holds `size`, walked on from numbers
    beyond it until one is inside. Every place leads to one number and every number has one place, whatever the rounds
    do; they decide how well it is mixed.

    Reference: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains".
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence(seed).generate_state(4, np.uint64)
    low = np.uint64(2**half - 1)
    found = np.asarray(places, np.uint64)
    outside = np.ones(len(found), bool)
    while outside.any():
        left, right = found[outside] >> np.uint64(half), found[outside] & low
        for key in keys:
            mixed = (right + key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(32))) & low)
        found[outside] = left << np.uint64(half) | right
        outside = found >= size
    return found.astype(np.int64)


def check_batches(batch_size: int, validation_fraction: float, seed: int) -> None:
    """Refuse what nothing can be cut and ordered by.

    Raises:
        ConfigError: a batch size below 1, a fraction outside [0, 1), or a negative seed.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} is too small; give 1 or more")
    if not 0.0 <= validation_fraction < 1.0:
        raise ConfigError(f"validation_fraction={validation_fraction} is outside [0, 1); give 0 or a share below 1")
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative; give 0 or more")


def split_episodes(num_episodes: int, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(train, validation) episode numbers, sorted; validation gets at least one, unless the fraction is 0 or there is
    only one episode."""
    if validation_fraction == 0 or num_episodes < 2:
        return np.arange(num_episodes), np.zeros(0, np.int64)
    count = min(max(1, round(num_episodes * validation_fraction)), num_episodes - 1)
    order = np.random.default_rng([seed, 2]).permutation(num_episodes)
    return np.sort(order[count:]), np.sort(order[:count])
