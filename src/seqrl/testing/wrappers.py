"""The contracts of wrappers of environments: tried on all kinds of spaces, of which each may refuse some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from seqrl.envs.named import make_one
from seqrl.envs.registration import check_env_id
from seqrl.errors import SeqrlError
from seqrl.testing.contract import CannotTell, Component, ContractViolation, require
from seqrl.worlds.lamps_environment import LAMPS, registered_lamps

_STEPS = 5
_REMEDY = "mend that, or let the constructor refuse such spaces with seqrl.errors.ConfigError"

BARE = ("MountainCarContinuous-v0", "CartPole-v1", "FrozenLake-v1", *LAMPS)
"""What wrappers are tried on: numbers seen and chosen, two choices, one number of a list seen, several choices at once,
and observations in parts."""


def observations_lie_in_their_space(component: Component) -> None:
    """What is seen, at the start and after each step, is a member of the space that the wrapper declares."""
    for env_id, env in find_served(component):
        for step, (seen, _) in enumerate(_play(env, env_id)):
            require(
                env.observation_space.contains(seen),
                f"of {env_id}, after {step} steps, the observation {seen} is none of {env.observation_space}; "
                f"{_REMEDY}",
            )


def the_same_seed_gives_the_same_episode(component: Component) -> None:
    """Equal seeds and actions give equal observations and rewards, also in an environment that ran before."""
    for env_id, env in find_served(component):
        first, second = (list(_play(env, env_id)) for _ in range(2))
        require(
            len(first) == len(second) and all(map(_is_same, first, second)),
            f"of {env_id}, the same seed and actions give another episode; draw from env.np_random",
        )


def the_environment_stays_within_reach(component: Component) -> None:
    """The simulator and the time limit are found behind the wrapper."""
    for env_id, env in find_served(component):
        require(
            type(env.unwrapped) is type(_make(env_id).unwrapped),
            f"of {env_id}, env.unwrapped is another environment; wrap the one that is given",
        )
        require(
            env.spec is not None and env.spec.max_episode_steps is not None,
            f"of {env_id}, env.spec tells no time limit any more; leave spec to gymnasium.Wrapper",
        )


CONTRACTS = (observations_lie_in_their_space, the_same_seed_gives_the_same_episode, the_environment_stays_within_reach)


def find_served(component: Component) -> list[tuple[str, Any]]:
    """The environments that a wrapper's constructor takes, in it, by their ids.

    Raises:
        CannotTell: it takes none.
        SeqrlError: what the constructor says of all of them alike.
    """
    served, refusals = [], []
    for env_id in BARE:
        try:
            served.append((env_id, component.build(env=_make(env_id))))
        except Exception as error:  # whatever a constructor makes of spaces that it is not for
            refusals.append(error)
    if not served and isinstance(refusals[0], SeqrlError) and len({str(refusal) for refusal in refusals}) == 1:
        raise refusals[0]  # of its options, not of an environment
    if not served:
        raise CannotTell(
            f"its constructor takes none of {', '.join(BARE)} ({type(refusals[0]).__name__}: {refusals[0]}); let it "
            "take one of them, or try it by hand"
        ) from refusals[0]
    return served


def _make(env_id: str) -> Any:
    with registered_lamps():
        check_env_id(env_id)
        return make_one(env_id, render_mode=None)


def _play(env: Any, env_id: str) -> Iterator[tuple[Any, float]]:
    """What is seen and earned in the first steps of an episode, always with the same seed and actions.

    Raises:
        ContractViolation: the wrapper fails.
    """
    try:
        env.action_space.seed(0)
        seen, _ = env.reset(seed=3)
        yield seen, 0.0
        for _ in range(_STEPS):
            seen, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            yield seen, float(reward)
            if terminated or truncated:
                return
    except Exception as error:
        raise ContractViolation(f"of {env_id} it fails with {type(error).__name__}: {error}; {_REMEDY}") from error


def _is_same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_is_same(first[key], second[key]) for key in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(_is_same, first, second))
    return np.array_equal(first, second)
