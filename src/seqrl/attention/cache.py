"""The contract of a cache: what decoding asks of one, whatever it stores and wherever it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from seqrl.attention import Attention, Layers, States


class Cache(Attention, ABC):
    """Keys, values and states of what was decoded so far, for steps of one new token in every row.

    A step is `expect`, then one `attend` or `recur` in every layer, with n = 1 and without dropout. Some tokens may be
    pinned: they stand before all others and stay when old ones are dropped (the prefix of a session). Of what was
    dropped, the states of recurrences go on knowing.

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

    @abstractmethod
    def load_states(self, states: States, order: Mapping[int, int] | None = None) -> None:
        """Take the states of recurrences after all tokens that were loaded.

        Args:
            states: one for each row, (R, *S), by layer.
            order: where in `layers` of `load` each layer that attends stands; None for the order in which steps come to
                them.
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
