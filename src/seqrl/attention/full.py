"""Attention over whole sequences at once."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from seqrl.attention import Attention
from seqrl.attention.recurrence import Run


class FullAttention(Attention):
    """All tokens of a sequence in one pass; keeps nothing. Training, and the uncached reference.

    Args:
        mask: (R or 1, 1, n, n) bool, True where query i may see key j; None for plain causal attention.
        writes: (R or 1, n) bool, which tokens recurrences remember; None for those that the last token may see.
    """

    def __init__(self, mask: Tensor | None = None, writes: Tensor | None = None) -> None:
        self.mask = mask
        self.writes = mask[:, 0, -1] if writes is None and mask is not None else writes

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        return attend_at_once(query, key.transpose(1, 2), value.transpose(1, 2), self.mask, dropout)

    def advance(self, layer: int, run: Run) -> Tensor:
        return run(None, self.writes)


def attend_at_once(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """(R, n, heads, head_dim) queries on (R, kv_heads, m, head_dim) keys and values; (R, n, heads * head_dim).

    Args:
        mask: (R or 1, 1, n, m) bool, True where query i may see key j; None for causal attention, with n = m.
    """
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
