"""Causal sequence networks (slot `backbone`)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class KeyValueCache:
    """Keys and values of the tokens seen so far, one pair of buffers per layer, filled from the left.

    Attributes:
        length: how many tokens are stored.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._layers: list[tuple[Tensor, Tensor]] = []

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (R, heads, n, head_dim) new keys and values, and return those of all tokens so far.

        `length` moves on when the last layer calls `advance`.
        """
        if layer == len(self._layers):
            rows, heads, _, dim = keys.shape
            shape = (rows, heads, self.capacity, dim)
            self._layers.append((keys.new_empty(shape), values.new_empty(shape)))
        stored_keys, stored_values = self._layers[layer]
        end = self.length + keys.shape[2]
        stored_keys[:, :, self.length : end] = keys
        stored_values[:, :, self.length : end] = values
        return stored_keys[:, :, :end], stored_values[:, :, :end]

    def advance(self, count: int) -> None:
        self.length += count

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows: (R',) indices into the present ones."""
        self._layers = [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in self._layers]


class Backbone(nn.Module, ABC):
    """Maps embedded tokens to features, causally.

    Attributes:
        dim: D, the width of inputs and outputs.
    """

    dim: int

    @abstractmethod
    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Features of n tokens.

        Args:
            x: (R, n, D) embedded tokens.
            positions: (R or 1, n) int64 in [0, max_length), their places in the context.
            mask: (R or 1, 1, n, m) bool, True where query i may attend to key j of the m = cached + n keys; None
                for plain causal attention without a cache.
            cache: holds the keys and values of the tokens before; the new ones are added.

        Returns:
            (R, n, D).
        """


def causal_mask(length: int, device: torch.device) -> Tensor:
    """(length, length) bool, True where query i may see key j <= i."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
