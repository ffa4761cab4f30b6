"""Seeds for environments that draw from generators which belong to everybody."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def seed_globals(seed: int | None) -> Iterator[None]:
    """For a reset: the global generators of NumPy and Python give the draws of a seed, and go on as before."""
    if seed is None:
        yield
        return
    states = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        random.setstate(states[1])
