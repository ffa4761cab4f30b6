"""The sequence model. No training code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seqrl.backbones import causal_mask
from seqrl.backbones.attention import FullAttention
from seqrl.decoding import CacheMode, DecodingSession
from seqrl.layout import Layout
from seqrl.registry import BACKBONE, TOKENIZER
from seqrl.tokenizers import Tokenizer
from seqrl.types import History


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
        features = self.backbone(x, positions, FullAttention(mask[None, None]))
        return self._logits_in_order(features[:, self.layout.prefix_size :])

    def hidden_keys(self, length: int) -> Tensor:
        """(P + length,) bool, True for tokens that nothing may attend to; prefix tokens are visible."""
        place = torch.arange(length, device=self.hidden.device) % self.tokens_per_step
        return torch.cat([self.hidden.new_zeros(self.layout.prefix_size), self.hidden[place]])

    def next_logits(self, features: Tensor, place: int) -> Tensor:
        """(R, D) features to (R, V + 1) logits of a token at `place` of its transition, in float32 or finer."""
        rows = self.head.weight.view(self.tokens_per_step, self.num_classes, -1)[place]
        dtype = torch.promote_types(features.dtype, torch.float32)
        return features.to(dtype) @ rows.to(dtype).T

    def start(
        self,
        history: History,
        *,
        cache: CacheMode = "exact",
        context: int | None = None,
        static: bool | None = None,
    ) -> DecodingSession:
        """Begin to decode after a history; see `DecodingSession`."""
        return DecodingSession(
            self, history, cache=cache, context=self.context if context is None else context, static=static
        )

    def cast(self, dtype: torch.dtype) -> SequenceModel:
        """Round the weights of embedding, backbone and head to `dtype`, in place; the model itself.

        `model.to(dtype)` would round the tokenizer's statistics as well: in bfloat16, other bins than those that the
        model was trained on. Decode after `model.cast(torch.bfloat16)`; logits and all that follows from them stay in
        float32.
        """
        for part in (self.embedding, self.backbone, self.head):
            part.to(dtype)
        return self

    def _logits_in_order(self, features: Tensor) -> Tensor:
        """(B, L - 1, D) to (B, L - 1, V + 1), each position through the head of the token that follows it."""
        batch, length, dim = features.shape
        steps = self.tokens_per_step
        padded = nn.functional.pad(features, (0, 0, 1, 0)).view(batch, -1, steps, dim)  # place k predicted at k
        heads = self.head.weight.view(steps, self.num_classes, dim)
        logits = torch.einsum("btkd,kvd->btkv", padded, heads)
        return logits.reshape(batch, length + 1, self.num_classes)[:, 1:]
