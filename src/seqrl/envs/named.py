"""Names of environments beyond Gymnasium's ids: parts of dict observations, and what Minari's data sets recover.

`PointMaze_UMaze-v3@observation+desired_goal` is that environment with two parts of its observations side by side;
`Hopper-v5?healthy_reward=0.5&terminate_when_unhealthy=false` has settings of its constructor, numbers and truths alone;
`Pendulum-v1?wrapper=time_left` stands in wrappers of the slot `wrapper`, the first inside the next;
`minari:D4RL/pointmaze/umaze-v2` is the environment that a Minari data set was recorded in, settings included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.data.checks import is_picture
from seqrl.errors import ConfigError, DataError
from seqrl.formats.minari import MINARI, choose_keys, find_dataset, part_of
from seqrl.formats.minari_environment import RecordedEnvironment, find_environment
from seqrl.formats.minari_metadata import read_metadata
from seqrl.registry import WRAPPER

if TYPE_CHECKING:
    import gymnasium


def split_settings(name: str) -> tuple[str, dict[str, float | bool], tuple[str, ...]]:
    """`id?a=1&b=true&wrapper=c` as the id, the settings of the environment's constructor, and names of wrappers.

    Data and checkpoints name environments: no texts, which might name a file or code, but names of a registry.

    Raises:
        ConfigError: something else than numbers, true and false, or a wrapper that nobody registered.
    """
    base, mark, text = name.partition("?")
    settings: dict[str, float | bool] = {}
    wrappers: list[str] = []
    for pair in text.split("&") if mark else ():
        key, _, value = pair.partition("=")
        if key == "wrapper":
            WRAPPER.check({"name": value})
            wrappers.append(value)
            continue
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if not key.isidentifier() or not isinstance(found, int | float) or not math.isfinite(found):
            raise ConfigError(
                f"the environment {name!r} has the setting {pair!r}; give names with numbers, true or false, as in "
                f"{base}?healthy_reward=0.5&terminate_when_unhealthy=false"
            )
        settings[key] = found
    return base, settings, tuple(wrappers)


def split_keys(env_id: str) -> tuple[str, tuple[str, ...]]:
    """`name@a+b` as the name and the parts of its observations; no parts without `@`."""
    name, _, keys = env_id.partition("@")
    return name, tuple(key for key in keys.split("+") if key)


def check_name(name: Any) -> None:
    """Refuse a name that would import a module: environments come from registrations, and data and checkpoints name
    no code. In a command the user's own `module:Task-v0` loads that module as a plugin before it comes here.

    Raises:
        ConfigError: saying how to load the module.
    """
    if not isinstance(name, str):
        raise ConfigError(f"the environment {name!r} is no name; set env_id to a Gymnasium id")
    if name.startswith(MINARI) and "?" in name:
        raise ConfigError(f"the environment {name!r} has settings that were recorded; leave out what follows the '?'")
    if ":" in name and not name.startswith(MINARI):
        module, _, task = name.partition(":")
        raise ConfigError(
            f"the environment {name!r} names a module to import, which data and checkpoints may not; if you trust "
            f"{module!r}, give plugins=[{module}] and env_id={task}"
        )


def make_one(env_id: str, *, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    """Make one environment; its Gymnasium id must be registered.

    Raises:
        ConfigError: parts that its observations lack, or a data set that no environment can be recovered from.
        gymnasium.error.Error: Gymnasium refuses.
    """
    import gymnasium

    name, keys = split_keys(env_id)
    check_name(name)
    render: dict[str, Any] = (
        {} if render_mode is None else {"render_mode": render_mode}
    )  # which not every environment accepts
    if name.startswith(MINARI):
        env = _recover(name.removeprefix(MINARI), render)
    else:
        base, settings, wrappers = split_settings(name)
        env = gymnasium.make(base, disable_env_checker=True, **{**settings, **render})
        for wrapper in wrappers:
            env = WRAPPER.build({"name": wrapper}, env=env)
    return _flattened(env, keys, name) if keys else env


def find_recorded(dataset_id: str) -> RecordedEnvironment:
    """The environment of a Minari data set that lies here; nothing is imported, made or downloaded.

    Raises:
        ConfigError: there is none, or data may not name it.
    """
    try:
        return find_environment(read_metadata(find_dataset(dataset_id, download=False), dataset_id), dataset_id)
    except (DataError, ConfigError) as error:
        raise _no_environment(dataset_id, error) from error


def _recover(dataset_id: str, render: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """The registered environment with the time limit and the settings of the recording."""
    import gymnasium

    found = find_recorded(dataset_id)
    try:
        env: gymnasium.Env[Any, Any] = gymnasium.make(
            found.id,
            max_episode_steps=found.max_episode_steps,
            disable_env_checker=True,
            **{**found.settings, **render},
        )
    except Exception as error:  # whatever its constructor makes of settings that it does not know
        raise _no_environment(dataset_id, error) from error
    return env


def _no_environment(dataset_id: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"the environment of the Minari data set {dataset_id!r} cannot be recovered: {str(error).rstrip('.')}; install "
        "what it needs or name the plugin that registers it, or set env_id to another environment"
    )


def _flattened(env: gymnasium.Env[Any, Any], keys: Sequence[str], name: str) -> gymnasium.Env[Any, Any]:
    from gymnasium.spaces import Box
    from gymnasium.wrappers import TransformObservation

    keys = choose_keys(env.observation_space, keys, name)
    for key in keys:
        part = part_of(env.observation_space, key)
        if is_picture(part.shape, part.dtype):
            raise ConfigError(
                f"the part {key!r} of the observations of {name} is an image of shape {part.shape}, and seqrl learns "
                "from vectors; choose others, or register an environment around it that shows vectors"
            )

    def join(observation: Any) -> np.ndarray:
        return np.concatenate([np.asarray(part_of(observation, key)).reshape(-1) for key in keys])

    size = join(env.observation_space.sample()).shape
    flat: gymnasium.Env[Any, Any] = TransformObservation(env, join, Box(-np.inf, np.inf, size, np.float64))
    return flat
