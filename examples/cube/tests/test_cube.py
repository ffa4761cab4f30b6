"""What the expert records, and the source under seqrl's own contracts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from seqrl_cube.recordings import LONGEST, CubeSource

# OGBench's spaces, and the screen that its renderer looks for: warnings for its authors
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path))


def test_the_expert_carries_the_cube_and_is_recorded_once(tmp_path: Path) -> None:
    store = CubeSource(episodes=4).load()
    assert store.sizes["observation_size"] == 28
    assert store.sizes["action_size"] == 5
    assert (store.lengths <= LONGEST).all()
    assert np.abs(store.actions).max() <= 1
    moved = [
        np.linalg.norm(np.diff(episode, axis=0)[:, 19:22], axis=1).sum()
        for episode in np.split(store.observations, store.offsets[1:-1])
    ]
    assert min(moved) > 0.1, "tenths of a metre"
    again = CubeSource(episodes=4).load()
    assert again.fingerprint() == store.fingerprint()
    assert len(list(tmp_path.glob("cube/*"))) == 1


def test_the_same_seed_records_the_same() -> None:
    one, two, other = (CubeSource(episodes=2, seed=seed).record() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.observations, two.observations)
    np.testing.assert_array_equal(one.actions, two.actions)
    assert len(one) != len(other) or not np.array_equal(one.actions, other.actions)
