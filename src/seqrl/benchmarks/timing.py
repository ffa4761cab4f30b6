"""Times that can be compared: alternating measurements, medians, and what the machine itself can do."""

from __future__ import annotations

import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqrl.errors import ConfigError

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}
_ATTEMPTS = 5


@dataclass(frozen=True)
class Rates:
    """What a machine can do, as measured.

    Attributes:
        flops: floating-point operations per second of a large matrix product, 2 n^3 for n x n matrices.
        bytes: bytes read plus bytes written per second by a copy that is far larger than the caches.
    """

    flops: float
    bytes: float

    def best(self, other: Rates) -> Rates:
        return Rates(max(self.flops, other.flops), max(self.bytes, other.bytes))


def measure_rates(device: torch.device, dtype: torch.dtype, *, size: int | None = None) -> Rates:
    """The best of a few large products and copies, in this process and with its number of threads.

    Args:
        size: n of the matrix product; 2048, or 8192 on a GPU, which 2048 would not fill. The copy moves 16 n^2 numbers.
    """
    size = size or (2048 if device.type == "cpu" else 8192)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.zeros(16 * size * size, device=device, dtype=dtype)
    target = torch.ones_like(source)
    best_product = min(seconds(lambda: torch.mm(a, b, out=product), device) for _ in range(_ATTEMPTS))
    best_copy = min(seconds(lambda: target.copy_(source), device) for _ in range(_ATTEMPTS))
    return Rates(2 * size**3 / best_product, 2 * source.nbytes / best_copy)


def seconds(task: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, work that was queued on a GPU included."""
    synchronize(device)
    start = time.perf_counter()
    task()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    tasks: Mapping[str, Callable[[int], float]], repeats: int, progress: Callable[[str], None] = lambda name: None
) -> dict[str, list[float]]:
    """Measure tasks in turn, a b c a b c, so that a slow minute of the machine meets all of them.

    Args:
        tasks: by name; each is given the number of the repeat and returns what it measured.
        progress: told the name of every measurement before it starts.
    """
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for repeat in range(repeats):
        for name, task in tasks.items():
            progress(f"{name}, {repeat + 1} of {repeats}")
            found[name].append(task(repeat))
    return found


def spread(values: list[float], scale: float = 1.0) -> dict[str, float]:
    """`{"median", "min", "max"}` of some measurements; far ends say that the machine was busy with something else."""
    scaled = [value * scale for value in values]
    return {"median": statistics.median(scaled), "min": min(scaled), "max": max(scaled)}


def open_device(name: str, threads: int) -> torch.device:
    """The device of a benchmark, after setting the number of CPU threads.

    Raises:
        ConfigError: there is no GPU that torch can use.
    """
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch finds no GPU here; give --device cpu, or install a CUDA build of torch")
    torch.set_num_threads(threads)
    return device


@dataclass(frozen=True)
class MemoryRise:
    """How far the memory of this process rises; meant for a fresh one, as freed memory is used again.

    Attributes:
        resident, own: kB at the beginning; `own` without pages of files.
    """

    resident: int
    own: int

    @staticmethod
    def begin() -> MemoryRise | None:
        """Forget the peak so far; None where the operating system does not tell (`/proc`, Linux)."""
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
            return MemoryRise(_status_kb("VmRSS"), _status_kb("RssAnon"))
        except OSError:
            return None

    def peak_mb(self) -> float:
        """What the process touched since, at its peak; the allocator's unused is in it."""
        return (_status_kb("VmHWM") - self.resident) * 1024 / 1e6

    def own_mb(self) -> float:
        """What it holds now beyond the beginning, mapped files aside."""
        return (_status_kb("RssAnon") - self.own) * 1024 / 1e6


def _status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def describe_machine(device: torch.device, dtype: torch.dtype, rates: Rates | None = None) -> dict[str, Any]:
    """What a benchmark ran on, for its JSON; numbers of one kind of processor say nothing of another."""
    cuda = device.type == "cuda"
    facts: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if cuda else f"cpu ({processor()}, {instructions()})",
        "processor": processor(),
        "instructions": instructions(),
        "products": None if cuda else _products(),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if rates is not None:
        facts |= {"matrix_product_gflops": rates.flops / 1e9, "copy_gb_per_second": rates.bytes / 1e9}
    return facts


def processor() -> str:
    """The name that the processor gives itself."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: *(\S.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def instructions() -> str:
    """The instruction set that torch's own operations use: `AVX2`, `AVX512`, `DEFAULT`, ..."""
    found: str = torch.backends.cpu.get_cpu_capability()
    return found


def _products() -> str | None:
    """The library of matrix products on the CPU, which chooses its instructions by itself."""
    found = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return found[1].upper() if found else None
