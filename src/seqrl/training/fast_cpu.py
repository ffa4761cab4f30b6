"""`trainer.fast_cpu`: other random numbers and rounding, the same statistics, in less time on CPUs."""

from __future__ import annotations

from typing import Any

from torch import nn

from seqrl.attention.blocked import BlockedAttention
from seqrl.attention.dropout import FastDropout
from seqrl.attention.full import FullAttention
from seqrl.backbones import Backbone


def speed_up(model: nn.Module) -> None:
    """Have a model train with `FastDropout` and `BlockedAttention`, in place; names in its state dict stay.

    A backbone gets the attention instead of the one that it is called with, whoever wrote it; nothing changes in
    evaluation, nor on GPUs.
    """
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = FastDropout
        if isinstance(module, Backbone):
            module.register_forward_pre_hook(_attend_in_blocks)


def _attend_in_blocks(backbone: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The arguments of a training pass with a `BlockedAttention` for a `FullAttention`; None leaves them."""
    if not backbone.training or not arguments or type(arguments[-1]) is not FullAttention:
        return None
    given = arguments[-1]
    return *arguments[:-1], BlockedAttention(given.mask, given.writes)
