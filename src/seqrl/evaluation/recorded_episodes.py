"""Episodes while they are recorded: what environments returned, step by step, and the arrays that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from seqrl.acting.policy import Policy
from seqrl.envs import Environments
from seqrl.envs.mujoco_state import find_mujoco
from seqrl.envs.told import read_told
from seqrl.errors import ConfigError, DataError
from seqrl.formats.flat import FlatEpisodes

Moment = Literal["before", "after"]
"""Which info an extra is read from: the one that was known before the action, or the one that the step told."""

_STARTS = 12  # the stream of starts among those of a seed


@runtime_checkable
class Actor(Protocol):
    """What can be recorded; `seqrl.Policy` is one."""

    def reset(self, num: int, *, environments: np.ndarray | None = None) -> None:
        """Begin new episodes in `num` environments; `environments` are keys of random choices, one per episode."""

    def act(self, observations: np.ndarray, rewards: np.ndarray | None, active: np.ndarray | None) -> np.ndarray:
        """(B, O) observations, (B,) rewards of the last actions and (B,) running environments to (B, A) actions."""
        ...


@dataclass
class RecordedEpisode:
    """One episode while it is recorded.

    Attributes:
        states: qpos and qvel before each action.
        told: numbers of each extra, a row for each step.
    """

    observations: list[np.ndarray]
    actions: list[np.ndarray]
    rewards: list[float]
    states: list[tuple[np.ndarray, np.ndarray]]
    terminated: bool = False
    told: dict[str, list[np.ndarray]] = field(default_factory=dict)


def _start_seed(seed: int, number: int) -> int:
    """The seed of the environment in a recorded episode.

    It lies in [2^31, 2^32). Evaluations begin with 1,000,000 times their seed, plus the episode, so that no episode of
    the data begins as one of an evaluation whose seed is below 2147.
    """
    return 2**31 | int(np.random.SeedSequence([seed, _STARTS, number]).generate_state(1)[0])


def record_round(
    actor: Actor, envs: Environments, numbers: np.ndarray, seed: int, limit: int, extras: Mapping[str, Moment]
) -> list[RecordedEpisode]:
    """One episode in every environment; after `limit` steps it counts as truncated.

    Args:
        numbers: (B,) of the episodes, which decide their starts.
        extras: infos to keep, see `Moment`.

    Raises:
        ConfigError: actions of another shape, or an info that is asked for and not told.
    """
    observations, infos = envs.reset([_start_seed(seed, int(number)) for number in numbers])
    actor.reset(len(envs), environments=numbers)
    recorded = [RecordedEpisode([observation], [], [], []) for observation in observations]
    earned: np.ndarray | None = None
    policy = actor if isinstance(actor, Policy) else None
    layout = None if policy is None else policy.model.layout
    sizes = {} if layout is None else {extra.name: extra.size for extra in (*layout.contexts, *layout.outcomes)}
    for _ in range(limit):
        active = envs.active.copy()
        if policy is None:
            actions = np.asarray(actor.act(observations, earned, active))
        else:
            actions = policy.act(observations, earned, active, read_told(infos, sizes, envs.env_id))
        if actions.shape != (len(envs), envs.action_size):
            wanted = (len(envs), envs.action_size)
            raise ConfigError(f"the policy gives actions of shape {actions.shape}; {wanted} is needed")
        actions = envs.carried_out(actions)
        states = [_state(env) if running else None for env, running in zip(envs.envs, active, strict=True)]
        known = infos
        observations, earned, terminated, _, infos = envs.step(actions)
        for index in np.flatnonzero(active):
            episode, state = recorded[index], states[index]
            episode.observations.append(observations[index])
            episode.actions.append(actions[index])
            episode.rewards.append(float(earned[index]))
            episode.terminated |= bool(terminated[index])
            if state is not None:
                episode.states.append(state)
            for name, moment in extras.items():
                numbers_told = _read_info((infos if moment == "after" else known)[index], name, moment, envs.env_id)
                episode.told.setdefault(name, []).append(numbers_told)
        if not envs.active.any():
            break
    return recorded


def _read_info(info: Mapping[str, Any], name: str, moment: Moment, env_id: str) -> np.ndarray:
    """(n,) numbers of an info.

    Raises:
        ConfigError: it is not told, or no finite numbers.
    """
    if name not in info:
        listed = ", ".join(sorted(map(str, info))) or "none"
        when = "of a step" if moment == "after" else "before an action (of reset, and of every step)"
        raise ConfigError(f"{env_id} tells no info {name!r} {when}; the infos there: {listed}")
    try:
        numbers = np.asarray(info[name], np.float32).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.full(1, np.nan, np.float32)
    if not np.isfinite(numbers).all():
        raise ConfigError(f"{env_id} tells {name!r} as {info[name]!r}; an extra is finite numbers")
    return numbers


def _state(env: Any) -> tuple[np.ndarray, np.ndarray] | None:
    data = find_mujoco(env)
    return None if data is None else (np.array(data.qpos), np.array(data.qvel))


def join_episodes(recorded: list[RecordedEpisode], transitions: int | None, attributes: dict[str, Any]) -> FlatEpisodes:
    """Episodes one after the other, the first `transitions` rows of them.

    Raises:
        ConfigError: an extra whose size changes.
        DataError: nothing can be trained on them.
    """
    lengths = np.array([len(episode.rewards) for episode in recorded])
    ends, terminals = np.zeros((2, int(lengths.sum())), bool)
    last = np.cumsum(lengths) - 1
    ends[last], terminals[last] = True, [episode.terminated for episode in recorded]
    observations = np.concatenate([np.stack(e.observations[:-1]) for e in recorded])
    final = np.stack([e.observations[-1] for e in recorded])
    keep = len(ends) if transitions is None else transitions
    if keep < len(ends):  # the last episode kept is cut where the rows end, and what it came to is the next row
        kept = int(np.searchsorted(last, keep - 1)) + 1
        final = final[:kept].copy()
        if not ends[keep - 1]:
            final[-1] = observations[keep]
    else:
        kept = len(recorded)
    timeouts = (ends & ~terminals)[:keep]
    ends[keep - 1] = True
    extras = {}
    if all(len(episode.states) == len(episode.rewards) for episode in recorded):
        for number, key in enumerate(("infos/qpos", "infos/qvel")):
            extras[key] = np.stack([state[number] for episode in recorded for state in episode.states])[:keep]
    extras |= {key: rows[:keep] for key, rows in _stack_told(recorded, str(attributes["env_id"])).items()}
    flat = FlatEpisodes(
        str(attributes["env_id"]),
        "collected",
        observations[:keep],
        np.concatenate([np.stack(e.actions) for e in recorded]).astype(np.float32)[:keep],
        np.concatenate([np.array(e.rewards) for e in recorded]).astype(np.float32)[:keep],
        ends[:keep],
        terminals[:keep],
        timeouts,
        final_observations=final[:kept],
        extras=extras,
        attributes=attributes,
    )
    try:
        flat.store()
    except DataError as error:
        raise DataError(f"what was collected cannot be used: {error}") from error
    return flat


def _stack_told(recorded: list[RecordedEpisode], env_id: str) -> dict[str, np.ndarray]:
    """(N, n) of each extra, or (N,) where it is one number."""
    found = {}
    for name in recorded[0].told:
        rows = [each for episode in recorded for each in episode.told[name]]
        sizes = sorted({len(each) for each in rows})
        if len(sizes) > 1:
            raise ConfigError(f"{env_id} tells {name!r} as {sizes[0]} numbers at times, and as {sizes[-1]} at others")
        found[f"infos/{name}"] = np.stack(rows)[:, 0] if sizes == [1] else np.stack(rows)
    return found
