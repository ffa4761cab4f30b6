"""Returns, strides and the best episodes, against loops over single steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.episode_history import EpisodeHistory
from seqrl.acting.policy import Policy
from seqrl.config import WindowConfig
from seqrl.data.batches import VectorWindows
from seqrl.data.returns import transition_chunks, transitions
from seqrl.errors import ConfigError, DataError
from seqrl.layout import Layout
from seqrl.testing import samples

FIELDS = {"return": {}, "observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}


def layout(stride: int, **options: Any) -> Layout:
    return Layout.from_config({"fields": FIELDS, "discount": 0.9, "stride": stride, **options}, 3, 2)


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("penalty", [None, -50.0])
def test_rewards_values_and_returns_are_sums_over_single_steps(stride: int, penalty: float | None) -> None:
    store = samples.store()
    made = transitions(store, layout(stride, termination_penalty=penalty))
    for episode in range(store.num_episodes):
        first, stop = store.offsets[episode : episode + 2]
        rewards = store.rewards[first:stop].astype(float)
        if penalty is not None and store.terminated[episode]:
            rewards[-1] = penalty
        for t in range(len(rewards)):
            discounted = [0.9**k * r for k, r in enumerate(rewards[t:])]
            later = [0.9**k * r for k, r in enumerate(rewards[t + stride :])]
            wanted = [sum(discounted), sum(discounted[:stride]), sum(later)]
            assert made[first + t, [0, 6, 7]] == pytest.approx(wanted, abs=1e-4)


def test_chunks_do_not_change_what_a_stride_adds_up() -> None:
    store = samples.store()
    whole = transitions(store, layout(3))
    for rows in (1, 2, 5):
        parts = np.empty_like(whole)
        for first, chunk in transition_chunks(store, layout(3), rows):
            parts[first : first + len(chunk)] = chunk
        assert parts == pytest.approx(whole, abs=1e-5)


def test_a_window_takes_every_stride_th_step_of_its_episode() -> None:
    store = samples.store()
    rows = np.arange(len(store))[:, None].astype(np.float32)
    windows = VectorWindows(store, rows, layout(3), WindowConfig(length=3))
    batch = windows.batch(np.arange(len(windows)), np.random.default_rng(0))
    assert batch.starts is not None
    starts = [first + t for first, length in zip(store.offsets, store.lengths, strict=False) for t in range(length - 1)]
    for start, row, since in zip(starts, batch.values[..., 0].tolist(), batch.starts.tolist(), strict=True):
        stop = store.offsets[np.searchsorted(store.offsets, start, side="right")]
        assert row == [start + 3 * k if start + 3 * k < stop else 0.0 for k in range(3)]
        assert since == start - store.offsets[np.searchsorted(store.offsets, start, side="right") - 1]


def test_a_history_with_a_stride_looks_back_in_whole_strides() -> None:
    seen_so_far = EpisodeHistory(layout(2), 3, 1, torch.device("cpu"), 4.0)
    rng = np.random.default_rng(0)
    observations, rewards = rng.normal(size=(6, 1, 3)).astype(np.float32), rng.normal(size=(6, 1))
    for t in range(6):
        if t:
            seen_so_far.earn(torch.as_tensor(rewards[t - 1]).float())
        seen_so_far.observe(torch.as_tensor(observations[t]))
        seen_so_far.act(torch.zeros(1, 2))
        past = seen_so_far.transitions()[0]
        back = [t - 2 * k for k in range(min(t // 2, 2), 0, -1)]
        seen = np.array([observations[b, 0] for b in back]).reshape(-1, 3)
        assert past[:, 1:4].numpy() == pytest.approx(seen)
        wanted = [rewards[b, 0] + 0.9 * rewards[b + 1, 0] for b in back]
        assert past[:, 6].tolist() == pytest.approx(wanted, abs=1e-5)


def test_several_actions_of_a_plan_need_consecutive_steps() -> None:
    config = {"fields": {k: v for k, v in FIELDS.items() if k != "return"}, "discount": 0.9, "stride": 2}
    model = samples.model(Layout.from_config(config, 3, 2))
    planner = {"name": "beam", "beam_width": 2, "horizon": 3, "context": 3}
    with pytest.raises(ConfigError, match=r"plan_every=2 needs actions of consecutive steps.*has stride 2"):
        Policy(model, planner=planner, score={"name": "reward"}, plan_every=2)
    discount = Policy(model, planner=planner, score={"name": "reward"}).strategy.score
    assert discount.discount == pytest.approx(0.81)  # type: ignore[attr-defined]


@pytest.mark.parametrize("stride", [0, -1, 1.5, "2"])
def test_a_stride_is_a_number_of_steps(stride: Any) -> None:
    with pytest.raises(ConfigError, match=r"layout\.stride="):
        layout(stride)


def test_the_best_episodes_make_up_a_share_of_the_transitions() -> None:
    store = samples.store()
    returns, lengths = store.returns(), store.lengths
    for fraction in (0.05, 0.3, 0.5, 1.0):
        best = store.best(fraction)
        order = sorted(range(store.num_episodes), key=lambda e: -returns[e])
        taken = []
        while sum(lengths[taken]) < fraction * len(store):
            taken.append(order[len(taken)])
        assert sorted(best.returns()) == pytest.approx(sorted(returns[taken]))
        assert best.attributes["name"] == f"samples, best {100 * fraction:g} %"
    for wrong in (0.0, 1.1, -1.0):
        with pytest.raises(DataError, match=r"data.top_fraction=.* is outside \(0, 1\]"):
            store.best(wrong)


@pytest.mark.parametrize("terminate_truncated", [True, False])
def test_padding_of_vectors_carries_no_loss(terminate_truncated: bool) -> None:
    """Nobody acted past the end: an action of zeros there is nothing to learn, true end or not."""
    store = samples.store()
    assert store.terminated.any()
    windows = VectorWindows(
        store,
        transitions(store, layout(1)),
        layout(1),
        WindowConfig(length=4, terminate_truncated=terminate_truncated),
    )
    mask = windows.batch(np.arange(len(windows)), np.random.default_rng(0)).mask
    left = np.concatenate([np.arange(length, 1, -1) for length in store.lengths])  # steps to the end, from the start on
    assert mask.sum(1).tolist() == np.minimum(left, 4).tolist()


def test_values_are_padded_and_lack_of_a_goal_is_nan() -> None:
    store = samples.store()
    goal = {"dims": [1], "dropout": 1.0}
    values = transitions(store, layout(1, goal=goal))
    windows = VectorWindows(store, values, layout(1, goal=goal), WindowConfig(length=4))
    batch = windows.batch(np.arange(len(windows)), np.random.default_rng(0))
    assert batch.values.dtype == torch.float32
    assert batch.goal is not None
    assert batch.goal.isnan().all()
    kept = VectorWindows(store, values, layout(1, goal={**goal, "dropout": 0.0}), WindowConfig(length=4)).batch(
        np.arange(len(windows)), np.random.default_rng(0)
    )
    assert kept.goal is not None
    assert np.isin(kept.goal.numpy(), values[:, 2]).all()  # observation 1 is scalar 2: the return stands first
