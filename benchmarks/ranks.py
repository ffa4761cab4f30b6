"""What the exchange between ranks costs: `python -m benchmarks.ranks --ranks 2`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
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
from seqrl.cli.bench_options import (
    PUBLISHED,
    TRAINING,
    add_counts,
    add_machine,
    format_range,
    run_benchmark,
    say_machine,
    settings_of,
)
from seqrl.console import print_table, say
from seqrl.errors import ConfigError
from seqrl.training.launch import rank_environment


def bench_ranks(settings: TrainSettings, ranks: int) -> dict[str, Any]:
    """Measure one training in several ranks, and as many trainings apart that run at the same time, in turn.

    Every process has the same work in both: a batch of `batch_size / ranks` windows and `threads / ranks` threads.
    What is compared follows within seconds, and the median of the ratios is reported: a machine that is busy with
    something else for a while spoils one of them.

    Returns:
        The machine, the settings, `together` and `apart` with `tokens_per_second` (median, min, max)
        of all processes, the `ratios` of the first to the second by repeat, and `ratio`, their median.

    Raises:
        ConfigError: the ranks cannot share the batch.
    """
    if settings.batch_size % ranks:
        raise ConfigError(f"--batch-size {settings.batch_size} cannot be shared by {ranks} ranks; give a multiple")
    settings = replace(settings, threads=max(1, settings.threads // ranks))
    device = open_device(settings.device, settings.threads)
    blocks: dict[str, Callable[[int], float]] = {
        "together": lambda repeat: _tokens_per_second(settings, ranks, together=True),
        "apart": lambda repeat: _tokens_per_second(settings, ranks, together=False),
    }
    measured = interleaved(blocks, settings.repeats, say)
    ratios = [ours / apart for ours, apart in zip(measured["together"], measured["apart"], strict=True)]
    return {
        "machine": describe_machine(device, torch.float32),
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
        config = replace(config, trainer=replace(config.trainer, devices=ranks, strategy="ddp"))
    elif settings.device == "cuda":
        config = replace(config, trainer=replace(config.trainer, devices=(rank,)))
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


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table; the exit status as a program's."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.ranks", description="One training in several ranks beside as many trainings apart."
    )
    add_machine(parser)
    parser.add_argument("--backbone", default="gpt", metavar="NAME", help="default gpt")
    add_counts(parser, {"ranks": 2, **PUBLISHED, **TRAINING, "repeats": 3})
    parser.set_defaults(task=_measure)
    return run_benchmark(parser, arguments)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    count = options.ranks
    result = bench_ranks(settings_of(TrainSettings, options), count)
    labels = {"together": f"one training, {count} ranks", "apart": f"{count} trainings apart, at the same time"}
    print_table(["", "tokens/s"], [[labels[name], format_range(result[name]["tokens_per_second"])] for name in labels])
    listed = ", ".join(f"{ratio:.3f}" for ratio in result["ratios"])
    say(f"{count} ranks reach {result['ratio']:.3f} of the tokens/s of {count} trainings apart (by repeat: {listed})")
    say_machine(result["machine"])
    return dict(result)


if __name__ == "__main__":
    sys.exit(main())
