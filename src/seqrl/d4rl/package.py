"""The published packages `d4rl` and `gym`, run on today's MuJoCo bindings.

`d4rl` was written for mujoco-py, which no longer builds on most machines. What its environments want of it is small
and offered here under its name, on the official bindings. Of `d4rl` only the parts are imported that need no more:
`d4rl.gym_mujoco`, `d4rl.pointmaze` and `d4rl.locomotion`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import warnings
from collections import namedtuple
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from seqrl.d4rl.catalogue import Entry
from seqrl.errors import ConfigError, DataError
from seqrl.formats.hdf5 import open_hdf5
from seqrl.formats.hdf5_chunks import check_sizes
from seqrl.formats.recording import Recording
from seqrl.opengl import prepare_mujoco

INSTALL = "pip install --no-deps d4rl==1.1 gym==0.23.1 gym_notices==0.1.0 termcolor==3.3.0"
MODULES = {"locomotion": "d4rl.gym_mujoco", "maze2d": "d4rl.pointmaze", "antmaze": "d4rl.locomotion"}
"""The part of `d4rl` that registers the environments of a family."""

_State = namedtuple("_State", "time qpos qvel act udd_state")


class _Named:
    """Attributes of a MuJoCo structure, and mujoco-py's look-ups by name."""

    def __init__(self, inner: Any, model: Any) -> None:
        self.inner, self._model = inner, model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def site_name2id(self, name: str) -> int:
        return int(self._model.site(name).id)

    def get_body_xpos(self, name: str) -> Any:
        return self.inner.body(name).xpos


class _Simulation:
    """mujoco-py's `MjSim`."""

    def __init__(self, model: _Named) -> None:
        prepare_mujoco()
        import mujoco

        self._mujoco = mujoco
        self._model = model.inner
        self._data = mujoco.MjData(self._model)
        self.model, self.data = model, _Named(self._data, self._model)
        self.forward()

    def reset(self) -> None:
        self._mujoco.mj_resetData(self._model, self._data)

    def forward(self) -> None:
        self._mujoco.mj_forward(self._model, self._data)

    def step(self) -> None:
        self._mujoco.mj_step(self._model, self._data)

    def get_state(self) -> _State:
        data = self._data
        return _State(data.time, data.qpos.copy(), data.qvel.copy(), data.act.copy(), {})

    def set_state(self, state: _State) -> None:
        self._data.time = state.time
        self._data.qpos[:], self._data.qvel[:], self._data.act[:] = state.qpos, state.qvel, state.act


def _load_model(path: str) -> _Named:
    """A model from a file; MuJoCo 3 has no global coordinates any more, Gymnasium's copies do without."""
    import gymnasium

    prepare_mujoco()
    import mujoco

    file = Path(path)
    if 'coordinate="global"' in file.read_text(encoding="utf-8"):
        file = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / file.name
    model = mujoco.MjModel.from_xml_path(str(file))
    return _Named(model, model)


def _mujoco_py() -> ModuleType:
    module = ModuleType("mujoco_py")
    module.__dict__.update(
        load_model_from_path=_load_model, MjSim=_Simulation, MjSimState=_State, get_version=lambda: "2.1.2.14"
    )
    return module


@lru_cache
def load(family: str) -> ModuleType:
    """`gym`, after the part of `d4rl` for a family has registered its environments.

    Raises:
        ConfigError: the packages are missing or of another version, or `d4rl` does not simulate the family today.
    """
    if family not in MODULES:
        raise ConfigError(
            f"the package d4rl cannot make {family} environments with today's MuJoCo; it can for {', '.join(MODULES)}"
        )
    try:
        missing = [name for name in ("d4rl", "gym") if find_spec(name) is None]
        if missing:
            raise ImportError(f"there is no {' and no '.join(missing)}")
        sys.modules.setdefault("mujoco_py", _mujoco_py())
        os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
        with quiet():
            gym = importlib.import_module("gym")
            importlib.import_module(MODULES[family])
    except ImportError as error:
        raise ConfigError(
            f"D4RL's own environments need its packages ({error}); install them by `{INSTALL}`, or set evaluation=none"
        ) from error
    if not re.match(r"0\.2[1-4]\.", gym.__version__):
        raise ConfigError(f"d4rl needs gym 0.23 and {gym.__version__} is installed; install it by `{INSTALL}`")
    gym.logger.set_level(gym.logger.ERROR)
    return gym


def make(entry: Entry) -> Any:
    """D4RL's own environment of a data set, without gym's time limit.

    Returns:
        A `gym.Env` of the old kind: `reset()` gives an observation, `step(action)` four values.

    Raises:
        ConfigError: what `load` refuses.
    """
    spec = load(entry.family).spec(entry.id)
    module, _, name = spec.entry_point.partition(":")
    with quiet():
        return getattr(importlib.import_module(module), name)(**spec.kwargs)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the packages print: gym that it is out of date, d4rl each goal that it draws."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(entry: Entry, path: Path) -> Recording:
    """What D4RL's own `get_dataset()` makes of a file.

    Raises:
        ConfigError: what `load` refuses.
        DataError: the package refuses the file, or it would have other files read.
    """
    with open_hdf5(path, alone=True) as file:  # the package follows whatever a file says, and reads all of it
        check_sizes(file, path, path.name, at_once=True)
    env = make(entry)
    try:
        with quiet():
            arrays = env.get_dataset(h5path=str(path))
    except (AssertionError, OSError) as error:
        raise DataError(f"the package d4rl refuses {path.name} ({error}); try data.reader=seqrl") from error
    found = {key: np.asarray(array) for key, array in arrays.items()}
    return Recording(path.name, {key: array for key, array in found.items() if array.dtype.kind in "fiub"})
