"""The compiled function: built by the C++ compiler at hand when first asked for, and kept in the user's cache.

The environment variable `SEQRL_KERNELS=0` leaves everything to tensor operations.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from seqrl.files import fingerprint, flush_file, read_text, write_file
from seqrl.paths import cache_dir, private_dir
from seqrl.processes import safe_environment

_SOURCE = Path(__file__).with_name("token_step.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-fPIC")
_PATIENCE = 300  # seconds for a compiler
NAMES = {torch.float32: "float32", torch.float64: "float64"}
"""Types of numbers that it is compiled for, as its functions are named."""


@functools.cache
def load_library() -> tuple[ctypes.CDLL | None, str]:
    """The library, compiled now or before, and what it was compiled with; or None, and why."""
    if os.environ.get("SEQRL_KERNELS", "").lower() in ("0", "off", "false", "no"):
        return None, "switched off by SEQRL_KERNELS"
    try:
        wanted = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:  # a quote without its other one
        return None, f"CXX={os.environ['CXX']} is no command: {error}"
    found = [wanted] if wanted else [["g++"], ["c++"]]
    compiler = next((words for words in found if shutil.which(words[0])), None)
    if compiler is None:
        named = f"CXX={os.environ['CXX']} is not there" if wanted else "no C++ compiler"
        return None, f"{named}; install g++ 12 or newer"
    try:
        version = _run([*compiler, "--version"]).splitlines()[0]
        target = _target(compiler, version)
        if not target.exists():
            _compile(compiler, version, target)
        try:
            return _opened(target), version
        except (OSError, AttributeError):  # damaged
            _compile(compiler, version, target)
            return _opened(target), version
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        return None, f"{compiler[0]} could not compile it: {said[0] if said else f'status {error.returncode}'}"
    except (OSError, subprocess.SubprocessError, AttributeError, IndexError) as error:
        return None, f"not compiled: {error}"


def _opened(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name in NAMES.values():
        run = getattr(library, f"seqrl_run_{name}")
        run.argtypes, run.restype = [ctypes.c_void_p, ctypes.c_void_p], None
        getattr(library, f"seqrl_panel_{name}").restype = ctypes.c_int64
    return library


def _target(compiler: Sequence[str], version: str) -> Path:
    """Where the library for this source, compiler and processor is kept, in a folder of this user alone."""
    source = _SOURCE.read_text(encoding="utf-8")
    what = [source, *_FLAGS, *compiler, version, _loaded_openmp(), platform.machine(), _abilities()]
    return private_dir(cache_dir() / "token_step") / f"{fingerprint(what)[:16]}.so"


def _compile(compiler: Sequence[str], version: str, target: Path) -> None:
    """Several processes may do so at once: each writes a file of its own and moves it to its place."""
    # Two OpenMP libraries in one process would have two teams of threads, in each other's way: torch's is linked, by
    # its name. Clang's code needs its own.
    openmp = "" if "clang" in version.lower() else _loaded_openmp()
    with write_file(target.with_suffix(".o")) as part, write_file(target) as whole:
        _run([*compiler, *_FLAGS, "-c", str(_SOURCE), "-o", part.name])
        _run([*compiler, "-shared", part.name, openmp or "-fopenmp", "-o", whole.name])
        with Path(whole.name).open("rb") as file:  # the linker made a new file of that name
            flush_file(file)
    target.with_suffix(".o").unlink(missing_ok=True)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=_PATIENCE,
        env=safe_environment(),
    )
    return done.stdout


def _loaded_openmp() -> str:
    """The file of the OpenMP library that torch runs on; empty where it cannot be told."""
    maps = Path("/proc/self/maps")
    lines = [line.split(maxsplit=5) for line in read_text(maps, lenient=True).splitlines()] if maps.exists() else []
    files = {words[5] for words in lines if len(words) == 6}
    names = re.compile(r".*/lib(gomp|iomp5|omp)[-.][^/]*")
    return min((file for file in files if names.fullmatch(file)), key=lambda file: "torch" not in file, default="")


def _abilities() -> str:
    """What the processor can do: a cache may be shared by different machines."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^(?:flags|Features)\s*:.*$", read_text(info), re.MULTILINE) if info.exists() else None
    return found[0] if found else platform.processor()
