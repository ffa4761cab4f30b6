"""The contracts of wrappers of environments."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.envs import Environments, make_environments
from seqrl.testing.contract import Component, require

_BARE = "MountainCarContinuous-v0"
_STEPS = 5


def observations_lie_in_their_space(component: Component) -> None:
    """What is seen, at the start and after each step, is a member of the space that the wrapper declares."""
    envs = _wrapped(component)
    space = envs.envs[0].observation_space
    seen, _ = envs.envs[0].reset(seed=0)
    for step in range(_STEPS):
        require(space.contains(seen), f"after {step} steps the observation {seen} is none of {space}")
        seen, *_ = envs.envs[0].step(envs.envs[0].action_space.sample())


def the_same_seed_gives_the_same_episode(component: Component) -> None:
    """Equal seeds and actions give equal observations and rewards, also in an environment that ran before."""
    envs = _wrapped(component)
    first, second = _episode(envs), _episode(envs)
    require(np.array_equal(first, second), "the same seed and actions give another episode; draw from env.np_random")


def the_environment_stays_within_reach(component: Component) -> None:
    """The simulator and the time limit are found behind the wrapper."""
    wrapped = _wrapped(component)
    require(
        type(wrapped.envs[0].unwrapped) is type(make_bare().unwrapped),
        "env.unwrapped is another environment; wrap the one that is given",
    )
    require(
        wrapped.max_episode_steps is not None, "env.spec tells no time limit any more; leave spec to gymnasium.Wrapper"
    )


CONTRACTS = (observations_lie_in_their_space, the_same_seed_gives_the_same_episode, the_environment_stays_within_reach)


def make_bare() -> Any:
    """The environment that wrappers are tried on."""
    return make_environments(_BARE, 1).envs[0]


def _wrapped(component: Component) -> Environments:
    return make_environments(f"{_BARE}?wrapper={component.name}", 1)


def _episode(envs: Environments) -> np.ndarray:
    """Observations and rewards of a few steps, one after the other."""
    seen, _ = envs.reset([3])
    found = [seen]
    for number in range(_STEPS):
        seen, rewards, *_ = envs.step(np.full((1, envs.action_size), 0.1 * number))
        found += [seen, rewards]
    return np.concatenate([np.ravel(each) for each in found])
