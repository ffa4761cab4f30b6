"""The key/value cache for processors that read slowly: one token at a time, over rows that share their pasts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seqrl.attention import Layers, States
from seqrl.attention.blocks import FIRST_COLUMNS, Block, Buffers, gather
from seqrl.attention.cache import Cache
from seqrl.attention.recurrence import Run


class KeyValueCache(Cache):
    """What was decoded so far, stored once for all rows that have it in common.

    Rows that were repeated share the blocks of their ancestor. Selection copies nothing of a block whose rows all
    keep serving their descendants in order (the shared history); what must move is gathered, once, into one block.
    Blocks have few columns to spare: reading is what a step costs, and processors fetch gaps along with their
    surroundings.

    Args:
        rows: R, rows of the next step.
        capacity: tokens that a row is likely to hold at most; decides how much memory is asked for at once.
        room: spare columns of a block that is loaded or gathered.

    Attributes:
        blocks: the tokens, oldest first; a pinned block comes before all others.
        states: of recurrences, one for each row: every step changes all of them.
    """

    def __init__(self, rows: int, *, capacity: int, room: int) -> None:
        self.rows = rows
        self.room = room
        self.blocks: list[Block] = []
        self.buffers = Buffers(capacity)
        self.states: States = {}
        self._order: dict[int, int] = {}  # where in the `layers` of blocks a layer stands
        self._storing = True

    def load(
        self, layers: Layers, nodes: Tensor, columns: Tensor, *, visible: Tensor | None = None, pinned: bool = False
    ) -> None:
        room = 0 if pinned else self.room

        def copied(tensor: Tensor) -> Tensor:
            _, heads, _, dim = tensor.shape
            buffer = self.buffers.take(tensor, (heads, len(nodes), len(columns) + room, dim))
            buffer[:, :, : len(columns)] = tensor[nodes].index_select(2, columns).transpose(0, 1)
            return buffer

        if pinned and self.blocks and self.blocks[0].pinned:
            for tensor in [tensor for pair in self.blocks.pop(0).layers for tensor in pair]:
                self.buffers.give_back(tensor)
        pairs = [(copied(keys), copied(values)) for keys, values in layers]
        block = Block(len(nodes), pairs, len(columns), visible=visible, pinned=pinned)
        self.blocks.insert(0 if pinned else len(self.blocks), block)

    def load_states(self, states: States, order: Mapping[int, int] | None = None) -> None:
        self.states, self._order = dict(states), dict(order or {})

    @property
    def pinned_rows(self) -> int:
        return next(block.rows for block in self.blocks if block.pinned)

    def expect(self, *, stored: bool) -> None:
        self._storing = stored
        if not stored:
            return
        last = self.blocks[-1] if self.blocks else None
        if last is None or last.pinned or last.rows != self.rows:
            last = Block(self.rows, [], 0, young=True)
            self.blocks.append(last)
        elif last.full:
            everyone = torch.arange(self.rows, device=last.layers[0][0].device)
            last = self.blocks[-1] = self._gathered([last], everyone)
        last.add_column()

    def open_column(self, layers: int, kv_heads: int, head_dim: int, *, like: Tensor) -> None:
        """After `expect`: memory for the new token in all layers, for who writes it without `attend`.

        It is the last column in use of the last block.
        """
        last = self.blocks[-1]
        while len(last.layers) < layers:
            last.add_layer(kv_heads, head_dim, like, self.buffers)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        assert query.shape[:2] == (self.rows, 1) and not dropout
        _, _, heads, dim = query.shape
        kv_heads = key.shape[2]
        layer = self._order.setdefault(layer, len(self._order))
        if self._storing:
            self.blocks[-1].store(layer, key[:, 0], value[:, 0], self.buffers)
        # Scaled here, because queries are smaller than scores.
        grouped = query.reshape(self.rows, kv_heads, heads // kv_heads, dim).transpose(0, 1).contiguous() * dim**-0.5
        scores = [block.scores(layer, grouped) for block in self.blocks]
        widths = [block.width for block in self.blocks]
        last = self.blocks[-1]
        if last.young and last.start == 0 and last.stop < FIRST_COLUMNS:
            # Over so few columns batched products take several times as long. These weigh nothing, and hold zeros.
            widths[-1] = FIRST_COLUMNS
            scores.append(grouped.new_full((1, 1), -torch.inf).expand(len(scores[0]), FIRST_COLUMNS - last.stop))
        weights = (torch.cat(scores, dim=-1) if len(scores) > 1 else scores[0]).softmax(-1)
        out: Tensor | None = None
        for block, part in zip(self.blocks, weights.split(widths, dim=-1), strict=True):
            found = block.weigh(layer, part).view(kv_heads, self.rows, -1, dim)
            out = found if out is None else out + found
        assert out is not None
        return out.transpose(0, 1).reshape(self.rows, 1, heads * dim)

    def advance(self, layer: int, run: Run) -> Tensor:
        state = self.states.get(layer)
        if self._storing:
            states = run(state, None)
            self.states[layer] = states[:, 0]
            return states
        return run(None, torch.zeros(1, 1, dtype=torch.bool)) if state is None else state[:, None]

    def select(self, rows: Tensor) -> None:
        for index, block in enumerate(self.blocks):
            group, rest = divmod(len(rows), block.rows)
            order = torch.arange(block.rows, device=rows.device)
            if not rest and torch.equal(block.owners(rows, self.rows), order.repeat_interleave(group)):
                continue
            if not block.pinned:
                self.blocks[index:] = [self._gathered(self.blocks[index:], rows)]
                break
            self.blocks[index] = self._gathered([block], rows)
        self.states = {layer: state[rows] for layer, state in self.states.items()}
        self.rows = len(rows)

    def drop(self, count: int) -> None:
        for block in self.blocks:
            if not block.pinned:
                taken = min(count, block.width)
                block.start += taken
                count -= taken
        assert not count, "more tokens were dropped than stored"
        self.blocks = [block for block in self.blocks if block.width]

    def _gathered(self, blocks: list[Block], rows: Tensor) -> Block:
        owners = [block.owners(rows, self.rows) for block in blocks]
        return gather(blocks, owners, self.buffers, room=self.room)
