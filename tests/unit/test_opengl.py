"""Simulating needs no OpenGL, whatever a profile asks for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SIMULATE = """
import os
from seqrl.opengl import prepare_mujoco
prepare_mujoco()
import mujoco
body = "<worldbody><body><freejoint/><geom size='.1'/></body></worldbody>"
model = mujoco.MjModel.from_xml_string(f"<mujoco>{body}</mujoco>")
mujoco.mj_step(model, mujoco.MjData(model))
print(os.environ["MUJOCO_GL"], os.environ.get("PYOPENGL_PLATFORM"))
"""


def simulate(**environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", SIMULATE], env=settings, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["osmesa", "nonsense", "off", "Egl "])
def test_mujoco_simulates_with_any_opengl(backend: str) -> None:
    environment = {**os.environ, "MUJOCO_GL": backend}
    done = subprocess.run(
        [sys.executable, "-c", SIMULATE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{backend} ")  # what is started to draw a video sees what the user said


def test_an_opengl_that_contradicts_itself() -> None:
    environment = {**os.environ, "MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "glx"}
    done = subprocess.run(
        [sys.executable, "-c", SIMULATE], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "egl glx\n"), done.stderr


def test_where_nothing_is_asked_for_nothing_is_imported() -> None:
    code = "import sys; from seqrl.opengl import prepare_mujoco; prepare_mujoco(); print('mujoco' in sys.modules)"
    environment = {name: text for name, text in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
