"""The sequence model. No training code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqrl.attention import causal_mask
from seqrl.attention.full import FullAttention
from seqrl.backbones import Backbone
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import BACKBONE, TOKENIZER
from seqrl.tokenizers import CodeTokenizer, Tokenizer
from seqrl.types import Batch, History


class SequenceModel(nn.Module):
    """Tokenizer, embedding, backbone and one head per token position of a transition.

    Token ids are offset by their position in the transition in the embedding table, and each position has its own
    linear head, so that the same id may mean different things in different dimensions. A prefix (goal) has rows of
    its own; its id V is the null goal.

    With a tokenizer of codes the sequence is made of codes (K = 1), after a prefix of one position, the embedded
    present observation: a prior over latent plans (Jiang et al. 2022, section 3.2).

    Args:
        layout: what a transition is made of.
        tokenizer, backbone: component configs, `{"name": ..., **options}`.
        context: transitions of a training window.

    Attributes:
        context: T, the longest context at decoding time: transitions, or codes.
        token_fields: (K,) which field each token of a transition belongs to.
        prefix_size: P.

    Raises:
        ConfigError: whatever the components refuse, a tokenizer of vectors, or goals and returns beside codes.

    Reference: Janner et al. 2021, section 3.1 and appendix A.
    """

    hidden: Tensor

    def __init__(
        self, layout: Layout, tokenizer: Mapping[str, Any], backbone: Mapping[str, Any], *, context: int
    ) -> None:
        super().__init__()
        self.layout = layout
        known = {"size": layout.size, "layout": layout, "window": context, "model_backbone": backbone}
        self.tokenizer: Tokenizer = TOKENIZER.build(tokenizer, **known)
        if self.tokenizer.output == "vectors":
            raise ConfigError(
                f"tokenizer={tokenizer['name']} makes vectors, not tokens; use VectorModel, or another tokenizer"
            )
        self.of_codes = isinstance(self.tokenizer, CodeTokenizer)
        if self.of_codes and (layout.goal is not None or layout.has("return")):
            raise ConfigError(
                f"tokenizer={tokenizer['name']} makes codes, which follow the present observation alone, and the "
                "layout has a goal or a return; use layout=tt, or another tokenizer"
            )
        self.context = context // self.tokenizer.steps_per_code
        if self.context < (1 if self.of_codes else 2):
            raise ConfigError(
                f"window.length={context} is too short; this model needs {2 * self.tokenizer.steps_per_code} or more"
            )
        self.tokens_per_step = self.tokenizer.tokens_per_step
        self.token_fields = self.tokenizer.fields_of(layout)
        self.num_classes = self.tokenizer.vocab_size + 1
        self.termination_token = self.tokenizer.vocab_size
        self.prefix_size = 1 if self.of_codes else layout.prefix_size
        max_length = self.prefix_size + self.context * self.tokens_per_step
        self.backbone: Backbone = BACKBONE.build(backbone, max_length=max_length)
        if not self.backbone.sees_context:
            raise ConfigError(
                f"backbone={backbone['name']} sees one position at a time, and a token means little by itself; use gpt "
                "or llama, or tokenizer=continuous"
            )
        slots = self.tokens_per_step + (0 if self.of_codes else layout.prefix_size)
        self.embedding = nn.Embedding(slots * self.num_classes, self.backbone.dim)
        self.head = nn.Linear(self.backbone.dim, self.tokens_per_step * self.num_classes, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        if self.of_codes:
            self.state_embedding = nn.Linear(layout.field("observation").size, self.backbone.dim)
            nn.init.normal_(self.state_embedding.weight, std=0.02)
            nn.init.zeros_(self.state_embedding.bias)
        hidden = [layout.has(name) and layout.field(name).hidden for name in self.token_fields]
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)
        self._places = {name: _stretch(self.token_fields, name) for name in self.token_fields}

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that the tokens stand for, in order."""
        return tuple(self._places)

    def places(self, field: str) -> slice:
        """Which of the K tokens of a transition stand for a field.

        Raises:
            ConfigError: there is no such field; names the override that adds it.
        """
        if field not in self._places:
            self.layout.field(field)  # says how to add it
            raise ConfigError(f"this model's tokens stand for {', '.join(self.fields)}, not for {field!r}")
        return self._places[field]

    @property
    def loss_weights(self) -> list[float]:
        """(K,) factors on the loss of every token."""
        return [self.layout.field(n).loss_weight if self.layout.has(n) else 1.0 for n in self.token_fields]

    def prepare(self, batch: Batch) -> Batch:
        """Training windows as this model's sequences: themselves, or the codes of windows of values."""
        if not isinstance(self.tokenizer, CodeTokenizer):
            return batch
        steps = self.tokenizer.steps_per_code
        with torch.no_grad():
            codes = self.tokenizer.encode_windows(batch.tokens)
        state = batch.tokens[:, 0, self.layout.field("observation").slice]
        return Batch(codes, batch.mask[:, ::steps, :1][:, : codes.shape[1]], state)

    def goal_prefix(self, goals: Tensor | None, rows: int) -> Tensor:
        """(rows, P) tokens of (rows, G) goals, each in the bins of its observation dimension; None is the null goal."""
        assert self.layout.goal is not None
        if goals is None:
            return torch.full((rows, self.prefix_size), self.termination_token, device=self.hidden.device)
        dims = torch.tensor(self.layout.goal.dims, device=goals.device)
        values = goals.new_zeros(rows, self.layout.size)
        values[:, self.layout.field("observation").start + dims] = goals
        return self.tokenizer.encode(values)[:, self.goal_columns]

    @property
    def goal_columns(self) -> list[int]:
        """Which tokens of a transition stand for the dimensions of the goal; empty without a goal."""
        if self.layout.goal is None or self.of_codes:
            return []
        observation = self.places("observation")
        if observation.stop - observation.start != self.layout.field("observation").size:
            raise ConfigError("goals need a tokenizer with one token per dimension of the observation; use uniform")
        return [observation.start + dim for dim in self.layout.goal.dims]

    def history(self, past: Tensor, present: Tensor, prefix: Tensor | None = None, *, time: int = 0) -> History:
        """What environments showed, as the start of a plan.

        Args:
            past: (B, n, S) values of the transitions before the present one, the newest last.
            present: (B, S) of the present transition, of which what stands before the action is known.
            prefix: as a condition made it.
            time: steps since the episodes began.
        """
        batch, device = len(past), past.device
        observation = present[:, self.layout.field("observation").slice]
        if isinstance(self.tokenizer, CodeTokenizer):
            nothing = torch.zeros(batch, 0, dtype=torch.int64, device=device)
            return History(nothing, nothing.sum(1), self.tokenizer.state(observation), time, observation)
        known = self.tokenizer.encode(present)[:, : self.places("action").start]
        tokens = torch.cat([self.tokenizer.encode(past).flatten(1), known], dim=1)
        lengths = torch.full((batch,), past.shape[1], dtype=torch.int64, device=device)
        return History(tokens, lengths, prefix, time, observation)

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """(R, n) tokens, whose first stands at place `first` of its transition, to (R, n, D)."""
        place = (first + torch.arange(tokens.shape[1], device=tokens.device)) % self.tokens_per_step
        embedded: Tensor = self.embedding(tokens + place * self.num_classes)
        return embedded

    def embed_prefix(self, prefix: Tensor) -> Tensor:
        """(R, P) prefix tokens, or for a model of codes (R, O) normalised observations, to (R, P, D)."""
        if self.of_codes:
            state: Tensor = self.state_embedding(prefix.to(self.state_embedding.weight.dtype))[:, None]
            return state
        place = self.tokens_per_step + torch.arange(prefix.shape[1], device=prefix.device)
        embedded: Tensor = self.embedding(prefix + place * self.num_classes)
        return embedded

    def forward(self, tokens: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Logits of every token of a window but its first, each from the tokens before it; of codes, of the first too.

        Args:
            tokens: (B, T, K) int64.
            prefix: (B, P) int64, or (B, O) float for a model of codes; needed if and only if `prefix_size` is not 0.

        Returns:
            (B, T * K - 1, V + 1), of which entry i belongs to token i + 1; (B, T, V + 1) of codes.
        """
        flat = tokens.flatten(1)[:, :-1]
        x = self.embed(flat)
        if prefix is not None:
            x = torch.cat([self.embed_prefix(prefix), x], dim=1)
        positions = torch.arange(x.shape[1], device=x.device)[None]
        mask = causal_mask(x.shape[1], x.device) & ~self.hidden_keys(flat.shape[1])
        features = self.backbone(x, positions, FullAttention(mask[None, None]))
        if self.of_codes:  # the prefix predicts the first
            return self.next_logits(features, 0)
        return self._logits_in_order(features[:, self.prefix_size :])

    def hidden_keys(self, length: int) -> Tensor:
        """(P + length,) bool, True for tokens that nothing may attend to; prefix tokens are visible."""
        place = torch.arange(length, device=self.hidden.device) % self.tokens_per_step
        return torch.cat([self.hidden.new_zeros(self.prefix_size), self.hidden[place]])

    def next_logits(self, features: Tensor, place: int) -> Tensor:
        """(R, D) features to (R, V + 1) logits of a token at `place` of its transition, in float32 or finer."""
        rows = self.head.weight.view(self.tokens_per_step, self.num_classes, -1)[place]
        dtype = torch.promote_types(features.dtype, torch.float32)
        return features.to(dtype) @ rows.to(dtype).T

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


def _stretch(names: Sequence[str], name: str) -> slice:
    first = names.index(name)
    found = slice(first, first + names.count(name))
    assert all(other == name for other in names[found]), "a tokenizer keeps the tokens of a field together"
    return found
