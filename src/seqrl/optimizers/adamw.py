"""AdamW that decays the weights of linear layers only."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import nn

from seqrl.optimizers import Optimizer
from seqrl.registry import register_optimizer

Beta = Annotated[float, Ge(0), Lt(1)]


@register_optimizer("adamw")
class AdamW(Optimizer):
    """AdamW that decays the weights of linear layers only (Janner et al. 2021, appendix A, and their code)."""

    def __init__(
        self,
        *,
        learning_rate: Annotated[float, Gt(0)] = 6e-4,
        betas: tuple[Beta, Beta] = (0.9, 0.95),
        weight_decay: Annotated[float, Ge(0)] = 0.1,
    ) -> None:
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay

    def build(self, module: nn.Module) -> torch.optim.AdamW:
        decayed, plain = split_decay(module)
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        # In float16 the usual epsilon is 0, as are the squares of small gradients: 0 / 0.
        epsilon = 1e-4 if any(each.dtype == torch.float16 for each in module.parameters()) else 1e-8
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, eps=epsilon)


def split_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(decayed, plain): the weights of linear layers, and everything else (embeddings, norms, biases)."""
    linear = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)}
    decayed = [p for p in module.parameters() if id(p) in linear]
    return decayed, [p for p in module.parameters() if id(p) not in linear]
