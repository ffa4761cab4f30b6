"""The decoder of the Llama family: rotary positions, RMS norms, gated feed-forward layers, grouped-query attention."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from seqrl.attention import Attention
from seqrl.backbones import Backbone, Dim, Dropout, NumHeads, NumLayers
from seqrl.backbones._layers import (
    EPSILON,
    check_heads,
    draw_weights,
    feed_forward,
    feed_forward_width,
    rotation_angles,
    rotation_frequencies,
)
from seqrl.compiled import Attend, Linear, Norm, Operation, Program, TurnHeads
from seqrl.errors import ConfigError
from seqrl.registry import register_backbone


class _Block(nn.Module):
    """Pre-norm grouped-query attention and a gated (SwiGLU) feed-forward layer; no biases."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        feed_forward_dim: int,
        qk_norm: bool,
        residual_dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.attention_dropout = attention_dropout
        self.attention_norm = nn.RMSNorm(dim, eps=EPSILON)
        self.query_key_value = nn.Linear(dim, (num_heads + 2 * num_kv_heads) * self.head_dim, bias=False)
        gains = torch.ones(num_heads + num_kv_heads, self.head_dim) if qk_norm else None
        self.query_key_gain = None if gains is None else nn.Parameter(gains)
        self.attention_out = nn.Linear(dim, dim, bias=False)
        self.feed_forward_norm = nn.RMSNorm(dim, eps=EPSILON)
        self.gate_and_up = nn.Linear(dim, 2 * feed_forward_dim, bias=False)
        self.down = nn.Linear(feed_forward_dim, dim, bias=False)
        self.dropout = nn.Dropout(residual_dropout)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attention: Attention, layer: int) -> Tensor:
        qkv = self.query_key_value(self.attention_norm(x)).unflatten(-1, (-1, self.head_dim))
        query_key, value = qkv.split((self.num_heads + self.num_kv_heads, self.num_kv_heads), dim=2)
        if self.query_key_gain is not None:
            query_key = F.rms_norm(query_key, (self.head_dim,), eps=EPSILON) * self.query_key_gain
        query_key = _rotate(query_key, *rotation)
        query, key = query_key.split((self.num_heads, self.num_kv_heads), dim=2)
        dropout = self.attention_dropout if self.training else 0.0
        attended = attention.attend(layer, query, key, value, dropout=dropout)
        x = x + self.dropout(self.attention_out(attended))
        return x + self.dropout(feed_forward(self.feed_forward_norm(x), self.gate_and_up, self.down))

    def declare_operations(self, layer: int, frequencies: Tensor) -> list[Operation]:
        """What `forward` does to one token; see `LlamaBackbone.declare_program`."""
        return [
            Norm(self.attention_norm.weight, None, EPSILON),
            Linear(self.query_key_value.weight, None),
            TurnHeads(self.query_key_gain, frequencies, EPSILON),
            Attend(layer),
            Linear(self.attention_out.weight, None, add=True),
            Norm(self.feed_forward_norm.weight, None, EPSILON),
            Linear(self.gate_and_up.weight, None, "gate"),
            Linear(self.down.weight, None, add=True),
        ]


@register_backbone("llama")
class LlamaBackbone(Backbone):
    """Rotary positions, RMS norms, SwiGLU, grouped-query attention; same size as `gpt` with the same `dim`.

    Positions enter as rotations of queries and keys alone, so that features depend on differences of positions, and
    decoding may go on past the training window (`cache: window`).

    Args:
        max_length: positions of the training window; nothing is sized by it.
        num_layers, num_heads, dim: 4, 4 and 128 as in `gpt`; `dim` is a multiple of `2 * num_heads`.
        num_kv_heads: key and value heads, a divisor of `num_heads`; fewer make the cache smaller. None for as many.
        qk_norm: normalise queries and keys before the rotation, with a gain for each head.
        rope_base: wavelengths of the rotations reach up to about `2 pi` times this, in tokens.
        embedding_dropout, residual_dropout, attention_dropout: probabilities.

    Raises:
        ConfigError: `dim`, `num_heads` and `num_kv_heads` do not divide.

    Reference: Touvron et al. 2023 (Llama 2); Su et al. 2021 (rotary positions); Shazeer 2020 (SwiGLU); Ainslie et al.
    2023 (grouped-query attention); Henry et al. 2020 (QK-norm).
    """

    relative = True

    def __init__(
        self,
        max_length: int,
        *,
        num_layers: NumLayers = 4,
        num_heads: NumHeads = 4,
        num_kv_heads: NumHeads | None = 2,
        dim: Dim = 128,
        qk_norm: bool = True,
        rope_base: Annotated[float, Gt(0)] = 10_000.0,
        embedding_dropout: Dropout = 0.1,
        residual_dropout: Dropout = 0.1,
        attention_dropout: Dropout = 0.1,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_heads(dim, num_heads)
        if num_heads % num_kv_heads:
            raise ConfigError(
                f"backbone.num_kv_heads={num_kv_heads} does not divide backbone.num_heads={num_heads}; give a divisor, "
                "or null for as many"
            )
        self.dim = dim
        self.head_dim = dim // num_heads
        self.rope_base = rope_base
        feed_forward_dim = feed_forward_width(dim)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.blocks = nn.ModuleList(
            _Block(dim, num_heads, num_kv_heads, feed_forward_dim, qk_norm, residual_dropout, attention_dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.RMSNorm(dim, eps=EPSILON)
        draw_weights(self)

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        x = self.embedding_dropout(x)
        rotation = self._rotation(positions, x.dtype)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, attention, layer)
        normed: Tensor = self.norm(x)
        return normed

    def declare_program(self) -> Program:
        frequencies = rotation_frequencies(self.head_dim, self.rope_base)
        operations: list[Operation] = []
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            operations += block.declare_operations(layer, frequencies)
        operations.append(Norm(self.norm.weight, None, EPSILON))
        block = self.blocks[0]
        assert isinstance(block, _Block)
        return Program(tuple(operations), block.num_heads, block.num_kv_heads, self.head_dim)

    def _rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines for `_rotate`, (R or 1, n, 1, head_dim) each, of the angles at some positions."""
        angles = rotation_angles(positions, self.head_dim, self.rope_base)
        sin = angles.sin()
        return angles.cos().repeat(1, 1, 1, 2).to(dtype), torch.cat([-sin, sin], dim=-1).to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(R, n, heads, head_dim) with the pairs (i, i + head_dim / 2) turned by the angles of their positions."""
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), sin)
