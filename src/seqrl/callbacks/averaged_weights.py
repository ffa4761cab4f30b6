"""Weights averaged over the steps of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from seqrl.callbacks import Training, TrainingCallback
from seqrl.registry import register_callback


@register_callback("averaged_weights")
class AveragedWeights(TrainingCallback):
    """An exponential moving average of the weights, which validations, checkpoints and policies take instead.

    The training goes on with its own weights, and reaches the same ones as without.

    Args:
        decay: of the average at each step.
        after: steps from which on the average is taken; before, it is the weights themselves.
    """

    replaces_weights = True

    def __init__(self, decay: Annotated[float, Ge(0), Lt(1)] = 0.999, after: Annotated[int, Ge(0)] = 0) -> None:
        self._after = after
        self._average = get_ema_multi_avg_fn(decay)
        self._weights: dict[str, Tensor] = {}

    def on_start(self, training: Training) -> None:
        now = self._trained(training)
        self._weights = {name: weight.to(now[name]) for name, weight in self._weights.items()} or now

    def on_step(self, training: Training) -> None:
        now = self._trained(training, copy=False)
        with torch.no_grad():
            if training.step <= self._after:
                self._weights = {name: weight.clone() for name, weight in now.items()}
            else:
                self._average(list(self._weights.values()), [now[name] for name in self._weights], None)

    def _trained(self, training: Training, *, copy: bool = True) -> dict[str, Tensor]:
        found = {name: each.detach() for name, each in training.model.named_parameters() if each.requires_grad}
        return {name: each.clone() for name, each in found.items()} if copy else found

    def weights(self) -> Mapping[str, Tensor] | None:
        return self._weights

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._weights = {name: weight.clone() for name, weight in state["weights"].items()}
