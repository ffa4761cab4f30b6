"""The episode schema and the returns computed on it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import penalised_rewards, returns_to_go, transitions
from seqrl.errors import DataError
from seqrl.layout import Layout


def flags(count: int, *rows: int) -> np.ndarray:
    array = np.zeros(count, bool)
    array[list(rows)] = True
    return array


def arrays(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 3)), rng.normal(size=(count, 2)), rng.normal(size=count)


def store(count: int = 10, ends: tuple[int, ...] = (3, 6), terminals: tuple[int, ...] = (3,)) -> EpisodeStore:
    return EpisodeStore.from_arrays(*arrays(count), flags(count, *ends), flags(count, *terminals))


def test_episodes_are_cut_after_their_last_row() -> None:
    found = store()
    assert found.offsets.tolist() == [0, 4, 7, 10]
    assert found.lengths.tolist() == [4, 3, 3]
    assert found.terminated.tolist() == [True, False, False]
    assert found.truncated.tolist() == [False, True, False]
    assert found.complete().tolist() == [True, True, False]  # rows after the last end are a cut episode
    assert found.observations.dtype == np.float32


def test_an_end_in_the_last_row_leaves_no_empty_episode() -> None:
    assert store(ends=(3, 9)).offsets.tolist() == [0, 4, 10]


def test_segments_are_at_least_as_fine_as_episodes() -> None:
    assert store().segments.tolist() == [0, 4, 7, 10]
    found = EpisodeStore.from_arrays(*arrays(10), flags(10, 3, 6), flags(10), segment_ends=flags(10, 1, 3, 8))
    assert found.segments.tolist() == [0, 2, 4, 7, 9, 10]
    assert found.offsets.tolist() == [0, 4, 7, 10]
    assert found.ends_of(found.segments).tolist() == [2, 2, 4, 4, 7, 7, 7, 9, 9, 10]
    assert found.ends_of(found.offsets).tolist() == [4] * 4 + [7] * 3 + [10] * 3


def test_returns_are_undiscounted_and_per_episode() -> None:
    found = store()
    rewards = found.rewards.astype(np.float64)
    np.testing.assert_allclose(found.returns(), [rewards[:4].sum(), rewards[4:7].sum(), rewards[7:].sum()])


@pytest.mark.parametrize("place", [("observations", 2), ("actions", 4), ("rewards", 9)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named_by_place(place: tuple[str, int], value: float) -> None:
    name, row = place
    given = dict(zip(("observations", "actions", "rewards"), arrays(10), strict=True))
    given[name][row] = value
    with pytest.raises(DataError, match=rf"file\.hdf5: {name} holds (nan|inf) at row {row}"):
        EpisodeStore.from_arrays(**given, ends=flags(10), terminals=flags(10), origin="file.hdf5")


@pytest.mark.parametrize("short", range(2))
def test_disagreeing_lengths_are_refused(short: int) -> None:
    observations, actions, rewards = arrays(10)
    given = [observations, actions, rewards]
    given[short + 1] = given[short + 1][:-1]
    with pytest.raises(DataError, match="has 9 rows and observations has 10"):
        EpisodeStore.from_arrays(*given, flags(10), flags(10))


def test_a_terminal_inside_an_episode_is_refused() -> None:
    with pytest.raises(DataError, match="row 5 is terminal but not the end"):
        store(terminals=(3, 5))


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no transitions"):
        store(0, (), ())


def test_from_episodes_equals_from_arrays() -> None:
    observations, actions, rewards = arrays(7)
    pieces = [(0, 4, True), (4, 7, False)]
    found = EpisodeStore.from_episodes(
        [
            {"observations": observations[a:b], "actions": actions[a:b], "rewards": rewards[a:b], "terminated": end}
            for a, b, end in pieces
        ],
        attributes={"name": "mine"},
    )
    wanted = EpisodeStore.from_arrays(observations, actions, rewards, flags(7, 3, 6), flags(7, 3))
    for name in ("observations", "actions", "rewards", "offsets", "terminated", "truncated", "segments"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.attributes["name"] == "mine"


def test_from_episodes_names_what_is_missing() -> None:
    with pytest.raises(DataError, match="empty"):
        EpisodeStore.from_episodes([])
    with pytest.raises(DataError, match="episode 0 lacks rewards, terminated"):
        EpisodeStore.from_episodes([{"observations": np.zeros((2, 3)), "actions": np.zeros((2, 1))}])


@pytest.mark.parametrize("discount", [0.0, 0.9, 0.99, 1.0])
def test_returns_to_go_equal_a_double_loop(discount: float) -> None:
    rng = np.random.default_rng(1)
    rewards, offsets = rng.normal(size=60), np.array([0, 1, 3, 30, 60])
    wanted = np.zeros(60)
    for start, stop in itertools.pairwise(offsets):
        for step in range(start, stop):
            for later in range(step + 1, stop):  # r_t itself is left out
                wanted[step] += discount ** (later - step - 1) * rewards[later]
    np.testing.assert_allclose(returns_to_go(rewards, offsets, discount), wanted, rtol=1e-12, atol=1e-13)


def test_the_penalty_replaces_the_reward_of_true_ends_only() -> None:
    found = store()
    rewards = found.rewards.astype(np.float64)
    penalised = penalised_rewards(found, -100.0)
    assert penalised[3] == -100.0
    others = np.arange(10) != 3
    np.testing.assert_array_equal(penalised[others], rewards[others])
    np.testing.assert_array_equal(penalised_rewards(found, None), rewards)
    np.testing.assert_array_equal(found.rewards, rewards.astype(np.float32))  # the store itself stays as recorded


def test_transitions_follow_the_layout() -> None:
    found = store()
    config = {
        "fields": {"observation": {}, "action": {}, "value": {"hidden": True}, "reward": {}},
        "discount": 0.5,
        "termination_penalty": -8.0,
    }
    values = transitions(found, Layout.from_config(config, 3, 2))
    assert values.shape == (10, 7)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[:, :3], found.observations)
    np.testing.assert_array_equal(values[:, 3:5], found.actions)
    assert values[3, 5:].tolist() == [0.0, -8.0]
    assert values[2, 5] == -8.0  # the penalty is part of what follows
    np.testing.assert_allclose(values[1, 5], found.rewards[2] + 0.5 * -8.0, rtol=1e-6)
