"""Attention over whole sequences at once, and over sequences that have their beginnings in common."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seqrl.attention import Attention


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """(R, n, heads, head_dim) queries on (R, kv_heads, m, head_dim) keys and values; (R, n, heads * head_dim)."""
    out = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None,
        enable_gqa=key.shape[1] != query.shape[2],
    )
    return out.transpose(1, 2).flatten(2)


class FullAttention(Attention):
    """All tokens of a sequence in one pass; keeps nothing. Training, and the uncached reference.

    Args:
        mask: (R or 1, 1, n, n) bool, True where query i may see key j; None for plain causal attention.
    """

    def __init__(self, mask: Tensor | None = None) -> None:
        self.mask = mask

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        return _fused(query, key.transpose(1, 2), value.transpose(1, 2), self.mask, dropout)


class TreeAttention(Attention):
    """Sequences a piece at a time, where each row of a pass continues a row of the pass before.

    Several rows may continue the same one, so that beginnings that sequences have in common are computed once.

    Attributes:
        layers: for each layer the keys and values, (rows, kv_heads, tokens so far, head_dim), of the last pass' rows.
    """

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []
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
        return _fused(query, key, value, self._mask, dropout)
