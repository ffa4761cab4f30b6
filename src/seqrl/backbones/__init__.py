"""Causal sequence networks (slot `backbone`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from annotated_types import Ge, Interval, Lt
from torch import Tensor, nn

from seqrl.attention import Attention
from seqrl.compiled import Program

NumLayers = Annotated[int, Interval(ge=1, le=1000)]
NumHeads = Annotated[int, Interval(ge=1, le=1024)]
Dim = Annotated[int, Interval(ge=1, le=65_536)]
"""Widths; more is no width that a machine holds, but a slip."""

Dropout = Annotated[float, Ge(0), Lt(1)]
"""The share of features that training leaves out."""


class Backbone(nn.Module, ABC):
    """Maps embedded tokens to features, causally.

    Attributes:
        dim: D, the width of inputs and outputs.
        relative: features depend on differences of positions alone, and the states of recurrences may go on past the
            window that they were trained on. `cache: window` asks for it.
        sees_context: whether positions see those before them. One that does not serves models of vectors alone.
        norms_input: whether it norms the sum of what it is given and of its positions; nobody need do it before.
    """

    dim: int
    relative: bool = False
    sees_context: bool = True
    norms_input: bool = False

    @abstractmethod
    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Features of n tokens.

        Args:
            x: (R, n, D) embedded tokens.
            positions: (R or 1, n) int64, their places in the context; in [0, max_length) unless `relative`.
            attention: the only way by which tokens may meet: `attend`, `recur` and, where speed does not matter,
                `recur_slowly`.

        Returns:
            (R, n, D).
        """

    def declare_program(self) -> Program | None:
        """What `forward` does to one new token in evaluation mode, as operations that are compiled on CPUs.

        None, as here, leaves decoding to `forward`. A contract compares the two.
        """
        return None
