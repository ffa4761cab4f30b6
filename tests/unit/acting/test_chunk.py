"""Transitions that keep all their actions, against loops over single steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.episode_history import EpisodeHistory
from seqrl.acting.policy import Policy
from seqrl.config import CriticConfig
from seqrl.critics import build_critic
from seqrl.data.returns import transition_chunks, transitions
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.testing import samples
from seqrl.training.critic_module import TransitionDataModule, TransitionRows

FIELDS = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}


def section(number: int, **options: Any) -> dict[str, Any]:
    return {"fields": FIELDS, "discount": 0.9, "stride": number, "chunk": number} | options


def layout(number: int, **options: Any) -> Layout:
    return Layout.from_config(section(number, **options), samples.OBSERVATION_SIZE, samples.ACTION_SIZE)


def following_actions(first: int, stop: int, chunk: int) -> list[float]:
    store = samples.store()
    rows = [min(first + step, stop - 1) for step in range(chunk)]
    return [float(number) for row in rows for number in store.actions[row]]


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_a_transition_holds_its_actions_in_a_row_and_the_last_one_past_the_end(chunk: int, rows: int) -> None:
    store, made = samples.store(), layout(chunk)
    values = np.empty((len(store), made.size), np.float32)
    for first, part in transition_chunks(store, made, rows):
        values[first : first + len(part)] = part
    assert made.field("action").size == chunk * samples.ACTION_SIZE == chunk * made.action_size
    for first, stop in zip(store.offsets, store.offsets[1:], strict=False):
        for row in range(first, stop):
            wanted = following_actions(row, stop, chunk)
            assert values[row, made.field("action").slice].tolist() == pytest.approx(wanted)


def test_all_else_is_that_of_the_stride() -> None:
    chunked, strided = (layout(3, chunk=chunk) for chunk in (3, 1))
    ours, theirs = (transitions(samples.store(), each) for each in (chunked, strided))
    for name in ("observation", "reward", "value"):
        assert np.array_equal(ours[:, chunked.field(name).slice], theirs[:, strided.field(name).slice])
    first = chunked.field("action").start
    assert np.array_equal(ours[:, first : first + samples.ACTION_SIZE], theirs[:, strided.field("action").slice])


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_critic_learns_of_whole_chunks(chunk: int) -> None:
    store, made = samples.store(), layout(chunk)
    rows = TransitionRows(store, made, np.arange(store.num_episodes))
    found, number = rows.take(np.arange(len(rows))), 0
    for first, stop, ends in zip(store.offsets, store.offsets[1:], store.terminated, strict=False):
        for row in range(first, stop if ends else max(first, stop - chunk)):
            assert found.actions[number].tolist() == pytest.approx(following_actions(row, stop, chunk))
            number += 1
    assert number == len(rows)
    config = CriticConfig.from_dict({"layout": section(chunk), "critic": {"name": "iql", "dim": 4}})
    critic = build_critic(config, DataSizes(samples.OBSERVATION_SIZE, samples.ACTION_SIZE))
    assert critic is not None
    critic.fit(*TransitionDataModule(store, made, batch_size=4, validation_fraction=0.0).statistics())
    assert critic.act(found.observations).shape == found.actions.shape
    assert critic.q(found.observations, found.actions).isfinite().all()


def test_a_history_tells_the_actions_of_whole_chunks() -> None:
    made = layout(2)
    seen = EpisodeHistory(made, 3, 1, torch.device("cpu"), None)
    actions = torch.randn(7, 1, samples.ACTION_SIZE, generator=torch.Generator().manual_seed(0))
    for t in range(7):
        if t:
            seen.earn(torch.ones(1))
        seen.observe(torch.full((1, samples.OBSERVATION_SIZE), float(t)))
        seen.act(actions[t])
        past = seen.transitions()[0]
        back = [t - 2 * k for k in range(min(t // 2, 2), 0, -1)]
        assert past[:, 0].tolist() == [float(b) for b in back]
        wanted = [torch.cat([actions[b, 0], actions[b + 1, 0]]).tolist() for b in back]
        assert past[:, made.field("action").slice].tolist() == wanted


@pytest.mark.parametrize("planner", [{"name": "sample"}, {"name": "random"}, {"name": "zero"}, {"name": "beam"}])
@pytest.mark.parametrize("plan_every", [1, 2])
def test_a_plan_is_carried_out_action_by_action(planner: dict[str, Any], plan_every: int) -> None:
    options = {"beam_width": 2, "horizon": 2, "context": 2} if planner["name"] == "beam" else {}
    policy = Policy(samples.model(layout(2)), planner={**planner, **options}, plan_every=plan_every)
    policy.reset(2)
    size, carried = samples.ACTION_SIZE, []
    for t in range(3):
        earned = None if t == 0 else np.zeros(2)
        carried.append(policy.act(np.zeros((2, samples.OBSERVATION_SIZE), np.float32), earned))
        if t % plan_every == 0:
            assert policy.plan is not None
            planned = policy.plan.actions[:, 0].numpy()
            assert planned.shape == (2, 2 * size)
        step = t % plan_every
        assert np.array_equal(carried[-1], planned[:, step * size : (step + 1) * size])


def test_what_a_chunk_cannot_be_is_refused() -> None:
    for stride, chunk in ((4, 2), (1, 3), (2, 4)):
        with pytest.raises(
            ConfigError, match=rf"layout\.chunk={chunk} keeps neither .* use layout\.chunk=1, or layout\.stride={chunk}"
        ):
            layout(chunk, stride=stride)
    with pytest.raises(ConfigError, match=r"layout\.chunk="):
        layout(2, chunk=0)
    with pytest.raises(ConfigError, match=r"layout\.chunk=2 is for vectors, and these actions are discrete"):
        Layout.from_config(section(2), 3, 1, {"action": 4})
    planner = {"name": "beam", "beam_width": 2, "horizon": 2, "context": 2}
    with pytest.raises(ConfigError, match=r"plan_every=5 is outside \[1, 4\]"):
        Policy(samples.model(layout(2)), planner=planner, plan_every=5)
    with pytest.raises(ConfigError, match=r"has stride 2; use plan_every=1, or train with layout\.chunk=2"):
        Policy(samples.model(layout(2, chunk=1)), planner=planner, plan_every=2)
