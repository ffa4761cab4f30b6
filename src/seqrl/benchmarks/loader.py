"""Windows per second of the loader beside what training consumes: `seqrl bench data`."""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from seqrl.benchmarks.timing import describe_machine, interleaved, open_device, spread
from seqrl.benchmarks.workload import WARM_UP, TrainSettings, train_block
from seqrl.console import say


def bench_data(settings: TrainSettings, batches: int) -> dict[str, Any]:
    """Measure the loader of a run on its own, and steps of the same run, in turn.

    Args:
        batches: how many the loader is asked for.

    Returns:
        The machine, the settings, `loader` and `training` with `windows_per_second` (median, min, max) each, and
        `ratio`, the first's over the second's: training spends about 1 / ratio of its time on waiting for windows.
    """
    device = open_device(settings.device, settings.threads)
    config, data = settings.config(), settings.data()

    with tempfile.TemporaryDirectory() as folder:

        def load(repeat: int) -> float:
            epochs = data.train_dataloader()
            loader = itertools.chain.from_iterable(itertools.repeat(epochs))
            for _ in range(WARM_UP):
                next(loader)
            start = time.perf_counter()
            for _ in range(batches):
                next(loader)
            return batches * settings.batch_size / (time.perf_counter() - start)

        def consume(repeat: int) -> float:
            seconds, _, _ = train_block(config, data, Path(folder) / str(repeat))
            return settings.steps * settings.batch_size / seconds

        measured = interleaved({"loader": load, "training": consume}, settings.repeats, say)
    entries = {name: {"windows_per_second": spread(values)} for name, values in measured.items()}
    return {
        "machine": describe_machine(device, torch.float32),
        "settings": {**asdict(settings), "batches": batches},
        **entries,
        "ratio": spread(measured["loader"])["median"] / spread(measured["training"])["median"],
    }
