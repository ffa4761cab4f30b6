"""What the exchange between ranks costs: `seqrl bench train --ranks 2`."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from seqrl.benchmarks.timing import describe_machine, interleaved, open_device, spread
from seqrl.benchmarks.workload import WARM_UP, TrainSettings, train_block
from seqrl.console import say
from seqrl.errors import ConfigError
from seqrl.training.launch import rank_environment


def bench_ranks(settings: TrainSettings, ranks: int) -> dict[str, Any]:
    """Measure one training in several ranks, and as many trainings apart that run at the same time, in turn.

    Every process has the same work in both: a batch of `batch_size / ranks` windows and `threads / ranks` threads.
    What is compared follows within seconds, and the median of the ratios is reported: a machine that is busy with
    something else for a while spoils one of them.

    Returns:
        The machine, its load before, the settings, `together` and `apart` with `tokens_per_second` (median, min, max)
        of all processes, the `ratios` of the first to the second by repeat, and `ratio`, their median.

    Raises:
        ConfigError: the ranks cannot share the batch.
    """
    if settings.batch_size % ranks:
        raise ConfigError(f"--batch-size {settings.batch_size} cannot be shared by {ranks} ranks; give a multiple")
    settings = replace(settings, threads=max(1, settings.threads // ranks))
    device = open_device(settings.device, settings.threads)
    load = os.getloadavg()[0]
    blocks: dict[str, Callable[[int], float]] = {
        "together": lambda repeat: _tokens_per_second(settings, ranks, together=True),
        "apart": lambda repeat: _tokens_per_second(settings, ranks, together=False),
    }
    measured = interleaved(blocks, settings.repeats, say)
    ratios = [ours / apart for ours, apart in zip(measured["together"], measured["apart"], strict=True)]
    return {
        "machine": describe_machine(device, torch.float32),
        "load_before": load,
        "settings": asdict(settings),
        "ranks": ranks,
        **{name: {"tokens_per_second": spread(values)} for name, values in measured.items()},
        "ratios": ratios,
        "ratio": spread(ratios)["median"],
    }


def _tokens_per_second(settings: TrainSettings, ranks: int, *, together: bool) -> float:
    """Of all processes. Each measurement has processes of its own, whose clocks start at the same moment."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with ProcessPoolExecutor(ranks, mp_context=multiprocessing.get_context("spawn")) as processes:
        started = [processes.submit(_process, settings, rank, ranks, store.port, together) for rank in range(ranks)]
        try:
            return sum(each.result() for each in as_completed(started))
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()  # else it waits for the one that failed
            raise


def _process(settings: TrainSettings, rank: int, ranks: int, port: int, together: bool) -> float:
    """Tokens per second of one process."""
    own = settings.batch_size // ranks
    if together:
        os.environ.update(rank_environment(rank, ranks, port))
    else:
        settings = replace(settings, batch_size=own)
    config = settings.config()
    if together:
        config["trainer"] |= {"devices": ranks, "strategy": "ddp"}
    elif settings.device == "cuda":
        config["trainer"] |= {"devices": [rank]}
    callback = _Together(TCPStore("127.0.0.1", port, is_master=False), ranks)
    with tempfile.TemporaryDirectory() as folder:
        seconds, batches, _ = train_block(config, settings.data(), Path(folder), callbacks=[callback])
    assert len(batches[0].tokens) == own
    return settings.steps * batches[0].tokens.numel() / seconds


class _Together(Callback):
    """Waits after the warm-up until all processes are there."""

    def __init__(self, store: TCPStore, processes: int) -> None:
        self._store, self._processes = store, processes

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == WARM_UP:
            if self._store.add("warm", 1) == self._processes:
                self._store.set("go", "")
            self._store.wait(["go"])
