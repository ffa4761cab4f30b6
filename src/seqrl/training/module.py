"""The sequence model as a Lightning module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from seqrl.config import SequenceConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.summary import DataSizes, DataSummary
from seqrl.errors import ConfigError
from seqrl.models.building import MODELS, build_model
from seqrl.objectives import Objective, Outcome
from seqrl.registry import OBJECTIVE
from seqrl.schedulers import Scheduler
from seqrl.tokenizers import TrajectoryAutoencoder
from seqrl.training.checkpoint_io import describe_checkpoint
from seqrl.training.defaults import Setting, compose_sequence
from seqrl.training.fast_cpu import speed_up
from seqrl.training.metrics import FieldMeans, moved_whole
from seqrl.training.optim import build_optimizer_and_schedule, build_scheduler
from seqrl.training.parallel import over_ranks, shard
from seqrl.training.seeding import seed_step
from seqrl.training.stage_module import CODEBOOK, StageModule, check_precision, keep_config
from seqrl.types import Batch


class SequenceModule(StageModule):
    """Trains a model, on windows of what its tokenizer makes of the data.

    Logs `train/loss` (weighted, per token, in nats; of vectors as their objective has it), and per field `loss` and, of
    tokens and discrete values, `accuracy` (share that the mode predicts, 0 to 1), under `train/` and `val/`;
    `train/tokens_per_second` and `train/learning_rate`.

    Args:
        config: of a run; or a plain dict with `layout`, `tokenizer`, `backbone`, `objective`, `window`, `optimizer`,
            `scheduler`, `seed`, and with `observation_size`, `action_size` and perhaps more of `DataSizes`. It travels
            in the checkpoint, word for word, and may hold more.
        sizes: of the data, where `config` does not hold them.
        dataset: what the data are, for the checkpoint.

    Raises:
        seqrl.errors.ConfigError: whatever the components refuse.
    """

    config: SequenceConfig

    def __init__(
        self,
        config: SequenceConfig | Mapping[str, Any],
        sizes: DataSizes | None = None,
        dataset: DataSummary | None = None,
    ) -> None:
        super().__init__()
        kept = keep_config(config, sizes, dataset)
        self.save_hyperparameters({"config": kept}, logger=False)
        self.config = config if isinstance(config, SequenceConfig) else SequenceConfig.from_saved(kept)
        self.schedule = self.config.scheduler
        self.model = build_model(self.config, DataSizes.from_saved(kept))
        if self.config.trainer.fast_cpu:
            speed_up(self.model)
        self._objective: Objective = OBJECTIVE.build(self.config.objective)
        if not isinstance(self.model, self._objective.learns):
            learnt = " or ".join(model.made_of for model in MODELS if issubclass(model, self._objective.learns))
            objectives: dict[str, Any] = {name: OBJECTIVE.get(name) for name in OBJECTIVE.builtin_names()}
            fitting = [name for name, objective in objectives.items() if isinstance(self.model, objective.learns)]
            raise ConfigError(
                f"objective={self.config.objective['name']} learns {learnt}, and "
                f"tokenizer={self.config.tokenizer['name']} makes {self.model.made_of}; use objective={fitting[0]}"
            )
        self._objective.check(self.model)
        if isinstance(self.model.tokenizer, TrajectoryAutoencoder):
            check_precision(self.config.trainer.precision, CODEBOOK)
        self.train_metrics = FieldMeans(self.model.fields, modes=self.model.modal_fields)
        self.val_metrics = FieldMeans(self.model.fields, modes=self.model.modal_fields)
        self.tokenizer_fitted = False
        self._scheduler: Scheduler | None = None
        self._counted_targets = 0

    @classmethod
    def for_store(
        cls,
        store: EpisodeStore,
        *,
        layout: Setting = None,
        tokenizer: Setting = None,
        backbone: Setting = None,
        objective: Setting = None,
        optimizer: Setting = None,
        scheduler: Setting = None,
        window: int | None = None,
        seed: int | None = None,
    ) -> SequenceModule:
        """A module for some episodes; what is not given is as in `conf/`, the published settings.

        Args:
            store: gives the sizes of observation and action.
            layout, tokenizer, backbone, objective, optimizer, scheduler: a name, or the options that differ
                (`backbone={"dim": 64}`), with a `name` where that differs as well.
            window: T, transitions of a training window, 1 or more; models of tokens need 2.
            seed: of dropout, and of what an `EpisodeDataModule.for_module` draws.

        Raises:
            seqrl.errors.ConfigError: an unknown name or option, or one that a component refuses.
        """
        groups = {
            "layout": layout,
            "tokenizer": tokenizer,
            "backbone": backbone,
            "objective": objective,
            "optimizer": optimizer,
            "scheduler": scheduler,
        }
        return cls(compose_sequence(groups, window=window, seed=seed), DataSizes.of(store))

    def fit_tokenizer(self, values: np.ndarray) -> None:
        """Give the tokenizer its statistics; `values` are (N, S) transitions of the training episodes."""
        self.model.tokenizer.fit(torch.from_numpy(values))
        self.tokenizer_fitted = True

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.model.tokenizer.requires_grad_(False)  # one with parameters was trained in a stage of its own

    def loss_of(self, batch: Batch) -> Outcome:
        """What the objective makes of a batch; nothing is logged."""
        return self._objective(self.model, batch)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert all tensors; a coarser type rounds weights, not the numbers that data are encoded with."""
        parts = list(self.model.tokenizer.modules())
        kept = [(module, name, tensor.detach()) for module in parts for name, tensor in _own(module)]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for module, name, before in kept:
            now = getattr(module, name)
            now.data = moved_whole(now.data, before)
        return self

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        seed_step(self, self.config.seed)
        outcome = self._objective(self.model, batch)
        self.train_metrics.update(outcome)
        if self._scheduler is not None and self._scheduler.counts_targets:
            targets = self.model.count_targets(batch)
            self._scheduler.count(int(over_ranks(targets) if self.trainer.world_size > 1 else targets))
        # Ranks hold different numbers of tokens that count: the mean over ranks of total / mean(count) is the mean
        # over all tokens.
        count = outcome.count.float()
        if self.trainer.world_size > 1:
            count = over_ranks(count) / self.trainer.world_size
        return self.tell_loss(outcome.total / count.clamp(min=1))

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        outcome = self._objective(self.model, batch)
        if batch.mask.any():  # a rank may have no window of its own
            self.val_metrics.update(outcome)

    def configure_model(self) -> None:
        shard(self.model, self._device_mesh)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        self._scheduler = build_scheduler(self, self.config, self.model.targets_per_window)
        self._scheduler.count(self._counted_targets)
        self._counted_targets = 0  # a checkpoint's, and no business of the next training
        return build_optimizer_and_schedule(self, self.config, self._scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        parts = {"tokenizer": self.model.tokenizer, "backbone": self.model.backbone, "objective": self._objective}
        super().on_save_checkpoint(checkpoint)
        checkpoint["seqrl"] = describe_checkpoint(self.config, parts, model=self.model.made_of)
        if self._scheduler is not None and self._scheduler.counts_targets:
            checkpoint["counted_targets"] = self._scheduler.targets

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._counted_targets = int(checkpoint.get("counted_targets", 0))
        self.tokenizer_fitted = True


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The floating-point tensors of a module itself, by attribute."""
    found = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [(name, tensor) for name, tensor in found if torch.is_floating_point(tensor)]
