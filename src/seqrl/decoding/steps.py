"""One token at a time against a cache, after a pass that fills it."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.attention import Layers, States
from seqrl.attention.cache import Cache
from seqrl.attention.engine import borrow
from seqrl.attention.key_value_cache import KeyValueCache
from seqrl.attention.tree import TreeAttention
from seqrl.compiled.step import CompiledStep
from seqrl.decoding.compiling import find_step
from seqrl.decoding.context import Context, Level


class CachedSteps:
    """A model's steps on a cache of its context.

    Args:
        context: the sequences; its owner moves them on, cuts them and selects their rows.
        pin_prefix: whether the prefix stays when old tokens are dropped from the cache.
        static: whether steps have static shapes, so that they can be replayed as CUDA graphs.

    Attributes:
        cache: what was encoded last, and the steps since.
        engine: of static steps; None without them.
        compiled: one call for a step, or for a level of `encode`; None where tensor operations do it.
        stored_per_transition: tokens of a transition that the cache holds, those that anything may see.
    """

    cache: Cache
    _positions: Tensor  # (R or 1, 1) of the next token

    def __init__(self, context: Context, *, pin_prefix: bool, static: bool) -> None:
        model = context.model
        self._context, self._pin_prefix = context, pin_prefix
        self._hidden = model.hidden.tolist()
        self.stored_per_transition = self._hidden.count(False)
        transitions = context.limit // model.tokens_per_step + 1
        held = model.prefix_size + transitions * self.stored_per_transition
        self.engine = borrow(self, model.backbone, tokens=held) if static else None
        self.compiled: CompiledStep | None = None

    def encode(self) -> Tensor:
        """Run the whole context and fill a new cache with it; (R, V + 1) logits of the next tokens."""
        context, model = self._context, self._context.model
        found = None if self.engine is not None else find_step(model)
        self.compiled = found if isinstance(found, CompiledStep) else None
        levels = context.levels()
        tree = TreeAttention()
        trunk: Layers = []  # of the first level
        start, owners = 0, levels[0].nodes
        for level in levels:
            mask, visible = context.visibility(level.firsts, start, level.stop)
            parents = owners[level.firsts] if start else None
            x, positions = context.inputs(level.firsts, start, level.stop)
            if self.compiled is None:
                tree.grow(mask, parents, writes=visible[:, -mask.shape[2] :])
                features = model.backbone(x, positions, tree)
                logits = model.next_logits(features[:, -1], context.place) if level is levels[-1] else None
            else:
                place = context.place if level is levels[-1] else None
                tree.layers, logits = self.compiled.encode(x, positions, mask, tree.layers, parents, place)
            trunk = trunk or list(tree.layers)
            start, owners = level.stop, level.nodes
        self._positions = context.next_positions()
        self._fill(trunk, levels[0], tree, owners)
        assert logits is not None
        return logits[owners]

    def step(self, tokens: Tensor, place: int) -> Tensor:
        """Run (R,) tokens, at `place` of their transition, which the context has already; (R, V + 1) logits."""
        model = self._context.model
        self.cache.expect(stored=not self._hidden[place])
        x = self._context.embed(tokens[:, None], place)
        if self.compiled is not None:
            assert isinstance(self.cache, KeyValueCache)
            positions, self._positions = self._positions, self._positions + 1
            return self.compiled.run(x, positions, self.cache, self._context.place, stored=not self._hidden[place])
        if self.engine is None:
            features = model.backbone(x, self._positions, self.cache)
        else:
            features = self.engine.step(model.backbone, x, self._positions)
        self._positions = self._positions + 1
        return model.next_logits(features[:, 0], self._context.place)

    def select(self, rows: Tensor) -> None:
        """Repeat, reorder or drop rows: (R',) indices into the present ones."""
        self._positions = self._positions[rows] if len(self._positions) > 1 else self._positions
        self.cache.select(rows)

    def _fill(self, trunk: Layers, first_level: Level, tree: TreeAttention, owners: Tensor) -> None:
        """Put the tokens of the context that anything may see into a new cache.

        Args:
            trunk: keys and values of the first level, (U, kv_heads, P + stop, head_dim) each.
            first_level: the one after which rows begin to differ.
            tree: with what the whole context left, for the last level.
            owners: (R,) which leaf each row continues.
        """
        context, model = self._context, self._context.model
        stop, firsts, roots = first_level
        rows = torch.arange(len(owners), device=owners.device)
        seen = (~model.hidden_keys(context.count)).nonzero()[:, 0]  # columns, the prefix included
        in_order = torch.equal(roots, rows // (len(rows) // len(firsts)))  # else blocks cannot be shared
        states = {layer: state[owners] for layer, state in tree.states.items()}
        self.cache = self._empty_cache(len(rows), tree.layers, states)
        self.cache.load_states(states, tree.order)
        pinned_columns = model.prefix_size if self._pin_prefix else 0
        shared = model.prefix_size + stop if in_order else 0
        sources = (
            (trunk, rows[: len(firsts)], firsts, seen[seen < shared]),
            (tree.layers, owners, rows, seen[seen >= shared]),
        )
        for layers, nodes, of, columns in sources:
            early = columns < pinned_columns
            for part, pinned in ((columns[early], True), (columns[~early], False)):
                if len(part):
                    visible = context.visibility(of, 0, context.count)[1][:, part] if context.ragged else None
                    self.cache.load(layers, nodes, part, visible=visible, pinned=pinned)

    def _empty_cache(self, rows: int, like: Layers, states: States) -> Cache:
        if self.engine is not None:
            self.engine.cache.clear(rows, like=like, states=states)
            return self.engine.cache
        transitions = self._context.limit // self._context.model.tokens_per_step + 2
        return KeyValueCache(rows, capacity=transitions * self.stored_per_transition, room=self.stored_per_transition)
