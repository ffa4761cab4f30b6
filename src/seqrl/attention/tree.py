"""Attention over sequences that have their beginnings in common."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.attention import Attention, Layers
from seqrl.attention.full import attend_at_once


class TreeAttention(Attention):
    """Sequences a piece at a time, where each row of a pass continues a row of the pass before.

    Several rows may continue the same one, so that beginnings that sequences have in common are computed once.

    Attributes:
        layers: for each layer the keys and values, (rows, kv_heads, tokens so far, head_dim), of the last pass' rows.
    """

    def __init__(self) -> None:
        self.layers: Layers = []
        self._parents: Tensor | None = None
        self._mask: Tensor | None = None

    def grow(self, mask: Tensor, parents: Tensor | None = None) -> None:
        """Announce the next pass.

        Args:
            mask: (R or 1, 1, n, m) bool, True where new token i may see token j of all m tokens, old and new.
            parents: (R,) rows of the pass before which the rows of this one continue; None in the first pass.
        """
        assert (parents is None) == (not self.layers), "the first pass has no parents, every later one has"
        self._mask, self._parents = mask, parents

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        key, value = key.transpose(1, 2), value.transpose(1, 2)
        if self._parents is None:
            self.layers.append((key, value))
        else:
            past_key, past_value = self.layers[layer]
            key = torch.cat([past_key[self._parents], key], dim=2)
            value = torch.cat([past_value[self._parents], value], dim=2)
            self.layers[layer] = (key, value)
        return attend_at_once(query, key, value, self._mask, dropout)
