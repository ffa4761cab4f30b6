"""Gymnasium ids of our worlds: registering their environments, and the map that an id stands for."""

from __future__ import annotations

from seqrl.errors import ConfigError
from seqrl.worlds.four_rooms import ENV_ID as FOUR_ROOMS_ID
from seqrl.worlds.four_rooms import FOUR_ROOMS
from seqrl.worlds.maze import MAZES, Maze, find_maze
from seqrl.worlds.ogbench import POINTMAZES, find_pointmaze

_MAZE2D = "seqrl/Maze2d-"
_POINTMAZE = "seqrl/PointMaze-"


def maze2d_id(maze: Maze) -> str:
    """The id of the environment of a maze, such as `seqrl/Maze2d-Umaze-v1`."""
    return f"{_MAZE2D}{maze.name.capitalize()}-v1"


def pointmaze_id(maze: Maze) -> str:
    """The id of the environment of one of OGBench's pointmazes, such as `seqrl/PointMaze-Giant-v0`."""
    return f"{_POINTMAZE}{maze.name.capitalize()}-v0"


def is_maze(env_id: str) -> bool:
    """Whether an environment is seen from above: its observations begin with a position on a map."""
    return env_id == FOUR_ROOMS_ID or env_id.startswith((_MAZE2D, _POINTMAZE))


def maze_of(env_id: str) -> Maze:
    """The map of an environment id.

    Raises:
        ConfigError: goals were given for an environment that is no maze.
    """
    if env_id == FOUR_ROOMS_ID:
        return FOUR_ROOMS
    if env_id.startswith(_POINTMAZE):
        return find_pointmaze(env_id.removeprefix(_POINTMAZE).split("-")[0].lower())
    if not is_maze(env_id):
        raise ConfigError(
            f"goals are given for {env_id}; they can be judged in {_MAZE2D}*, {_POINTMAZE}* and {FOUR_ROOMS_ID} only"
        )
    return find_maze(env_id.removeprefix(_MAZE2D).split("-")[0].lower())


def register_worlds() -> None:
    """Make `seqrl/Maze2d-{Umaze,Medium,Large}-v1`, `seqrl/PointMaze-{Medium,Large,Giant}-v0` and `seqrl/FourRooms-v0`
    known to Gymnasium, if they are not."""
    import gymnasium

    made_by = "seqrl.worlds.maze2d_environment:Maze2d"
    worlds = [(maze2d_id(maze), made_by, maze, {"maze": name}) for name, maze in MAZES.items()]
    tasks = "seqrl.worlds.ogbench_environment:PointMazeTasks"
    worlds += [(pointmaze_id(maze), tasks, maze, {"maze": name}) for name, maze in POINTMAZES.items()]
    worlds.append((FOUR_ROOMS_ID, "seqrl.worlds.four_rooms_environment:FourRooms", FOUR_ROOMS, {}))
    for env_id, made_by, maze, options in worlds:
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, made_by, max_episode_steps=maze.max_episode_steps, kwargs=options)
