"""Training's attention on CPUs: queries in blocks, which leave out the keys that none of theirs may see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from seqrl.attention import causal_mask
from seqrl.attention.dropout import draw_kept, round_probability
from seqrl.attention.full import FullAttention

_QUERIES = 40  # of a block: fewer leave out more keys, and take more operations


class BlockedAttention(FullAttention):
    """What `FullAttention` computes, up to rounding, on a CPU in less than half the time where dropout is above 0.

    Fused attention of torch on CPUs knows no dropout, and neither it nor the plain products leave masked keys out. Here
    keys that no query may see (hidden values) are never looked at, nor those behind the last query of a block, and
    dropout draws as `seqrl.attention.dropout.draw_kept` does. On other devices, in half precision, with a mask for each
    row and with queries that see nothing it is `FullAttention`.
    """

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # blocks depend on what is masked
    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        half = torch.is_autocast_enabled("cpu") or query.dtype not in (torch.float32, torch.float64)
        blocks = None if half or query.device.type != "cpu" else self._blocks(query.shape[1])
        if blocks is None:
            return super().attend(layer, query, key, value, dropout=dropout)
        rows, length, heads, head_dim = query.shape
        seen, parts = blocks
        groups = heads // key.shape[2]
        query = (query * head_dim**-0.5).transpose(1, 2).reshape(rows * heads, length, head_dim)
        key, value = (each.transpose(1, 2).index_select(2, seen) for each in (key, value))
        if groups > 1:
            key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
        key, value = key.flatten(0, 1), value.flatten(0, 1)
        out: Tensor = _Attend.apply(query, key, value, parts, dropout)  # type: ignore[no-untyped-call]
        return out.view(rows, heads, length, head_dim).transpose(1, 2).flatten(2)

    def _blocks(self, length: int) -> tuple[Tensor, list[_Block]] | None:
        if self.mask is None:
            return _cut(causal_mask(length, torch.device("cpu")))
        return self._masked_blocks if len(self.mask) == 1 else None

    @cached_property
    def _masked_blocks(self) -> tuple[Tensor, list[_Block]] | None:
        assert self.mask is not None
        return _cut(self.mask[0, 0])


@dataclass(frozen=True)
class _Block:
    """Queries and the keys that they look at.

    Attributes:
        queries: which.
        keys: how many, from the first.
        bias: (queries, m) -inf for the keys of the last m that a query may not see, else 0.
    """

    queries: slice
    keys: int
    bias: Tensor


def _cut(visible: Tensor) -> tuple[Tensor, list[_Block]] | None:
    """The (m,) keys that some query may see, and the blocks of queries; None where one may see nothing."""
    if not bool(visible.any(1).all()):
        return None
    seen = visible.any(0).nonzero()[:, 0]
    visible = visible[:, seen]
    blocks = []
    for first in range(0, len(visible), _QUERIES):
        queries = slice(first, min(first + _QUERIES, len(visible)))
        own = visible[queries]
        keys = int(own.any(0).nonzero()[-1]) + 1
        partly = (~own[:, :keys].all(0)).nonzero()
        hidden = ~own[:, int(partly[0]) if len(partly) else keys : keys]
        blocks.append(_Block(queries, keys, torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)))
    return seen, blocks


class _Attend(torch.autograd.Function):
    """Softmax attention of (G, n, d) scaled queries to (G, m, d) keys and values, with dropout of its weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: list[_Block], dropout: float) -> Tensor:
        dropout = round_probability(dropout)
        out, kept = torch.empty_like(query), []
        for block in blocks:
            scores = torch.bmm(query[:, block.queries], key[:, : block.keys].transpose(1, 2))
            scores[..., block.keys - block.bias.shape[1] :] += block.bias
            weights = dropped = scores.softmax(-1)
            if dropout:
                dropped = weights * draw_kept(weights, dropout)
            out[:, block.queries] = torch.bmm(dropped, value[:, : block.keys])
            kept += [weights, dropped]
        ctx.scale, ctx.blocks = 1 / (1 - dropout), blocks
        if dropout:
            out *= ctx.scale
        ctx.save_for_backward(query, key, value, out, *kept)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, *kept = ctx.saved_tensors
        # With dropped weights D = M * P / q and output O = D V, the gradient of the scores is
        # D * (dO V^T) - P * rowsum(dO * O), since the rows of P * dP sum to those of dO * O.
        mean = (gradient * out).sum(-1, keepdim=True)
        gradient = gradient * ctx.scale
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for block, weights, dropped in zip(ctx.blocks, kept[::2], kept[1::2], strict=True):
            own, seen = block.queries, slice(block.keys)
            scores = torch.bmm(gradient[:, own], value[:, seen].transpose(1, 2))
            scores.mul_(dropped).addcmul_(weights, mean[:, own], value=-1)
            of_query[:, own] = torch.bmm(scores, key[:, seen])
            of_key[:, seen] += torch.bmm(scores.transpose(1, 2), query[:, own])
            of_value[:, seen] += torch.bmm(dropped.transpose(1, 2), gradient[:, own])
        return of_query, of_key, of_value, None, None
