"""The key/value cache of a decoding session: one token at a time, over rows that share their pasts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seqrl.attention import Attention

Layers = list[tuple[Tensor, Tensor]]

_FIRST_COLUMNS = 8  # of a block that begins with a new token, and the least that its values are multiplied over


class _Block:
    """Keys and values of consecutive tokens; each of its rows serves as many consecutive rows of the cache.

    Heads come before rows, so that queries, scores and results of all blocks lie in one order, whatever number of rows
    a block has: descendants of one row of a block stand side by side, and products need no copies of their operands.

    Attributes:
        rows: how many rows it has; those of the cache are a multiple.
        layers: keys and values by layer, (kv_heads, rows, columns, head_dim) each.
        start, stop: the columns in use.
        visible: (rows, stop) bool, False for columns that nothing may see; None if all may be seen.
        pinned: stays when old tokens are dropped, and takes no new ones.
        young: began with a new token; its `_FIRST_COLUMNS` columns hold zeros until they are used.
    """

    def __init__(
        self,
        rows: int,
        layers: Layers,
        stop: int,
        *,
        visible: Tensor | None = None,
        pinned: bool = False,
        young: bool = False,
    ) -> None:
        self.rows, self.layers, self.stop = rows, layers, stop
        self.visible, self.pinned, self.young = visible, pinned, young
        self.start = 0

    @property
    def width(self) -> int:
        return self.stop - self.start

    @property
    def full(self) -> bool:
        return bool(self.layers) and self.layers[0][0].shape[2] == self.stop


class KeyValueCache(Attention):
    """What was decoded so far, stored once for all rows that have it in common, for one-token steps.

    Rows that were repeated share the blocks of their ancestor. Selection copies nothing of a block whose rows all
    keep serving their descendants in order (the shared history); what must move is gathered, once, into one block.
    Blocks have few columns to spare: reading is what a step costs, and processors fetch gaps along with their
    surroundings.

    Args:
        rows: R, rows of the next step.
        capacity: tokens that a row is likely to hold at most; decides how much memory is asked for at once.
        room: spare columns of a block that is loaded or gathered.
    """

    def __init__(self, rows: int, *, capacity: int, room: int) -> None:
        self.rows = rows
        self.capacity = capacity
        self.room = room
        self._blocks: list[_Block] = []
        self._spare: list[Tensor] = []  # memory of blocks that are gone, one-dimensional
        self._storing = True

    def load(
        self, layers: Layers, nodes: Tensor, columns: Tensor, *, visible: Tensor | None = None, pinned: bool = False
    ) -> None:
        """Append a block of tokens that were computed elsewhere.

        Args:
            layers: keys and values by layer, (U, kv_heads, m, head_dim).
            nodes: (N,) which of the U sequences are taken; each of the N serves R / N consecutive rows.
            columns: (n,) which of the m tokens are taken, oldest first; leave out those that no row may see.
            visible: (N, n) bool, which of them a row may see; None for all.
            pinned: they stay when old tokens are dropped.
        """

        def copied(tensor: Tensor) -> Tensor:
            _, heads, _, dim = tensor.shape
            buffer = self._buffer(tensor, (heads, len(nodes), len(columns) + (0 if pinned else self.room), dim))
            buffer[:, :, : len(columns)] = tensor[nodes].index_select(2, columns).transpose(0, 1)
            return buffer

        pairs = [(copied(keys), copied(values)) for keys, values in layers]
        self._blocks.append(_Block(len(nodes), pairs, len(columns), visible=visible, pinned=pinned))

    @property
    def pinned_rows(self) -> int:
        """Rows of the pinned block."""
        return next(block.rows for block in self._blocks if block.pinned)

    def replace_pinned(self, layers: Layers) -> None:
        """Put other keys and values, (pinned rows, kv_heads, n, head_dim), in the place of the pinned ones."""
        pairs = [(keys.transpose(0, 1).contiguous(), values.transpose(0, 1).contiguous()) for keys, values in layers]
        next(block for block in self._blocks if block.pinned).layers = pairs

    def expect(self, *, stored: bool) -> None:
        """Announce the next step; `stored=False` for a token that nothing may see, its own query included."""
        self._storing = stored
        if not stored:
            return
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.rows != self.rows:
            last = _Block(self.rows, [], 0, young=True)
            self._blocks.append(last)
        elif last.full:
            last = self._blocks[-1] = self._gathered([last], torch.arange(self.rows, device=last.layers[0][0].device))
        last.stop += 1
        if last.visible is not None:
            last.visible = torch.cat([last.visible, last.visible.new_ones(last.rows, 1)], dim=1)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        """As the contract says, for n = 1 new token in every row; dropout is for training and must be 0."""
        assert query.shape[:2] == (self.rows, 1) and not dropout
        _, _, heads, dim = query.shape
        kv_heads = key.shape[2]
        if self._storing:
            self._store(layer, key[:, 0], value[:, 0])
        # Scaled here, because queries are smaller than scores.
        grouped = query.reshape(self.rows, kv_heads, heads // kv_heads, dim).transpose(0, 1).contiguous() * dim**-0.5
        scores = [self._scores(block, layer, grouped) for block in self._blocks]
        widths = [block.width for block in self._blocks]
        last = self._blocks[-1]
        if last.young and last.start == 0 and last.stop < _FIRST_COLUMNS:
            # Over so few columns batched products take several times as long. These weigh nothing, and hold zeros.
            widths[-1] = _FIRST_COLUMNS
            scores.append(grouped.new_full((1, 1), -torch.inf).expand(len(scores[0]), _FIRST_COLUMNS - last.stop))
        weights = (torch.cat(scores, dim=-1) if len(scores) > 1 else scores[0]).softmax(-1)
        out: Tensor | None = None
        for block, part in zip(self._blocks, weights.split(widths, dim=-1), strict=True):
            values = block.layers[layer][1][:, :, block.start : block.start + part.shape[1]].flatten(0, 1)
            found = torch.bmm(part.unflatten(0, (len(values), -1)), values).view(kv_heads, self.rows, -1, dim)
            out = found if out is None else out + found
        assert out is not None
        return out.transpose(0, 1).reshape(self.rows, 1, heads * dim)

    def select(self, rows: Tensor) -> None:
        """Repeat, reorder or drop rows: (R',) indices into the present ones."""
        for index, block in enumerate(self._blocks):
            group, rest = divmod(len(rows), block.rows)
            order = torch.arange(block.rows, device=rows.device)
            if not rest and torch.equal(rows // (self.rows // block.rows), order.repeat_interleave(group)):
                continue
            if not block.pinned:
                self._blocks[index:] = [self._gathered(self._blocks[index:], rows)]
                break
            self._blocks[index] = self._gathered([block], rows)
        self.rows = len(rows)

    def drop(self, count: int) -> None:
        """Forget the oldest `count` tokens, pinned ones aside."""
        for block in self._blocks:
            if not block.pinned:
                taken = min(count, block.width)
                block.start += taken
                count -= taken
        assert not count, "more tokens were dropped than stored"
        self._blocks = [block for block in self._blocks if block.width]

    def _scores(self, block: _Block, layer: int, query: Tensor) -> Tensor:
        """(kv_heads, R, rep, head_dim) queries on a block's keys; (kv_heads * R * rep, width)."""
        kv_heads, _, _, dim = query.shape
        keys = block.layers[layer][0][:, :, block.start : block.stop].flatten(0, 1)
        scores = torch.bmm(query.view(kv_heads * block.rows, -1, dim), keys.transpose(1, 2))
        if block.visible is not None:
            hidden = ~block.visible[:, None, block.start :]
            scores = scores.unflatten(0, (kv_heads, -1)).masked_fill(hidden, -torch.inf)
        return scores.view(-1, block.width)

    def _store(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Write (R, kv_heads, head_dim) keys and values to the newest column."""
        self._make_room(layer, key)
        block = self._blocks[-1]
        keys, values = block.layers[layer]
        keys[:, :, block.stop - 1] = key.transpose(0, 1)
        values[:, :, block.stop - 1] = value.transpose(0, 1)

    def _make_room(self, layer: int, key: Tensor) -> None:
        """See to it that the newest block has columns for (R, ..., kv_heads, head_dim) keys and values."""
        block = self._blocks[-1]
        if layer == len(block.layers):
            shape = (key.shape[-2], self.rows, _FIRST_COLUMNS, key.shape[-1])
            block.layers.append((self._buffer(key, shape).zero_(), self._buffer(key, shape).zero_()))

    def _gathered(self, blocks: list[_Block], rows: Tensor) -> _Block:
        """One block with the tokens of several, for chosen rows.

        Layer by layer: the memory of one serves the next, while the processor still has it at hand.
        """
        width = sum(block.width for block in blocks)
        pinned = blocks[0].pinned
        columns = width if pinned else width + self.room
        owners = [rows // (self.rows // block.rows) for block in blocks]
        layers: Layers = []
        for _ in range(len(blocks[0].layers)):
            keys, values = zip(*(block.layers.pop(0) for block in blocks), strict=True)
            layers.append((self._moved(keys, blocks, owners, columns), self._moved(values, blocks, owners, columns)))
            self._spare += [_memory(tensor) for tensor in (*keys, *values) if not pinned]
        visible = None
        if any(block.visible is not None for block in blocks):
            parts = [
                torch.ones(len(rows), block.width, dtype=torch.bool, device=rows.device)
                if block.visible is None
                else block.visible[owner, block.start :]
                for block, owner in zip(blocks, owners, strict=True)
            ]
            visible = torch.cat(parts, dim=1)
        return _Block(len(rows), layers, width, visible=visible, pinned=pinned)

    def _moved(self, tensors: tuple[Tensor, ...], blocks: list[_Block], owners: list[Tensor], columns: int) -> Tensor:
        """The columns in use of one tensor of each block, side by side, for each row's owner."""
        kv_heads, _, _, dim = tensors[0].shape
        new = self._buffer(tensors[0], (kv_heads, len(owners[0]), columns, dim))
        heads = torch.arange(kv_heads, device=new.device)[:, None]
        column = 0
        for tensor, block, owner in zip(tensors, blocks, owners, strict=True):
            part = new.flatten(0, 1)[:, column : column + block.width]
            source = tensor.flatten(0, 1)[:, block.start : block.stop]
            torch.index_select(source, 0, (heads * block.rows + owner).flatten(), out=part)
            column += block.width
        return new

    def _buffer(self, like: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """Memory for (kv_heads, rows, columns, head_dim); for all columns ever, if there are more than a block's first.

        Memory that nobody wrote to costs nothing, and new memory costs more than writing to it.
        """
        size = math.prod(shape)
        fitting = [i for i, spare in enumerate(self._spare) if spare.dtype == like.dtype and len(spare) >= size]
        if fitting:
            memory = self._spare.pop(min(fitting, key=lambda i: len(self._spare[i])))
        else:
            columns = shape[2] if shape[2] == _FIRST_COLUMNS else max(shape[2], self.capacity)
            memory = like.new_empty(size // shape[2] * columns)
        return memory[:size].view(shape)


def _memory(tensor: Tensor) -> Tensor:
    """All that a tensor which came from `KeyValueCache._buffer` is a part of."""
    return tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)
