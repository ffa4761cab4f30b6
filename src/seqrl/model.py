"""The sequence model, and the session through which it is decoded. No training code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from seqrl.backbones import KeyValueCache, causal_mask
from seqrl.errors import ConfigError, did_you_mean
from seqrl.layout import Layout
from seqrl.registry import BACKBONE, TOKENIZER
from seqrl.tokenizers import Tokenizer
from seqrl.types import History

CacheMode = Literal["none", "exact"]


class SequenceModel(nn.Module):
    """Tokenizer, embedding, backbone and one head per token position of a transition.

    Token ids are offset by their position in the transition in the embedding table, and each position has its own
    linear head, so that the same id may mean different things in different dimensions. A prefix (goal) has rows of
    its own; its id V is the null goal.

    Args:
        layout: what a transition is made of.
        tokenizer, backbone: component configs, `{"name": ..., **options}`.
        context: T, transitions of a training window; the longest context at decoding time.

    Reference: Janner et al. 2021, section 3.1 and appendix A.
    """

    hidden: Tensor

    def __init__(
        self, layout: Layout, tokenizer: Mapping[str, Any], backbone: Mapping[str, Any], *, context: int
    ) -> None:
        super().__init__()
        self.layout = layout
        self.context = context
        self.tokenizer: Tokenizer = TOKENIZER.build(tokenizer, size=layout.size)
        self.tokens_per_step = self.tokenizer.tokens_per_step
        self.num_classes = self.tokenizer.vocab_size + 1
        self.termination_token = self.tokenizer.vocab_size
        max_length = layout.prefix_size + context * self.tokens_per_step
        self.backbone = BACKBONE.build(backbone, max_length=max_length)
        slots = self.tokens_per_step + layout.prefix_size
        self.embedding = nn.Embedding(slots * self.num_classes, self.backbone.dim)
        self.head = nn.Linear(self.backbone.dim, self.tokens_per_step * self.num_classes, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        self.register_buffer("hidden", torch.tensor(layout.hidden), persistent=False)

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """(R, n) tokens, whose first stands at place `first` of its transition, to (R, n, D)."""
        place = (first + torch.arange(tokens.shape[1], device=tokens.device)) % self.tokens_per_step
        embedded: Tensor = self.embedding(tokens + place * self.num_classes)
        return embedded

    def embed_prefix(self, prefix: Tensor) -> Tensor:
        """(R, P) prefix tokens to (R, P, D)."""
        place = self.tokens_per_step + torch.arange(prefix.shape[1], device=prefix.device)
        embedded: Tensor = self.embedding(prefix + place * self.num_classes)
        return embedded

    def forward(self, tokens: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Logits of every token of a window but its first, each from the tokens before it.

        Args:
            tokens: (B, T, K) int64.
            prefix: (B, P) int64; needed if and only if the layout has a prefix.

        Returns:
            (B, T * K - 1, V + 1): entry i belongs to token i + 1.
        """
        flat = tokens.flatten(1)[:, :-1]
        x = self.embed(flat)
        if prefix is not None:
            x = torch.cat([self.embed_prefix(prefix), x], dim=1)
        positions = torch.arange(x.shape[1], device=x.device)[None]
        mask = causal_mask(x.shape[1], x.device) & ~self.hidden_keys(flat.shape[1])
        features = self.backbone(x, positions, mask[None, None])[:, self.layout.prefix_size :]
        return self._logits_in_order(features)

    def hidden_keys(self, length: int) -> Tensor:
        """(P + length,) bool, True for tokens that nothing may attend to; prefix tokens are visible."""
        place = torch.arange(length, device=self.hidden.device) % self.tokens_per_step
        return torch.cat([self.hidden.new_zeros(self.layout.prefix_size), self.hidden[place]])

    def next_logits(self, features: Tensor, place: int) -> Tensor:
        """(R, D) features to (R, V + 1) logits of a token at `place` of its transition."""
        rows = self.head.weight.view(self.tokens_per_step, self.num_classes, -1)[place]
        return features @ rows.T

    def start(self, history: History, *, cache: CacheMode = "exact", context: int | None = None) -> DecodingSession:
        """Begin to decode after a history; see `DecodingSession`."""
        return DecodingSession(self, history, cache=cache, context=context or self.context)

    def _logits_in_order(self, features: Tensor) -> Tensor:
        """(B, L - 1, D) to (B, L - 1, V + 1), each position through the head of the token that follows it."""
        batch, length, dim = features.shape
        steps = self.tokens_per_step
        padded = nn.functional.pad(features, (0, 0, 1, 0)).view(batch, -1, steps, dim)  # place k predicted at k
        heads = self.head.weight.view(steps, self.num_classes, dim)
        logits = torch.einsum("btkd,kvd->btkv", padded, heads)
        return logits.reshape(batch, length + 1, self.num_classes)[:, 1:]


def check_cache(cache: str) -> CacheMode:
    """The cache mode itself, if there is such a one."""
    for mode in get_args(CacheMode):
        if cache == mode:
            return cast(CacheMode, mode)
    modes = get_args(CacheMode)
    raise ConfigError(f"planner.cache={cache!r} is unknown.{did_you_mean(cache, modes)} Modes: {', '.join(modes)}")


