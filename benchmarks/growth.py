"""How time and memory grow with sizes, one at a time: `python -m benchmarks.growth`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqrl.benchmarks.plan import PlanSettings, measure_plan
from seqrl.benchmarks.timing import MemoryRise, describe_machine, open_device
from seqrl.benchmarks.workload import TrainSettings
from seqrl.cli.bench_options import add_output, count, format_number, run_benchmark, say_machine
from seqrl.console import print_table, say
from seqrl.data.episodes import EpisodeStore
from seqrl.models.token import TokenModel
from seqrl.paths import find_path
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.module import SequenceModule
from seqrl.types import TokenBatch

SIZES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "plan": {
        "beam_width": (16, 64, 256, 1024),
        "horizon": (2, 5, 10, 20),
        "context": (3, 6, 12, 24),
        "width": (32, 64, 128, 256, 512),
        "environments": (1, 4, 16),
    },
    "train": {"window": (5, 10, 20, 40, 80), "width": (64, 128, 256, 512)},
    "data": {"transitions": (10_000, 100_000, 1_000_000, 10_000_000)},
}
"""What grows, and how far; everything else stays as in `PLAN` and `TRAIN`."""
PLAN = PlanSettings(threads=1, layers=2, width=64, beam_width=64, horizon=5, environments=1, memory=False)
TRAIN = TrainSettings(threads=1, layers=2, width=64, batch_size=8)
MODES = ("exact", "window")
_REPEATED = 100_000  # transitions that are drawn; larger data sets repeat them


@dataclass(frozen=True)
class Point:
    """One size and what it costs.

    Attributes:
        task: `plan exact`, `plan window`, `train`, `open and tokenize`.
        factor, value: what grows, and how large it is.
        seconds: of the processor.
        mb: peak of the resident memory above that before; of data sets, what stays of the process's own memory.
    """

    task: str
    factor: str
    value: int
    seconds: float
    mb: float | None


def measure_point(task: str, factor: str, value: int, threads: int) -> Point:
    """Meant for a fresh process, whose memory nobody has used before."""
    kind, _, mode = task.partition(" ")
    changed: dict[str, Any] = {"threads": threads, factor: value}
    if kind == "plan":
        seconds, mb = measure_plan(replace(PLAN, **changed), "llama", mode)
    elif kind == "train":
        seconds, mb = _measure_step(replace(TRAIN, **changed))
    else:
        seconds, mb = _measure_data(value, threads)
    return Point(task, factor, value, seconds, mb)


def _measure_step(settings: TrainSettings) -> tuple[float, float | None]:
    """Processor seconds of a training step (the faster of two) and its peak memory."""
    open_device("cpu", settings.threads)
    module = SequenceModule(settings.config(), settings.sizes()).train()
    assert isinstance(module.model, TokenModel)
    shape = (settings.batch_size, settings.window, module.model.tokens_per_step)
    batch = TokenBatch(torch.randint(0, module.model.num_classes, shape), torch.ones(shape, dtype=torch.bool), None)
    times, rise = [], MemoryRise.begin()
    for _ in range(2):
        start = time.process_time()
        outcome = module.loss_of(batch)
        (outcome.total / outcome.count).backward()
        times.append(time.process_time() - start)
    return min(times), None if rise is None else rise.peak_mb()


def _measure_data(transitions: int, threads: int) -> tuple[float, float | None]:
    """Processor seconds to open episodes on disk, fit a tokenizer, encode them and cut a batch; what memory stays."""
    open_device("cpu", threads)
    with tempfile.TemporaryDirectory() as folder:
        write_episodes(Path(folder) / "episodes", transitions)
        os.environ["SEQRL_DATA"] = f"{folder}/cache"
        module = SequenceModule(TRAIN.config(), TRAIN.sizes())
        rise, start = MemoryRise.begin(), time.process_time()
        data = EpisodeDataModule.for_module(module, EpisodeStore.open(Path(folder) / "episodes"), batch_size=8)
        next(iter(data.train_dataloader()))
        return time.process_time() - start, None if rise is None else rise.own_mb()


def write_episodes(folder: Path, transitions: int) -> None:
    """Save episodes of 1,000 transitions, of which 100,000 are drawn and the others repeat them."""
    rng, count = np.random.default_rng(0), min(transitions, _REPEATED)
    ends = np.arange(1, count + 1) % min(1000, count) == 0
    drawn = EpisodeStore.from_arrays(
        rng.standard_normal((count, TRAIN.observation), np.float32),
        rng.standard_normal((count, TRAIN.action), np.float32),
        rng.standard_normal(count, np.float32),
        ends,
        np.zeros(count, bool),
    )
    EpisodeStore.mix([drawn] * (transitions // count)).save(folder)


def bench_growth(sizes: Mapping[str, Mapping[str, Sequence[int]]], threads: int) -> dict[str, Any]:
    """Measure all sizes, each in a process of its own.

    Returns:
        The machine, what stays the same, and `points`.
    """
    names = {"plan": [f"plan {mode}" for mode in MODES], "train": ["train"], "data": ["open and tokenize"]}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["seqrl.benchmarks.plan", "seqrl.benchmarks.workload"])  # imports take seconds
    points = []
    for kind, factors in sizes.items():
        for factor, values in factors.items():
            for task in names[kind]:
                for value in values:
                    say(f"{task}, {factor} {value:,}")
                    with ProcessPoolExecutor(1, mp_context=context) as process:
                        points.append(asdict(process.submit(measure_point, task, factor, value, threads).result()))
    open_device("cpu", threads)
    machine = describe_machine(torch.device("cpu"), torch.float32)
    return {"machine": machine, "plan": asdict(PLAN), "train": asdict(TRAIN), "points": points}


def find_exponents(points: Sequence[Mapping[str, Any]], key: str) -> dict[tuple[str, str], tuple[float, float]]:
    """By task and factor, the slope of the logarithms: of a line through all points, and between the two largest.

    Args:
        key: `seconds` or `mb`; points without it, or where it is 0, are left out.
    """
    found = {}
    for task, factor in dict.fromkeys((point["task"], point["factor"]) for point in points):
        own = [(p["value"], p[key]) for p in points if (p["task"], p["factor"]) == (task, factor) and (p[key] or 0) > 0]
        if len(own) > 1:
            x, y = np.log(np.array(own, float)).T
            slope = float(np.polyfit(x, y, 1)[0])
            found[task, factor] = slope, float((y[-1] - y[-2]) / (x[-1] - x[-2]))
    return found


def draw(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One column for each kind of task: time above, memory below, against how many times the smallest size."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(point["task"] for point in points))
    figure = Figure(figsize=(3.5 * len(kinds), 6.5), layout="constrained")
    axes = figure.subplots(2, len(kinds), sharex="col", squeeze=False)
    for column, kind in enumerate(kinds):
        own = [point for point in points if point["task"] == kind]
        for row, (key, label) in enumerate((("seconds", "processor seconds"), ("mb", "MB"))):
            axis = axes[row][column]
            for factor in dict.fromkeys(point["factor"] for point in own):
                line = [p for p in own if p["factor"] == factor and p[key] is not None]
                axis.loglog([p["value"] / line[0]["value"] for p in line], [p[key] for p in line], "o-", label=factor)
            axis.grid(visible=True, which="major", alpha=0.3)
            axis.set_ylabel(label if column == 0 else "")
            if row == 0:
                axis.set_title(kind)
                axis.legend(fontsize=8)
            else:
                axis.set_xlabel("times the smallest size")
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table of exponents and draw it; the exit status as a program's."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.growth", description="Time and memory of plans, training steps and data sets by size."
    )
    factors = [f"{kind}.{factor}" for kind, own in SIZES.items() for factor in own]
    parser.add_argument("--threads", type=count(), default=1, help="default 1")
    parser.add_argument("--only", nargs="+", choices=factors, default=factors, metavar="WHAT", help=", ".join(factors))
    parser.add_argument("--most", type=count(), metavar="N", help="leave out larger sizes than this")
    parser.add_argument(
        "--transitions", nargs="+", type=lambda text: int(float(text)), metavar="N",
        help="of data sets; 1e8 takes 8 GB of the folder of temporary files",
    )  # fmt: skip
    parser.add_argument("--figure", type=find_path, metavar="FILE", help="draw the growth")
    add_output(parser)
    parser.set_defaults(task=_measure)
    return run_benchmark(parser, arguments)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    keep: Callable[[int], bool] = lambda value: options.most is None or value <= options.most  # noqa: E731
    sizes: dict[str, dict[str, Sequence[int]]] = {
        kind: {
            factor: tuple(filter(keep, values)) for factor, values in own.items() if f"{kind}.{factor}" in options.only
        }
        for kind, own in SIZES.items()
    }
    if options.transitions and "transitions" in sizes["data"]:
        sizes["data"]["transitions"] = options.transitions
    result = bench_growth(sizes, options.threads)
    times, memory = (find_exponents(result["points"], key) for key in ("seconds", "mb"))
    rows = []
    for task, factor in dict.fromkeys((point["task"], point["factor"]) for point in result["points"]):
        own = [point for point in result["points"] if (point["task"], point["factor"]) == (task, factor)]
        cells = [", ".join("-" if p[key] is None else format_number(p[key]) for p in own) for key in ("seconds", "mb")]
        slopes = [
            f"{found[task, factor][0]:.2f} ({found[task, factor][1]:.2f})" if (task, factor) in found else "-"
            for found in (times, memory)
        ]
        values = ", ".join(f"{point['value']:,}" for point in own)
        rows.append([task, factor, values, cells[0], slopes[0], cells[1], slopes[1]])
    print_table(["task", "factor", "sizes", "processor s", "exponent", "MB", "exponent"], rows, wrap=True)
    say("exponents: of a line through all sizes (between the two largest)")
    say_machine(result["machine"])
    if options.figure is not None:
        draw(result["points"], options.figure)
        say(f"written: {options.figure}")
    return result


if __name__ == "__main__":
    sys.exit(main())
