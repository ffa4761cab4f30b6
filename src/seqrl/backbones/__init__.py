"""Causal sequence networks (slot `backbone`)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

SUPPORT_MODULES = ("attention", "cache", "engine", "kernels", "static_cache")  # no components


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


class Backbone(nn.Module, ABC):
    """Maps embedded tokens to features, causally.

    Attributes:
        dim: D, the width of inputs and outputs.
        relative: features depend on differences of positions alone. Such a backbone can go on past the positions it
            was trained on, which `cache: window` asks for.
        sees_context: whether positions see those before them. One that does not serves models of vectors alone.
    """

    dim: int
    relative: bool = False
    sees_context: bool = True

    @abstractmethod
    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Features of n tokens.

        Args:
            x: (R, n, D) embedded tokens.
            positions: (R or 1, n) int64, their places in the context; in [0, max_length) unless `relative`.
            attention: the only way by which tokens may see one another.

        Returns:
            (R, n, D).
        """


def causal_mask(length: int, device: torch.device) -> Tensor:
    """(length, length) bool, True where query i may see key j <= i."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
