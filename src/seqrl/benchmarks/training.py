"""Tokens per second of a training run and of a bare loop over the same model: `seqrl bench train`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seqrl.benchmarks.timing import describe_machine, interleaved, open_device, spread, synchronize
from seqrl.benchmarks.workload import WARM_UP, TrainSettings, train_block
from seqrl.config import RunConfig
from seqrl.console import say
from seqrl.data.summary import DataSizes
from seqrl.registry import OPTIMIZER
from seqrl.training.module import SequenceModule
from seqrl.training.optim import make_scheduler
from seqrl.types import TokenBatch


def bench_train(settings: TrainSettings) -> dict[str, Any]:
    """Measure blocks of steps of all loops in turn: `seqrl train`, with `trainer.fast_cpu` (on a CPU), and a bare one.

    The bare loop has torch's own dropout and attention.

    Returns:
        The machine, the settings, `seqrl`, `fast` (on a CPU) and `plain` with `tokens_per_second` (median, min, max)
        and `ms_per_step` each; `ratio` and `fast_ratio`, the tokens per second of the first two over the last one's.
    """
    device = open_device(settings.device, settings.threads)
    config, data = settings.config(), settings.data()
    seen: list[TokenBatch] = []

    with tempfile.TemporaryDirectory() as folder:

        def ours(name: str, run: RunConfig) -> Callable[[int], float]:
            def measure(repeat: int) -> float:
                seconds, batches, _ = train_block(run, data, Path(folder) / f"{name}-{repeat}")
                seen[:] = batches
                return seconds

            return measure

        def plain(repeat: int) -> float:
            return plain_block(config, settings.sizes(), seen, data.steps_per_epoch)[0]

        fast = {} if device.type == "cuda" else {"fast": ours("fast", settings.config(fast_cpu=True))}
        measured = interleaved({"seqrl": ours("seqrl", config), **fast, "plain": plain}, settings.repeats, say)
    tokens = settings.steps * seen[0].tokens.numel()
    medians = {name: spread(seconds)["median"] for name, seconds in measured.items()}
    entries = {
        name: {
            "tokens_per_second": spread([tokens / second for second in seconds]),
            "ms_per_step": spread(seconds, 1e3 / settings.steps)["median"],
        }
        for name, seconds in measured.items()
    }
    return {
        "machine": describe_machine(device, torch.float32),
        "settings": asdict(settings),
        **entries,
        "ratio": medians["plain"] / medians["seqrl"],
        **({"fast_ratio": medians["plain"] / medians["fast"]} if fast else {}),
    }


def plain_block(
    config: RunConfig, sizes: DataSizes, batches: list[TokenBatch], steps_per_epoch: int
) -> tuple[float, nn.Module]:
    """The same training as a bare loop: no Lightning, metrics, logs or loader; the batches lie ready in memory.

    Returns:
        Seconds as `seqrl.benchmarks.workload.train_block` takes them, and the trained module.
    """
    device = batches[0].tokens.device
    torch.manual_seed(config.seed)
    module = SequenceModule(config, sizes).to(device).train()
    model = module.model
    clip_norm = config.clip_norm or float("inf")
    optimizer = OPTIMIZER.build(config.optimizer).build(module)
    schedule = make_scheduler(config.scheduler, max_steps=len(batches), steps_per_epoch=steps_per_epoch)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    places = torch.arange(1, batches[0].tokens[0].numel(), device=device) % model.tokens_per_step
    weights = torch.tensor(model.layout.loss_weights, device=device)[places]
    stamps: list[float] = []
    for index, batch in enumerate(batches):
        if index in (WARM_UP, len(batches) - 1):
            synchronize(device)
            stamps.append(time.perf_counter())
        mask = batch.mask.flatten(1)[:, 1:]
        targets = batch.tokens.flatten(1)[:, 1:]
        logits = model(batch.tokens, batch.goal)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        loss = (losses * weights * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        scheduler.step()
    return stamps[1] - stamps[0], module
