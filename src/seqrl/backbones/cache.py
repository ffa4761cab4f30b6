"""The key/value cache of a decoding session: one token at a time, over rows that share their pasts."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.backbones import Attention

Layers = list[tuple[Tensor, Tensor]]


class _Block:
    """Keys and values of consecutive tokens; each of its rows serves as many consecutive rows of the cache.

    Attributes:
        rows: how many rows it has; those of the cache are a multiple.
        layers: keys and values by layer, (rows, kv_heads, columns, head_dim) each.
        start, stop: the columns in use.
        visible: (rows, stop) bool, False for columns that nothing may see; None if all may be seen.
        pinned: stays when old tokens are dropped, and takes no new ones.
    """

    def __init__(
        self, rows: int, layers: Layers, stop: int, *, visible: Tensor | None = None, pinned: bool = False
    ) -> None:
        self.rows, self.layers, self.stop, self.visible, self.pinned = rows, layers, stop, visible, pinned
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

    Args:
        rows: R, rows of the next step.
        capacity: columns of a block into which selected rows are gathered.
        room: columns of a block that begins with a new token, and spare ones of a block that is loaded.
    """

    def __init__(self, rows: int, *, capacity: int, room: int) -> None:
        self.rows = rows
        self.capacity = capacity
        self.room = room
        self._blocks: list[_Block] = []
        self._spare: dict[tuple[int, ...], list[Tensor]] = {}  # buffers of blocks that are gone
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
        copied: Layers = []
        for pair in layers:
            copies = []
            for tensor in pair:
                _, heads, _, dim = tensor.shape
                buffer = self._buffer((len(nodes), heads, len(columns) + self.room, dim), tensor)
                buffer[:, :, : len(columns)] = tensor[nodes].index_select(2, columns)
                copies.append(buffer)
            copied.append((copies[0], copies[1]))
        self._blocks.append(_Block(len(nodes), copied, len(columns), visible=visible, pinned=pinned))

    @property
    def pinned_rows(self) -> int:
        """Rows of the pinned block."""
        return next(block.rows for block in self._blocks if block.pinned)

    def replace_pinned(self, layers: Layers) -> None:
        """Put other keys and values, (pinned rows, kv_heads, n, head_dim), in the place of the pinned ones."""
        next(block for block in self._blocks if block.pinned).layers = layers

    def expect(self, *, stored: bool) -> None:
        """Announce the next step; `stored=False` for a token that nothing may see, its own query included."""
        self._storing = stored
        if not stored:
            return
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.rows != self.rows or last.pinned:
            last = _Block(self.rows, [], 0)
            self._blocks.append(last)
        elif last.full:
            last = self._gathered([last], torch.arange(self.rows, device=last.layers[0][0].device))
            self._blocks[-1] = last
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
        query = query.reshape(self.rows, kv_heads, heads // kv_heads, dim)
        scores = [self._scores(block, layer, query) for block in self._blocks]
        weights = (torch.cat(scores, dim=-1) if len(scores) > 1 else scores[0]).softmax(-1)
        split = weights.split([block.width for block in self._blocks], dim=-1)
        parts = [self._values(block, layer, part) for block, part in zip(self._blocks, split, strict=True)]
        out = parts[0]
        for part in parts[1:]:
            out = out + part
        return out.reshape(self.rows, 1, heads * dim)

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
        """(R, kv_heads, rep, head_dim) queries on a block's keys; (R, kv_heads, rep, width)."""
        keys = block.layers[layer][0][:, :, block.start : block.stop]
        grouped = _to_block(query, block.rows).flatten(0, 1)
        products = torch.baddbmm(
            grouped.new_empty(1, 1, 1),
            grouped,
            keys.flatten(0, 1).transpose(1, 2),
            beta=0,
            alpha=query.shape[-1] ** -0.5,
        )
        scores = _to_rows(products.unflatten(0, (block.rows, -1)), query.shape)
        if block.visible is not None:
            hidden = ~block.visible[:, block.start :].repeat_interleave(self.rows // block.rows, dim=0)
            scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
        return scores

    def _values(self, block: _Block, layer: int, weights: Tensor) -> Tensor:
        """(R, kv_heads, rep, width) weights on a block's values; (R, kv_heads, rep, head_dim)."""
        values = block.layers[layer][1][:, :, block.start : block.stop]
        return _to_rows(_to_block(weights, block.rows) @ values, weights.shape)

    def _store(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Write (R, kv_heads, head_dim) keys and values to the newest column."""
        block = self._blocks[-1]
        if layer == len(block.layers):
            _, kv_heads, dim = key.shape
            shape = (self.rows, kv_heads, self.room, dim)
            block.layers.append((self._buffer(shape, key), self._buffer(shape, key)))
        keys, values = block.layers[layer]
        keys[:, :, block.stop - 1] = key
        values[:, :, block.stop - 1] = value

    def _gathered(self, blocks: list[_Block], rows: Tensor) -> _Block:
        """One block with the tokens of several, for chosen rows."""
        width = sum(block.width for block in blocks)
        columns = self.capacity if width + self.room <= self.capacity else width + self.room
        owners = [rows // (self.rows // block.rows) for block in blocks]
        pairs = zip(*(block.layers for block in blocks), strict=True)  # by layer, those of all blocks
        layers = [
            (self._moved(k, blocks, owners, columns), self._moved(v, blocks, owners, columns))
            for k, v in (zip(*pair, strict=True) for pair in pairs)
        ]
        freed = {tuple(tensor.shape) for block in blocks for tensor in block.layers[0]}
        wanted = freed | {tuple(layers[0][0].shape)}
        self._spare = {shape: spare for shape, spare in self._spare.items() if shape in wanted}
        visible = None
        if any(block.visible is not None for block in blocks):
            parts = [
                torch.ones(len(rows), block.width, dtype=torch.bool, device=rows.device)
                if block.visible is None
                else block.visible[owner, block.start :]
                for block, owner in zip(blocks, owners, strict=True)
            ]
            visible = torch.cat(parts, dim=1)
        return _Block(len(rows), layers, width, visible=visible, pinned=blocks[0].pinned)

    def _moved(self, tensors: tuple[Tensor, ...], blocks: list[_Block], owners: list[Tensor], columns: int) -> Tensor:
        """A buffer with the columns in use of one tensor of each block, side by side, for each row's owner."""
        _, kv_heads, _, dim = tensors[0].shape
        new = self._buffer((len(owners[0]), kv_heads, columns, dim), tensors[0])
        column = 0
        for tensor, block, owner in zip(tensors, blocks, owners, strict=True):
            part = new[:, :, column : column + block.width]
            torch.index_select(tensor[:, :, block.start : block.stop], 0, owner, out=part)
            column += block.width
            if tensor.shape[2] in (self.capacity, self.room):
                self._spare.setdefault(tuple(tensor.shape), []).append(tensor)
        return new

    def _buffer(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        spare = self._spare.get(shape)
        return spare.pop() if spare else like.new_empty(shape)


def _to_block(x: Tensor, rows: int) -> Tensor:
    """(R, kv_heads, rep, d) to (rows, kv_heads, R / rows * rep, d): descendants of one row side by side."""
    count, kv_heads, rep, dim = x.shape
    group = count // rows
    return x.view(rows, group, kv_heads, rep, dim).transpose(1, 2).reshape(rows, kv_heads, group * rep, dim)


def _to_rows(x: Tensor, like: torch.Size) -> Tensor:
    """The inverse of `_to_block`; `like` is (R, kv_heads, rep, ...)."""
    count, kv_heads, rep, _ = like
    rows = x.shape[0]
    return x.view(rows, kv_heads, count // rows, rep, -1).transpose(1, 2).reshape(count, kv_heads, rep, -1)
