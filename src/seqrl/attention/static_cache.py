"""The key/value cache of a decoding session whose one-token step always has the same shapes, for accelerators."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from seqrl.attention import Layers, States
from seqrl.attention.cache import Cache
from seqrl.attention.recurrence import Run

_SCRATCH = 0  # the column of tokens that nothing may see
_ALIGNMENT = 16  # columns are a multiple of this, as fused attention kernels want of masks


class StaticKeyValueCache(Cache):
    """What was decoded so far, one copy for each row, in buffers that stay where they are.

    The counterpart of `KeyValueCache` for devices where a step costs as much as its kernel launches. Which column a
    new token takes and which columns a row may see are tensors, updated in place between steps; `attend` reads all
    columns, in use or not, and depends on nothing else. So a step can be recorded once for each number of rows and
    replayed (`seqrl.attention.engine`). What rows have in common is stored for each of them.

    States of recurrences lie in buffers of their own, which a step overwrites: what was only tried is followed by
    `restore`.

    Columns: one that is never visible; then pinned ones; the rest is a ring, whose order does not matter, since keys
    carry their positions.

    Args:
        tokens: how many a row must hold at once, pinned ones included.

    Attributes:
        rows: R, rows of the next step.
        layers: keys and values by layer, (max_rows, kv_heads, columns, head_dim) each. Replaced as a whole when there
            are more rows than ever before, by other tensors at other addresses.
        states: of recurrences, (max_rows, *S) by layer. Replaced whenever `layers` are.
        max_rows: rows that the buffers have.
    """

    def __init__(self, tokens: int) -> None:
        self.columns = -(-(1 + tokens) // _ALIGNMENT) * _ALIGNMENT
        self.rows = 0
        self.max_rows = 0
        self.layers: Layers = []
        self.states: States = {}
        self._order: dict[int, int] = {}  # where in `layers` a layer stands
        self._visible: Tensor  # (max_rows, columns) bool
        self._column: Tensor  # (1,) int64, where the next token goes
        self._pinned = 0  # columns
        self._start = 0  # of the ring's oldest token, counted from the ring's first column
        self._count = 0  # tokens in the ring

    @property
    def pinned_rows(self) -> int:
        return self.rows

    def clear(self, rows: int, like: Layers, states: States | None = None) -> None:
        """Forget everything; `rows` are next.

        Columns that nothing may see are multiplied by zero weights, and must hold numbers.

        Args:
            like: keys and values, shaped as those to come but for rows and tokens.
            states: of recurrences, shaped as those to come but for rows.
        """
        states = states or {}
        if rows > self.max_rows or _dtypes(self.layers, self.states) != _dtypes(like, states):
            self._allocate(rows, like, states)
        for tensor in [tensor for pair in self.layers for tensor in pair] + list(self.states.values()):
            tensor[:rows].zero_()
        self._visible.zero_()
        self.rows, self._pinned, self._start, self._count = rows, 0, 0, 0

    def load(
        self, layers: Layers, nodes: Tensor, columns: Tensor, *, visible: Tensor | None = None, pinned: bool = False
    ) -> None:
        copies = self.rows // len(nodes)
        first = 1 if pinned else 1 + self._pinned + self._count
        stop = first + len(columns)
        assert stop <= self.columns, "more tokens than the cache was made for"
        fits = len(columns) == self._pinned if self._pinned else not self._count
        assert fits or not pinned, "pinned tokens come first, and as many take their place"
        for pair, source in zip(self.layers, layers, strict=True):
            for buffer, tensor in zip(pair, source, strict=True):
                taken = tensor[nodes].index_select(2, columns)
                buffer[: self.rows, :, first:stop] = taken.repeat_interleave(copies, dim=0)
        seen = True if visible is None else visible.repeat_interleave(copies, dim=0)
        self._visible[: self.rows, first:stop] = seen
        if pinned:
            self._pinned = len(columns)
        else:
            self._count += len(columns)

    def load_states(self, states: States, order: Mapping[int, int] | None = None) -> None:
        if order is not None and order != self._order:
            self._order = dict(order)
        for layer, state in states.items():
            self.states[layer][: self.rows] = state

    def expect(self, *, stored: bool) -> None:
        if not stored:
            self._column.fill_(_SCRATCH)
            return
        assert self._count < self._ring, "more tokens than the cache was made for"
        column = 1 + self._pinned + (self._start + self._count) % self._ring
        self._column.fill_(column)
        self._visible[:, column] = True
        self._count += 1

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        assert query.shape[:2] == (self.rows, 1) and not dropout
        _, _, heads, dim = query.shape
        kv_heads = key.shape[2]
        number = self._order.setdefault(layer, len(self._order))
        keys, values = (buffer[: self.rows] for buffer in self.layers[number])
        keys.index_copy_(2, self._column, key.transpose(1, 2))
        values.index_copy_(2, self._column, value.transpose(1, 2))
        # Query heads that share a key head stand as so many queries: all of them see the same columns.
        grouped = query.reshape(self.rows, kv_heads, heads // kv_heads, dim)
        out = F.scaled_dot_product_attention(grouped, keys, values, self._visible[: self.rows, None, None])
        return out.reshape(self.rows, 1, heads * dim)

    def advance(self, layer: int, run: Run) -> Tensor:
        state = self.states[layer][: self.rows]
        states = run(state, (self._column != _SCRATCH)[None])
        state.copy_(states[:, 0])
        return states

    def restore(self, states: States) -> None:
        """Put back what `copy_states` gave, after steps that were only tried."""
        for layer, state in states.items():
            self.states[layer].copy_(state)

    def copy_states(self) -> States:
        """The states as they are now."""
        return {layer: state.clone() for layer, state in self.states.items()}

    def select(self, rows: Tensor) -> None:
        before, states, seen = self.layers, self.states, self._visible[rows]
        if len(rows) > self.max_rows:
            self._allocate(len(rows), before, states)
        for layer, state in states.items():
            self.states[layer][: len(rows)] = state[rows]
        for pair, source in zip(self.layers, before, strict=True):
            for buffer, tensor in zip(pair, source, strict=True):
                buffer[: len(rows)] = tensor[rows]
        self._visible[: len(rows)] = seen
        self.rows = len(rows)

    def drop(self, count: int) -> None:
        assert count <= self._count, "more tokens were dropped than stored"
        first, stop = 1 + self._pinned, self._start + count
        self._visible[:, first + self._start : first + min(stop, self._ring)] = False
        self._visible[:, first : first + max(stop - self._ring, 0)] = False
        self._start = stop % self._ring
        self._count -= count

    @property
    def _ring(self) -> int:
        """Columns of the ring."""
        return self.columns - 1 - self._pinned

    def _allocate(self, rows: int, like: Layers, states: States) -> None:
        def zeros(tensor: Tensor) -> Tensor:
            return tensor.new_zeros(rows, tensor.shape[1], self.columns, tensor.shape[3])

        with torch.inference_mode(False):  # tensors made in that mode could not be written to outside of it
            self.layers = [(zeros(keys), zeros(values)) for keys, values in like]
            self.states = {layer: state.new_zeros(rows, *state.shape[1:]) for layer, state in states.items()}
            device = next(tensor for tensor in [*states.values(), *(keys for keys, _ in like)]).device
            self._visible = torch.zeros(rows, self.columns, dtype=torch.bool, device=device)
            self._column = torch.full((1,), _SCRATCH, device=device)
        self.max_rows = rows


def _dtypes(layers: Layers, states: States) -> list[torch.dtype]:
    return [tensor.dtype for pair in layers for tensor in pair] + [state.dtype for state in states.values()]
