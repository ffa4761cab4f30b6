"""The episode schema and the returns computed on it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import penalised_rewards, returns_to_go, sample_transitions, transition_chunks, transitions
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


STEPS: dict[str, Any] = {
    "observations": np.zeros((4, 3)),
    "actions": np.zeros((4, 2)),
    "rewards": np.zeros(4),
    "terminated": False,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"observations": np.zeros((5, 3))}, "episode 1 has 5 observations, 4 actions, 4 rewards; give one of each"),
        ({"terminated": np.zeros(4, bool)}, r"episode 1: terminated has shape \(4,\); give one bool"),
        ({"truncated": [True, False]}, r"episode 1: truncated has shape \(2,\)"),
        ({"rewards": 1.0}, "episode 1: rewards is 1.0; give one row for every step"),
        ({"rewards": None}, "episode 1: rewards is None"),
        ({"actions": [[1.0, 2.0], [1.0]]}, "episode 1: actions cannot be made an array; give rows of one length"),
        ({"actions": np.zeros((4, 5))}, r"actions has rows of different shapes, \[\(2,\), \(5,\)\]"),
    ],
)
def test_from_episodes_names_the_episode_that_does_not_fit(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        EpisodeStore.from_episodes([STEPS, {**STEPS, **changes}])


def test_from_episodes_takes_lists_and_wants_one() -> None:
    plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in STEPS.items()}
    assert EpisodeStore.from_episodes([STEPS]).fingerprint() == EpisodeStore.from_episodes([plain]).fingerprint()
    with pytest.raises(DataError, match="a single episode was given"):
        EpisodeStore.from_episodes(STEPS)  # type: ignore[arg-type]


def test_from_episodes_names_what_is_missing() -> None:
    with pytest.raises(DataError, match="empty"):
        EpisodeStore.from_episodes([])
    with pytest.raises(DataError, match="episode 0 lacks rewards, terminated"):
        EpisodeStore.from_episodes([{"observations": np.zeros((2, 3)), "actions": np.zeros((2, 1))}])


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


@st.composite
def streams(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    """Rewards, the offsets of episodes of 1 to 9 steps, and a discount."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
    rewards = draw(st.lists(numbers, min_size=sum(lengths), max_size=sum(lengths)))
    return np.array(rewards), np.concatenate([[0], np.cumsum(lengths)]), draw(st.floats(0, 1))


