"""MuJoCo without the OpenGL that a machine's profile asks for and does not have."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec

BACKENDS = ("egl", "osmesa")  # that draw without a screen, in the order in which they are tried
LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
PACKAGES = {"egl": "libegl1 and libgl1-mesa-dri", "osmesa": "libosmesa6"}  # of Debian and Ubuntu
INSTALL = " or ".join(f"{packages} for MUJOCO_GL={backend}" for backend, packages in PACKAGES.items())
_ASKED = ("MUJOCO_GL", "PYOPENGL_PLATFORM")


def prepare_mujoco() -> None:
    """Import MuJoCo where `$MUJOCO_GL` may keep it from being imported; to be called before somebody imports it.

    `import mujoco` fails if the variable names an OpenGL that is missing, or none at all, although simulating draws
    nothing. It is then imported as if the variable said `off`, so that only drawing fails. Nothing happens where the
    variable is not set, or MuJoCo is not installed.
    """
    if not os.environ.get("MUJOCO_GL") or "mujoco" in sys.modules or find_spec("mujoco") is None:
        return
    kept = {name: os.environ.get(name) for name in _ASKED}
    try:
        importlib.import_module("mujoco")
    except Exception:  # AttributeError, ImportError, RuntimeError: as each OpenGL pleases
        _forget("mujoco", "OpenGL")
        os.environ["MUJOCO_GL"] = "off"
        importlib.import_module("mujoco")
    finally:
        for name, text in kept.items():
            os.environ.pop(name, None)
            if text is not None:
                os.environ[name] = text


def _forget(*packages: str) -> None:
    """Remove what a failed import left of packages, so that they can be imported anew."""
    for module in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[module]
