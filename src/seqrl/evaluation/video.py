"""Videos of episodes that come out on any machine: rendered where OpenGL works, drawn with Matplotlib where not.

Which OpenGL MuJoCo uses is settled when it is first imported, and a failed attempt cannot be taken back. Rendering
therefore happens in a process of its own, `python -m seqrl.evaluation.video`, one attempt after the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.errors import DataError
from seqrl.files import copy_file
from seqrl.paths import find_path
from seqrl.processes import bound_command, safe_environment
from seqrl.worlds.environments import is_maze, maze_of
from seqrl.worlds.maze import Maze

if TYPE_CHECKING:  # with torch, which the process that renders can do without
    from seqrl.evaluation.protocol import EpisodeResults

VIDEO = "rollout.mp4"  # in the folder of an evaluation
FRAME_STEPS = 4  # environment steps between two frames
SIZE = 320  # pixels; a multiple of 16, which H.264 wants
CHILD_TIMEOUT = 600.0  # seconds; a driver that hangs must not hang the evaluation


def film_episodes(path: Path, env_id: str, outcome: EpisodeResults) -> str:
    """Film one start toward every goal, or the first episode.

    Args:
        path: ends in `.mp4`.

    Returns:
        Where the film is, and how it was drawn.
    """
    episodes = outcome.episodes
    if is_maze(env_id):
        maze = maze_of(env_id)
        if "paths" not in outcome.results:
            drawn = write_maze_video(path, maze, episodes.observations[0, ::FRAME_STEPS, :2])
            return f"{path.parent / drawn}"
        paths, goals = outcome.results["paths"], outcome.results["goals"]
        start = int(outcome.results["counted"].sum(1).argmax())
        shown = paths[start][:, ::FRAME_STEPS]  # (runs, frames, 2)
        goals = outcome.results["aims"][start] if "aims" in outcome.results else goals
        cut = np.full((1, 2), np.nan)  # lifts the pen between two episodes
        positions = np.concatenate([np.concatenate([run, cut]) for run in shown])
        marks = np.repeat(goals[: len(shown)], shown.shape[1] + 1, axis=0)
        return f"{path.parent / write_maze_video(path, maze, positions, goals=marks)}"
    if episodes.qpos is None:
        return f"none: {env_id} is no MuJoCo environment"
    return f"{path.parent / write_rollout_video(path, env_id, episodes.qpos[::FRAME_STEPS])}"


def write_rollout_video(path: Path | str, env_id: str, qpos: np.ndarray, *, fps: int = 30) -> str:
    """Film an episode of a MuJoCo environment from its recorded positions.

    Args:
        path: ends in `.mp4`; `.gif` takes its place where no encoder is installed.
        env_id: Gymnasium id. The mazes of seqrl are drawn from above.
        qpos: (T, nq) joint positions, one frame each.

    Returns:
        The file's name and how it was drawn, to be shown to the user.

    Raises:
        DataError: no frames, or another number of joints than the environment has.
    """
    path, qpos = find_path(path), np.asarray(qpos, np.float64)
    if qpos.ndim != 2 or len(qpos) == 0:
        raise DataError(f"a video of {env_id} needs (frames, joints) positions and {qpos.shape} were given")
    if is_maze(env_id):
        return write_maze_video(path, maze_of(env_id), qpos[:, :2], fps=fps)
    model = _model(env_id)
    if qpos.shape[1] != model.nq:
        raise DataError(f"a video of {env_id} needs {model.nq} joint positions a frame and {qpos.shape[1]} were given")
    for backend in [os.environ["MUJOCO_GL"]] if os.environ.get("MUJOCO_GL") else ["egl", "osmesa"]:
        written = _render_in_child(path, env_id, qpos, fps, backend)
        if written is not None:
            return f"{written}, rendered by MuJoCo with {backend}"
    written = _write_frames(path, _stick_frames(model, qpos), fps)
    return f"{written}, drawn as a stick figure because no OpenGL works here (set MUJOCO_GL=egl or osmesa)"


def write_maze_video(
    path: Path | str, maze: Maze, positions: np.ndarray, *, goals: np.ndarray | None = None, fps: int = 30
) -> str:
    """Film the point mass from above, with the way it came.

    Args:
        positions: (T, 2), one frame each; NaN stands between two episodes.
        goals: (2,) or (T, 2); the maze's own target by default.

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
    return f"{_write_frames(find_path(path), _maze_frames(maze, positions, goals), fps)}, drawn from above"


