"""Ways to come by logits that keep keys and values: the same as without, or of a longer memory."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.attention import causal_mask
from seqrl.attention.tree import TreeAttention
from seqrl.decoding.caching import Caching
from seqrl.decoding.context import Context
from seqrl.decoding.steps import CachedSteps


class ExactCaching(Caching):
    """Keys and values are kept between cuts; at a cut the shortened sequences are encoded again.

    The logits are those of `NoCaching` up to rounding. What several rows have in common is encoded once.
    """

    def __init__(self, context: Context, *, static: bool) -> None:
        self._context = context
        self.steps = CachedSteps(context, pin_prefix=False, static=static)

    def encode(self) -> Tensor:
        return self.steps.encode()

    def append(self, tokens: Tensor) -> Tensor:
        place = self._context.place
        self._context.append(tokens)
        return self.steps.encode() if self._context.cut() else self.steps.step(tokens, place)

    def select(self, rows: Tensor) -> None:
        self._context.select(rows)
        if not self._context.is_full:  # else the next token needs nothing of the cache
            self.steps.select(rows)


class WindowCaching(Caching):
    """Nothing is encoded twice: keys and values of a cut transition are forgotten, those of the others stay.

    They still know what they saw before the cut: other logits than those of `NoCaching`, of a longer memory.
    """

    needs_relative_positions = True

    def __init__(self, context: Context, *, static: bool) -> None:
        self._context = context
        self.steps = CachedSteps(context, pin_prefix=True, static=static)

    def encode(self) -> Tensor:
        logits = self.steps.encode()
        self._context.forget_tokens()
        self._slide()
        return logits

    def append(self, tokens: Tensor) -> Tensor:
        place = self._context.place
        self._context.append(tokens)
        logits = self.steps.step(tokens, place)
        self._slide()
        return logits

    def select(self, rows: Tensor) -> None:
        self._context.select(rows)
        self.steps.select(rows)

    def _slide(self) -> None:
        """Forget the oldest transition if the next token needs its place.

        Right away and not with that token, as `ExactCaching` does: a selection in between then has less to move.
        """
        if not self._context.is_full or not self._context.count:
            return
        self._context.drop(1)
        self.steps.cache.drop(self.steps.stored_per_transition)
        if self._context.model.prefix_size:
            self._move_prefix()

    def _move_prefix(self) -> None:
        """Bring the prefix, which stays at a cut, up to the new beginning."""
        context, cache = self._context, self.steps.cache
        device = context.lengths.device
        nodes = torch.arange(cache.pinned_rows, device=device)
        rows = nodes * (context.rows // cache.pinned_rows)
        columns = torch.arange(context.model.prefix_size, device=device)
        tree = TreeAttention()
        tree.grow(causal_mask(len(columns), device)[None, None])
        context.model.backbone(context.prefix(rows), columns + context.forgotten[rows, None], tree)
        cache.load(tree.layers, nodes, columns, pinned=True)
