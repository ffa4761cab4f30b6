"""Frames of Gymnasium's own `render()`, of an episode that is over.

Which OpenGL MuJoCo uses is settled when it is first imported, and a failed attempt cannot be taken back. Rendering
therefore happens in a process of its own, `python -m seqrl.evaluation.rendered_frames`, one attempt after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.errors import ConfigError
from seqrl.evaluation.captions import Captions
from seqrl.evaluation.drawn_frames import SIZE
from seqrl.processes import bound_command, safe_environment

CHILD_TIMEOUT = 600.0  # seconds; a driver that hangs must not hang the evaluation


@dataclass(frozen=True)
class Take:
    """An episode to be rendered.

    Attributes:
        env_id: Gymnasium id.
        steps: (F,) how many steps were made before each frame, increasing.
        qpos: (F, nq) joint positions of each frame, of MuJoCo environments; of others the episode is played again:
        seed: of its reset.
        actions: (T, A) as they were carried out.
        captions: beneath the frames.
        plugins: that register the environment.
    """

    env_id: str
    steps: list[int]
    qpos: np.ndarray | None = None
    seed: int | None = None
    actions: np.ndarray | None = None
    captions: Captions | None = None
    plugins: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write it for the process that renders."""
        settings = {name: value for name, value in vars(self).items() if name not in ("qpos", "actions")}
        settings["captions"] = None if self.captions is None else vars(self.captions)
        arrays = {name: value for name in ("qpos", "actions") if (value := getattr(self, name)) is not None}
        np.savez(path, settings=np.array(json.dumps(settings)), **arrays)

    @classmethod
    def read(cls, path: Path) -> Take:
        """What `write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        settings = json.loads(str(arrays.pop("settings")))
        settings["captions"] = settings["captions"] and Captions(**settings["captions"])
        return cls(**settings, **arrays)


@dataclass(frozen=True)
class Failure:
    """Why an environment was not rendered, in one sentence without an end."""

    reason: str


def render_in_child(path: Path, take: Take, fps: int, backend: str | None) -> str | Failure:
    """The name of the file that was written, or why there is none.

    Args:
        backend: what `$MUJOCO_GL` shall be; None leaves it as it is.
    """
    with tempfile.TemporaryDirectory() as folder:
        take.write(Path(folder) / "take.npz")
        command = bound_command("seqrl.evaluation.rendered_frames", str(path), folder, str(fps))
        path_of_modules = os.pathsep.join(folder for folder in sys.path if folder)
        environment = {**safe_environment(), "PYTHONPATH": path_of_modules, "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
        environment |= {} if backend is None else {"MUJOCO_GL": backend}
        try:
            subprocess.run(command, env=environment, capture_output=True, check=True, timeout=CHILD_TIMEOUT)
        except subprocess.CalledProcessError:
            reason = Path(folder) / "failed"
            return Failure(
                reason.read_text(encoding="utf-8") if reason.exists() else "the process that renders crashed"
            )
        except subprocess.TimeoutExpired:
            return Failure(f"rendering took longer than {CHILD_TIMEOUT:.0f} s")
        return (Path(folder) / "written").read_text(encoding="utf-8")


def render(take: Take) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 frames of an episode.

    Raises:
        ConfigError: an environment that has no pictures.
        Exception: whatever the environment's packages raise where something is missing.
    """
    from seqrl.envs.vector import make

    envs = make(take.env_id, 1, render=True)
    env = envs.envs[0]
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        raise ConfigError(f"{take.env_id} offers no render_mode='rgb_array'")
    envs.reset(None if take.seed is None else [take.seed])
    _be_quick(env.unwrapped)
    try:
        if take.qpos is not None:
            yield from _poses(env, take.qpos)
            return
        assert take.actions is not None
        done = 0
        for step in take.steps:
            for action in take.actions[done:step]:
                envs.step(action[None])
            done = step
            yield _picture(env)
    finally:
        envs.close()


def _poses(env: Any, qpos: np.ndarray) -> Iterator[np.ndarray]:
    import mujoco

    model, data = env.unwrapped.model, env.unwrapped.data
    for frame in qpos:
        data.qpos[:] = frame
        mujoco.mj_forward(model, data)
        yield _picture(env)


def _picture(env: Any) -> np.ndarray:
    """One frame, with an even number of rows and columns, which video codecs want."""
    frame = np.asarray(env.render(), np.uint8)
    return frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2, :3]


def _be_quick(env: Any) -> None:
    """Smaller pictures without shadows and reflections of MuJoCo: fifteen times as fast without a GPU."""
    renderer = getattr(env, "mujoco_renderer", None)
    if renderer is None:
        return
    import mujoco

    renderer.width = renderer.height = SIZE
    scene = None
    with suppress(AttributeError):  # of another release of Gymnasium: slower
        scene = renderer._get_viewer("rgb_array").scn
    if scene is not None:
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False


def _run(target: str, folder: str, fps: str) -> None:
    from seqrl.envs.returned import explain
    from seqrl.evaluation.captions import add_captions
    from seqrl.evaluation.encoding import write_frames
    from seqrl.plugins import load_plugins

    take = Take.read(Path(folder) / "take.npz")
    try:
        load_plugins(take.plugins)
        written = write_frames(Path(target), add_captions(render(take), take.captions), int(fps))
    except Exception as error:
        (Path(folder) / "failed").write_text(explain(error), encoding="utf-8")
        raise
    (Path(folder) / "written").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    _run(*sys.argv[1:])
