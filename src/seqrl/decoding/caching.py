"""How a session comes by its logits: the contract, and the reference, which computes everything for every token."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from seqrl.attention.full import FullAttention
from seqrl.decoding.context import Context


class Caching(ABC):
    """How a session comes by the logits of the next tokens: what is computed again, and what is kept.

    Args:
        context: the sequences, which the caching moves on and cuts.
        static: whether one-token steps have static shapes; see `seqrl.decoding.session.DecodingSession`.

    Attributes:
        needs_relative_positions: whether features must depend on differences of positions alone.
    """

    needs_relative_positions: bool = False

    @abstractmethod
    def __init__(self, context: Context, *, static: bool) -> None: ...

    @abstractmethod
    def encode(self) -> Tensor:
        """(R, V + 1) logits of the first tokens after the history; called once, before all else."""

    @abstractmethod
    def append(self, tokens: Tensor) -> Tensor:
        """Take (R,) tokens as the next ones; (R, V + 1) logits of those that follow."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Repeat, reorder or drop rows: (R',) indices into the present ones."""


class NoCaching(Caching):
    """Everything is computed again for every token, and positions count from the cut. The reference of the others."""

    def __init__(self, context: Context, *, static: bool) -> None:
        self._context = context

    def encode(self) -> Tensor:
        context = self._context
        rows = torch.arange(context.rows, device=context.lengths.device)
        mask, visible = context.visibility(rows, 0, context.count)
        x, positions = context.inputs(rows, 0, context.count)
        features = context.model.backbone(x, positions, FullAttention(mask, visible))
        return context.model.next_logits(features[:, -1], context.place)

    def append(self, tokens: Tensor) -> Tensor:
        self._context.append(tokens)
        self._context.cut()
        return self.encode()

    def select(self, rows: Tensor) -> None:
        self._context.select(rows)
