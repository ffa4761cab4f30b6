"""The token sequences of a session, as far as the model sees them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqrl.attention import causal_mask
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.types import Opening


class Level(NamedTuple):
    """A stretch of the context over which some rows are the same, from the beginning on.

    Attributes:
        stop: the column where it ends.
        firsts: (U,) the first row of each distinct beginning, sorted by environment.
        nodes: (R,) which of these beginnings each row has.
    """

    stop: int
    firsts: Tensor
    nodes: Tensor


class Context:
    """The sequences of a session's rows since the last cut, and who in them may see whom.

    Whole transitions leave on the left, the same number in all rows. Rows may have padding on their left, which
    nothing attends to.

    Args:
        model: of tokens or codes.
        opening: how the sequences begin. What does not fit is cut at once, as if it had never been.
        transitions: how many the model sees, the present one included.

    Attributes:
        count: n, tokens of every row, padding included.
        limit: the largest n with which the next token can be predicted.
        lengths: (R,) past transitions that are no padding.
        forgotten: (R,) tokens that a row lost to cuts since the start.
        ragged: whether some rows have padding, or had some at the start.
    """

    def __init__(self, model: AutoregressiveModel, opening: Opening, transitions: int) -> None:
        self.model = model
        self.limit = transitions * model.tokens_per_step - 1
        self.count = opening.tokens.shape[1]
        self.lengths = opening.lengths
        self._prefix = opening.prefix  # (B, P, D) of every environment
        self._everywhere = opening.everywhere
        self._tokens: Tensor | None = opening.tokens  # (R, n); None once nobody needs them any more
        self._environments = torch.arange(len(opening.tokens), device=opening.tokens.device)  # (R,) which each row is
        self.forgotten = torch.zeros_like(opening.lengths)
        self.cut()
        self.forgotten.zero_()
        self.ragged = bool((self.lengths < self.count // model.tokens_per_step).any())

    @property
    def rows(self) -> int:
        """R."""
        return len(self.lengths)

    @property
    def place(self) -> int:
        """Which token of its transition comes next, in [0, K)."""
        return self.count % self.model.tokens_per_step

    @property
    def is_full(self) -> bool:
        """Whether the next token does not fit any more."""
        return self.count >= self.limit

    @property
    def tokens(self) -> Tensor:
        """(R, n) tokens."""
        assert self._tokens is not None, "the tokens were forgotten"
        return self._tokens

    def forget_tokens(self) -> None:
        """Keep no tokens from now on, but count them."""
        self._tokens = None

    def append(self, tokens: Tensor) -> None:
        """Add (R,) tokens on the right, beyond the limit if need be: see `cut`."""
        self.count += 1
        if self.place == 0:
            self.lengths = self.lengths + 1
        if self._tokens is not None:
            self._tokens = torch.cat([self._tokens, tokens[:, None]], dim=1)

    def select(self, rows: Tensor) -> None:
        """Repeat, reorder or drop rows: (R',) indices into the present ones."""
        if self._tokens is not None:
            self._tokens = self._tokens[rows]
        self.lengths = self.lengths[rows]
        self._environments = self._environments[rows]
        self.forgotten = self.forgotten[rows]

    def cut(self) -> bool:
        """Drop whole transitions on the left until the context fits; whether any was dropped."""
        excess = self.count - self.limit
        if excess <= 0:
            return False
        self.drop(-(-excess // self.model.tokens_per_step))
        return True

    def drop(self, transitions: int) -> None:
        """Drop so many transitions on the left."""
        steps = self.model.tokens_per_step
        if self._tokens is not None:
            self._tokens = self._tokens[:, transitions * steps :]
        self.count -= transitions * steps
        before = self.lengths
        self.lengths = before.clamp(max=self.count // steps)
        self.forgotten = self.forgotten + (before - self.lengths) * steps

    def prefix(self, rows: Tensor) -> Tensor:
        """(U, P, D) embedded prefix of some rows."""
        return self._prefix[self._environments[rows]]

    def embed(self, tokens: Tensor, first: int, rows: Tensor | None = None) -> Tensor:
        """(U, n, D) of (U, n) tokens of some rows, of all by default, the first of which stands at place `first`."""
        x = self.model.embed(tokens, first=first)
        if self._everywhere is None:
            return x
        environments = self._environments if rows is None else self._environments[rows]
        return x + self._everywhere[environments][:, None]

    def inputs(self, rows: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """What the backbone is given of columns `start` to `stop` of some rows, the prefix included if they come first.

        Returns:
            (U, n, D) embedded tokens and (U or 1, n) positions, counted from the cut.
        """
        model = self.model
        x = self.embed(self.tokens[rows, start:stop], start, rows)
        places = torch.arange(start, stop, device=rows.device)[None]
        if self.ragged:
            places = (places - self._padding(rows)[:, None]).clamp(min=0)
        positions = places + model.prefix_size
        if model.prefix_size and start == 0:
            x = torch.cat([self.prefix(rows), x], dim=1)
            places = torch.arange(model.prefix_size, device=rows.device)
            positions = torch.cat([places.expand(len(positions), -1), positions], dim=1)
        return x, positions

    def next_positions(self) -> Tensor:
        """(R or 1, 1) positions of the next tokens, counted from the cut."""
        position = self.model.prefix_size + self.count
        if not self.ragged:
            return torch.full((1, 1), position, device=self.lengths.device)
        rows = torch.arange(self.rows, device=self.lengths.device)
        return (position - self._padding(rows))[:, None]

    def visibility(self, rows: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Who may see whom among the first `stop` columns of some rows, the prefix before them.

        Returns:
            (U or 1, 1, n, m) bool for the queries from column `start` on, and (U or 1, m) bool, the keys that anything
            may see.
        """
        model = self.model
        total = model.prefix_size + stop
        first = 0 if start == 0 else model.prefix_size + start
        causal = causal_mask(total, rows.device)[first:]
        visible = ~model.hidden_keys(stop)[None]
        if not self.ragged:
            return (causal & visible)[None, None], visible
        place = torch.arange(total, device=rows.device) - model.prefix_size
        real = (place < 0) | (place >= self._padding(rows)[:, None])
        visible = visible & real
        # Padding attends to itself: a query without any key would have no defined result.
        own = torch.eye(total, dtype=torch.bool, device=rows.device)[first:] & ~real[:, None]
        return (causal & visible[:, None] | own)[:, None], visible

    def levels(self) -> list[Level]:
        """Where rows of one environment begin to differ, to the transition; the last level is the whole context."""
        steps = self.model.tokens_per_step
        rows = torch.arange(self.rows, device=self.lengths.device)
        _, node = torch.unique(self._environments, return_inverse=True)
        if len(rows) == int(node.max()) + 1:  # one row per environment: nothing in common
            return [Level(self.count, rows, rows)]
        levels: list[Level] = []
        stops = [*range(steps, self.count, steps), self.count]
        for start, stop in zip([0, *stops], stops, strict=False):
            for column in range(start, stop):
                _, node = torch.unique(node * self.model.num_classes + self.tokens[:, column], return_inverse=True)
            distinct = int(node.max()) + 1
            if levels and distinct == len(levels[-1].firsts):
                levels.pop()  # nothing branched since
            firsts = rows.new_full((distinct,), len(rows)).scatter_reduce_(0, node, rows, "amin")
            levels.append(Level(stop, firsts, node))
        return levels

    def _padding(self, rows: Tensor) -> Tensor:
        """(U,) columns of padding on the left of some rows."""
        steps = self.model.tokens_per_step
        return (self.count // steps - self.lengths[rows]) * steps
