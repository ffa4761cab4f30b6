"""The decoder of GPT-2 size and shape that the Trajectory Transformer uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from seqrl.attention import Attention
from seqrl.backbones import Backbone, Dim, Dropout, NumHeads, NumLayers
from seqrl.backbones._layers import draw_weights
from seqrl.compiled import Activation, AddPositions, Attend, Linear, Norm, Operation, Program, Take
from seqrl.errors import ConfigError
from seqrl.registry import register_backbone

_ACTIVATIONS: dict[str | None, Callable[[], nn.Module]] = {
    None: nn.GELU,
    "relu": nn.ReLU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
}


class _Block(nn.Module):
    """Pre-norm self-attention and a feed-forward layer of four times the width."""

    def __init__(
        self, dim: int, num_heads: int, residual_dropout: float, attention_dropout: float, activation: nn.Module
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), activation, nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(residual_dropout)

    def forward(self, x: Tensor, attention: Attention, layer: int) -> Tensor:
        rows, length, dim = x.shape
        qkv = self.query_key_value(self.attention_norm(x))
        query, key, value = qkv.view(rows, length, 3, self.num_heads, dim // self.num_heads).unbind(2)
        dropout = self.attention_dropout if self.training else 0.0
        attended = attention.attend(layer, query, key, value, dropout=dropout)
        x = x + self.dropout(self.attention_out(attended))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def declare_operations(self, layer: int, activation: Activation) -> list[Operation]:
        """What `forward` does to one token; see `GptBackbone.declare_program`."""
        up, _, down = self.feed_forward
        assert isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
        return [
            _declare_norm(self.attention_norm),
            Linear(self.query_key_value.weight, self.query_key_value.bias),
            Attend(layer),
            Linear(self.attention_out.weight, self.attention_out.bias, add=True),
            _declare_norm(self.feed_forward_norm),
            Linear(up.weight, up.bias, activation),
            Linear(down.weight, down.bias, add=True),
        ]


def _declare_norm(norm: nn.LayerNorm, *, in_place: bool = False) -> Norm:
    return Norm(norm.weight, norm.bias, norm.eps, in_place)


@register_backbone("gpt")
class GptBackbone(Backbone):
    """Learned absolute positions, pre-norm blocks, GELU, a final norm.

    Args:
        max_length: positions that can be told apart (known from the layout and the window).
        num_layers, num_heads: 4 and 4 in the published system.
        dim: D, 128 in the published system; a multiple of `num_heads`.
        embedding_dropout, residual_dropout, attention_dropout: probabilities, 0.1 in the published system.
        activation: None for GELU; `relu`, as in the published Decision Transformer; `gelu_tanh`, GPT-2's approximation.
        norm: None; `input`: what is given is normed together with its positions, as in the published Decision
            Transformer, where models of vectors else norm it before positions are added; or `no_output`: there is no
            norm behind the last block, as in TAP's published encoder.

    Raises:
        ConfigError: `dim` cannot be split into the heads.

    Reference: Radford et al. 2019 (GPT-2); Janner et al. 2021, appendix A.
    """

    def __init__(
        self,
        max_length: int,
        *,
        num_layers: NumLayers = 4,
        num_heads: NumHeads = 4,
        dim: Dim = 128,
        embedding_dropout: Dropout = 0.1,
        residual_dropout: Dropout = 0.1,
        attention_dropout: Dropout = 0.1,
        activation: Literal["relu", "gelu_tanh"] | None = None,
        norm: Literal["input", "no_output"] | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"backbone.dim={dim} is no multiple of backbone.num_heads={num_heads}")
        self.dim = dim
        self.positions = nn.Embedding(max_length, dim)
        self.num_heads, self.activation = num_heads, activation
        self.norms_input = norm == "input"
        if self.norms_input:
            self.input_norm = nn.LayerNorm(dim)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.blocks = nn.ModuleList(
            _Block(dim, num_heads, residual_dropout, attention_dropout, _ACTIVATIONS[activation]())
            for _ in range(num_layers)
        )
        self.norm = nn.Identity() if norm == "no_output" else nn.LayerNorm(dim)
        nn.init.zeros_(self.positions.weight)
        draw_weights(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        x = x + self.positions(positions)
        if self.norms_input:
            x = self.input_norm(x)
        x = self.embedding_dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, attention, layer)
        normed: Tensor = self.norm(x)
        return normed

    def declare_program(self) -> Program:
        operations: list[Operation] = [AddPositions(self.positions.weight)]
        if self.norms_input:
            operations.append(_declare_norm(self.input_norm, in_place=True))
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            operations += block.declare_operations(layer, self.activation or "gelu")
        operations.append(_declare_norm(self.norm) if isinstance(self.norm, nn.LayerNorm) else Take())
        return Program(tuple(operations), self.num_heads, self.num_heads, self.dim // self.num_heads)