class DecodingSession:
    """A batch of growing token sequences, and the distribution of each one's next token.

    The session knows the place of the next token in its transition, and cuts the context by itself: before the model
    would see more than `context * K - 1` tokens, whole transitions leave on the left, imagined ones included, and
    positions count from the cut. The prefix stays.

    Args:
        model: in eval mode.
        history: where to start; rows may have different lengths.
        cache: `none` recomputes everything for every token; `exact` keeps keys and values between cuts and re-encodes
            at a cut. Both give the same logits up to rounding.
        context: transitions, at least 2 and at most the training window's.

    Attributes:
        logits: (R, V + 1) of the next token.
    """

    logits: Tensor
    _visible: Tensor  # (R, tokens so far) which keys may be attended to
    _cache: KeyValueCache

    def __init__(self, model: SequenceModel, history: History, *, cache: CacheMode, context: int) -> None:
        if not 2 <= context <= model.context:
            raise ConfigError(f"planner.context={context} is outside [2, {model.context}], the trained window")
        if (history.prefix is None) != (model.layout.prefix_size == 0):
            raise ConfigError("the history's prefix does not fit the layout; give one if and only if it has a goal")
        self._model = model
        self._cached = check_cache(cache) == "exact"
        self._limit = context * model.tokens_per_step - 1
        self._tokens = history.tokens
        self._lengths = history.lengths
        self._prefix = history.prefix
        self._cut()
        self._encode()

    @property
    def place(self) -> int:
        """Which token of its transition comes next, in [0, K)."""
        return self._tokens.shape[1] % self._model.tokens_per_step

    def append(self, tokens: Tensor) -> None:
        """Take (R,) chosen tokens as the next ones and move on."""
        self._tokens = torch.cat([self._tokens, tokens[:, None]], dim=1)
        if self.place == 0:
            self._lengths = self._lengths + 1
        if self._cut() or not self._cached:
            self._encode()
        else:
            self._step(tokens)

    def select(self, rows: Tensor) -> None:
        """Repeat, reorder or drop rows: (R',) indices into the present ones."""
        self._tokens, self._lengths = self._tokens[rows], self._lengths[rows]
        self._prefix = None if self._prefix is None else self._prefix[rows]
        self.logits = self.logits[rows]
        self._visible = self._visible[rows]
        if self._cached:
            self._cache.select(rows)

    def _cut(self) -> bool:
        """Drop whole transitions on the left until the context fits; whether any was dropped."""
        excess = self._tokens.shape[1] - self._limit
        if excess <= 0:
            return False
        steps = self._model.tokens_per_step
        dropped = -(-excess // steps)
        self._tokens = self._tokens[:, dropped * steps :]
        self._lengths = self._lengths.clamp(max=self._tokens.shape[1] // steps)
        return True

    def _encode(self) -> None:
        """Run the whole context, filling a new cache if there is one."""
        model = self._model
        length = self._tokens.shape[1]
        prefix_size = model.layout.prefix_size
        padding = (length // model.tokens_per_step - self._lengths) * model.tokens_per_step  # (R,) tokens on the left
        columns = torch.arange(length, device=self._tokens.device)
        real = columns >= padding[:, None]  # (R, length)
        positions = prefix_size + (columns - padding[:, None]).clamp(min=0)
        x = model.embed(self._tokens)
        if self._prefix is not None:
            x = torch.cat([model.embed_prefix(self._prefix), x], dim=1)
            places = torch.arange(prefix_size, device=positions.device).expand(len(positions), -1)
            positions = torch.cat([places, positions], dim=1)
            real = torch.cat([torch.ones_like(places, dtype=torch.bool), real], dim=1)
        self._visible = real & ~model.hidden_keys(length)
        mask = causal_mask(prefix_size + length, x.device) & self._visible[:, None]
        # Padding attends to itself: a query without any key would have no defined result.
        mask = mask | (torch.eye(prefix_size + length, dtype=torch.bool, device=x.device) & ~real[:, None])
        if self._cached:
            self._cache = KeyValueCache(prefix_size + self._limit)
            features = model.backbone(x, positions, mask[:, None], self._cache)
        else:
            features = model.backbone(x, positions, mask[:, None])
        self.logits = model.next_logits(features[:, -1], self.place)

    def _step(self, tokens: Tensor) -> None:
        """Run one token against the cache."""
        model = self._model
        length = self._tokens.shape[1]
        steps = model.tokens_per_step
        position = model.layout.prefix_size + length - 1 - ((length // steps) - self._lengths) * steps
        visible = (~model.hidden[(length - 1) % steps]).expand(len(tokens), 1)
        self._visible = torch.cat([self._visible, visible], dim=1)
        x = model.embed(tokens[:, None], first=length - 1)
        features = model.backbone(x, position[:, None], self._visible[:, None, None], self._cache)
        self.logits = model.next_logits(features[:, -1], self.place)
