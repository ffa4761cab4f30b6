"""Learnt and true parts of a `SwappedSearch`."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from seqrl import decoding
from seqrl.critics import Critic
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import join_actions
from seqrl.decoding.noise import draw, drop_tail
from seqrl.decoding.session import Session
from seqrl.evaluation.simulators import Simulator
from seqrl.evaluation.swapped_search import Candidates, Dynamics, Outcome, Valuation
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.planners._beams import Beams
from seqrl.types import Conditioning, TokenHistory

_ROWS = 200_000  # of the data, in which neighbours are looked for
_NEIGHBOURS = 16


def _look(model: TokenModel, observations: Tensor) -> TokenHistory:
    """The history of (R, O) observations without any past."""
    layout, rows = model.layout, len(observations)
    present = observations.new_zeros(rows, layout.size)
    present[:, layout.field("observation").slice] = observations
    past = present.new_zeros(rows, 0, layout.size)
    return model.history(past, present, Conditioning(model.encode_goals(None, rows)))


def _start(model: TokenModel, observations: Tensor, actions: Tensor | None = None) -> Session:
    """A session behind (R, O) observations and, where they are given, (R, A) actions, without any past."""
    session = decoding.start(model, _look(model, observations))
    if actions is not None:
        for token in model.encode_actions(actions).T:
            session.append(token)
    return session


class ModelCandidates(Candidates):
    """Actions drawn from a sequence model.

    Args:
        model: of tokens.
        tail_mass: drop the least likely tokens whose mass sums to less than this; None drops none.
        temperature: divides the logits; 0 takes the likeliest tokens.
    """

    def __init__(self, model: TokenModel, tail_mass: float | None = None, temperature: float = 1.0) -> None:
        self.model, self.tail_mass, self.temperature = model, tail_mass, temperature

    @property
    def num_draws(self) -> int:
        places = self.model.places("action")
        return places.stop - places.start

    def propose(self, observations: Tensor, uniform: Tensor) -> Tensor:
        model, session = self.model, _start(self.model, observations)
        tokens = torch.zeros(len(observations), model.tokens_per_step, dtype=torch.int64, device=observations.device)
        places = model.places("action")
        for number, place in enumerate(range(places.start, places.stop)):
            tokens[:, place] = draw(drop_tail(session.logits, self.tail_mass), uniform[:, number], self.temperature)
            if place + 1 < places.stop:
                session.append(tokens[:, place])
        return model.tokenizer.decode(tokens)[:, model.layout.field("action").slice]


class DataCandidates(Candidates):
    """Actions that the data took in states nearby: one of the nearest few, each dimension in its deviations.

    Args:
        store: the data.
        chunk: how many actions in a row one transition keeps.
    """

    num_draws = 1

    def __init__(self, store: EpisodeStore, chunk: int = 1) -> None:
        rows = np.unique(np.linspace(0, len(store) - 1, min(len(store), _ROWS)).astype(np.int64))
        observations = np.asarray(store.observations[rows], np.float64)
        self._scale = observations.std(0).clip(1e-6)
        self._tree = KDTree(observations / self._scale)
        self._actions = torch.from_numpy(np.asarray(join_actions(store, rows, chunk), np.float32))

    def propose(self, observations: Tensor, uniform: Tensor) -> Tensor:
        count = min(_NEIGHBOURS, len(self._actions))
        _, near = self._tree.query(observations.double().cpu().numpy() / self._scale, k=count)
        near = torch.from_numpy(np.asarray(near).reshape(len(observations), count))
        chosen = (uniform[:, 0].cpu() * count).long().clamp(max=count - 1)
        return self._actions[near.gather(1, chosen[:, None])[:, 0]].to(observations)


class UniformCandidates(Candidates):
    """Any action between (A,) bounds."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._low = torch.as_tensor(low, dtype=torch.float32).reshape(-1)
        self._high = torch.as_tensor(high, dtype=torch.float32).reshape(-1)

    @property
    def num_draws(self) -> int:
        return len(self._low)

    def propose(self, observations: Tensor, uniform: Tensor) -> Tensor:
        low, high = self._low.to(observations), self._high.to(observations)
        return low + uniform.to(observations) * (high - low)


class ModelDynamics(Dynamics):
    """What a sequence model imagines: expected reward, likeliest observation or the sum of it and the expected
    difference; termination tokens are an end."""

    def __init__(self, model: TokenModel) -> None:
        self.model = model

    def advance(self, observations: Tensor, actions: Tensor) -> Outcome:
        model, history = self.model, _look(self.model, observations)
        beams = Beams(decoding.start(model, history), model, history)
        given = model.encode_actions(actions)[:, None]
        everybody = torch.ones(1, dtype=torch.bool, device=observations.device)

        def likeliest(place: int) -> Tensor:
            return beams.logits.argmax(-1)

        for name in model.fields[model.fields.index("action") :]:
            beams.decode(name, likeliest, proposed=(everybody, given) if name == "action" else None)
        beams.advance()
        beams.decode("observation", likeliest)
        earned = beams.columns.get("reward")
        following = beams.columns["tokens"][:, 0, model.tokens_per_step :]
        over = (following == model.termination_token).any(1)
        return Outcome(
            observations.new_zeros(len(observations)) if earned is None else earned[:, 0, 0].to(observations),
            beams.find_observations()[:, 0].to(observations),
            over,
        )


