"""What a cache promises, for every cache there is, against attention over plain lists of keys and values."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seqrl.attention.cache import Cache
from seqrl.attention.key_value_cache import KeyValueCache
from seqrl.attention.static_cache import StaticKeyValueCache

LAYERS, HEADS, KV_HEADS, DIM = 2, 4, 2, 3


def key_value_cache(rows: int) -> Cache:
    return KeyValueCache(rows, capacity=12, room=3)


def static_cache(rows: int) -> Cache:
    cache = StaticKeyValueCache(30)
    cache.clear(rows, like=[(torch.zeros(1, KV_HEADS, 1, DIM).double(),) * 2] * LAYERS)
    return cache


CACHES = [key_value_cache, static_cache]


class _Lists:
    """A cache, and beside it what every row should see: for each layer a list of (key, value), oldest first."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.generator = torch.Generator().manual_seed(0)
        self.pinned: list[list[list[tuple[Tensor, Tensor]]]] = [[[] for _ in range(LAYERS)] for _ in range(cache.rows)]
        self.others: list[list[list[tuple[Tensor, Tensor] | None]]] = [
            [[] for _ in range(LAYERS)] for _ in range(cache.rows)
        ]

    def random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)

    def load(self, nodes: list[int], columns: list[int], *, hidden: int | None = None, pinned: bool = False) -> None:
        """Tokens of 3 sequences of 5; the oldest of them is hidden from what node `hidden` serves."""
        layers = [(self.random(3, KV_HEADS, 5, DIM), self.random(3, KV_HEADS, 5, DIM)) for _ in range(LAYERS)]
        visible = None
        if hidden is not None:
            visible = torch.ones(len(nodes), len(columns), dtype=torch.bool)
            visible[hidden, 0] = False
        self.cache.load(layers, torch.tensor(nodes), torch.tensor(columns), visible=visible, pinned=pinned)
        served = self.cache.rows // len(nodes)
        for row in range(self.cache.rows):
            for layer, (keys, values) in enumerate(layers):
                node = nodes[row // served]
                found = [(keys[node, :, c], values[node, :, c]) for c in columns]
                if pinned:
                    self.pinned[row][layer] = found
                else:
                    seen = [None if row // served == hidden and i == 0 else each for i, each in enumerate(found)]
                    self.others[row][layer] += seen

    def step(self, *, stored: bool = True) -> None:
        """One token in every row; what comes of it is compared."""
        self.cache.expect(stored=stored)
        rows = self.cache.rows
        for layer in range(LAYERS):
            query = self.random(rows, 1, HEADS, DIM)
            key, value = self.random(rows, 1, KV_HEADS, DIM), self.random(rows, 1, KV_HEADS, DIM)
            out = self.cache.attend(layer, query, key, value)
            for row in range(rows):
                if stored:
                    self.others[row][layer].append((key[row, 0], value[row, 0]))
                pairs = [*self.pinned[row][layer], *filter(None, self.others[row][layer])]
                torch.testing.assert_close(out[row, 0], self.attended(query[row, 0], pairs), atol=1e-12, rtol=0)

    def attended(self, query: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(HEADS * DIM,) by the formula, head by head."""
        heads = []
        for head in range(HEADS):
            mine = head * KV_HEADS // HEADS
            scores = torch.stack([query[head] @ key[mine] / math.sqrt(DIM) for key, _ in pairs]).exp()
            heads.append(sum(s / scores.sum() * value[mine] for s, (_, value) in zip(scores, pairs, strict=True)))
        return torch.cat(heads)

    def select(self, rows: list[int]) -> None:
        self.cache.select(torch.tensor(rows))
        self.pinned = [[list(layer) for layer in self.pinned[row]] for row in rows]
        self.others = [[list(layer) for layer in self.others[row]] for row in rows]
        assert self.cache.rows == len(rows)

    def drop(self, count: int) -> None:
        self.cache.drop(count)
        for row in self.others:
            for layer in row:
                del layer[:count]


@pytest.mark.parametrize("make", CACHES)
def test_rows_see_what_was_loaded_and_what_came_since(make: Callable[[int], Cache]) -> None:
    lists = _Lists(make(2))
    lists.load([2, 0], [0, 1, 3])
    for _ in range(10):
        lists.step()


@pytest.mark.parametrize("make", CACHES)
def test_a_token_that_nothing_may_see_leaves_nothing(make: Callable[[int], Cache]) -> None:
    lists = _Lists(make(2))
    lists.load([0, 1], [0, 2])
    for step in range(6):
        lists.step(stored=step % 2 == 0)


@pytest.mark.parametrize("make", CACHES)
def test_a_hidden_column_stays_hidden(make: Callable[[int], Cache]) -> None:
    lists = _Lists(make(4))
    lists.load([1, 2], [0, 1, 2], hidden=1)
    lists.step()
    lists.select([3, 3, 0, 1])
    for _ in range(4):
        lists.step()


@pytest.mark.parametrize("make", CACHES)
def test_rows_that_branch_keep_their_pasts(make: Callable[[int], Cache]) -> None:
    """Repeated in order, pruned, in any order, and dropped."""
    lists = _Lists(make(2))
    lists.load([0, 2], [0, 1, 2, 3])
    for rows in ([0, 0, 0, 1, 1, 1], [2, 0, 5, 4], [0, 0, 1, 1, 2, 2, 3, 3], [7, 1, 1], [2, 0]):
        lists.step()
        lists.select(rows)
        lists.step()
    lists.step()


@pytest.mark.parametrize("make", CACHES)
def test_the_oldest_go_and_pinned_ones_stay(make: Callable[[int], Cache]) -> None:
    """Over blocks, beyond the end of a ring, and with others in the place of the pinned ones."""
    lists = _Lists(make(2))
    lists.load([0, 2], [0, 1], pinned=True)
    lists.load([0, 1], [1, 2, 3, 4])
    lists.select([0, 0, 1, 1])
    for turn in range(12):
        for _ in range(3):
            lists.step()
        lists.drop(3)
        if turn % 3 == 1:
            lists.load([turn % 2, 1] if lists.cache.pinned_rows == 2 else [0, 1, 2, 1], [2, 3], pinned=True)
        if turn % 3 == 2:
            lists.select([2, 1, 1, 0] if turn == 5 else [0, 1, 2, 3])


@pytest.mark.parametrize("make", CACHES)
def test_nothing_but_pinned_tokens_may_come_before_the_first_step(make: Callable[[int], Cache]) -> None:
    """As after the state of a prior over codes, with one row for each environment."""
    lists = _Lists(make(2))
    lists.load([0, 1], [0], pinned=True)
    for _ in range(3):
        lists.step()


@pytest.mark.parametrize("make", CACHES)
def test_more_than_is_held_cannot_be_dropped(make: Callable[[int], Cache]) -> None:
    lists = _Lists(make(1))
    lists.load([0], [0], pinned=True)
    lists.load([0], [0, 1])
    with pytest.raises(AssertionError, match="more tokens were dropped than stored"):
        lists.cache.drop(3)
