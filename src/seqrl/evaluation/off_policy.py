"""What a policy would earn, estimated from logged data without an environment."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from seqrl.acting.policy import Policy
from seqrl.critics import Critic, Transitions
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.evaluation.statistics import bootstrap
from seqrl.registry import CRITIC

_ENOUGH = 3.0  # time constants: 95 % of the way
_AT_ONCE = 256  # episodes that a policy looks at together
Advance = Callable[[int], None]


@dataclass(frozen=True)
class FitSettings:
    """How Q is fitted.

    Attributes:
        steps, batch_size, learning_rate: of Adam.
        fits: how many times, from other first weights.
        seed: of weights and batches.
        critic: config of the critic that is fitted.
    """

    steps: int = 20_000
    batch_size: int = 256
    learning_rate: float = 3e-4
    fits: int = 3
    seed: int = 0
    critic: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class OffPolicyEstimate:
    """Discounted returns from the first states of the episodes, in the data's units.

    Attributes:
        value: of the policy, mean over fits and first states.
        value_ci95: over first states, as far as they are a sample; says nothing of the fit. None for one episode.
        fits: the value of each fit; how far they lie apart says how much the data decide.
        control: the same estimate of the data's own behaviour, whose return is known.
        behaviour: the discounted return that the data's episodes earned, as far as they were recorded.
        distance: mean distance of the policy's actions from the recorded ones, in halves of the range of the data's.
        discount: gamma of a step.
        settled: share of the way to their end that values can have come in the steps of a fit, at most 1; None where
            the critic does not say.
        episodes, transitions: that were looked at.
    """

    value: float
    value_ci95: list[float] | None
    fits: list[float]
    control: float
    behaviour: float
    distance: float
    discount: float
    episodes: int
    transitions: int
    settled: float | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def choose_actions(policy: Policy, store: EpisodeStore, advance: Advance = lambda rows: None) -> np.ndarray:
    """(N, A) what a policy chooses in every recorded step, having seen what was recorded until then.

    Args:
        policy: with a plan for every step.
        advance: told how many more steps are done.

    Raises:
        ConfigError: a strategy that wants goals, or a layout with strides.
    """
    layout = policy.model.layout
    if policy.strategy.wants_goals:
        raise ConfigError("the strategy decodes toward a goal, and recorded episodes have none; choose another")
    if layout.stride > 1 or policy.plan_every > 1:
        raise ConfigError("a policy is estimated step by step; use plan_every=1, and a checkpoint with layout.stride=1")
    found = np.zeros((len(store), layout.action_size), np.float32)
    order = np.argsort(-store.lengths, kind="stable")
    for first in range(0, len(order), _AT_ONCE):
        episodes = order[first : first + _AT_ONCE]
        starts, lengths = store.offsets[episodes], store.lengths[episodes]
        policy.reset(len(episodes), environments=episodes)
        for step in range(int(lengths.max())):
            active = step < lengths
            rows = starts + np.minimum(step, lengths - 1)
            extras = _extras_at(store, layout.contexts, rows) | _extras_at(
                store, layout.outcomes, np.maximum(rows - 1, 0)
            )
            rewards = store.rewards[np.maximum(rows - 1, 0)] if step else None
            chosen = policy.act(np.asarray(store.observations[rows]), rewards, active, extras)
            found[rows[active]] = chosen[active]
            policy.correct(np.asarray(store.actions[rows]))
            advance(int(active.sum()))
    return found


def _extras_at(store: EpisodeStore, fields: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {field.name: np.asarray(store.extras[field.name][rows], np.float32) for field in fields}


def fit_values(
    store: EpisodeStore,
    actions: np.ndarray,
    discount: float,
    settings: FitSettings | None = None,
    advance: Advance = lambda steps: None,
) -> np.ndarray:
    """(fits, E) values of the first state of every episode, of the policy that takes (N, A) actions.

    Raises:
        ConfigError: no transition whose next observation is known, or a critic that cannot be fitted so.
    """
    settings = settings or FitSettings()
    rows, terminated = _usable_rows(store)
    following = np.minimum(rows + 1, len(store) - 1)
    arrays = [store.observations[rows], store.actions[rows], store.rewards[rows], store.observations[following]]
    batch = [torch.from_numpy(np.asarray(array, np.float32)) for array in arrays]
    ends, taken = torch.from_numpy(terminated), torch.from_numpy(np.asarray(actions[following], np.float32))
    firsts = store.offsets[:-1]
    states = torch.from_numpy(np.asarray(store.observations[firsts], np.float32))
    chosen = torch.from_numpy(np.asarray(actions[firsts], np.float32))
    values = []
    for number in range(settings.fits):
        generator = torch.Generator().manual_seed(settings.seed + number)
        critic = _build(store, discount, settings, number)
        optimizer = torch.optim.Adam([p for p in critic.parameters() if p.requires_grad], settings.learning_rate)
        critic.train()
        for _ in range(settings.steps):
            index = torch.randint(len(rows), (settings.batch_size,), generator=generator)
            loss = critic.loss(Transitions(*(each[index] for each in (*batch, ends, taken))))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            advance(1)
        with torch.no_grad():
            values.append(critic.eval().q(states, chosen).double().numpy())
    return np.stack(values)


def count_steps(store: EpisodeStore, discount: float, settings: FitSettings | None = None) -> int | None:
    """How many steps a fit needs for values to come within 5 % of their end: three time constants of its slow copy.

    Returns:
        None where the critic does not say, and without a discount.
    """
    settings = settings or FitSettings()
    constant = getattr(_build(store, discount, settings, 0), "time_constant", math.inf)
    return math.ceil(_ENOUGH * constant) if math.isfinite(constant) else None


def find_settled(steps: int, needed: int | None) -> float | None:
    """The share of the way to their end that values come in so many steps, where `needed` are for 95 %."""
    return None if needed is None else 1.0 - math.exp(-_ENOUGH * steps / needed)


def _usable_rows(store: EpisodeStore) -> tuple[np.ndarray, np.ndarray]:
    """(n,) rows whose next observation is known or that end truly, and (n,) bool which end."""
    ends = np.zeros(len(store), bool)
    terminated = np.zeros(len(store), bool)
    ends[store.offsets[1:] - 1] = True
    terminated[store.offsets[1:][store.terminated] - 1] = True
    rows = np.flatnonzero(~ends | terminated)
    if not len(rows):
        raise ConfigError("no episode holds a transition with its next observation; nothing can be estimated")
    return rows, terminated[rows]


def _build(store: EpisodeStore, discount: float, settings: FitSettings, number: int) -> Critic:
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed + number)
        sizes = {"observation_size": store.observations.shape[1], "action_size": store.actions.shape[1]}
        critic: Critic = CRITIC.build(settings.critic or {"name": "fqe"}, **sizes, discount=discount)
    if critic.reward_shift:
        raise ConfigError("critic.reward_shift moves values by what cannot be taken out again; use 0")
    steps = [np.asarray(array) for array in (store.observations, store.actions)]
    critic.fit(*(torch.from_numpy(each if each.flags.writeable else each.copy()) for each in steps))  # of mapped files
    return critic


def estimate_return(
    policy: Policy, store: EpisodeStore, settings: FitSettings | None = None, *, advance: Advance = lambda count: None
) -> OffPolicyEstimate:
    """Estimate the discounted return of a policy by fitted Q evaluation, with the data's own behaviour as a control.

    Args:
        policy: with a plan for every step.
        store: episodes of one behaviour or many, with actions of real numbers.
        advance: told how many more steps of the policy and of the fits are done.

    Raises:
        ConfigError: discrete actions or observations, or whatever `choose_actions` and `fit_values` refuse.
    """
    settings, layout = settings or FitSettings(), policy.model.layout
    if store.sizes["categories"].keys() & {"observation", "action"}:
        raise ConfigError("fitted Q evaluation works on vectors, and these data are discrete")
    discount = layout.discount
    actions = choose_actions(policy, store, advance)
    values = fit_values(store, actions, discount, settings, advance)
    recorded = np.asarray(store.actions)
    control = fit_values(store, recorded, discount, settings, advance)
    span = np.ptp(recorded, axis=0) / 2
    apart = np.abs(actions - recorded)[:, span > 0] / span[span > 0]
    estimate = bootstrap(values.mean(0))
    return OffPolicyEstimate(
        value=float(values.mean()),
        value_ci95=estimate.interval,
        fits=values.mean(1).tolist(),
        control=float(control.mean()),
        behaviour=float(_discounted_returns(store, discount).mean()),
        distance=float(apart.mean()) if apart.size else 0.0,
        discount=discount,
        episodes=store.num_episodes,
        transitions=len(store),
        settled=find_settled(settings.steps, count_steps(store, discount, settings)),
    )


def _discounted_returns(store: EpisodeStore, discount: float) -> np.ndarray:
    """(E,) of each episode, as far as it was recorded."""
    steps = np.arange(len(store)) - np.repeat(store.offsets[:-1], store.lengths)
    return np.add.reduceat(store.rewards.astype(np.float64) * discount**steps, store.offsets[:-1])