def naive(rewards: np.ndarray, offsets: np.ndarray, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """The definition as a double loop, and the sum of its terms' sizes (what rounding is measured against)."""
    wanted, size = np.zeros((2, len(rewards)))
    for start, stop in itertools.pairwise(offsets):
        for step in range(start, stop):
            for later in range(step + 1, stop):  # r_t itself is left out
                term = discount ** (later - step - 1) * rewards[later]
                wanted[step] += term
                size[step] += abs(term)
    return wanted, size


@given(streams())
def test_returns_to_go_equal_a_double_loop_for_any_episodes(stream: tuple[np.ndarray, np.ndarray, float]) -> None:
    wanted, size = naive(*stream)
    assert (np.abs(returns_to_go(*stream) - wanted) <= 1e-12 * size).all()  # rtol where terms do not cancel
    positive = (np.abs(stream[0]), *stream[1:])
    np.testing.assert_allclose(returns_to_go(*positive), naive(*positive)[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("penalty", [None, -7.0])
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=8), discount=st.floats(0, 1))
def test_chunks_equal_the_whole_bit_for_bit(penalty: float | None, lengths: list[int], discount: float) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rewards = np.random.default_rng(lengths).normal(size=offsets[-1])
    rows, ends = np.arange(len(rewards)), flags(len(rewards), *(offsets[1:] - 1))
    found = EpisodeStore.from_arrays(rows[:, None], -1.0 * rows[:, None], rewards, ends, ends & (rows % 3 > 0))
    fields = {"observation": {}, "action": {}, "reward": {}, "value": {}}
    layout = Layout.from_config({"fields": fields, "discount": discount, "termination_penalty": penalty}, 1, 1)
    seen = penalised_rewards(found, penalty)
    columns = [rows, -rows, seen, returns_to_go(seen, offsets, discount)]
    wanted = np.stack(columns, axis=1).astype(np.float32)
    np.testing.assert_array_equal(transitions(found, layout), wanted)
    for size in (1, 2, 3, 5, 8):
        chunks = list(transition_chunks(found, layout, size))
        assert [first for first, _ in chunks] == list(range(0, len(rewards), size))[::-1]
        np.testing.assert_array_equal(np.concatenate([values for _, values in chunks[::-1]]), wanted)


def test_a_sample_is_everything_where_it_fits(tiny_store: EpisodeStore, tiny_layout: Layout) -> None:
    values = transitions(tiny_store, tiny_layout)
    np.testing.assert_array_equal(sample_transitions(tiny_store, tiny_layout), values)
    some = sample_transitions(tiny_store, tiny_layout, np.array([0, 3]), scalars=11 * tiny_layout.size)
    np.testing.assert_array_equal(some, values[[*range(6), *range(16, 21)]])


def test_a_sample_of_many_is_even_repeatable_and_keeps_the_ranges(tiny_layout: Layout) -> None:
    rng = np.random.default_rng(0)
    rows = 200_000  # several chunks
    ends = flags(rows, *range(999, rows, 1000))
    observations = rng.normal(size=(rows, 3))
    observations[:, 0] = np.arange(rows)
    found = EpisodeStore.from_arrays(
        observations, rng.normal(size=(rows, 2)), rng.normal(size=rows), ends, ends & False
    )
    episodes = np.arange(0, 200, 2)  # 100 000 rows
    sample = sample_transitions(found, tiny_layout, episodes, scalars=7 * 1000, seed=3)
    values = transitions(found, tiny_layout)
    chosen = values[np.isin(np.arange(rows) // 1000, episodes)]
    assert len(sample) == 1000 + 2 * 7
    np.testing.assert_array_equal(sample.min(0), chosen.min(0))
    np.testing.assert_array_equal(sample.max(0), chosen.max(0))
    drawn = sample[:1000, 0].astype(int)
    np.testing.assert_array_equal(sample, values[sample[:, 0].astype(int)])  # whole rows, unchanged
    counts = np.cumsum(np.isin(np.arange(rows) // 1000, episodes)) - 1  # place of a row among the chosen ones
    np.testing.assert_array_equal(counts[drawn] // 100, np.arange(1000))  # one of each stretch
    np.testing.assert_array_equal(sample_transitions(found, tiny_layout, episodes, scalars=7000, seed=3), sample)
    assert (sample_transitions(found, tiny_layout, episodes, scalars=7000, seed=4) != sample).any()


def test_from_episodes_keeps_extras_and_explicit_cuts() -> None:
    observations, actions, rewards = arrays(7)
    episode = {"observations": observations, "actions": actions, "rewards": rewards, "qpos": observations[:, :2]}
    found = EpisodeStore.from_episodes(
        [
            {**episode, "terminated": True},
            {**episode, "terminated": False, "truncated": False},
            {**episode, "terminated": False},
        ],
        extras=["qpos"],
    )
    assert found.terminated.tolist() == [True, False, False]
    assert found.truncated.tolist() == [False, False, True]
    np.testing.assert_array_equal(found.extras["qpos"][7:14], observations[:, :2])
    without = {key: array for key, array in episode.items() if key != "qpos"}
    with pytest.raises(DataError, match="episode 1 lacks qpos"):
        EpisodeStore.from_episodes([{**episode, "terminated": True}, {**without, "terminated": True}], extras=["qpos"])
    both = EpisodeStore.from_episodes([{**episode, "terminated": True, "truncated": True}])  # as a file's rows are read
    assert (both.terminated.tolist(), both.truncated.tolist()) == ([True], [False])
    with pytest.raises(DataError, match="observations has rows of different shapes"):
        EpisodeStore.from_episodes(
            [{**episode, "terminated": True}, {**episode, "observations": observations[:, :2], "terminated": True}]
        )


def test_extras_need_a_row_per_transition() -> None:
    with pytest.raises(DataError, match="qpos has 9 rows and observations has 10"):
        EpisodeStore.from_arrays(*arrays(10), flags(10), flags(10), extras={"qpos": np.zeros((9, 2))})


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((64, 64, 3), np.uint8), ((4, 84, 84), np.uint8), ((84, 84), np.uint8), ((3, 64, 64), np.float32)],
)
def test_images_are_refused_with_what_to_do(shape: tuple[int, ...], kind: Any) -> None:
    episode = {"observations": np.zeros((5, *shape), kind), "actions": np.zeros((5, 1)), "rewards": np.zeros(5)}
    with pytest.raises(DataError, match=r"observations holds images of shape .*record the simulator's state"):
        EpisodeStore.from_episodes([{**episode, "terminated": True}])


@pytest.mark.parametrize(
    ("more", "extras", "told"),
    [
        (["energy"], (), "a key 'energy' that extras= does not name, so that it is left out; extras=('energy',)"),
        (["load", "energy"], ("energy",), "a key 'load' that extras= does not name, .*; extras=('energy', 'load')"),
        (["load", "energy"], (), "episodes have keys 'load', 'energy' that .*; extras=('load', 'energy') keeps all"),
        (["energy"], ("energy",), ""),
        ([], (), ""),
    ],
)  # fmt: skip
def test_keys_of_episodes_that_nothing_names_are_told(
    more: list[str], extras: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    episode = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1)), "rewards": np.zeros(4)}
    first: dict[str, Any] = {**episode, "terminated": True, "truncated": False}
    other = {**first, **{name: np.ones(4) for name in more}}
    store = EpisodeStore.from_episodes([other, other if extras else first], extras=extras)
    assert set(store.extras) == set(extras)
    said = " ".join(capsys.readouterr().out.split())
    assert bool(said) == bool(told)
    assert all(part in said for part in told.split(".*"))
