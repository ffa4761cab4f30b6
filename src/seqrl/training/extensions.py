"""Callbacks of the slot `callback` in a Lightning trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from seqrl.callbacks import Training, TrainingCallback, build_callbacks

_TRAINED = "trained_weights"  # of a checkpoint whose weights are others than those that the training goes on with


class Extension(Callback):
    """Runs a callback of the slot `callback` at the steps and validations of a stage.

    Args:
        name: under which it is registered.
        callback: what runs.
        stage: name of the stage.

    Attributes:
        training: what the callback sees.
    """

    def __init__(self, name: str, callback: TrainingCallback, stage: str) -> None:
        self._name, self._callback, self._stage = name, callback, stage
        self.training: Training | None = None
        self._step = 0
        self._own: dict[str, Tensor] | None = None  # the trained weights, while others stand in their places

    @property
    def state_key(self) -> str:
        return f"seqrl.callback.{self._name}"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        self.training = Training(self._stage, pl_module, trainer.global_step, trainer.max_steps)
        self._callback.on_start(self.training)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.training is not None
        if trainer.global_step == self._step:
            return  # a batch whose gradient is kept for the next step
        self._step = self.training.step = trainer.global_step
        self._callback.on_step(self.training)
        if type(self._callback).on_step is not TrainingCallback.on_step:
            self._stop_if_asked(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._put_in(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        self._put_back(pl_module)
        assert self.training is not None
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.training.metrics = {name: value for name, value in found.items() if name.startswith("val/")}
        self._callback.on_validation(self.training)
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._put_in(pl_module)  # for good: the stage is what its checkpoint holds

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        assert self.training is not None
        asked = self.training.end_reason is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            self.training.end(f"{self._name} ended the training on another rank")
            trainer.should_stop = True

    def _put_in(self, module: pl.LightningModule) -> None:
        weights = self._callback.weights()
        if weights is None or self._own is not None:
            return
        parameters = dict(module.named_parameters())
        self._own = {name: parameters[name].detach().clone() for name in weights}
        _copy(parameters, weights)

    def _put_back(self, module: pl.LightningModule) -> None:
        if self._own is not None:
            _copy(dict(module.named_parameters()), self._own)
            self._own = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        weights = self._callback.weights()
        if weights is None:
            return
        parameters = dict(pl_module.named_parameters())
        checkpoint[_TRAINED] = {name: (self._own or parameters)[name].detach().clone() for name in weights}
        places = {parameters[name].data_ptr(): weight for name, weight in weights.items()}
        state = checkpoint["state_dict"]  # in which one tensor may stand under several names
        checkpoint["state_dict"] = type(state)(
            (name, places.get(value.data_ptr(), value) if isinstance(value, Tensor) else value)
            for name, value in state.items()
        )

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._callback.weights() is not None and _TRAINED in checkpoint:
            _copy(dict(pl_module.named_parameters()), checkpoint[_TRAINED])

    def state_dict(self) -> dict[str, Any]:
        return self._callback.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._callback.load_state_dict(state_dict)


def _copy(parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def extend(choices: Sequence[str | Mapping[str, Any]], stage: str) -> list[Extension]:
    """The callbacks that a stage asks for, for its trainer."""
    return [Extension(name, callback, stage) for name, callback in build_callbacks(choices).items()]
