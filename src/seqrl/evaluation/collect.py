"""New episodes: an actor in a batch of environments, recorded with everything that a data set needs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from seqrl.acting.policy import Policy
from seqrl.checkpoints.loading import checkpoint_file, load, load_critic
from seqrl.config import EvaluationConfig
from seqrl.console import show_progress
from seqrl.data.episodes import EpisodeStore
from seqrl.envs import Environments, check_spaces, make_environments
from seqrl.envs.mujoco_state import find_mujoco
from seqrl.errors import ConfigError
from seqrl.evaluation.placement import policy_of
from seqrl.evaluation.recorded_episodes import Actor, Moment, RecordedEpisode, join_episodes, record_round
from seqrl.formats.flat import FlatEpisodes
from seqrl.layout import as_counts
from seqrl.paths import find_path
from seqrl.plugins import load_plugins


class RandomActor:
    """Actions drawn uniformly from the action space; equal seeds give equal episodes, whatever the batch."""

    def __init__(self, envs: Environments, seed: int) -> None:
        low, high = envs.action_low.reshape(-1), envs.action_high.reshape(-1)
        if not np.isfinite(high.astype(np.float64) - low.astype(np.float64)).all():
            raise ConfigError(f"{envs.env_id} has an unbounded action space, which has no uniform policy; give another")
        self.low, self.high, self.seed = low, high, seed
        self.counts = as_counts(envs.categories.get("action", ()))
        self.whole = envs.whole_actions
        self.generators: list[np.random.Generator] = []

    def reset(self, num: int, *, environments: np.ndarray | None = None) -> None:
        keys = np.arange(num) if environments is None else environments
        self.generators = [np.random.default_rng([self.seed, 7, int(key)]) for key in keys]

    def act(self, observations: np.ndarray, rewards: np.ndarray | None, active: np.ndarray | None) -> np.ndarray:
        return np.stack([self._draw(generator) for generator in self.generators])

    def _draw(self, generator: np.random.Generator) -> np.ndarray:
        """(A,) of one environment. Whole numbers are drawn as such: rounding would draw the bounds less often."""
        if self.counts:
            return np.array([float(generator.integers(count)) for count in self.counts])
        if self.whole:
            return generator.integers(self.low, self.high, dtype=self.low.dtype.type, endpoint=True).astype(np.float64)
        return generator.uniform(self.low, self.high)


@dataclass
class FunctionActor:
    """A function of the observations alone.

    Attributes:
        function: (B, O) float32 to (B, A).
        name: how to call it in messages.
    """

    function: Callable[[np.ndarray], Any]
    name: str

    def reset(self, num: int, *, environments: np.ndarray | None = None) -> None:
        """A function of the present has nothing to forget."""

    def act(self, observations: np.ndarray, rewards: np.ndarray | None, active: np.ndarray | None) -> np.ndarray:
        return np.asarray(self.function(observations), np.float64)


def find_function(spec: str) -> FunctionActor:
    """`module:function` or `file.py:function`.

    Raises:
        ConfigError: another form, or no such function.
        PluginError: the module or file cannot be imported.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise ConfigError(f"policy {spec!r} is unknown; give random, a checkpoint, or module:function")
    load_plugins([place])
    if place.endswith(".py"):
        path = str(find_path(place).resolve())
        module = next(m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == path)
    else:
        module = importlib.import_module(place)
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{place} has no function {name!r}; give module:function, observations to actions")
    return FunctionActor(function, spec)


def checkpoint_actor(config: Mapping[str, Any], envs: Environments) -> Policy:
    """The policy of a checkpoint, decoding as a resolved `conf/evaluate.yaml` says.

    Raises:
        seqrl.errors.SeqrlError: a checkpoint or strategy that does not fit, or one that wants goals.
    """
    load_plugins(config["plugins"])
    settings = EvaluationConfig.from_dict(config)
    file = checkpoint_file(settings.checkpoint)
    loaded = load(file)
    layout = loaded.model.layout
    check_spaces(envs, layout.field("observation").size, layout.action_size, layout.categories)
    policy = policy_of(loaded.model, settings, load_critic(file))
    if policy.strategy.wants_goals:
        raise ConfigError("the strategy decodes toward a goal, and collecting gives none; choose another, as imitation")
    return policy


