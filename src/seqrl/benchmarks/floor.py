"""The least time that a cached plan can take on a machine: operations and bytes over what was measured.

An operation takes at least `max(FLOPs / matrix-product rate, bytes / copy bandwidth)`, and a plan at least the sum of
its operations. Counted are, for every token that the model is given,

- the dense products: 2 FLOPs per weight (all linear layers, and the head of the next token's place) and row; the
  weights are read once;
- in every layer, attention: 4 FLOPs per row, visible key and unit of the width (scores, then values); keys and values
  are read once: those of the history once per environment, those of imagined transitions once per surviving beam, whose
  `n_expand` copies share them, and those of the present transition's action and reward once per copy; the new token's
  own are written;
- the choice of the next token: its logits are read once;

and, at the beginning, the pass over the history. Rows are `beam_width * n_expand` for the tokens of actions and
rewards, and `beam_width` for the last token of a transition and for observations, because candidates that were not
selected need go no further. Hidden tokens (the value field) are no keys: nothing of them is read or written. The first
transition's action is drawn from the history's own logits.

Left out are embeddings, norms, residual streams, activation functions, sorting, and whatever a language or a GPU needs
to start an operation: no implementation that decodes every candidate can beat the floor, and none need reach it.
Candidates that chose the same tokens could share their rows; no such luck is assumed. A copy far larger than the caches
sets the bandwidth, although keys that stay in a cache are read faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqrl.attention import Attention
from seqrl.attention.recurrence import Run
from seqrl.benchmarks.timing import Rates
from seqrl.models.autoregressive import AutoregressiveModel


@dataclass(frozen=True)
class Decoder:
    """What a model asks of a machine for one token of one row.

    Attributes:
        linear_weights: of all linear layers of the backbone.
        head_weights: of the head of one place, width times (V + 1).
        layers: that attend.
        query_width, key_width: heads times their size; fewer key heads than query heads in grouped-query attention.
        classes: V + 1, logits per token.
        itemsize: bytes per number.
    """

    linear_weights: int
    head_weights: int
    layers: int
    query_width: int
    key_width: int
    classes: int
    itemsize: int

    @staticmethod
    def of(model: AutoregressiveModel) -> Decoder:
        """Measured on a backbone of any kind, by watching what it asks of attention."""
        linear = [module for module in model.backbone.modules() if isinstance(module, nn.Linear)]
        watched = _Watched()
        x = model.head.weight.new_zeros(1, 1, model.backbone.dim)
        with torch.no_grad():
            model.backbone(x, torch.zeros(1, 1, dtype=torch.int64, device=x.device), watched)
        return Decoder(
            linear_weights=sum(module.weight.numel() for module in linear),
            head_weights=model.backbone.dim * model.num_classes,
            layers=watched.layers,
            query_width=watched.query_width,
            key_width=watched.key_width,
            classes=model.num_classes,
            itemsize=model.head.weight.element_size(),
        )


@dataclass(frozen=True)
class Search:
    """The shape of a plan whose history fills its context.

    Attributes:
        hidden: (K,) which places of a transition nothing attends to.
        observation: O, tokens of a transition that are given or decoded for survivors only.
        beam_width, n_expand, horizon, context: as in `BeamPlanner`.
        environments: planned for in one batch.
    """

    hidden: tuple[bool, ...]
    observation: int
    beam_width: int
    n_expand: int
    horizon: int
    context: int
    environments: int = 1

    @property
    def history(self) -> int:
        """Tokens that are known at the start: `context - 1` transitions and the present observation."""
        return (self.context - 1) * len(self.hidden) + self.observation

    @property
    def decoded(self) -> int:
        """Tokens that are chosen in one plan."""
        return self.horizon * len(self.hidden) - self.observation


def floor_seconds(decoder: Decoder, search: Search, rates: Rates) -> float:
    """The least time for one plan whose context slides without re-encoding (`cache: window`)."""
    steps = len(search.hidden)
    seen = [not search.hidden[token % steps] for token in range(search.history + search.decoded - 1)]
    total = _history_seconds(decoder, search, rates, seen)
    for token in range(search.history, len(seen)):  # the last decoded token is not given to the model any more
        total += _step_seconds(decoder, search, rates, seen, token)
    return total


def _step_seconds(decoder: Decoder, search: Search, rates: Rates, seen: list[bool], token: int) -> float:
    """One token of every row; `token` counts from the first of the history."""
    steps = len(search.hidden)
    place = token % steps
    is_expanded = search.observation <= place < steps - 1
    survivors = search.environments * search.beam_width
    rows = survivors * search.n_expand if is_expanded else survivors
    excess = max(0, token + 1 - (search.context * steps - 1))
    first = -(-excess // steps) * steps  # whole transitions leave the context, as `DecodingSession` says
    branch = token - place + search.observation if is_expanded else token  # where copies of a beam part
    shared = sum(seen[first : search.history])
    inherited = sum(seen[max(first, search.history) : branch])
    own = sum(seen[max(branch, search.history) : token])
    entry = 2 * decoder.key_width * decoder.itemsize  # a key and a value
    read = search.environments * shared + survivors * inherited + rows * own
    keys = shared + inherited + own + seen[token]
    attention = max(
        4 * decoder.query_width * rows * keys / rates.flops, entry * (read + rows * seen[token]) / rates.bytes
    )
    return _dense_seconds(decoder, rates, rows, rows) + decoder.layers * attention


def _history_seconds(decoder: Decoder, search: Search, rates: Rates, seen: list[bool]) -> float:
    """One pass over what is known at the start."""
    tokens, rows = search.history, search.environments
    pairs = sum(sum(seen[: token + 1]) for token in range(tokens))
    written = 2 * decoder.key_width * decoder.itemsize * rows * sum(seen[:tokens])
    attention = max(4 * decoder.query_width * rows * pairs / rates.flops, written / rates.bytes)
    return _dense_seconds(decoder, rates, rows * tokens, rows) + decoder.layers * attention


def _dense_seconds(decoder: Decoder, rates: Rates, rows: int, predicting: int) -> float:
    """Linear layers on some rows, the head on those that predict, and one look at the logits."""
    flops = 2 * (rows * decoder.linear_weights + predicting * decoder.head_weights)
    weights = decoder.itemsize * (decoder.linear_weights + decoder.head_weights)
    logits = decoder.itemsize * decoder.classes * predicting
    return max(flops / rates.flops, weights / rates.bytes) + logits / rates.bytes


class _Watched(Attention):
    """Notes what a backbone asks for, and lets the new tokens attend to themselves."""

    layers = query_width = key_width = 0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        self.layers += 1
        self.query_width, self.key_width = query.shape[2] * query.shape[3], key.shape[2] * key.shape[3]
        return value.repeat_interleave(query.shape[2] // value.shape[2], dim=2).flatten(2)

    def advance(self, layer: int, run: Run) -> Tensor:
        return run(None, None)