def _maze_frames(maze: Maze, positions: np.ndarray, goals: np.ndarray) -> Iterator[np.ndarray]:
    """Rows run downwards and columns to the right, as the map is written."""
    figure, axes = _figure()
    walls = np.array([[character == "#" for character in row] for row in maze.rows], float)
    axes.imshow(walls, cmap="Greys", vmin=0, vmax=1.6, extent=maze.extent, interpolation="nearest")
    (trace,) = axes.plot([], [], color="tab:blue", linewidth=1)
    (goal,) = axes.plot([], [], "*", color="tab:red", markersize=12)
    (ball,) = axes.plot([], [], "o", color="tab:blue", markersize=7)
    began = 0
    for time in range(len(positions)):
        began = time + 1 if np.isnan(positions[time]).any() else began
        trace.set_data(positions[began : time + 1, 1], positions[began : time + 1, 0])
        goal.set_data(goals[time : time + 1, 1], goals[time : time + 1, 0])
        ball.set_data(positions[time : time + 1, 1], positions[time : time + 1, 0])
        yield _pixels(figure)


def _stick_frames(model: Any, qpos: np.ndarray) -> Iterator[np.ndarray]:
    """Every capsule as a line and every other geom as a point, seen from the side (x to the right, z up)."""
    import mujoco
    from matplotlib.collections import LineCollection

    figure, axes = _figure()
    axes.axhline(0.0, color="0.7", linewidth=1)
    limbs = LineCollection([], colors="tab:blue", linewidths=4, capstyle="round")
    axes.add_collection(limbs)
    data = mujoco.MjData(model)
    is_capsule = model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE
    shown = np.flatnonzero(model.geom_bodyid > 0)  # body 0 is the world
    half = np.where(is_capsule, model.geom_size[:, 1], 0.0)
    for frame in qpos:
        data.qpos[:] = frame
        mujoco.mj_kinematics(model, data)
        axis = half[:, None] * data.geom_xmat[:, [2, 5, 8]]  # the capsule's own z axis
        ends = np.stack([data.geom_xpos - axis, data.geom_xpos + axis], axis=1)[shown][:, :, [0, 2]]
        limbs.set_segments(list(ends))
        middle = ends.mean(axis=(0, 1))
        axes.set_xlim(middle[0] - 1.5, middle[0] + 1.5)
        axes.set_ylim(middle[1] - 1.5, middle[1] + 1.5)
        yield _pixels(figure)


def _figure() -> tuple[Any, Any]:
    """A square figure without pyplot, whose global state belongs to the user."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE / 80, SIZE / 80), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_aspect("equal")
    return figure, axes


def _pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3].copy()


def _write_frames(path: Path, frames: Iterable[np.ndarray], fps: int) -> str:
    """Encode; returns the name of the file, whose suffix becomes `.gif` where there is no encoder for `.mp4`."""
    import imageio.v2 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4" and not _can_encode():
        path = path.with_suffix(".gif")
    options: dict[str, Any] = {"duration": 1000 / fps, "loop": 0} if path.suffix == ".gif" else {"fps": fps}
    writer: Any
    with tempfile.TemporaryDirectory() as folder:  # encoders go by the suffix, and follow links
        made = Path(folder) / path.name
        with imageio.get_writer(made, **options) as writer:
            for frame in frames:
                writer.append_data(frame)
        copy_file(made, path)
    return path.name


def _can_encode() -> bool:
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return False
    return True


def _model(env_id: str) -> Any:
    from seqrl.envs.vector import make

    envs = make(env_id, 1)
    model = getattr(envs.envs[0].unwrapped, "model", None)
    if model is None:
        raise DataError(f"{env_id} is no MuJoCo environment; only those can be filmed from joint positions")
    return model


def _render_in_child(path: Path, env_id: str, qpos: np.ndarray, fps: int, backend: str) -> str | None:
    """The name of the file written, or None where this OpenGL does not work."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "qpos.npy", qpos)
        command = bound_command("seqrl.evaluation.video", str(path), env_id, folder, str(fps))
        path_of_modules = os.pathsep.join(folder for folder in sys.path if folder)
        environment = {**safe_environment(), "MUJOCO_GL": backend, "PYTHONPATH": path_of_modules}
        try:
            subprocess.run(command, env=environment, capture_output=True, check=True, timeout=CHILD_TIMEOUT)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
        return (Path(folder) / "written").read_text(encoding="utf-8")


def _render_frames(env_id: str, qpos: np.ndarray) -> Iterator[np.ndarray]:
    import mujoco

    model = _model(env_id)
    data = mujoco.MjData(model)
    renderer = mujoco.Renderer(model, SIZE, SIZE)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False  # without the two, ten times as fast
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    camera = "track" if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track") >= 0 else -1
    for frame in qpos:
        data.qpos[:] = frame
        mujoco.mj_forward(model, data)
        renderer.update_scene(data, camera)
        yield np.asarray(renderer.render())


if __name__ == "__main__":
    target, name, folder, rate = sys.argv[1:]
    frames = _render_frames(name, np.load(Path(folder) / "qpos.npy"))
    (Path(folder) / "written").write_text(_write_frames(Path(target), frames, int(rate)))
