"""Compiled pieces of decoding on CPUs: attention to a cache, norms, rotations and gates, one pass over memory each.

Beside the dense products, one token of a few hundred rows is dozens of small tensor operations, which take longer to
start than to do. `kernels.cpp` does the same work in four; it is compiled once per machine, when first asked for, by
the C++ compiler at hand, and kept in the user's cache. Where there is none, on GPUs and under gradients, tensor
operations do the work: they are the reference, and results agree up to rounding.

The environment variable `SEQRL_KERNELS=0` leaves everything to tensor operations.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqrl.paths import cache_dir

_SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC")
_NAMES = {torch.float32: "float32", torch.float64: "float64"}
_HEAD_DIMS = {torch.float32: (16, 32, 64, 128), torch.float64: (8, 16, 32, 64, 128)}  # for which attention is compiled

_int, _pointer, _count = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "attend": [_pointer, _count, _pointer, _int],
    "rms_norm": [_pointer, _pointer, _pointer, _count, _count, ctypes.c_double, _int],
    "norm_and_rotate": [_pointer] * 4 + [_count] * 5 + [ctypes.c_double, _int],
    "gate": [_pointer] * 3 + [_count] * 3 + [_int],
}


class Stretch(NamedTuple):
    """Keys and values of consecutive tokens; each of its rows serves as many consecutive rows of a session.

    Attributes:
        keys, values: (kv_heads, U, columns, head_dim), contiguous.
        visible: (U, stop) bool, contiguous, False for columns that nothing may see; None where all may be seen.
        start, stop: the columns in use.
    """

    keys: Tensor
    values: Tensor
    visible: Tensor | None
    start: int
    stop: int


class _Block(ctypes.Structure):
    _fields_ = [
        *((name, _pointer) for name in ("keys", "values", "visible")),
        *((name, _count) for name in ("rows", "columns", "start", "stop")),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, _pointer) for name in ("query", "key", "value", "out")),
        *((name, _count) for name in ("query_stride", "key_stride", "value_stride")),
        *((name, _count) for name in ("rows", "kv_heads", "group", "dim")),
    ]


def serve(*tensors: Tensor) -> bool:
    """Whether they can work on some tensors; compiles them if that was not tried yet.

    They read memory as it lies: of ordinary tensors on a CPU, of one type of numbers, where nobody records gradients or
    operations. Sharded, faked and otherwise disguised ones are for tensor operations.
    """
    dtype = tensors[0].dtype
    if torch.is_grad_enabled() or dtype not in _NAMES:
        return False
    if not all(type(x) in (Tensor, nn.Parameter) and x.dtype == dtype and x.device.type == "cpu" for x in tensors):
        return False
    others = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")  # who choose operations or types
    return not others and _load()[0] is not None


def serve_attention(query: Tensor, *others: Tensor) -> bool:
    """The same for `attend`, which is compiled for some sizes of heads."""
    return query.shape[-1] in _HEAD_DIMS.get(query.dtype, ()) and serve(query, *others)


def status() -> str:
    """What they were compiled with, or why they are not in use."""
    return _load()[1]


def attend(query: Tensor, key: Tensor, value: Tensor, stretches: Sequence[Stretch], *, stored: bool) -> Tensor:
    """Softmax attention of one new token in every row, scaled by `1 / sqrt(head_dim)`.

    Args:
        query: (R, 1, heads, head_dim).
        key, value: (R, 1, kv_heads, head_dim) of the new token.
        stretches: what may be attended to, one or more.
        stored: whether key and value are first written to the last column in use of the last stretch, which then has
            R rows.

    Returns:
        (R, 1, heads * head_dim).
    """
    rows, _, heads, dim = query.shape
    kv_heads = key.shape[2]
    query, key, value = _packed(query), _packed(key), _packed(value)
    blocks = (_Block * len(stretches))()
    for block, (keys, values, visible, start, stop) in zip(blocks, stretches, strict=True):
        block.keys, block.values = keys.data_ptr(), values.data_ptr()
        block.visible = None if visible is None else visible.data_ptr()
        block.rows, block.columns = keys.shape[1:3]
        assert keys.dtype == query.dtype and start < stop <= block.columns
        block.start, block.stop = start, stop
    out = query.new_empty(rows, 1, heads * dim)
    step = _Step(
        query.data_ptr(),
        key.data_ptr() if stored else None,
        value.data_ptr(),
        out.data_ptr(),
        *(tensor.stride(0) for tensor in (query, key, value)),
        *(rows, kv_heads, heads // kv_heads, dim),
    )
    _call("attend", query, blocks, len(blocks), ctypes.addressof(step))
    return out


def rms_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """(..., D) over its root mean square, times (D,) gains."""
    x = x.contiguous()
    out = torch.empty_like(x)
    dim = x.shape[-1]
    _call("rms_norm", x, x.data_ptr(), gain.data_ptr(), out.data_ptr(), x.numel() // dim, dim, epsilon)
    return out


def norm_and_rotate_(x: Tensor, gains: Tensor | None, cos: Tensor, sin: Tensor, epsilon: float) -> None:
    """Turn the pairs (i, i + head_dim / 2) of every head, in place; before that its RMS norm, if there are gains.

    Args:
        x: (R, n, heads, head_dim), each (heads, head_dim) contiguous and all as far apart as the first two.
        gains: (heads, head_dim), contiguous.
        cos, sin: (R, n, 1, head_dim), (1, n, 1, head_dim) or (1, 1, 1, head_dim), contiguous; the first half of the
            sines is negative.
    """
    rows, count, heads, dim = x.shape
    if len(cos) < rows and count > 1:
        cos, sin = (each.expand(rows, -1, -1, -1).contiguous() for each in (cos, sin))
    _call(
        "norm_and_rotate",
        x,
        x.data_ptr(),
        None if gains is None else gains.data_ptr(),
        cos.data_ptr(),
        sin.data_ptr(),
        *(rows * count, x.stride(0 if count == 1 else 1), heads, dim),
        dim if cos.numel() > dim else 0,
        epsilon,
    )


def gate(x: Tensor, up: Tensor) -> Tensor:
    """`silu(x) * up` of (R, n, F) numbers; the two may be halves of one tensor."""
    rows, count, width = x.shape
    x, up = (each.reshape(rows * count, width) for each in (x, up))
    if not (x.stride(1) == up.stride(1) == 1 and x.stride(0) == up.stride(0)):
        x, up = x.contiguous(), up.contiguous()
    out = x.new_empty(rows, count, width)
    _call("gate", x, x.data_ptr(), up.data_ptr(), out.data_ptr(), rows * count, x.stride(0), width)
    return out


def _packed(x: Tensor) -> Tensor:
    """(R, 1, heads, head_dim) with the numbers of each row side by side."""
    _, _, heads, dim = x.shape
    return x if x.stride(3) == 1 and (heads == 1 or x.stride(2) == dim) else x.contiguous()


def _call(name: str, like: Tensor, *arguments: object) -> None:
    library = _load()[0]
    assert library is not None
    done = getattr(library, f"seqrl_{name}_{_NAMES[like.dtype]}")(*arguments, torch.get_num_threads())
    assert done, "not compiled for this size"


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, compiled now or before, and what it was compiled with; or None, and why."""
    if os.environ.get("SEQRL_KERNELS", "").lower() in ("0", "off", "false", "no"):
        return None, "switched off by SEQRL_KERNELS"
    wanted = shlex.split(os.environ.get("CXX", ""))
    found = [wanted] if wanted else [["g++"], ["c++"]]
    compiler = next((words for words in found if shutil.which(words[0])), None)
    if compiler is None:
        named = f"CXX={os.environ['CXX']} is not there" if wanted else "no C++ compiler"
        return None, f"{named}; install g++ (12 or newer) and they are compiled when first used"
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
        return None, f"{compiler[0]} could not compile them: {said[0] if said else f'status {error.returncode}'}"
    except (OSError, RuntimeError, AttributeError, IndexError) as error:
        return None, f"not compiled: {error}"


