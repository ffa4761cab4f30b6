"""Attention over sequences that have their beginnings in common."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.attention import Attention, Layers, States
from seqrl.attention.full import attend_at_once
from seqrl.attention.recurrence import Run


class TreeAttention(Attention):
    """Sequences a piece at a time, where each row of a pass continues a row of the pass before.

    Several rows may continue the same one, so that beginnings that sequences have in common are computed once.

    Attributes:
        layers: for each layer the keys and values, (rows, kv_heads, tokens so far, head_dim), of the last pass' rows.
        order: where in `layers` a layer that attends stands.
        states: of recurrences, (rows, *S) by layer, after the last pass.
    """

    def __init__(self) -> None:
        self.layers: Layers = []
        self.states: States = {}
        self.order: dict[int, int] = {}
        self._parents: Tensor | None = None
        self._mask: Tensor | None = None
        self._writes: Tensor | None = None

    def grow(self, mask: Tensor, parents: Tensor | None = None, writes: Tensor | None = None) -> None:
        """Announce the next pass.

        Args:
            mask: (R or 1, 1, n, m) bool, True where new token i may see token j of all m tokens, old and new.
            parents: (R,) rows of the pass before which the rows of this one continue; None in the first pass.
            writes: (R or 1, n) bool, which of the new tokens recurrences remember; None for those that the last one may
                see. To be given where all tokens of a row may be padding, which sees itself.
        """
        assert (parents is None) == (self._mask is None), "the first pass has no parents, every later one has"
        self._mask, self._parents = mask, parents
        self._writes = mask[:, 0, -1, -mask.shape[2] :] if writes is None else writes

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        key, value = key.transpose(1, 2), value.transpose(1, 2)
        if self._parents is None:
            self.order[layer] = len(self.layers)
            self.layers.append((key, value))
        else:
            past_key, past_value = self.layers[self.order[layer]]
            key = torch.cat([past_key[self._parents], key], dim=2)
            value = torch.cat([past_value[self._parents], value], dim=2)
            self.layers[self.order[layer]] = (key, value)
        return attend_at_once(query, key, value, self._mask, dropout)

    def advance(self, layer: int, run: Run) -> Tensor:
        states = run(None if self._parents is None else self.states[layer][self._parents], self._writes)
        self.states[layer] = states[:, -1]
        return states