def collect(
    make_actor: Callable[[Environments], Actor],
    env_id: str,
    *,
    episodes: int | None = None,
    transitions: int | None = None,
    batch: int = 8,
    seed: int = 0,
    max_steps: int | None = None,
    extras: Mapping[str, Moment] | None = None,
    attributes: dict[str, Any] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> FlatEpisodes:
    """Record episodes, one after the other in the order of their seeds.

    Actions are recorded as carried out: clipped to the action space, whole ones rounded. MuJoCo's state before each
    action is kept in `infos/qpos` and `infos/qvel`, where the environment has one.

    Args:
        make_actor: given the environments.
        episodes, transitions: how much; exactly one of the two. The last episode of so many transitions is cut.
        batch: environments at a time. It decides which random numbers a function sees, and nothing else.
        seed: of starts and, through the actor, of actions. An evaluation with the same seed has other starts.
        max_steps: truncate episodes after so many steps; needed where the environment has no time limit.
        extras: infos to keep beside the steps: `{"load": "before", "cost": "after"}`, see `Moment`.
        progress: called with the number of new rows that are kept.

    Raises:
        ConfigError: a count out of range, an environment that does not exist, actions of another shape, or an info
            that is not told.
    """
    counts = {"episodes": episodes, "transitions": transitions, "num-envs": batch, "max-steps": max_steps}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} is too few; give 1 or more")
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative; give 0 or more")
    if (episodes is None) == (transitions is None):
        raise ConfigError("give either a number of episodes or of transitions")
    envs = make_environments(env_id, batch if episodes is None else min(batch, episodes))
    try:
        limit = envs.limit_steps(max_steps)
        actor = make_actor(envs)
        recorded: list[RecordedEpisode] = []
        rows = 0
        while len(recorded) < episodes if episodes is not None else rows < (transitions or 0):
            numbers = np.arange(len(recorded), len(recorded) + len(envs))
            recorded += record_round(actor, envs, numbers, seed, limit, extras or {})
            before, rows = rows, sum(len(each.rewards) for each in recorded[:episodes])
            progress((rows if transitions is None else min(rows, transitions)) - before)
        packages = ("seqrl", "gymnasium", *(["mujoco"] if find_mujoco(envs.envs[0]) else []))
    finally:
        envs.close()
    discrete = {  # lists, as files keep them
        f"num_{name}s": list(each) if isinstance(each, tuple) else each for name, each in envs.categories.items()
    }
    notes = {"env_id": env_id, "seed": seed, **discrete, **{package: version(package) for package in packages}}
    return join_episodes(recorded[:episodes], transitions, {**notes, **(attributes or {})})


def collect_episodes(
    env_id: str,
    policy: Actor | Callable[[np.ndarray], Any],
    *,
    episodes: int,
    seed: int = 0,
    batch: int = 8,
    max_steps: int | None = None,
    extras: Mapping[str, Moment] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> EpisodeStore:
    """Record episodes of a policy, to train on: what a source of data that is made on the spot returns.

    Args:
        env_id: registered with Gymnasium.
        policy: a function of (B, O) observations, or an object that is told of new episodes as well, see `Actor`.
        seed: of the environments' starts. An evaluation with the same seed has other starts.
        batch: environments at a time. It decides which random numbers a function sees, and nothing else.
        max_steps: truncate episodes after so many steps; needed where the environment has no time limit.
        extras: infos to keep beside the steps, `{"load": "before", "cost": "after"}`: as they were known before the
            action, or as its step told them.
        attributes: such as the `name` of the data.

    Raises:
        ConfigError: a count out of range, an environment that does not exist, actions of another shape, or an info
            that is not told.
    """
    actor = policy if isinstance(policy, Actor) else FunctionActor(policy, "the policy")
    noted = {"name": env_id, **(attributes or {})}
    with show_progress(f"recording {noted['name']}", None) as advance:
        flat = collect(
            lambda envs: actor,
            env_id,
            episodes=episodes,
            seed=seed,
            batch=batch,
            max_steps=max_steps,
            extras=extras,
            attributes=noted,
            progress=advance,
        )
    return flat.store()
