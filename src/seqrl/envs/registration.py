"""What must be registered before an environment can be made by its name."""

from __future__ import annotations

from seqrl.d4rl.catalogue import PREFIX
from seqrl.d4rl.registration import register_ant, register_package
from seqrl.envs.named import check_name, find_recorded, split_keys, split_settings
from seqrl.errors import ConfigError, did_you_mean
from seqrl.formats.minari import MINARI
from seqrl.worlds.environments import register_worlds

OGBENCH = ("pointmaze-", "antmaze-", "humanoidmaze-", "antsoccer-", "cube-", "scene-", "puzzle-")
"""How the ids of OGBench's environments begin."""


def register_environments() -> None:
    """Make `seqrl/Maze2d-{Umaze,Medium,Large}-v1`, `seqrl/PointMaze-{Medium,Large,Giant}-v0`, `seqrl/FourRooms-v0` and
    `seqrl/D4rlAnt-v2` known to Gymnasium.

    Calling it again changes nothing.
    """
    register_worlds()
    register_ant()


def check_env_id(env_id: str) -> None:
    """Refuse a name that no environment has here; none is made.

    Raises:
        ConfigError: naming what is missing.
    """
    import gymnasium

    check_name(env_id)
    register_environments()
    if env_id.startswith(PREFIX):
        register_package()
    name, *_ = split_settings(split_keys(env_id)[0])
    hint = ""
    if name.startswith(OGBENCH) and name not in gymnasium.registry and not _register_ogbench():
        hint = "; OGBench's come with `pip install 'seqrl[ogbench]'`"
    elif name not in gymnasium.registry and not _register_robotics():
        hint = "; Adroit, kitchen, AntMaze and PointMaze come with `pip install gymnasium-robotics`"
    if name.startswith(MINARI):
        find_recorded(name.removeprefix(MINARI))
    elif name not in gymnasium.registry:
        raise ConfigError(
            f"Gymnasium knows no environment {name!r}.{did_you_mean(name, gymnasium.registry)} "
            f"Give env_id a registered id, or load the plugin that registers it{hint}"
        )


def _register_ogbench() -> bool:
    """OGBench's environments, where its package is installed, which is told: importing it registers them."""
    try:
        import ogbench  # noqa: F401
    except ImportError:
        return False
    return True


def _register_robotics() -> bool:
    """Adroit, kitchen and the like, where `gymnasium-robotics` is installed, which is told."""
    import gymnasium

    try:
        import gymnasium_robotics
    except ImportError:
        return False
    gymnasium.register_envs(gymnasium_robotics)
    return True
