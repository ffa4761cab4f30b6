"""Minari's data sets, read through the `minari` library."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge

from seqrl.data.checks import DISCRETE
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import DataError
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.minari import choose_keys, open_dataset, part_of
from seqrl.registry import register_data
from seqrl.sources import DataSource

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec


@register_data("minari")
class MinariSource(DataSource):
    """A data set of Minari, found in `$MINARI_DATASETS_PATH` (`~/.minari/datasets`) or downloaded there.

    Row t holds the observation before action t. What Minari keeps beyond that, the observation after the last action,
    is the end of its episode and starts no transition: training drops it, conversion keeps it.

    Args:
        id: such as `D4RL/pointmaze/umaze-v2`.
        observation_keys: which parts of dict observations make up an observation, in this order; parts of parts are
            written `desired_goal.microwave`. By default `observation`, then `desired_goal` (goal environments).
        download: fetch a data set that is not found locally.
        dataset_name: name of the data set in tables; the id by default.
        env_id: Gymnasium id to evaluate in; by default the environment that Minari recovers, with the same keys.
        max_transitions: keep whole episodes from the start, up to this many rows (quick runs).
    """

    def __init__(
        self,
        id: str,
        *,
        observation_keys: Sequence[str] | None = None,
        download: bool = True,
        dataset_name: str | None = None,
        env_id: str | None = None,
        max_transitions: Annotated[int, Ge(2)] | None = None,
    ) -> None:
        self.id = id
        self.observation_keys = observation_keys
        self.download = download
        self.name = dataset_name or id
        self.env_id = env_id
        self.max_transitions = max_transitions

    def load(self) -> EpisodeStore:
        return self.read().store()

    def read(self) -> FlatEpisodes:
        """The episodes with what a store has no place for; NaN is not refused."""
        dataset = open_dataset(self.id, download=self.download)
        spaces = {"observations": dataset.observation_space, "actions": dataset.action_space}
        _refuse_other_actions(spaces["actions"], self.id)
        keys = choose_keys(spaces["observations"], self.observation_keys, self.id)
        metadata = dataset.storage.metadata
        recorded = metadata.get("seqrl_env_id") or _env_id(dataset.env_spec, self.id, keys)
        flat = _flat(dataset, keys, self.id, self.max_transitions)
        attributes = {
            **{key: metadata[key] for key in ("algorithm_name", "ref_min_score", "ref_max_score") if key in metadata},
            "name": self.name,
            "env_id": self.env_id or recorded,
            "source": "minari",
            "minari_id": self.id,
            **({"observation_keys": list(keys)} if keys else {}),
        }
        return _counted(dataclasses.replace(flat, attributes=attributes), spaces).first(self.max_transitions)


def _refuse_other_actions(space: Any, origin: str) -> None:
    from gymnasium.spaces import Box, Discrete

    if not isinstance(space, Box | Discrete):
        raise DataError(f"{origin} has actions of kind {space}; only vectors and single discrete actions can be used")


def _counted(flat: FlatEpisodes, spaces: Mapping[str, Any]) -> FlatEpisodes:
    """The same, with the values of discrete spaces declared, and counted from 0."""
    from gymnasium.spaces import Discrete

    attributes, changed = dict(flat.attributes), {}
    for name, space in spaces.items():
        if isinstance(space, Discrete):
            attributes[DISCRETE[name]] = int(space.n)
            for key in (name, f"final_{name}"):
                array = getattr(flat, key, None)
                if array is not None:
                    changed[key] = array - space.start
    return dataclasses.replace(flat, attributes=attributes, **changed)


def _env_id(spec: EnvSpec | None, dataset_id: str, keys: Sequence[str]) -> str | None:
    """The registered environment where it is the recorded one, else `minari:<id>`; with the keys of observations."""
    if spec is None:
        return None
    import gymnasium

    registered = gymnasium.registry.get(spec.id)
    if registered is None:  # of a package that is not imported yet
        plain = not spec.kwargs
    else:
        same_settings = json.dumps(registered.kwargs, default=str) == json.dumps(spec.kwargs, default=str)
        plain = same_settings and registered.max_episode_steps == spec.max_episode_steps
    plain = plain and not spec.additional_wrappers
    env_id = spec.id if plain else f"minari:{dataset_id}"
    return f"{env_id}@{'+'.join(keys)}" if keys else env_id


def _flat(dataset: Any, keys: Sequence[str], origin: str, max_transitions: int | None) -> FlatEpisodes:
    """All episodes one after the other; reading stops where enough rows are there."""
    observations, final, actions, rewards, terminals, truncated, infos = [], [], [], [], [], [], []
    rows = 0
    for number, episode in enumerate(_episodes(dataset, origin)):
        seen, acted = _observations(episode.observations, keys), np.asarray(episode.actions)
        earned = np.asarray(episode.rewards)
        steps = len(earned)
        if steps == 0:
            continue
        ended = np.asarray(episode.terminations, bool), np.asarray(episode.truncations, bool)
        if len(acted) != steps or len(seen) not in (steps, steps + 1) or {len(each) for each in ended} != {steps}:
            raise DataError(
                f"episode {number} of {origin} has {len(seen)} observations, {len(acted)} actions and {steps} rewards; "
                "one of each for every step, and one observation more, are needed"
            )
        observations.append(seen[:steps])
        final.append(seen[steps:])
        actions.append(acted.reshape(steps, -1))
        rewards.append(earned)
        terminals.append(bool(ended[0][-1]))
        truncated.append(bool(ended[1][-1]))
        infos.append({key: array[:steps] for key, array in _states(episode.infos or {}, steps).items()})
        rows += steps
        if max_transitions is not None and rows >= max_transitions:
            break
    if not rows:
        raise DataError(f"{origin} holds no transitions; record at least one episode of two steps")
    last = np.cumsum([len(each) for each in rewards]) - 1
    ends, terminal_rows, timeout_rows = np.zeros((3, rows), bool)
    ends[last] = True
    terminal_rows[last], timeout_rows[last] = terminals, np.array(truncated) & ~np.array(terminals)
    whole = all(len(each) for each in final)
    kept = [key for key in infos[0] if all(key in each for each in infos)]
    return FlatEpisodes(
        origin,
        "minari",
        np.concatenate(observations),
        np.concatenate(actions),
        np.concatenate(rewards),
        ends,
        terminal_rows,
        timeout_rows,
        final_observations=np.concatenate(final) if whole else None,
        extras={f"infos/{key}": np.concatenate([each[key] for each in infos]) for key in kept},
    )


def _episodes(dataset: Any, origin: str) -> Any:
    """The episodes, with what goes wrong while they are read told in a sentence."""
    try:
        yield from dataset.iterate_episodes()
    except (OSError, KeyError, ValueError, RuntimeError, AssertionError) as error:
        raise DataError(
            f"the Minari data set {origin} is damaged ({type(error).__name__}: {error}); remove its folder and fetch "
            "it again"
        ) from error


def _observations(observations: Any, keys: Sequence[str]) -> np.ndarray:
    """(T or T + 1, O): the parts side by side."""
    parts = [np.asarray(part_of(observations, key)) for key in keys] or [np.asarray(observations)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _states(infos: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """MuJoCo's positions and velocities before each action, where they were recorded."""
    found = {key: np.asarray(infos[key]) for key in ("qpos", "qvel") if key in infos}
    return {key: array for key, array in found.items() if array.ndim and len(array) in (steps, steps + 1)}
