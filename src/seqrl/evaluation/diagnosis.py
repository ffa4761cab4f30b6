"""A ladder of a checkpoint: its parts, their true counterparts, and the episodes of each rung."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.checkpoints.loaded import Loaded
from seqrl.checkpoints.loading import critic_file, load, load_critic
from seqrl.config import EvaluationConfig
from seqrl.critics import Critic
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.evaluation.candidate_ranking import Ranking, pick_states, rank_candidates
from seqrl.evaluation.ladder import ALL_SWAPS, LEARNT, SHORT_SWAPS, Ladder, LadderSettings, Rung, Swap, judge_rungs
from seqrl.evaluation.protocol import run_episodes
from seqrl.evaluation.rollout import Episodes
from seqrl.evaluation.search_choices import Choices, gather_choices
from seqrl.evaluation.search_parts import ModelDynamics
from seqrl.evaluation.swapped_search import Candidates, Parts, SwappedSearch
from seqrl.evaluation.training_data import load_training_data
from seqrl.evaluation.transition_errors import TransitionErrors, find_deviations, measure_errors
from seqrl.evaluation.unfinished import tell_unfinished
from seqrl.models import Model
from seqrl.models.token import TokenModel
from seqrl.planners._outside import distance_outside
from seqrl.registry import CONDITION, SCORE
from seqrl.worlds.environments import maze_of

Decoding = tuple[dict[str, Any], dict[str, Any] | None]  # configs of planner and score
_GREEDY: Decoding = ({"name": "sample", "temperature": 0}, None)
_ACTOR: Decoding = ({"name": "actor"}, None)


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
    tell_unfinished(loaded, checkpoint, critic_file(checkpoint))
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
    judged = None
    for swap in SHORT_SWAPS if settings.short else ALL_SWAPS:
        rung, episodes = climb_swapped(swap, choices.parts(swap), loaded.model, env_id, settings, choices.policy)
        rungs.append(rung)
        tell(rung)
        if swap == LEARNT:
            judged = _judge_imagination(choices, loaded.model, episodes, store, settings)
    assert judged is not None
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
        *judged,
    )


def _judge_imagination(
    choices: Choices, model: Model, episodes: Episodes, store: EpisodeStore, settings: LadderSettings
) -> tuple[Ranking, TransitionErrors | None]:
    """How the model orders the candidates of the learnt search in states that it met, and how far it errs there."""
    learnt, true = (
        build_search(choices.parts(swap), model, settings, choices.policy) for swap in (LEARNT, Swap("simulator"))
    )
    states = pick_states(episodes.observations, episodes.lengths, model.layout.stride)
    size, seed = model.layout.field("action").size, settings.seed
    ranking = rank_candidates(learnt, true, states, size, seed=seed)
    return ranking, measure_errors(learnt, true, states, find_deviations(store), size, seed=seed)


def build_search(
    parts: Parts, model: Model, settings: LadderSettings, policy: Candidates | None = None
) -> SwappedSearch:
    """A search that is made of some parts, and perhaps of a policy that it follows."""
    find_cost = None
    if settings.outside_cost and isinstance(parts.dynamics, ModelDynamics):  # a simulator is right everywhere
        assert isinstance(model, TokenModel)

        def find_cost(states: Tensor) -> Tensor:
            return settings.outside_cost * distance_outside(model, states)

    return SwappedSearch(
        parts,
        discount=model.layout.step_discount,
        beam_width=settings.beam_width,
        n_expand=settings.n_expand,
        horizon=settings.horizon,
        policy=policy,
        find_cost=find_cost,
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
            "outside_cost": settings.outside_cost,
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
