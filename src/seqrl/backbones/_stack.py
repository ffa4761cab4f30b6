"""A stack of blocks in which some layers recur and some attend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from annotated_types import Len
from torch import Tensor, nn

from seqrl.attention import Attention
from seqrl.backbones import Backbone
from seqrl.backbones._layers import (
    EPSILON,
    check_heads,
    draw_weights,
    feed_forward,
    feed_forward_width,
    rotation_angles,
)

Pattern = Annotated[tuple[Literal["recurrence", "attention"], ...], Len(1)]
"""Kinds of layers in order, repeated until there are enough."""

_ROPE_BASE = 10_000.0


class Mixer(nn.Module, ABC):
    """The part of a block in which tokens meet."""

    @abstractmethod
    def forward(self, x: Tensor, positions: Tensor, attention: Attention, layer: int) -> Tensor:
        """(R, n, D) normed features and (R or 1, n) positions to what is added to the features, (R, n, D)."""


class RotaryAttention(Mixer):
    """Softmax attention with rotary positions, for the layers of a pattern that look back.

    Reference: Su et al. 2021.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.head_dim, self.dropout = num_heads, dim // num_heads, dropout
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, positions: Tensor, attention: Attention, layer: int) -> Tensor:
        query, key, value = self.query_key_value(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        angles = rotation_angles(positions, self.head_dim, _ROPE_BASE)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        dropout = self.dropout if self.training else 0.0
        attended = attention.attend(layer, _rotate(query, cos, sin), _rotate(key, cos, sin), value, dropout=dropout)
        mixed: Tensor = self.out(attended)
        return mixed


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(R, n, heads, head_dim) with the pairs (i, i + head_dim / 2) turned by angles.

    It rounds otherwise than what `llama` does, and the numbers of neither may change.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Block(nn.Module):
    """Pre-norm mixing of tokens, and a gated (SwiGLU) feed-forward layer."""

    def __init__(self, dim: int, mixer: Mixer, dropout: float) -> None:
        super().__init__()
        hidden = feed_forward_width(dim)
        self.mixer_norm = nn.RMSNorm(dim, eps=EPSILON)
        self.mixer = mixer
        self.feed_forward_norm = nn.RMSNorm(dim, eps=EPSILON)
        self.gate_and_up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, attention: Attention, layer: int) -> Tensor:
        x = x + self.dropout(self.mixer(self.mixer_norm(x), positions, attention, layer))
        return x + self.dropout(feed_forward(self.feed_forward_norm(x), self.gate_and_up, self.down))


class Stack(nn.Module):
    """Blocks in a pattern, and a norm behind the last.

    Args:
        recurrence: makes the mixer of a recurrent layer.
        num_layers: blocks.
        pattern: see `Pattern`.
        dim: D.
        num_heads: of layers that attend; 2 `num_heads` divide `dim` where there are any.
        embedding_dropout, residual_dropout, attention_dropout: probabilities.

    Raises:
        ConfigError: `dim` cannot be split into the heads.
    """

    def __init__(
        self,
        recurrence: Callable[[], Mixer],
        *,
        num_layers: int,
        pattern: tuple[str, ...],
        dim: int,
        num_heads: int,
        embedding_dropout: float,
        residual_dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        kinds = [pattern[layer % len(pattern)] for layer in range(num_layers)]
        self.embedding_dropout = nn.Dropout(embedding_dropout)

        def mixer(kind: str) -> Mixer:
            return recurrence() if kind == "recurrence" else RotaryAttention(dim, num_heads, attention_dropout)

        self.blocks = nn.ModuleList(Block(dim, mixer(kind), residual_dropout) for kind in kinds)
        self.norm = nn.RMSNorm(dim, eps=EPSILON)
        draw_weights(self)

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """(R, n, D) embedded tokens at (R or 1, n) positions to features, (R, n, D)."""
        x = self.embedding_dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, positions, attention, layer)
        normed: Tensor = self.norm(x)
        return normed


class RecurrentBackbone(Backbone):
    """A backbone that is a stack, and goes on past the trained window.

    Args:
        recurrence, dim, stack: see `Stack`.
    """

    relative = True

    def __init__(self, recurrence: Callable[[], Mixer], *, dim: int, **stack: Any) -> None:
        super().__init__()
        self.dim = dim
        self.stack = Stack(recurrence, dim=dim, **stack)

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        features: Tensor = self.stack(x, positions, attention)
        return features
