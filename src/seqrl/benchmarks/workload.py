"""What the benchmarks of training and loading work on: random episodes, and the run that would train on them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from seqrl.benchmarks.timing import synchronize
from seqrl.config import RunConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.summary import DataSizes, DataSummary
from seqrl.runs.folder import RunFolder
from seqrl.training.callbacks import StopAtInterrupt
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.defaults import compose_sequence
from seqrl.training.loading import batches_done
from seqrl.training.module import SequenceModule
from seqrl.training.stages import make_model_stage
from seqrl.training.trainer import make_trainer, quiet_lightning
from seqrl.types import TokenBatch

WARM_UP = 3  # steps before the clock starts
_EPISODE = 1000  # transitions


@dataclass(frozen=True)
class TrainSettings:
    """Shapes and repetitions; the defaults are the published model for Hopper, and `conf/train.yaml`.

    Attributes:
        observation, action: sizes; reward and value are added, one token each.
        layers, heads, width, dropout: of the backbone.
        window: T, transitions.
        batch_size: windows per step.
        steps: of a measured block; `WARM_UP` more come before.
        log_every: steps between two entries in the logs.
        transitions: N, of the data set, in episodes of 1,000.
        repeats: blocks of each kind; medians are reported.
    """

    threads: int
    observation: int = 11
    action: int = 3
    backbone: str = "gpt"
    layers: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.1
    window: int = 10
    batch_size: int = 256
    steps: int = 20
    log_every: int = 20
    transitions: int = 100_000
    repeats: int = 3
    device: str = "cpu"

    def config(self, *, fast_cpu: bool = False) -> RunConfig:
        """The run; checkpoints come at their default interval."""
        backbone: dict[str, Any] = {
            "name": self.backbone, "num_layers": self.layers, "num_heads": self.heads, "dim": self.width,
        }  # fmt: skip
        defaults = compose_sequence({"backbone": self.backbone}).backbone
        backbone |= {option: self.dropout for option in defaults if option.endswith("dropout")}
        training = {"max_steps": WARM_UP + self.steps + 1, "batch_size": self.batch_size, "log_every": self.log_every}
        accelerator = "gpu" if self.device == "cuda" else "cpu"
        trainer = {"accelerator": accelerator, "num_threads": self.threads, "fast_cpu": fast_cpu}
        sections = compose_sequence({"backbone": backbone}, window=self.window).to_dict()
        return RunConfig.from_dict({**sections, "training": training, "trainer": trainer})

    def sizes(self) -> DataSizes:
        return DataSizes(self.observation, self.action)

    def data(self) -> EpisodeDataModule:
        """Tokenized random episodes, none of them held out."""
        rng = np.random.default_rng(0)
        count = self.transitions
        ends = np.arange(1, count + 1) % _EPISODE == 0
        store = EpisodeStore.from_arrays(
            rng.standard_normal((count, self.observation), np.float32),
            rng.standard_normal((count, self.action), np.float32),
            rng.standard_normal(count, np.float32),
            ends,
            np.zeros(count, bool),
        )
        module = SequenceModule(self.config(), self.sizes())
        return EpisodeDataModule.for_module(module, store, batch_size=self.batch_size, validation_fraction=0.0)


class _Stamped(SequenceModule):
    """A module that notes when its steps begin, and keeps their batches."""

    def __init__(self, config: RunConfig, sizes: DataSizes) -> None:
        super().__init__(config, sizes)
        self.batches: list[TokenBatch] = []
        self.starts: list[float] = []

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        if batches_done(self.trainer) in (WARM_UP, self.trainer.max_steps - 1):
            synchronize(batch.tokens.device)
            self.starts.append(time.perf_counter())
        self.batches.append(batch)
        return super().training_step(batch, batch_index)


def train_block(
    config: RunConfig, data: EpisodeDataModule, folder: Path, callbacks: Sequence[Callback] = ()
) -> tuple[float, list[TokenBatch], _Stamped]:
    """Train as `seqrl train` does, with everything that a run has beside the optimisation.

    Args:
        folder: of the run, without a checkpoint.
        callbacks: beside those of a run.

    Returns:
        Seconds from the first step after the warm-up to the last one; the batches of all steps; the trained module.
    """
    quiet_lightning()
    torch.manual_seed(config.seed)
    module = _Stamped(config, DataSizes.of(data.store))
    interrupt = StopAtInterrupt()
    with _silent():
        stage = make_model_stage(config, module, data, DataSummary("arrays"))
        trainer = make_trainer(stage, RunFolder(folder), callbacks=[interrupt, *callbacks])
        trainer.fit(module, data)
    if interrupt.interrupted:
        raise KeyboardInterrupt
    first, last = module.starts
    return last - first, module.batches, module


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """A progress bar costs what it costs, but need not be seen."""
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield
