"""The parts of a checkpoint's search, learnt and true, by the names of a ladder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqrl.checkpoints.loaded import Loaded
from seqrl.critics import Critic
from seqrl.data.episodes import EpisodeStore
from seqrl.envs import make_environments
from seqrl.errors import ConfigError
from seqrl.evaluation.ladder import LadderSettings, Swap
from seqrl.evaluation.maze_valuation import MazeValuation
from seqrl.evaluation.search_parts import (
    ActorCandidates,
    CriticValuation,
    DataCandidates,
    FieldValuation,
    ModelCandidates,
    ModelDynamics,
    RolloutValuation,
    SimulatorDynamics,
    UniformCandidates,
)
from seqrl.evaluation.simulators import simulator_of
from seqrl.evaluation.swapped_search import Candidates, Dynamics, Parts, Valuation
from seqrl.models.token import TokenModel
from seqrl.planners._outside import can_tell_outside
from seqrl.worlds.environments import is_maze, maze_of

_FAST = 0.95  # quantile of the data's speeds that a true value drives at
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
    if settings.outside_cost and (critic is None or not layout.has("difference") or not can_tell_outside(model)):
        raise ConfigError(
            f"--outside-cost {settings.outside_cost:g} is of rollouts of a critic's policy that a model of differences "
            "takes out of the range of the data, and this run cannot have any; leave it out, or train with critic=iql "
            "layout=tt_difference tokenizer=uniform"
        )
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
