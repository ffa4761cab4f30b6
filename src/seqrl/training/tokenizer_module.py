"""A tokenizer with parameters as a Lightning module: the stage before the model's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from seqrl.checkpoint import FORMAT
from seqrl.errors import ConfigError
from seqrl.plugins import origin
from seqrl.tokenizers import CodeTokenizer
from seqrl.training.critic_module import ScalarMeans
from seqrl.training.module import SequenceModule
from seqrl.training.optim import adamw, schedule
from seqrl.training.seeding import seed_step
from seqrl.types import Batch


class TokenizerModule(pl.LightningModule):
    """Trains the tokenizer of a `SequenceModule`, in place; afterwards the module trains its model with it.

        module = SequenceModule.for_store(store, layout="tap", tokenizer="vq", window=24)
        data = EpisodeDataModule.for_module(module, store)
        trainer().fit(TokenizerModule(module), data)
        trainer().fit(module, data)

    Logs the means of what the tokenizer's `loss` returns, under `train/` and `val/`.

    Args:
        module: has the tokenizer and, in its config, the optimizer, schedule and seed.

    Raises:
        ConfigError: a tokenizer that is no `CodeTokenizer`.
    """

    def __init__(self, module: SequenceModule) -> None:
        super().__init__()
        self.config: dict[str, Any] = module.config
        self.save_hyperparameters({"config": self.config}, logger=False)
        tokenizer = module.model.tokenizer
        if not isinstance(tokenizer, CodeTokenizer):
            raise ConfigError(f"tokenizer={self.config['tokenizer']['name']} has nothing to train")
        self.tokenizer: CodeTokenizer = tokenizer.requires_grad_(True)
        nothing = torch.zeros(1, self.config["window"]["length"], module.model.layout.size)
        with torch.no_grad():  # tells what will be logged
            names = list(tokenizer.eval().loss(nothing, torch.ones(1, nothing.shape[1], 1, dtype=torch.bool)))
        tokenizer.train()
        self.train_metrics = ScalarMeans(names)
        self.val_metrics = ScalarMeans(names)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        seed_step(self, self.config["seed"])
        losses = self.tokenizer.loss(batch.tokens, batch.mask[..., :1])
        self.train_metrics.update(losses, len(batch.tokens))
        return losses["loss"]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.val_metrics.update(self.tokenizer.loss(batch.tokens, batch.mask[..., :1]), len(batch.tokens))

    def on_validation_epoch_end(self) -> None:
        entries = self.pop_metrics("val")
        for name, value in entries.items():  # for checkpoints and the progress bar
            self.log(name, value, prog_bar=name == "val/loss", logger=False, sync_dist=True)
        for logger in self.trainer.loggers:  # Lightning itself would file them under the step before
            logger.log_metrics(entries, step=self.trainer.global_step)

    def pop_metrics(self, stage: str) -> dict[str, float]:
        """Means over all ranks since the last call, by logged name."""
        metrics = self.train_metrics if stage == "train" else self.val_metrics
        means: list[float] = metrics.compute().tolist()
        metrics.reset()
        return {f"{stage}/{name}": mean for name, mean in zip(metrics.names, means, strict=True)}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options = {key: value for key, value in self.config["optimizer"].items() if key != "clip_norm"}
        optimizer = adamw(self, **options)
        steps = getattr(getattr(self.trainer, "datamodule", None), "steps_per_epoch", 1)
        multiplier = schedule(self.config["scheduler"], max_steps=self.trainer.max_steps, steps_per_epoch=steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, multiplier)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        where = origin(type(self.tokenizer))
        checkpoint["seqrl"] = {
            "format": FORMAT,
            "plugins": list(self.config.get("plugins", [])),
            "origins": {} if where == "seqrl" else {"tokenizer": Path(where).name},
            "versions": {package: version(package) for package in ("seqrl", "torch", "lightning", "numpy")},
        }


def stage_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The section `training` of a run for the tokenizer's stage: with what `tokenizer_training` sets instead."""
    own = config.get("tokenizer_training") or {}
    return {**config["training"], **{key: value for key, value in own.items() if value is not None}}
