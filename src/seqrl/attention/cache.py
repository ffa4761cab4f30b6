"""The contract of a key/value cache: what decoding asks of one, whatever it stores and wherever it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from seqrl.attention import Attention, Layers


class Cache(Attention, ABC):
    """Keys and values of what was decoded so far, for steps of one new token in every row.

    A step is `expect`, then one `attend` in every layer, with n = 1 and without dropout. Some tokens may be pinned:
    they stand before all others and stay when old ones are dropped (the prefix of a session).

    Attributes:
        rows: R, rows of the next step.
    """

    rows: int

    @abstractmethod
    def load(
        self, layers: Layers, nodes: Tensor, columns: Tensor, *, visible: Tensor | None = None, pinned: bool = False
    ) -> None:
        """Append tokens that were computed elsewhere.

        Args:
            layers: keys and values by layer, (U, kv_heads, m, head_dim).
            nodes: (N,) which of the U sequences are taken; each of the N serves R / N consecutive rows.
            columns: (n,) which of the m tokens are taken, oldest first; leave out those that no row may see.
            visible: (N, n) bool, which of them a row may see; None for all.
            pinned: they stay when old tokens are dropped. Pinned tokens come before all others; as many again take
                the place of the first ones.
        """

    @property
    @abstractmethod
    def pinned_rows(self) -> int:
        """How many rows the pinned tokens are stored for, each of which serves as many consecutive rows."""

    @abstractmethod
    def expect(self, *, stored: bool) -> None:
        """Announce the next step; `stored=False` for a token that nothing may see, its own query included."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Repeat, reorder or drop rows: (R',) indices into the present ones."""

    @abstractmethod
    def drop(self, count: int) -> None:
        """Forget the oldest `count` tokens, pinned ones aside."""
