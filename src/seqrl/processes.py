"""Processes that seqrl starts: where they find modules, and that they end with the process that started them.

Imports nothing but `os` and `sys` before the current folder is left: see `leave_current_folder`.
"""

from __future__ import annotations

import os
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_ORPHAN = 3  # exit status of a process whose parent was gone before it could bind itself


def bound_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module in a Python that lives as long as this process, and not longer.

    Files of the current folder are no modules for it. Give it `safe_environment()`.
    """
    return [sys.executable, "-P", "-m", "seqrl.child", str(os.getpid()), module, *arguments]


def safe_environment() -> dict[str, str]:
    """The environment for any Python that this process starts: it finds no modules in the current folder.

    Neither by itself nor by an empty entry of PYTHONPATH, which `PYTHONPATH=$PYTHONPATH:/my/code` easily leaves.
    Folders that PYTHONPATH names are kept.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    named = _named_folders()
    if named:
        environment["PYTHONPATH"] = os.pathsep.join(named)
    else:
        environment.pop("PYTHONPATH", None)
    return environment


def leave_current_folder() -> None:
    """Let this process, which is a command of seqrl, and all that it starts find no modules in the current folder.

    `python -m` and an empty entry of PYTHONPATH put that folder before the standard library, and a `yaml.py` beside
    the data would be run. What the user named stays: a folder in PYTHONPATH, and plugin files, which have paths.
    """
    empty = "" in os.environ.get("PYTHONPATH", "x").split(os.pathsep)
    safe = safe_environment()
    os.environ.update(safe)
    if "PYTHONPATH" not in safe:
        os.environ.pop("PYTHONPATH", None)
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        return
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if here == package or here in map(os.path.abspath, _named_folders()):
        return
    first = [] if sys.flags.safe_path else sys.path[:1]  # of `python -m`; what .pth files name stands behind
    for _ in range((here in first) + empty):
        if here in sys.path:
            sys.path.remove(here)


def is_command() -> bool:
    """Whether this process was started as a command of this package, rather than by somebody's own script."""
    if sys.argv[:1] == ["-m"]:  # while Python looks for the module
        word = sys.orig_argv[-len(sys.argv)]  # the module, or -mMODULE
        name = word.partition("m")[2] if word.startswith("-") else word
        return name.partition(".")[0] == "seqrl"
    return os.path.basename(sys.argv[0] if sys.argv else "") == "seqrl"


def bind_to(parent: int) -> None:
    """End this process as soon as its parent has ended, however it did; also if it has ended already.

    Args:
        parent: number of the process that started this one.
    """
    if not _ask_kernel():
        _watch(parent)
    if os.getppid() != parent:
        os._exit(_ORPHAN)


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _named_folders() -> list[str]:
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def _ask_kernel() -> bool:
    """Let Linux kill this process when the one that started it ends; False elsewhere."""
    if sys.platform != "linux":
        return False
    import ctypes
    import signal

    return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0)


def _watch(parent: int) -> None:
    """Look every half second whether the parent is still there."""
    import threading
    import time

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(_ORPHAN)

    threading.Thread(target=watch, daemon=True).start()
