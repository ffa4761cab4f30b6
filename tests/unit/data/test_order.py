"""The order of training windows, and the split of episodes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrl.config import WindowConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.order import StepOrder, permuted, split_episodes
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.training.critic_module import TransitionDataModule
from seqrl.training.datamodule import EpisodeDataModule

sizes = st.integers(1, 200)


@given(sizes, sizes, st.integers(0, 3))
def test_an_epoch_is_a_permutation_of_the_windows(num_windows: int, batch_size: int, epoch: int) -> None:
    order = StepOrder(num_windows, batch_size, seed=1)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    seen = np.concatenate([order.batch(step) for step in steps])
    assert all(len(order.batch(step)) == batch_size for step in steps)
    assert seen.min() >= 0
    assert seen.max() < num_windows
    counts = np.bincount(seen, minlength=num_windows)
    if num_windows >= batch_size:
        assert counts.max() == 1
        assert num_windows - len(seen) < batch_size  # what is left out does not fill a batch
    else:
        assert set(counts) <= {batch_size // num_windows, -(-batch_size // num_windows)}


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    straight = StepOrder(100, 16, seed=0)
    batches = [straight.batch(step) for step in range(20)]
    for step in (19, 3, 11, 0, 19):
        np.testing.assert_array_equal(StepOrder(100, 16, seed=0).batch(step), batches[step])
        np.testing.assert_array_equal(straight.batch(step), batches[step])


@pytest.mark.parametrize(("num_windows", "batch_size"), [(1000, 32), (7, 16), (1, 3)])
def test_orders_are_those_that_numpy_permutes(num_windows: int, batch_size: int) -> None:
    """What runs of before saw: a permutation of 64-bit numbers, repeated where a batch is larger."""
    for seed, epoch in ((0, 0), (3, 2)):
        whole = np.random.default_rng([seed, 0, epoch]).permutation(num_windows)
        expected = np.resize(whole, max(num_windows, batch_size))
        order = StepOrder(num_windows, batch_size, seed)
        for index in range(order.steps_per_epoch):
            found = order.batch(epoch * order.steps_per_epoch + index)
            assert found.dtype == np.int64
            assert found.tolist() == expected[index * batch_size : (index + 1) * batch_size].tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    order = StepOrder(60, 60, seed=0)
    assert order.batch(0).tolist() != order.batch(1).tolist()
    assert order.batch(0).tolist() != StepOrder(60, 60, seed=1).batch(0).tolist()
    assert np.abs(np.corrcoef(order.batch(0), np.arange(60))[0, 1]) < 0.5  # it is shuffled at all


def test_the_draws_inside_a_batch_are_a_function_of_seed_and_step() -> None:
    def draws(seed: int, step: int) -> list[float]:
        return StepOrder(10, 2, seed).generator(step).random(4).tolist()

    assert draws(0, 7) == draws(0, 7)
    assert len({tuple(draws(seed, step)) for seed in range(3) for step in range(3)}) == 9


def share(store: EpisodeStore, layout: Layout, rank: int, world_size: int, step: int = 0) -> list[list[list[int]]]:
    """Per remaining step, (first token, goal) of every window of a rank."""
    data = EpisodeDataModule(store, layout, window=WindowConfig(3), batch_size=8, validation_fraction=0.0, seed=4)
    data.encode(lambda values: values[:, :1].long().expand(-1, layout.size), vocab_size=100)
    loader = data.train_dataloader()
    batches = [loader.cut(number, rank, world_size) for number in range(step, 6)]
    if world_size == 1:
        loader.load_state_dict({"next": step})
        read = [batch for _ in range((6 - step) // len(loader)) for batch in loader]
        assert all(torch.equal(batch.tokens, other.tokens) for batch, other in zip(read, batches, strict=True))
    return [
        np.stack([b.tokens[:, 0, 0].numpy(), b.goal[:, 0].numpy()], 1).tolist() for b in batches if b.goal is not None
    ]


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_global_batch_and_its_goals(tiny_store: EpisodeStore, world_size: int) -> None:
    config = {"fields": {"observation": {}, "action": {}}, "goal": {"dims": [0], "dropout": 0.2}}
    layout = Layout.from_config(config, 3, 2)
    alone = share(tiny_store, layout, 0, 1)
    assert [len(batch) for batch in alone] == [8] * 6
    parts = [share(tiny_store, layout, rank, world_size) for rank in range(world_size)]
    for step, whole in enumerate(alone):
        assert all(len(part[step]) == 8 // world_size for part in parts)
        assert sorted(pair for part in parts for pair in part[step]) == sorted(whole)


def test_a_resumed_run_sees_what_an_uninterrupted_one_would_have_seen(tiny_store: EpisodeStore) -> None:
    config = {"fields": {"observation": {}, "action": {}}, "goal": {"dims": [0], "dropout": 0.2}}
    layout = Layout.from_config(config, 3, 2)
    assert share(tiny_store, layout, 0, 1, step=4) == share(tiny_store, layout, 0, 1)[4:]


@given(st.integers(1, 50), st.floats(0, 0.99), st.integers(0, 5))
def test_the_split_is_disjoint_and_complete(num_episodes: int, fraction: float, seed: int) -> None:
    train, validation = split_episodes(num_episodes, fraction, seed)
    assert sorted([*train, *validation]) == list(range(num_episodes))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert len(train) >= 1
    if fraction == 0 or num_episodes == 1:
        assert len(validation) == 0
    else:
        assert len(validation) >= 1
        assert abs(len(validation) - fraction * num_episodes) <= 1


def test_the_split_is_random_and_repeatable() -> None:
    splits = {tuple(split_episodes(40, 0.25, seed)[1]) for seed in range(5)}
    assert len(splits) == 5
    assert tuple(split_episodes(40, 0.25, 3)[1]) in splits


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_a_computed_permutation_is_one(size: int) -> None:
    for epoch in range(3):
        found = permuted(np.arange(size), size, [7, 0, epoch])
        assert sorted(found) == list(range(size))
        assert permuted(np.arange(size)[::3], size, [7, 0, epoch]).tolist() == found[::3].tolist()


def test_a_computed_permutation_mixes_far_and_near() -> None:
    """Chi-square of where neighbours and equal strides land, over 16 cells; 99.9 % of random orders stay below 37.7."""
    size, cells = 40_000, 16
    for places in (np.arange(4_000), np.arange(0, size, 10)):
        counts = np.bincount(permuted(places, size, [1, 0, 0]) * cells // size, minlength=cells)
        assert ((counts - 250.0) ** 2 / 250.0).sum() < 37.7
    first, second = (permuted(np.arange(size), size, [1, 0, epoch]) for epoch in (0, 1))
    assert (first == second).mean() < 0.001
    assert abs(np.corrcoef(first, np.arange(size))[0, 1]) < 0.02


def test_orders_of_more_windows_than_are_shuffled_in_memory_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrl.data.order.SHUFFLED_IN_MEMORY", 99)
    order = StepOrder(100, 8, seed=3)
    epochs = [np.concatenate([order.batch(epoch * 12 + step) for step in range(12)]) for epoch in (0, 1)]
    assert all(len(set(epoch)) == 96 for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    large = StepOrder(10**10, 256, seed=3)
    batch = large.batch(10**7)
    assert len(set(batch)) == 256
    assert 0 <= batch.min() <= batch.max() < 10**10


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch_size": 0}, "batch_size=0 is too small"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0 is outside"),
        ({"validation_fraction": -0.1}, "validation_fraction=-0.1 is outside"),
        ({"seed": -1}, "seed=-1 is negative"),
    ],
)
@pytest.mark.parametrize("kind", [EpisodeDataModule, TransitionDataModule])
def test_what_nothing_can_be_cut_by_is_refused(
    kind: type, given: dict[str, float], words: str, tiny_store: EpisodeStore, tiny_layout: Layout
) -> None:
    options = {"window": WindowConfig(3)} if kind is EpisodeDataModule else {}
    with pytest.raises(ConfigError, match=re.escape(words)):
        kind(tiny_store, tiny_layout, **{"batch_size": 2, **options, **given})
