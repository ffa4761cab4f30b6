"""Videos of episodes that come out on any machine: rendered where Gymnasium can, drawn with Matplotlib where not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.errors import DataError
from seqrl.evaluation.captions import Captions, add_captions
from seqrl.evaluation.drawn_frames import SIZE, draw_maze, draw_sticks
from seqrl.evaluation.encoding import write_frames
from seqrl.evaluation.rendered_frames import Failure, Take, render_in_child
from seqrl.opengl import BACKENDS, INSTALL
from seqrl.paths import find_path
from seqrl.worlds.environments import is_maze, maze_of
from seqrl.worlds.maze import Maze

if TYPE_CHECKING:  # with torch, which the process that renders can do without
    from seqrl.evaluation.protocol import EpisodeResults

__all__ = ["FRAME_STEPS", "SIZE", "VIDEO", "film_episodes", "write_maze_video", "write_rollout_video"]

VIDEO = "rollout.mp4"  # in the folder of an evaluation
FRAME_STEPS = 4  # environment steps between two frames


def film_episodes(
    path: Path, env_id: str, outcome: EpisodeResults, *, strategy: str = "", plugins: tuple[str, ...] = ()
) -> str:
    """Film one start toward every goal, or the first episode, with step, return and strategy beneath.

    Args:
        path: ends in `.mp4`.
        strategy: label of the row.
        plugins: that register the environment.

    Returns:
        Where the film is, and how it was drawn; or why there is none.
    """
    episodes = outcome.episodes
    if is_maze(env_id):
        return f"{path.parent / _film_maze(path, env_id, outcome, strategy)}"
    steps = _shown(int(episodes.lengths[0]))
    captions = Captions.of_episode(strategy, episodes.rewards[0], steps)
    if episodes.qpos is not None:
        written = write_rollout_video(path, env_id, episodes.qpos[steps], captions=captions, plugins=plugins)
        return f"{path.parent / written}"
    take = Take(env_id, steps, None, episodes.seed, episodes.actions[0], captions, plugins)
    found = render_in_child(find_path(path), take, 30, None)
    return f"none: {found.reason}" if isinstance(found, Failure) else f"{path.parent / found}, rendered by Gymnasium"


def _film_maze(path: Path, env_id: str, outcome: EpisodeResults, strategy: str) -> str:
    episodes, maze = outcome.episodes, maze_of(env_id)
    if "paths" not in outcome.results:
        steps = _shown(int(episodes.lengths[0]))
        captions = Captions.of_episode(strategy, episodes.rewards[0], steps)
        return write_maze_video(path, maze, episodes.observations[0, steps, :2], captions=captions)
    paths, goals = outcome.results["paths"], outcome.results["goals"]
    start = int(outcome.results["counted"].sum(1).argmax())
    goals = outcome.results["aims"][start] if "aims" in outcome.results else goals
    runs, steps = len(paths[start]), _shown(paths.shape[2] - 1)
    cut = np.full((1, 2), np.nan)  # lifts the pen between two episodes
    positions = np.concatenate([np.concatenate([run[steps], cut]) for run in paths[start]])
    shown = [Captions.of_episode(strategy, episodes.rewards[start * runs + run], steps) for run in range(runs)]
    ends = [int(episodes.lengths[start * runs + run]) for run in range(runs)]
    captions = Captions(
        strategy,
        [min(step, end) for end in ends for step in [*steps, steps[-1]]],
        [earned for each in shown for earned in [*each.returns, each.returns[-1]]],
    )
    marks = np.repeat(goals[:runs], len(steps) + 1, axis=0)
    return write_maze_video(path, maze, positions, goals=marks, captions=captions)


def _shown(length: int) -> list[int]:
    """The steps of an episode that have a frame: its start, every fourth, and its end."""
    return [*range(0, length, FRAME_STEPS), length]


def write_rollout_video(
    path: Path | str,
    env_id: str,
    qpos: np.ndarray,
    *,
    captions: Captions | None = None,
    plugins: tuple[str, ...] = (),
    fps: int = 30,
) -> str:
    """Film an episode of a MuJoCo environment from its recorded positions.

    Args:
        path: ends in `.mp4`; `.gif` takes its place where no encoder is installed.
        env_id: Gymnasium id. The mazes of seqrl are drawn from above.
        qpos: (T, nq) joint positions, one frame each.
        captions: beneath the frames.
        plugins: that register the environment.

    Returns:
        The file's name and how it was drawn, to be shown to the user.

    Raises:
        DataError: no frames, or another number of joints than the environment has.
    """
    path, qpos = find_path(path), np.asarray(qpos, np.float64)
    if qpos.ndim != 2 or len(qpos) == 0:
        raise DataError(f"a video of {env_id} needs (frames, joints) positions and {qpos.shape} were given")
    if is_maze(env_id):
        return write_maze_video(path, maze_of(env_id), qpos[:, :2], captions=captions, fps=fps)
    model = _model(env_id)
    if qpos.shape[1] != model.nq:
        raise DataError(f"a video of {env_id} needs {model.nq} joint positions a frame and {qpos.shape[1]} were given")
    take = Take(env_id, list(range(len(qpos))), qpos, captions=captions, plugins=plugins)
    tried = []
    for backend in [os.environ["MUJOCO_GL"]] if os.environ.get("MUJOCO_GL") else BACKENDS:
        found = render_in_child(path, take, fps, backend)
        if isinstance(found, str):
            return f"{found}, rendered by Gymnasium with {backend}"
        tried.append(f"{backend}: {found.reason}")
    written = write_frames(path, add_captions(draw_sticks(model, qpos), captions), fps)
    return f"{written}, drawn as a stick figure, since no OpenGL works here ({'; '.join(tried)}); install {INSTALL}"


def write_maze_video(
    path: Path | str,
    maze: Maze,
    positions: np.ndarray,
    *,
    goals: np.ndarray | None = None,
    captions: Captions | None = None,
    fps: int = 30,
) -> str:
    """Film the point mass from above, with the way it came.

    Args:
        positions: (T, 2), one frame each; NaN stands between two episodes.
        goals: (2,) or (T, 2); the maze's own target by default.
        captions: beneath the frames.

    Returns:
        The file's name and how it was drawn.

    Raises:
        DataError: no positions, or goals of another length.
    """
    positions = np.asarray(positions, np.float64)
    goals = np.asarray(maze.target if goals is None else goals, np.float64)
    if positions.ndim != 2 or len(positions) == 0 or goals.shape not in {(2,), (len(positions), 2)}:
        raise DataError(
            f"a maze video needs (frames, 2) positions and a goal or one per frame; {positions.shape} and "
            f"{goals.shape} were given"
        )
    goals = np.broadcast_to(goals, (len(positions), 2))
    frames = add_captions(draw_maze(maze, positions, goals), captions)
    return f"{write_frames(find_path(path), frames, fps)}, drawn from above"


def _model(env_id: str) -> Any:
    from seqrl.envs.vector import make

    envs = make(env_id, 1)
    model = getattr(envs.envs[0].unwrapped, "model", None)
    if model is None:
        raise DataError(f"{env_id} is no MuJoCo environment; only those can be filmed from joint positions")
    return model
