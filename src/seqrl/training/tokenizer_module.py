"""A tokenizer with parameters as a Lightning module: the stage before the model's."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from seqrl.config import SequenceConfig
from seqrl.errors import ConfigError
from seqrl.tokenizers import TrajectoryAutoencoder
from seqrl.training.checkpoint_io import describe_checkpoint
from seqrl.training.metrics import ScalarMeans
from seqrl.training.module import SequenceModule
from seqrl.training.optim import build_optimizer_and_schedule
from seqrl.training.seeding import seed_step
from seqrl.training.stage_module import CODEBOOK, StageModule
from seqrl.types import ValueBatch


class TokenizerModule(StageModule):
    """Trains the tokenizer of a `SequenceModule`, in place; afterwards the module trains its model with it.

        module = SequenceModule.for_store(store, layout="tap", tokenizer="vq", window=24)
        data = EpisodeDataModule.for_module(module, store)
        trainer().fit(TokenizerModule(module), data)
        trainer().fit(module, data)

    Logs the means of what the tokenizer's `loss` returns, under `train/` and `val/`.

    Args:
        module: has the tokenizer and, in its config, the optimizer, schedule and seed.

    Raises:
        ConfigError: a tokenizer that is no `TrajectoryAutoencoder`.
    """

    config: SequenceConfig
    moving_average = CODEBOOK

    def __init__(self, module: SequenceModule) -> None:
        super().__init__()
        self.config, self.schedule = module.config, module.schedule
        self.save_hyperparameters(dict(module.hparams), logger=False)
        tokenizer = module.model.tokenizer
        if not isinstance(tokenizer, TrajectoryAutoencoder):
            raise ConfigError(f"tokenizer={self.config.tokenizer['name']} has nothing to train")
        self.tokenizer: TrajectoryAutoencoder = tokenizer.requires_grad_(True)
        nothing = torch.zeros(1, self.config.window.length, module.model.layout.size)
        with torch.no_grad():  # tells what will be logged
            names = list(tokenizer.eval().loss(nothing, torch.ones(nothing.shape[:2], dtype=torch.bool)))
        tokenizer.train()
        self.train_metrics = ScalarMeans(names)
        self.val_metrics = ScalarMeans(names)

    def training_step(self, batch: ValueBatch, batch_index: int) -> Tensor:
        seed_step(self, self.config.seed)
        losses = self.tokenizer.loss(batch.values, batch.mask)
        self.train_metrics.update(losses, len(batch))
        return self.tell_loss(losses["loss"])

    def validation_step(self, batch: ValueBatch, batch_index: int) -> None:
        losses = self.tokenizer.loss(batch.values, batch.mask)
        self.val_metrics.update(losses, len(batch) if batch.mask.any() else 0)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return build_optimizer_and_schedule(self, self.config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["seqrl"] = describe_checkpoint(self.config, {"tokenizer": self.tokenizer})
