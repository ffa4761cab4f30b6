"""How tokens see each other: the contract, whole passes, trees of passes, caches, and recorded steps."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values by layer."""


class Attention(ABC):
    """How queries find their keys. A backbone calls it in every layer and need not know of masks or caches."""

    @abstractmethod
    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        """Softmax attention, scaled by `1 / sqrt(head_dim)`, over the new tokens and those before them.

        Args:
            layer: counts from 0; what earlier tokens left behind is kept by layer.
            query: (R, n, heads, head_dim) of the new tokens.
            key, value: (R, n, kv_heads, head_dim); `heads` is a multiple of `kv_heads`, and consecutive query heads
                share a key head (grouped-query attention).
            dropout: probability with which an attention weight is dropped.

        Returns:
            (R, n, heads * head_dim).
        """


def causal_mask(length: int, device: torch.device) -> Tensor:
    """(length, length) bool, True where query i may see key j <= i."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
