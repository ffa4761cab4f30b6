"""What models of tokens and of codes share: one sequence of integers, each predicted from those before it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from seqrl.attention import causal_mask
from seqrl.attention.full import FullAttention
from seqrl.backbones import Backbone
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.models.numbers import NumberEmbedding
from seqrl.registry import BACKBONE
from seqrl.tokenizers import Codec
from seqrl.types import LossInputs, Opening


class AutoregressiveModel(Model):
    """Embedding, backbone and one head per token position of a transition.

    Token ids are offset by their position in the transition in the embedding table, and each position has its own
    linear head, so that the same id may mean different things in different dimensions.

    Args:
        layout: what a transition is made of.
        tokenizer: built.
        backbone: component config, `{"name": ..., **options}`.
        context: T, in transitions, or in codes.
        token_fields, vocab_size: see below; V.
        prefix_size: P, positions before the sequence.
        prefix_ids: how many of them have rows of their own in the embedding table.

    Attributes:
        token_fields: (K,) which field each token of a transition belongs to.
        num_classes: V + 1.
        termination_token: V.

    Raises:
        ConfigError: a backbone that sees one position at a time.

    Reference: Janner et al. 2021, section 3.1 and appendix A.
    """

    def __init__(
        self,
        layout: Layout,
        tokenizer: Codec,
        backbone: Mapping[str, Any],
        *,
        context: int,
        token_fields: tuple[str, ...],
        vocab_size: int,
        prefix_size: int,
        prefix_ids: int,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.tokenizer: Codec = tokenizer
        self.context = context
        self.prefix_size = prefix_size
        self.tokens_per_step = len(token_fields)
        self.token_fields = token_fields
        self.num_classes = vocab_size + 1
        self.termination_token = vocab_size
        self.backbone: Backbone = BACKBONE.build(backbone, max_length=prefix_size + context * self.tokens_per_step)
        if not self.backbone.sees_context:
            raise ConfigError(
                f"backbone={backbone['name']} sees one position at a time, and a token means little by itself; use gpt "
                "or llama, or tokenizer=continuous"
            )
        self.embedding = nn.Embedding((self.tokens_per_step + prefix_ids) * self.num_classes, self.backbone.dim)
        self.head = nn.Linear(self.backbone.dim, self.tokens_per_step * self.num_classes, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        self.numbers: NumberEmbedding | None = None
        if tokenizer.embed_numbers:
            self.numbers = NumberEmbedding(vocab_size, tokenizer.ordered(layout), self.backbone.dim)
        hidden = [layout.has(name) and layout.field(name).hidden for name in self.token_fields]
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)
        self._places = {name: _stretch(self.token_fields, name) for name in dict.fromkeys(self.token_fields)}

    @abstractmethod
    def opening(self, history: Any) -> Opening:
        """How a sequence begins after a history of this class of model.

        Raises:
            ConfigError: a goal that the layout does not have, or none where it has one.
        """

    @abstractmethod
    def loss_inputs(self, batch: Any) -> LossInputs:
        """What is predicted of training windows, of this class of model's own type of batch."""

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
    def ordered(self) -> tuple[bool, ...]:
        """(K,) which tokens of a transition rise with the number that they stand for."""
        return self.tokenizer.ordered(self.layout) or (False,) * self.tokens_per_step

    @property
    def loss_weights(self) -> list[float]:
        """(K,) factors on the loss of every token."""
        return [self.layout.field(n).loss_weight if self.layout.has(n) else 1.0 for n in self.token_fields]

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """(R, n) tokens, whose first stands at place `first` of its transition, to (R, n, D)."""
        place = (first + torch.arange(tokens.shape[1], device=tokens.device)) % self.tokens_per_step
        rows = tokens + place * self.num_classes
        if self.layout.shares_termination:  # the others' rows are never used then
            rows = rows.where(tokens != self.termination_token, self.termination_token)
        embedded: Tensor = self.embedding(rows)
        return embedded if self.numbers is None else embedded + self.numbers(tokens, place)

    def read(self, tokens: Tensor, prefix: Tensor | None, everywhere: Tensor | None = None) -> Tensor:
        """(B, P + n, D) features of (B, n) tokens behind (B, P, D) of a prefix, each of what stands before it.

        Args:
            everywhere: (B, D) that is added to every token.
        """
        x = self.embed(tokens)
        if everywhere is not None:
            x = x + everywhere[:, None]
        if prefix is not None:
            x = torch.cat([prefix, x], dim=1)
        positions = torch.arange(x.shape[1], device=x.device)[None]
        mask = causal_mask(x.shape[1], x.device) & ~self.hidden_keys(tokens.shape[1])
        features: Tensor = self.backbone(x, positions, FullAttention(mask[None, None]))
        return features

    def hidden_keys(self, length: int) -> Tensor:
        """(P + length,) bool, True for tokens that nothing may attend to; what stands before them is visible."""
        place = torch.arange(length, device=self.hidden.device) % self.tokens_per_step
        return torch.cat([self.hidden.new_zeros(self.prefix_size), self.hidden[place]])

    def next_logits(self, features: Tensor, place: int) -> Tensor:
        """(R, D) features to (R, V + 1) logits of a token at `place` of its transition, in float32 or finer."""
        rows = self.head.weight.view(self.tokens_per_step, self.num_classes, -1)[place]
        dtype = torch.promote_types(features.dtype, torch.float32)
        return features.to(dtype) @ rows.to(dtype).T

    def cast(self, dtype: torch.dtype) -> Self:
        for name, part in self.named_children():
            if name != "tokenizer":
                part.to(dtype)
        return self


def _stretch(names: Sequence[str], name: str) -> slice:
    first = names.index(name)
    found = slice(first, first + names.count(name))
    assert all(other == name for other in names[found]), "a tokenizer keeps the tokens of a field together"
    return found
