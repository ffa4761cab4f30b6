"""Names of environments beyond Gymnasium's ids: parts of dict observations, and what Minari's data sets recover.

`PointMaze_UMaze-v3@observation+desired_goal` is that environment with two parts of its observations side by side;
`minari:D4RL/pointmaze/umaze-v2` is the environment that a Minari data set was recorded in, settings included.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.errors import ConfigError, DataError
from seqrl.formats.minari import MINARI, choose_keys, open_dataset, part_of

if TYPE_CHECKING:
    import gymnasium


def split_keys(env_id: str) -> tuple[str, tuple[str, ...]]:
    """`name@a+b` as the name and the parts of its observations; no parts without `@`."""
    name, _, keys = env_id.partition("@")
    return name, tuple(key for key in keys.split("+") if key)


def make_one(env_id: str, *, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    """Make one environment; its Gymnasium id must be registered.

    Raises:
        ConfigError: parts that its observations lack, or a data set that no environment can be recovered from.
        gymnasium.error.Error: Gymnasium refuses.
    """
    import gymnasium

    name, keys = split_keys(env_id)
    render: dict[str, Any] = (
        {} if render_mode is None else {"render_mode": render_mode}
    )  # which not every environment accepts
    if name.startswith(MINARI):
        env = _recover(name.removeprefix(MINARI), render)
    else:
        env = gymnasium.make(name, disable_env_checker=True, **render)
    return _flattened(env, keys, name) if keys else env


def _recover(dataset_id: str, render: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    from gymnasium.error import Error

    try:
        dataset = open_dataset(dataset_id, download=False)
        with warnings.catch_warnings():  # of requirements that are not met: `pip check` is the place for those
            warnings.simplefilter("ignore")
            env: gymnasium.Env[Any, Any] = dataset.recover_environment(
                eval_env=True, disable_env_checker=True, **render
            )
    except (DataError, Error, ImportError, ValueError) as error:
        raise ConfigError(
            f"the environment of the Minari data set {dataset_id!r} cannot be recovered: {error}; install what it "
            "needs, or set env_id to another environment"
        ) from error
    return env


def _flattened(env: gymnasium.Env[Any, Any], keys: Sequence[str], name: str) -> gymnasium.Env[Any, Any]:
    from gymnasium.spaces import Box
    from gymnasium.wrappers import TransformObservation

    keys = choose_keys(env.observation_space, keys, name)

    def join(observation: Any) -> np.ndarray:
        return np.concatenate([np.asarray(part_of(observation, key)).reshape(-1) for key in keys])

    size = join(env.observation_space.sample()).shape
    flat: gymnasium.Env[Any, Any] = TransformObservation(env, join, Box(-np.inf, np.inf, size, np.float64))
    return flat
