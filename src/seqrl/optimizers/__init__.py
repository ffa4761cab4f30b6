"""Optimizers: how weights follow their gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class Optimizer(ABC):
    """Makes the torch optimizer of a module; one class per file, chosen by `optimizer=NAME`.

    Beside the options of its constructor, `optimizer.clip_norm` holds for every optimizer: the trainer clips the norm
    of all gradients together to it, or leaves them where it is null.
    """

    @abstractmethod
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a module, with every parameter in one of its groups.

        The learning rate of each group is that of a scheduler's factor 1.
        """
