"""Contracts of the slot `critic`."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.critics import Critic, Transitions
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract, close, require, shape

_STEPS, _LEARNING_RATE = 200, 5e-3


def shapes_and_bounds(component: Component) -> None:
    """Values are one finite number per row, in any number of leading dimensions; actions lie in the data's range."""
    critic, batch = _fitted(component), _batch()
    for lead in ((), (4,), (2, 2)):
        count = torch.Size(lead).numel()
        observations = 3 * batch.observations[:count].reshape(*lead, -1)  # beyond the data as well
        actions = batch.actions[:count].reshape(*lead, -1)
        for name, value in (("q", critic.q(observations, actions)), ("v", critic.v(observations))):
            require(
                value.shape == lead and bool(value.isfinite().all()),
                f"{name} of {tuple(observations.shape)} observations has {shape(value)}, or is not finite; {lead} "
                "finite numbers are needed",
            )
        proposed = critic.act(observations)
        require(proposed.shape == actions.shape, f"act gives {shape(proposed)}; {tuple(actions.shape)} is needed")
        low, high = batch.actions.amin(0) - 1e-5, batch.actions.amax(0) + 1e-5
        require(
            bool(((proposed >= low) & (proposed <= high)).all()),
            f"actions reach from {proposed.min():.3g} to {proposed.max():.3g}, beyond those of the data",
        )


def rows_are_judged_one_by_one(component: Component) -> None:
    """The value of a row depends neither on the rows beside it nor on what was asked before."""
    critic, batch = _fitted(component), _batch()
    together = _answers(critic, batch)
    alone = _answers(critic, _rows(batch, torch.tensor([2])))
    require(
        all(close(a, t[2:3], 1e-5) for a, t in zip(alone, together, strict=True)),
        "a row gets other values alone than in a batch; compute row by row",
    )
    again = _answers(critic, batch)
    require(
        all(torch.equal(a, t) for a, t in zip(again, together, strict=True)),
        "the same rows get other values the second time; nothing may be drawn or kept in eval mode",
    )


def statistics_travel(component: Component) -> None:
    """What `fit` learnt lies in buffers: a new instance with the same state dict gives the same values."""
    critic, batch = _fitted(component), _batch()
    other = _build(component)
    other.load_state_dict(critic.state_dict())
    require(
        all(torch.equal(a, b) for a, b in zip(_answers(other.eval(), batch), _answers(critic, batch), strict=True)),
        "a critic that was loaded from a state dict gives other values; keep statistics in buffers",
    )


def loss_is_differentiable(component: Component) -> None:
    """`loss` gives scalars, `loss` among them, which carries gradients; in eval mode nothing moves."""
    critic, batch = _fitted(component), _batch()
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    losses = critic.loss(batch)
    require(
        "loss" in losses and all(isinstance(v, Tensor) and v.ndim == 0 for v in losses.values()),
        "loss must return a dict of scalar tensors that has a 'loss'",
    )
    require(
        bool(losses["loss"].isfinite()) and losses["loss"].requires_grad,
        "the loss is not finite, or carries no gradient",
    )
    kept = all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
    require(kept, "in eval mode the loss changes the critic; move slow copies in training mode only")


def only_true_ends_cut(component: Component) -> None:
    """What follows a true end does not matter; what follows any other step does, time limits included."""
    critic, batch = _fitted(component), _batch()
    other = batch.next_observations + 1.0
    for terminated in (True, False):
        ends = torch.full_like(batch.terminated, terminated)
        losses = [
            critic.loss(Transitions(batch.observations, batch.actions, batch.rewards, following, ends))["loss"]
            for following in (batch.next_observations, other)
        ]
        same = close(losses[0], losses[1])
        if terminated:
            require(same, "the state after a true end changes the loss; nothing is earned after it")
        else:
            require(not same, "the next state does not change the loss; only true ends cut a return")


def learns_rewards_in_their_units(component: Component) -> None:
    """Where every step is a true end, Q becomes the reward (plus `reward_shift`), in the units of the data."""
    critic, batch = _fitted(component), _batch()
    rewards = 5.0 * batch.observations[:, 0]
    single = Transitions(
        batch.observations, batch.actions, rewards, batch.next_observations, torch.ones_like(batch.terminated)
    )
    optimizer = torch.optim.Adam([p for p in critic.train().parameters() if p.requires_grad], lr=_LEARNING_RATE)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        critic.loss(single)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        error = critic.eval().q(single.observations, single.actions) - (rewards + critic.reward_shift)
    share = float(error.square().mean() / rewards.var())
    require(
        share < 0.1,
        f"after {_STEPS} steps on single rewards Q misses {100 * share:.0f} % of their variance; it must be under 10 %",
    )


CONTRACTS: tuple[Contract, ...] = (
    shapes_and_bounds,
    rows_are_judged_one_by_one,
    statistics_travel,
    loss_is_differentiable,
    only_true_ends_cut,
    learns_rewards_in_their_units,
)


def _build(component: Component) -> Critic:
    torch.manual_seed(0)
    critic: Critic = component.build(observation_size=samples.sizes()[0], action_size=samples.sizes()[1], discount=0.9)
    return critic


def _fitted(component: Component) -> Critic:
    critic, batch = _build(component), _batch()
    critic.fit(batch.observations, batch.actions)
    return critic.eval()


def _batch() -> Transitions:
    """All transitions of the sample episodes whose next observation is known, or that end truly."""
    store = samples.store()
    following = torch.from_numpy(store.observations).roll(-1, 0)
    last = torch.zeros(len(store), dtype=torch.bool)
    last[store.offsets[1:] - 1] = True
    terminated = torch.zeros_like(last)
    terminated[store.offsets[1:][store.terminated] - 1] = True
    kept = ~last | terminated
    arrays = (torch.from_numpy(array) for array in (store.observations, store.actions, store.rewards))
    return Transitions(*(array[kept] for array in (*arrays, following, terminated)))


def _rows(batch: Transitions, rows: Tensor) -> Transitions:
    return Transitions(
        batch.observations[rows],
        batch.actions[rows],
        batch.rewards[rows],
        batch.next_observations[rows],
        batch.terminated[rows],
    )


def _answers(critic: Critic, batch: Transitions) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        return critic.q(batch.observations, batch.actions), critic.v(batch.observations), critic.act(batch.observations)
