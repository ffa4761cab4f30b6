"""What a key/value cache is made of: stretches of tokens that rows have in common, and memory that is used again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seqrl.attention import Layers

FIRST_COLUMNS = 8  # of a block that begins with a new token, and the least that its values are multiplied over


class Buffers:
    """Memory for blocks, and that of blocks that are gone, for those to come.

    Memory that nobody wrote to costs nothing, and new memory costs more than writing to it.

    Args:
        capacity: columns that a block is likely to need at most; decides how much memory is asked for at once.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._spare: list[Tensor] = []  # one-dimensional

    @property
    def spare_bytes(self) -> int:
        return sum(memory.nbytes for memory in self._spare)

    def take(self, like: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """Memory for (kv_heads, rows, columns, head_dim); for all columns ever, if there are more than a block's first.

        It holds whatever was in it before.
        """
        size = math.prod(shape)
        fitting = [i for i, spare in enumerate(self._spare) if spare.dtype == like.dtype and len(spare) >= size]
        if fitting:
            memory = self._spare.pop(min(fitting, key=lambda i: len(self._spare[i])))
        else:
            columns = shape[2] if shape[2] == FIRST_COLUMNS else max(shape[2], self._capacity)
            memory = like.new_empty(size // shape[2] * columns)
        return memory[:size].view(shape)

    def give_back(self, tensor: Tensor) -> None:
        """Let all the memory that a tensor from `take` is a part of be used again."""
        size = tensor.untyped_storage().nbytes() // tensor.element_size()
        self._spare.append(tensor.as_strided((size,), (1,), 0))


class Block:
    """Keys and values of consecutive tokens; each of its rows serves as many consecutive rows of the cache.

    Heads come before rows, so that queries, scores and results of all blocks lie in one order, whatever number of rows
    a block has: descendants of one row of a block stand side by side, and products need no copies of their operands.

    Attributes:
        rows: how many rows it has; those of the cache are a multiple.
        layers: keys and values by layer, (kv_heads, rows, columns, head_dim) each.
        start, stop: the columns in use.
        visible: (rows, stop) bool, False for columns that nothing may see; None if all may be seen.
        pinned: stays when old tokens are dropped, and takes no new ones.
        young: began with a new token; its `FIRST_COLUMNS` columns hold zeros until they are used.
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

    def add_column(self) -> None:
        """Make room for one more token, which every row may see; `store` then fills it, layer by layer."""
        self.stop += 1
        if self.visible is not None:
            self.visible = torch.cat([self.visible, self.visible.new_ones(self.rows, 1)], dim=1)

    def add_layer(self, kv_heads: int, head_dim: int, like: Tensor, buffers: Buffers) -> None:
        """Memory for one more layer of a young block."""
        shape = (kv_heads, self.rows, FIRST_COLUMNS, head_dim)
        self.layers.append((buffers.take(like, shape).zero_(), buffers.take(like, shape).zero_()))

    def store(self, layer: int, key: Tensor, value: Tensor, buffers: Buffers) -> None:
        """Write (rows, kv_heads, head_dim) keys and values to the newest column."""
        if layer == len(self.layers):
            self.add_layer(key.shape[-2], key.shape[-1], key, buffers)
        keys, values = self.layers[layer]
        keys[:, :, self.stop - 1] = key.transpose(0, 1)
        values[:, :, self.stop - 1] = value.transpose(0, 1)

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """(kv_heads, R, rep, head_dim) queries on the block's keys; (kv_heads * R * rep, width)."""
        kv_heads, _, _, dim = query.shape
        keys = self.layers[layer][0][:, :, self.start : self.stop].flatten(0, 1)
        scores = torch.bmm(query.view(kv_heads * self.rows, -1, dim), keys.transpose(1, 2))
        if self.visible is not None:
            hidden = ~self.visible[:, None, self.start :]
            scores = scores.unflatten(0, (kv_heads, -1)).masked_fill(hidden, -torch.inf)
        return scores.view(-1, self.width)

    def weigh(self, layer: int, weights: Tensor) -> Tensor:
        """Sums of the values of the first n columns, weighed by (kv_heads * R * rep, n).

        Returns:
            (kv_heads * rows, R / rows * rep, head_dim).
        """
        values = self.layers[layer][1][:, :, self.start : self.start + weights.shape[1]].flatten(0, 1)
        return torch.bmm(weights.unflatten(0, (len(values), -1)), values)

    def owners(self, rows: Tensor, total: int) -> Tensor:
        """(R',) the block's row that serves each of some rows of a cache of `total` rows."""
        return rows // (total // self.rows)


def gather(blocks: list[Block], owners: list[Tensor], buffers: Buffers, *, room: int) -> Block:
    """One block with the tokens of several, in the order of chosen rows; the memory of the several is given back.

    Layer by layer: the memory of one serves the next, while the processor still has it at hand.

    Args:
        blocks: consecutive ones. They cannot be used any more.
        owners: for each block, the (R',) rows of it that the rows of the new one continue.
        room: spare columns, where the tokens are not pinned.
    """
    width = sum(block.width for block in blocks)
    columns = width + (0 if blocks[0].pinned else room)
    layers: Layers = []
    for _ in range(len(blocks[0].layers)):
        keys, values = zip(*(block.layers.pop(0) for block in blocks), strict=True)
        moved = [_move(tensors, blocks, owners, buffers, columns) for tensors in (keys, values)]
        layers.append((moved[0], moved[1]))
        for tensor in (*keys, *values):
            buffers.give_back(tensor)
    visible = None
    if any(block.visible is not None for block in blocks):
        parts = [
            torch.ones(len(owner), block.width, dtype=torch.bool, device=owner.device)
            if block.visible is None
            else block.visible[owner, block.start :]
            for block, owner in zip(blocks, owners, strict=True)
        ]
        visible = torch.cat(parts, dim=1)
    return Block(len(owners[0]), layers, width, visible=visible, pinned=blocks[0].pinned)


def _move(
    tensors: tuple[Tensor, ...], blocks: list[Block], owners: list[Tensor], buffers: Buffers, columns: int
) -> Tensor:
    """The columns in use of one tensor of each block, side by side, for each row's owner."""
    kv_heads, _, _, dim = tensors[0].shape
    new = buffers.take(tensors[0], (kv_heads, len(owners[0]), columns, dim))
    heads = torch.arange(kv_heads, device=new.device)[:, None]
    column = 0
    for tensor, block, owner in zip(tensors, blocks, owners, strict=True):
        part = new.flatten(0, 1)[:, column : column + block.width]
        source = tensor.flatten(0, 1)[:, block.start : block.stop]
        torch.index_select(source, 0, (heads * block.rows + owner).flatten(), out=part)
        column += block.width
    return new