def _opened(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, arguments in _ARGUMENTS.items():
        for dtype in _NAMES.values():
            function = getattr(library, f"seqrl_{name}_{dtype}")
            function.argtypes, function.restype = arguments, ctypes.c_bool
    return library


def _target(compiler: Sequence[str], version: str) -> Path:
    """Where the library for this source, compiler and processor is kept, in a folder of this user alone."""
    what = [_SOURCE.read_text(), *_FLAGS, *compiler, version, _loaded_openmp(), platform.machine(), _processor()]
    folder = cache_dir() / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to somebody else or may be written by others; chmod it to 700")
    return folder / f"{hashlib.sha256(chr(0).join(what).encode()).hexdigest()[:16]}.so"


def _compile(compiler: Sequence[str], version: str, target: Path) -> None:
    """Several processes may do so at once: each writes a file of its own and moves it to its place."""
    # Linked by hand: two OpenMP libraries in one process would have two teams of threads, in each other's way. Clang's
    # code needs its own.
    openmp = "" if "clang" in version.lower() else _loaded_openmp()
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        part, whole = Path(scratch, "part.o"), Path(scratch, "whole.so")
        _run([*compiler, *_FLAGS, "-c", str(_SOURCE), "-o", str(part)])
        _run([*compiler, "-shared", str(part), openmp or "-fopenmp", "-o", str(whole)])
        with whole.open("rb+") as file:
            os.fsync(file.fileno())
        whole.replace(target)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True)
    return done.stdout


def _loaded_openmp() -> str:
    """The file of the OpenMP library that torch runs on; empty where it cannot be told."""
    maps = Path("/proc/self/maps")
    lines = [line.split(maxsplit=5) for line in maps.read_text().splitlines()] if maps.exists() else []
    files = {words[5] for words in lines if len(words) == 6}
    names = re.compile(r".*/lib(gomp|iomp5|omp)[-.][^/]*")
    return min((file for file in files if names.fullmatch(file)), key=lambda file: "torch" not in file, default="")


def _processor() -> str:
    """What the processor can do: a cache may be shared by different machines."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^(?:flags|Features)\s*:.*$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[0] if found else platform.processor()
