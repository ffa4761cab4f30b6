"""A ladder of a checkpoint: its parts, their true counterparts, and the episodes of each rung."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.checkpoints.loaded import Loaded
from seqrl.checkpoints.loading import load, load_critic
from seqrl.config import EvaluationConfig
from seqrl.critics import Critic
from seqrl.data.episodes import EpisodeStore
from seqrl.envs import make_environments
from seqrl.errors import ConfigError
from seqrl.evaluation.candidate_ranking import Ranking, pick_states, rank_candidates
from seqrl.evaluation.ladder import ALL_SWAPS, LEARNT, SHORT_SWAPS, Ladder, LadderSettings, Rung, Swap, judge_rungs
from seqrl.evaluation.protocol import run_episodes
from seqrl.evaluation.rollout import Episodes
from seqrl.evaluation.search_parts import (
    ActorCandidates,
    CriticValuation,
    DataCandidates,
    FieldValuation,
    MazeValuation,
    ModelCandidates,
    ModelDynamics,
    RolloutValuation,
    SimulatorDynamics,
    UniformCandidates,
)
from seqrl.evaluation.simulators import simulator_of
from seqrl.evaluation.swapped_search import Candidates, Dynamics, Parts, SwappedSearch, Valuation
from seqrl.evaluation.training_data import load_training_data
from seqrl.models import Model
from seqrl.models.token import TokenModel
from seqrl.registry import CONDITION, SCORE
from seqrl.worlds.environments import is_maze, maze_of

_FAST = 0.95  # quantile of the data's speeds that a true value drives at
Decoding = tuple[dict[str, Any], dict[str, Any] | None]  # configs of planner and score
_GREEDY: Decoding = ({"name": "sample", "temperature": 0}, None)
_ACTOR: Decoding = ({"name": "actor"}, None)
_MOST_ACTION = 1e3  # where an environment has no bound


@dataclass(frozen=True)
class Choices:
    """Every part that a rung can be made of, by the names of `Swap`."""

    dynamics: dict[str, Dynamics]
    value: dict[str, Valuation]
    candidates: dict[str, Candidates]
    learnt_value: str
    true_value: str
    policy: Candidates | None = None  # of rollouts; None for a beam

    def parts(self, swap: Swap) -> Parts:
        return Parts(self.dynamics[swap.dynamics], self.value[swap.value], self.candidates[swap.candidates])


def diagnose_checkpoint(
    checkpoint: Path, settings: LadderSettings, *, tell: Callable[[Rung], None] = lambda rung: None
) -> Ladder:
    """Climb the ladder of a checkpoint.

    Args:
        checkpoint: a file.
        tell: is shown every rung when it is done.

    Raises:
        ConfigError: data other than those that the model was trained on, or without an environment, or with one that
            cannot be put into a state; a model of no tokens, or one without rewards or any value.
        DataError: the data of the run are not there any more.
    """
    loaded, critic = load(checkpoint), load_critic(checkpoint)
    env_id = loaded.dataset.env_id
    if env_id is None:
        raise ConfigError("the data of this checkpoint name no environment, so that there is no true simulator")
    store = load_training_data(loaded, "the search is judged in states of the data")
    choices = gather_choices(loaded, critic, store, env_id, settings)
    beside = [_climb("greedy imitation", _GREEDY, loaded, critic, env_id, settings)]
    if critic is not None:
        beside.append(_climb("critic's policy", _ACTOR, loaded, critic, env_id, settings))
    beside.append(_climb("own search", _own_search(critic, settings), loaded, critic, env_id, settings))
    for rung in beside:
        tell(rung)
    rungs: list[Rung] = []
    ranking = None
    for swap in SHORT_SWAPS if settings.short else ALL_SWAPS:
        rung, episodes = climb_swapped(swap, choices.parts(swap), loaded.model, env_id, settings, choices.policy)
        rungs.append(rung)
        tell(rung)
        if swap == LEARNT:
            ranking = _rank(choices, loaded.model, episodes, settings)
    assert ranking is not None
    return Ladder(
        str(checkpoint),
        env_id,
        loaded.seed,
        choices.learnt_value,
        choices.true_value,
        settings,
        rungs,
        beside,
        judge_rungs(rungs),
        ranking,
    )


def _rank(choices: Choices, model: Model, episodes: Episodes, settings: LadderSettings) -> Ranking:
    """How the model orders the candidates of the learnt search, in states that it met."""
    learnt, true = (
        build_search(choices.parts(swap), model, settings, choices.policy) for swap in (LEARNT, Swap("simulator"))
    )
    states = pick_states(episodes.observations, episodes.lengths, model.layout.stride)
    return rank_candidates(learnt, true, states, model.layout.field("action").size, seed=settings.seed)


def gather_choices(
    loaded: Loaded, critic: Critic | None, store: EpisodeStore, env_id: str, settings: LadderSettings
) -> Choices:
    """Learnt and true parts of a checkpoint's search.

    Raises:
        ConfigError: see `diagnose_checkpoint`.
    """
    model = loaded.model
    if not isinstance(model, TokenModel):
        raise ConfigError(f"seqrl diagnose decodes models of tokens, and this checkpoint's is one of {model.made_of}")
    layout = model.layout
    layout.field("reward")
    if layout.has("return"):
        raise ConfigError("seqrl diagnose imagines no desired return; give a checkpoint of layout=tt")
    if layout.contexts or layout.outcomes:
        raise ConfigError("seqrl diagnose knows no extras; give a checkpoint of layout=tt as it is")
    if layout.stride > 1 and "action" in layout.categories:
        raise ConfigError("seqrl diagnose holds actions for a stride, which discrete ones need not mean; use stride 1")
    dynamics: dict[str, Dynamics] = {
        "model": ModelDynamics(model),
        "simulator": SimulatorDynamics(simulator_of(env_id), layout),
    }
    learnt, said = _learnt_value(model, critic, settings)
    true, truly = _true_value(model, critic, dynamics["simulator"], store, env_id, settings)
    envs = make_environments(env_id, 1)
    bounds = (envs.action_low, envs.action_high)
    envs.close()
    low, high = (np.tile(np.clip(each, -_MOST_ACTION, _MOST_ACTION).reshape(-1), layout.chunk) for each in bounds)
    candidates: dict[str, Candidates] = {
        "model": _learnt_candidates(model, critic, settings),
        "data": DataCandidates(store, layout.chunk),
        "uniform": UniformCandidates(low, high),
    }
    policy = _policy_of(model, critic) if settings.search == "rollouts" else None
    return Choices(dynamics, {"learnt": learnt, "true": true}, candidates, said, truly, policy)


def _learnt_candidates(model: TokenModel, critic: Critic | None, settings: LadderSettings) -> Candidates:
    """The model's own draws, or actions near those of the critic's policy."""
    if settings.actor_noise is None:
        return ModelCandidates(model, settings.tail_mass)
    if critic is None:
        raise ConfigError("--actor-noise is added to a critic's policy, and the run has no critic; leave it out")
    return ActorCandidates(critic, settings.actor_noise, model.layout.chunk)


def _learnt_value(model: TokenModel, critic: Critic | None, settings: LadderSettings) -> tuple[Valuation, str]:
    layout = model.layout
    if critic is not None:
        return CriticValuation(critic, settings.use, layout.step_discount), f"{settings.use.upper()} of the critic"
    layout.field("value")
    return FieldValuation(model, layout.step_discount), "the model's value field"


def _true_value(
    model: TokenModel,
    critic: Critic | None,
    dynamics: Dynamics,
    store: EpisodeStore,
    env_id: str,
    settings: LadderSettings,
) -> tuple[Valuation, str]:
    """That of the shortest way in a maze; elsewhere what a policy earns in the simulator."""
    layout = model.layout
    if is_maze(env_id):
        maze, speed = maze_of(env_id), _fast_speed(store)
        valuation = MazeValuation(maze, maze.target, speed, layout.discount, layout.stride)
        return valuation, f"the shortest way to the target at {speed:.3f} a step, and staying there"
    policy, count = _policy_of(model, critic), settings.value_transitions
    who = "greedy imitation" if critic is None else "the critic's policy"
    return (
        RolloutValuation(dynamics, policy, count, layout.step_discount),
        f"what {who} earns in {count} further transitions of the simulator",
    )


def _policy_of(model: TokenModel, critic: Critic | None) -> Candidates:
    """That of the critic; without one, greedy imitation."""
    return ModelCandidates(model, temperature=0.0) if critic is None else ActorCandidates(critic)


def _fast_speed(store: EpisodeStore) -> float:
    """Distance that the data cover in one of their faster steps."""
    positions = np.asarray(store.observations[:, :2], np.float64)
    lengths = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    inside = np.ones(len(lengths), bool)
    inside[store.offsets[1:-1] - 1] = False
    return float(max(np.quantile(lengths[inside], _FAST), 1e-6))


def build_search(
    parts: Parts, model: Model, settings: LadderSettings, policy: Candidates | None = None
) -> SwappedSearch:
    """A search that is made of some parts, and perhaps of a policy that it follows."""
    return SwappedSearch(
        parts,
        discount=model.layout.step_discount,
        beam_width=settings.beam_width,
        n_expand=settings.n_expand,
        horizon=settings.horizon,
        policy=policy,
    )


def climb_swapped(
    swap: Swap, parts: Parts, model: Model, env_id: str, settings: LadderSettings, policy: Candidates | None = None
) -> tuple[Rung, Episodes]:
    """Run the episodes of `build_search`."""
    search = build_search(parts, model, settings, policy)
    likelihood = SCORE.build({"name": "likelihood"}, discount=model.layout.step_discount)
    strategy = Strategy(search, CONDITION.build({"name": "none"}), likelihood)
    policy_of_search = Policy(model, strategy, seed=settings.seed, plan_every=settings.plan_every)
    return _run(swap.name, swap, policy_of_search, env_id, settings)


def _climb(
    name: str,
    decoding: Decoding,
    loaded: Loaded,
    critic: Critic | None,
    env_id: str,
    settings: LadderSettings,
) -> Rung:
    """Run the episodes of a strategy beside the ladder; of a plan of one transition as much as it holds."""
    planner, score = decoding
    held = settings.plan_every if "horizon" in planner else min(settings.plan_every, loaded.model.layout.chunk)
    policy = Policy(loaded.model, planner=planner, score=score, critic=critic, seed=settings.seed, plan_every=held)
    return _run(name, None, policy, env_id, settings)[0]


def _own_search(critic: Critic | None, settings: LadderSettings) -> Decoding:
    """The product's search with the settings of the ladder."""
    score = {"name": "reward"} if critic is None else {"name": "critic", "use": settings.use}
    if settings.search == "rollouts" and critic is not None:
        count = settings.beam_width * settings.n_expand
        noise = settings.actor_noise
        given = {
            "actor_share": 1 / count if noise is None else 1.0,
            "actor_noise": noise or 0.0,
            "follow": "actor",
            "k_obs": 1,
            "cdf_act": settings.tail_mass,
        }
        return {"name": "rollouts", "candidates": count, "horizon": settings.horizon, **given}, score
    proposals = {} if settings.actor_noise is None else {"actor_share": 1.0, "actor_noise": settings.actor_noise}
    planner = {
        **proposals,
        "name": "beam",
        "beam_width": settings.beam_width,
        "n_expand": settings.n_expand,
        "horizon": settings.horizon,
        "context": None,
        "cdf_act": settings.tail_mass,
    }
    return planner, score


def _run(name: str, swap: Swap | None, policy: Policy, env_id: str, settings: LadderSettings) -> tuple[Rung, Episodes]:
    goals = None
    if settings.start_cells is not None:
        goals = [maze_of(env_id).target.tolist()]
    config = EvaluationConfig.from_dict(
        {
            "planner": {"name": "zero"},
            "condition": {"name": "none"},
            "score": {"name": "likelihood"},
            "label": name,
            "num_episodes": settings.episodes,
            "max_steps": settings.max_steps,
            "seed": settings.seed,
            "goals": goals,
            "start_cells": None if settings.start_cells is None else [list(cell) for cell in settings.start_cells],
            "min_cells": 0,
        }
    )
    began = time.process_time()
    found = run_episodes(config, policy, env_id)
    success = None if goals is None else found.results["success"][:, 0]
    rung = Rung.of(name, swap, found.results["returns"][:, 0], success, time.process_time() - began)
    return rung, found.episodes
