"""One token of every row through all layers in one compiled call: what a backbone declares of itself for it.

There are a residual stream and a current row of numbers for each row of the session. An operation reads one of them and
writes one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Activation = Literal["gelu", "gelu_tanh", "relu", "gate"]


@dataclass(frozen=True)
class AddPositions:
    """Add the row of a (positions, D) table at the token's position to the stream."""

    table: Tensor


@dataclass(frozen=True)
class Norm:
    """The norm of the stream becomes the current row.

    Attributes:
        gain, bias: (D,); without a bias it is an RMS norm, with one a layer norm.
        in_place: the norm becomes the stream instead.
    """

    gain: Tensor
    bias: Tensor | None
    epsilon: float
    in_place: bool = False


@dataclass(frozen=True)
class Take:
    """The stream becomes the current row."""


@dataclass(frozen=True)
class Linear:
    """The current row's product with a (outputs, inputs) weight becomes the current row, or is added to the stream.

    Attributes:
        bias: (outputs,) or None.
        activation: of what becomes the current row; `gate` is SwiGLU: the first half of the outputs, through SiLU,
            times the second.
        add: to the stream, without an activation.
    """

    weight: Tensor
    bias: Tensor | None
    activation: Activation | None = None
    add: bool = False


@dataclass(frozen=True)
class TurnHeads:
    """Turn the pairs (i, i + head_dim / 2) of query and key heads by the position times (head_dim / 2,) frequencies.

    Attributes:
        gain: (heads + kv_heads, head_dim) of RMS norms of the heads before that, or None.
        frequencies: float64.
    """

    gain: Tensor | None
    frequencies: Tensor
    epsilon: float


@dataclass(frozen=True)
class Attend:
    """Queries, keys and values, side by side in the current row, become what attention finds in a layer's cache."""

    layer: int


Operation = AddPositions | Norm | Take | Linear | TurnHeads | Attend


@dataclass(frozen=True)
class Program:
    """What `forward` of a backbone does to one token in evaluation mode; what is current at the end are the features.

    Attributes:
        operations: in order.
        heads, kv_heads, head_dim: of all layers that attend.
    """

    operations: tuple[Operation, ...]
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def layers(self) -> int:
        return sum(isinstance(operation, Attend) for operation in self.operations)

    def tensors(self) -> list[Tensor]:
        """The weights that it reads; frequencies are none."""
        found: list[Tensor | None] = []
        for each in self.operations:
            if isinstance(each, AddPositions):
                found.append(each.table)
            elif isinstance(each, Norm):
                found += [each.gain, each.bias]
            elif isinstance(each, Linear):
                found += [each.weight, each.bias]
            elif isinstance(each, TurnHeads):
                found.append(each.gain)
        return [tensor for tensor in found if tensor is not None]