def _expected(model: TokenModel, logits: Tensor, place: int) -> Tensor:
    """(R,) expectation of the scalar at a place, as `planner=beam` takes it."""
    centres = model.tokenizer.bin_centres(place).to(logits.dtype)
    return logits.softmax(-1)[..., :-1] @ centres


class SimulatorDynamics(Dynamics):
    """What an environment does; with a stride, the action is held where the layout keeps but one. The step of a
    true end earns the layout's penalty, as in the data; what the steps before it earned in its transition stays."""

    def __init__(self, simulator: Simulator, layout: Layout) -> None:
        self.simulator, self.layout = simulator, layout

    def advance(self, observations: Tensor, actions: Tensor) -> Outcome:
        states, wanted = observations.double().cpu().numpy(), actions.double().cpu().numpy()
        layout = self.layout
        repeat, penalty = layout.stride // layout.chunk, layout.termination_penalty
        following, rewards, over = self.simulator.step(states, wanted, layout.discount, repeat, end_reward=penalty)
        return Outcome(
            torch.from_numpy(rewards).to(observations),
            torch.from_numpy(following).to(observations),
            torch.from_numpy(over).to(observations.device),
        )


class CriticValuation(Valuation):
    """A critic's word: Q of the last transition, or its reward and V of what follows.

    Args:
        critic: of the run.
        use: `q` or `v`, as in `score=critic`.
        discount: gamma between two transitions.
    """

    def __init__(self, critic: Critic, use: str, discount: float) -> None:
        self.critic, self.use, self.discount = critic, use, discount
        self.reward_shift = critic.reward_shift

    def rate(self, observations: Tensor, actions: Tensor, outcome: Outcome) -> Tensor:
        if self.use == "q":
            return self.critic.q(observations, actions)
        values = self.critic.v(outcome.observations).masked_fill(outcome.over, 0.0)
        return outcome.rewards + self.reward_shift + self.discount * values


class FieldValuation(Valuation):
    """The model's value field: the return-to-go that the data would have after the transition."""

    def __init__(self, model: TokenModel, discount: float) -> None:
        self.model, self.discount = model, discount

    def rate(self, observations: Tensor, actions: Tensor, outcome: Outcome) -> Tensor:
        model, session = self.model, _start(self.model, observations, actions)
        scalars = observations.new_zeros(len(observations), model.layout.size)
        scalars[:, model.layout.field("reward").start] = outcome.rewards
        if model.layout.has("difference"):
            scalars[:, model.layout.field("difference").slice] = outcome.observations - observations
        tokens = model.tokenizer.encode(scalars)
        for name in model.fields[model.fields.index("action") + 1 : model.fields.index("value")]:
            for token in tokens[:, model.places(name)].T:
                session.append(token)
        values = _expected(model, session.logits, model.places("value").start).to(outcome.rewards)
        return outcome.rewards + self.discount * values.masked_fill(outcome.over, 0.0)


class RolloutValuation(Valuation):
    """What a policy really earns from there: its actions in the simulator for so many transitions.

    Args:
        dynamics: the true ones.
        policy: proposes what is carried out.
        transitions: how far; what comes later is worth nothing.
        discount: gamma between two transitions.
    """

    def __init__(self, dynamics: Dynamics, policy: Candidates, transitions: int, discount: float) -> None:
        self.dynamics, self.policy, self.transitions, self.discount = dynamics, policy, transitions, discount

    def rate(self, observations: Tensor, actions: Tensor, outcome: Outcome) -> Tensor:
        total, power = outcome.rewards.clone(), self.discount
        states, over = outcome.observations, outcome.over.clone()
        for _ in range(self.transitions):
            alive = torch.nonzero(~over)[:, 0]
            if not len(alive):
                break
            draws = torch.full((len(alive), self.policy.num_draws), 0.5, dtype=torch.float64, device=states.device)
            found = self.dynamics.advance(states[alive], self.policy.propose(states[alive], draws))
            total[alive] += power * found.rewards
            states = states.clone()
            states[alive] = found.observations
            over[alive] = found.over
            power *= self.discount
        return total


class ActorCandidates(Candidates):
    """What a critic's own policy does, with Gaussian noise if there shall be several.

    Args:
        critic: of the run.
        noise: its standard deviation, in halves of the range of the data's actions, as `planner.actor_noise`; 0 takes
            no draws.
        chunk: how many actions in a row one transition keeps; all of them get the same draws.
    """

    def __init__(self, critic: Critic, noise: float = 0.0, chunk: int = 1) -> None:
        self.critic, self.noise, self.chunk = critic, noise, chunk

    @property
    def num_draws(self) -> int:
        return len(self.critic.action_low) // self.chunk if self.noise else 0

    def propose(self, observations: Tensor, uniform: Tensor) -> Tensor:
        actions = self.critic.act(observations)
        if self.noise:
            low, high = self.critic.action_low, self.critic.action_high
            normal = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9)).to(actions).repeat(1, self.chunk)
            actions = (actions + self.noise * (high - low) / 2 * normal).clamp(low, high)
        return actions.to(observations)
