"""The session through which a sequence model is decoded: its cache, its cuts, what its rows share, and guidance."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple, Protocol, cast, get_args

import torch
from torch import Tensor

from seqrl.attention import causal_mask
from seqrl.attention.cache import KeyValueCache, Layers
from seqrl.attention.engine import borrow
from seqrl.attention.passes import FullAttention, TreeAttention
from seqrl.attention.static_cache import StaticKeyValueCache
from seqrl.errors import ConfigError, did_you_mean
from seqrl.models.token import SequenceModel
from seqrl.types import History

CacheMode = Literal["none", "exact", "window"]


def check_cache(cache: str, *, relative: bool = True) -> CacheMode:
    """The cache mode itself, if there is such a one and a backbone, with relative positions or not, can serve it.

    Raises:
        ConfigError: says which modes there are, or what the mode needs.
    """
    modes = get_args(CacheMode)
    if cache not in modes:
        raise ConfigError(f"planner.cache={cache!r} is unknown.{did_you_mean(cache, modes)} Modes: {', '.join(modes)}")
    if cache == "window" and not relative:
        raise ConfigError(
            "planner.cache=window needs a backbone with relative positions, and this checkpoint's has absolute ones; "
            "use planner.cache=exact, or train with backbone=llama"
        )
    return cast(CacheMode, cache)


class Session(Protocol):
    """What planners ask of a session.

    Attributes:
        logits: (R, V + 1) of the next token of every row.
    """

    logits: Tensor

    def append(self, tokens: Tensor) -> None:
        """Take (R,) chosen tokens as the next ones and move on."""

    def select(self, rows: Tensor) -> None:
        """Repeat, reorder or drop rows: (R',) indices into the present ones, one or more, in [0, R)."""


class GuidedSession:
    """Sequences that follow their goals more closely than the data did: classifier-free guidance of actions.

    Each row is decoded twice, after its goal g and after the null goal. Where the next token x is of an action it has
    the logits `log p(x) + w (log p(x | g) - log p(x))`: what the goal changes counts w times. What an action leads to
    is the environment's business whatever the goal: those tokens have the logits that follow the goal. One session
    holds both, so that a step costs as much as one of twice the rows.

    Args:
        model: trained with a null goal.
        history: with a prefix, and a guidance w of 0 or more: actions follow the null goal with 0, the goal with 1.
        options: as for `DecodingSession`.

    Reference: Ho and Salimans 2022, equation 6, whose weight is w - 1; Sanchez et al. 2023, equation 7, for tokens.
    """

    logits: Tensor

    def __init__(
        self, model: SequenceModel, history: History, *, cache: CacheMode, context: int, static: bool | None = None
    ) -> None:
        assert history.prefix is not None
        self._weight = history.guidance
        self._actions = model.places("action")
        prefix = torch.cat([history.prefix, model.goal_prefix(None, len(history.prefix))])
        both = replace(
            history, tokens=history.tokens.repeat(2, 1), lengths=history.lengths.repeat(2), prefix=prefix, guidance=1.0
        )
        self._session = DecodingSession(model, both, cache=cache, context=context, static=static)
        self._mix()

    def append(self, tokens: Tensor) -> None:
        """As `Session` says."""
        self._session.append(tokens.repeat(2))
        self._mix()

    def select(self, rows: Tensor) -> None:
        """As `Session` says."""
        self._session.select(torch.cat([rows, rows + len(self.logits)]))
        self.logits = self.logits[rows]

    def _mix(self) -> None:
        toward, without = self._session.logits.log_softmax(-1).chunk(2)
        guided = self._actions.start <= self._session.place < self._actions.stop
        self.logits = without + self._weight * (toward - without) if guided else toward


class _Level(NamedTuple):
    """A stretch of the context over which some rows are the same, from the beginning on.

    Attributes:
        stop: the column where it ends.
        firsts: (U,) the first row of each distinct beginning, sorted by environment.
        nodes: (R,) which of these beginnings each row has.
    """

    stop: int
    firsts: Tensor
    nodes: Tensor


class DecodingSession:
    """A batch of growing token sequences, and the distribution of each one's next token.

    The session knows the place of the next token in its transition, and cuts the context by itself: before the model
    would see more than `context * K - 1` tokens, whole transitions leave on the left, imagined ones included. The
    prefix stays.

    Cache modes:
        none: everything is computed again for every token; positions count from the cut. The reference.
        exact: the same logits up to rounding. Keys and values are kept between cuts; at a cut the shortened sequences
            are encoded again, what several rows have in common once.
        window: nothing is encoded twice. Keys and values of a cut transition are forgotten, those of the others stay
            as they are, so that they still know what they saw before the cut: other logits, of a longer memory. For
            backbones whose features depend on differences of positions alone.

    Args:
        model: in eval mode.
        history: where to start; rows may have different lengths.
        cache: the mode.
        context: transitions, at least 2 and at most the training window's.
        static: whether one-token steps have static shapes, so that they can be replayed as CUDA graphs. The logits
            are the same up to rounding. None for where it pays: on CUDA, but not on CPUs, which would read all rows'
            copies of what they have in common. Of no concern to mode `none`.

    Attributes:
        logits: (R, V + 1) of the next token.

    Raises:
        ConfigError: a model in training mode, a context outside the trained window, a prefix that the layout does not
            have, or mode `window` with absolute positions.
    """

    logits: Tensor
    _cache: KeyValueCache | StaticKeyValueCache
    _tokens: Tensor  # (R, n) of the context; in mode `window` only until they are encoded
    _positions: Tensor  # (R or 1, 1) of the next token

    @torch.no_grad()
    def __init__(
        self,
        model: SequenceModel,
        history: History,
        *,
        cache: CacheMode,
        context: int,
        static: bool | None = None,
    ) -> None:
        if not 2 <= context <= model.context:
            raise ConfigError(f"planner.context={context} is outside [2, {model.context}], the trained window")
        if model.training:
            raise ConfigError(
                "the model is in training mode, where dropout is random; call model.eval() before decoding"
            )
        if (history.prefix is None) != (model.prefix_size == 0):
            raise ConfigError("the history's prefix does not fit the layout; give one if and only if it has a goal")
        self._model = model
        self._mode = check_cache(cache, relative=model.backbone.relative)
        self._limit = context * model.tokens_per_step - 1
        self._hidden = model.hidden.tolist()
        static = history.tokens.device.type == "cuda" if static is None else static
        self._engine = None
        if static and self._mode != "none":
            kept = model.prefix_size + context * self._hidden.count(False)
            self._engine = borrow(self, model.backbone, tokens=kept)
        self._tokens = history.tokens
        self._count = history.tokens.shape[1]  # n, tokens of the context
        self._lengths = history.lengths  # (R,) past transitions that are no padding
        self._prefix = history.prefix
        self._environments = torch.arange(len(history.tokens), device=history.tokens.device)  # (R,) which each row is
        self._forgotten = torch.zeros_like(history.lengths)  # (R,) tokens that a row lost to cuts since the start
        self._cut()
        self._forgotten.zero_()
        self._ragged = bool((self._lengths < self._count // model.tokens_per_step).any())
        self._encode()
        if self._mode == "window":
            del self._tokens
            self._slide()

    @property
    def place(self) -> int:
        """Which token of its transition comes next, in [0, K)."""
        return self._count % self._model.tokens_per_step

    @torch.no_grad()
    def append(self, tokens: Tensor) -> None:
        """Take (R,) chosen tokens as the next ones and move on."""
        place = self.place
        self._count += 1
        if self.place == 0:
            self._lengths = self._lengths + 1
        if self._mode == "window":
            self._step(tokens, place)
            self._slide()
            return
        self._tokens = torch.cat([self._tokens, tokens[:, None]], dim=1)
        if self._cut() or self._mode == "none":
            self._encode()
        else:
            self._step(tokens, place)

    @torch.no_grad()
    def select(self, rows: Tensor) -> None:
        """Repeat, reorder or drop rows: (R',) indices into the present ones, one or more, in [0, R).

        Rows that stay in the order of their environments go on sharing what they have in common.
        """
        if self._mode != "window":
            self._tokens = self._tokens[rows]
        self._lengths = self._lengths[rows]
        self._prefix = None if self._prefix is None else self._prefix[rows]
        self._environments = self._environments[rows]
        self._forgotten = self._forgotten[rows]
        self.logits = self.logits[rows]
        will_encode = self._mode == "none" or (self._mode == "exact" and self._count == self._limit)
        if not will_encode:  # else the next token needs nothing of the cache
            self._positions = self._positions[rows] if len(self._positions) > 1 else self._positions
            self._cache.select(rows)

    def _cut(self) -> bool:
        """Drop whole transitions on the left until the context fits; whether any was dropped."""
        excess = self._count - self._limit
        if excess <= 0:
            return False
        dropped = -(-excess // self._model.tokens_per_step) * self._model.tokens_per_step
        self._tokens = self._tokens[:, dropped:]
        self._shorten(dropped)
        return True

    def _slide(self) -> None:
        """Forget the oldest transition if the next token needs its place.

        Right away and not with that token, as in `_cut`: a selection in between then has less to move.
        """
        if self._count < self._limit:
            return
        self._shorten(self._model.tokens_per_step)
        self._cache.drop(self._hidden.count(False))
        if self._prefix is not None:
            self._move_prefix()

    def _shorten(self, dropped: int) -> None:
        """Take note that the oldest `dropped` tokens, which are whole transitions, have left the context."""
        steps = self._model.tokens_per_step
        self._count -= dropped
        before = self._lengths
        self._lengths = before.clamp(max=self._count // steps)
        self._forgotten = self._forgotten + (before - self._lengths) * steps

    def _encode(self) -> None:
        """Run the whole context; what comes after it runs against a new cache, if there is one."""
        rows = torch.arange(len(self._tokens), device=self._tokens.device)
        if self._mode == "none":
            mask, _ = self._visibility(rows, 0, self._count)
            features = self._run(rows, 0, self._count, FullAttention(mask))
            self.logits = self._model.next_logits(features[:, -1], self.place)
            return
        tree = TreeAttention()
        levels = self._levels(rows)
        start = 0
        owners: Tensor | None = None
        for stop, firsts, nodes in levels:
            mask, _ = self._visibility(firsts, start, stop)
            tree.grow(mask, None if owners is None else owners[firsts])
            features = self._run(firsts, start, stop, tree)
            if owners is None:
                trunk = list(tree.layers)
            start, owners = stop, nodes
        assert owners is not None
        self.logits = self._model.next_logits(features[:, -1], self.place)[owners]
        self._positions = self._next_positions(rows)
        self._cache = self._filled(trunk, levels[0], tree.layers, owners)

    def _levels(self, rows: Tensor) -> list[_Level]:
        """Where rows of one environment begin to differ, to the transition; the last level is the whole context."""
        steps = self._model.tokens_per_step
        length = self._count
        _, node = torch.unique(self._environments, return_inverse=True)
        if len(rows) == int(node.max()) + 1:  # one row per environment: nothing in common
            return [_Level(length, rows, rows)]
        levels: list[_Level] = []
        stops = [*range(steps, length, steps), length]
        for start, stop in zip([0, *stops], stops, strict=False):
            for column in range(start, stop):
                _, node = torch.unique(node * self._model.num_classes + self._tokens[:, column], return_inverse=True)
            count = int(node.max()) + 1
            if levels and count == len(levels[-1].firsts):
                levels.pop()  # nothing branched since
            firsts = rows.new_full((count,), len(rows)).scatter_reduce_(0, node, rows, "amin")
            levels.append(_Level(stop, firsts, node))
        return levels

    def _filled(
        self, trunk: Layers, first_level: _Level, leaves: Layers, owners: Tensor
    ) -> KeyValueCache | StaticKeyValueCache:
        """A cache with the tokens of the context that anything may see.

        Args:
            trunk: keys and values of the first level, (U, kv_heads, P + stop, head_dim) each.
            first_level: the one after which rows begin to differ.
            leaves: those of the whole context, for the last level.
            owners: (R,) which leaf each row continues.
        """
        model = self._model
        stop, firsts, roots = first_level
        rows = torch.arange(len(owners), device=owners.device)
        seen = (~model.hidden_keys(self._count)).nonzero()[:, 0]  # columns, the prefix included
        in_order = torch.equal(roots, rows // (len(rows) // len(firsts)))  # else blocks cannot be shared
        cache: KeyValueCache | StaticKeyValueCache
        if self._engine is None:
            per_step = self._hidden.count(False)
            most = (self._limit // model.tokens_per_step + 2) * per_step
            cache = KeyValueCache(len(rows), capacity=most, room=per_step)
        else:
            cache = self._engine.cache
            cache.clear(len(rows), like=leaves)
        kept = model.prefix_size if self._mode == "window" else 0  # columns that stay at a cut
        shared = model.prefix_size + stop if in_order else 0
        sources = (
            (trunk, rows[: len(firsts)], firsts, seen[seen < shared]),
            (leaves, owners, rows, seen[seen >= shared]),
        )
        for layers, nodes, of, columns in sources:
            for part, pinned in ((columns[columns < kept], True), (columns[columns >= kept], False)):
                if len(part):
                    visible = self._visibility(of, 0, self._count)[1][:, part] if self._ragged else None
                    cache.load(layers, nodes, part, visible=visible, pinned=pinned)
        return cache

    def _move_prefix(self) -> None:
        """Bring the prefix, which stays at a cut, up to the new beginning."""
        assert self._prefix is not None
        every = len(self._prefix) // self._cache.pinned_rows
        tree = TreeAttention()
        size = self._model.prefix_size  # of codes it is one, whatever the size of the observation
        tree.grow(causal_mask(size, self._prefix.device)[None, None])
        positions = torch.arange(size, device=self._prefix.device) + self._forgotten[::every, None]
        self._model.backbone(self._model.embed_prefix(self._prefix[::every]), positions, tree)
        self._cache.replace_pinned(tree.layers)

    def _step(self, tokens: Tensor, place: int) -> None:
        """Run one token, at `place` of its transition, against the cache."""
        self._cache.expect(stored=not self._hidden[place])
        x = self._model.embed(tokens[:, None], first=place)
        if self._engine is None:
            features = self._model.backbone(x, self._positions, self._cache)
        else:
            features = self._engine.step(self._model.backbone, x, self._positions)
        self._positions = self._positions + 1
        self.logits = self._model.next_logits(features[:, 0], self.place)

    def _visibility(self, rows: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Who may see whom among the first `stop` columns, the prefix before them.

        Returns:
            (U or 1, 1, n, m) bool for the queries from column `start` on, and (U or 1, m) bool, the keys that anything
            may see.
        """
        model = self._model
        total = model.prefix_size + stop
        first = 0 if start == 0 else model.prefix_size + start
        causal = causal_mask(total, rows.device)[first:]
        visible = ~model.hidden_keys(stop)[None]
        if not self._ragged:
            return (causal & visible)[None, None], visible
        place = torch.arange(total, device=rows.device) - model.prefix_size
        real = (place < 0) | (place >= self._padding(rows)[:, None])
        visible = visible & real
        # Padding attends to itself: a query without any key would have no defined result.
        own = torch.eye(total, dtype=torch.bool, device=rows.device)[first:] & ~real[:, None]
        return (causal & visible[:, None] | own)[:, None], visible

    def _run(self, rows: Tensor, start: int, stop: int, attention: FullAttention | TreeAttention) -> Tensor:
        """(U, n, D) features of columns `start` to `stop` of some rows, the prefix included if they are the first."""
        model = self._model
        x = model.embed(self._tokens[rows, start:stop], first=start)
        places = torch.arange(start, stop, device=rows.device)[None]
        if self._ragged:
            places = (places - self._padding(rows)[:, None]).clamp(min=0)
        positions = places + model.prefix_size
        if self._prefix is not None and start == 0:
            x = torch.cat([model.embed_prefix(self._prefix[rows]), x], dim=1)
            places = torch.arange(model.prefix_size, device=rows.device)
            positions = torch.cat([places.expand(len(positions), -1), positions], dim=1)
        features: Tensor = model.backbone(x, positions, attention)
        return features

    def _padding(self, rows: Tensor) -> Tensor:
        """(U,) columns of padding on the left of some rows."""
        steps = self._model.tokens_per_step
        return (self._count // steps - self._lengths[rows]) * steps

    def _next_positions(self, rows: Tensor) -> Tensor:
        """(R or 1, 1) positions of the next tokens."""
        position = self._model.prefix_size + self._count
        if not self._ragged:
            return torch.full((1, 1), position, device=rows.device)
        return (position - self._padding(rows))[:, None]
