"""The model of tokens: several integers for every transition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.registry import TOKENIZER
from seqrl.tokenizers import Tokenizer
from seqrl.types import Conditioning, LossInputs, Opening, TokenBatch, TokenHistory


class TokenModel(AutoregressiveModel):
    """A transition is K tokens, each predicted from all before it; a goal stands before the sequence.

    The tokens of a goal have rows of their own in the embedding table; its id V is the null goal.

    Args:
        layout: what a transition is made of.
        tokenizer, backbone: component configs, `{"name": ..., **options}`.
        context: T, transitions of a training window, and the longest context at decoding time.

    Raises:
        ConfigError: whatever the components refuse, a tokenizer of vectors or codes, or a window of one transition.

    Reference: Janner et al. 2021, section 3.1 and appendix A.
    """

    reads = Tokenizer
    made_of = "tokens"
    tokenizer: Tokenizer

    def __init__(
        self, layout: Layout, tokenizer: Mapping[str, Any], backbone: Mapping[str, Any], *, context: int
    ) -> None:
        built = TOKENIZER.build(tokenizer, size=layout.size, layout=layout, window=context, model_backbone=backbone)
        if not isinstance(built, Tokenizer):
            raise ConfigError(
                f"tokenizer={tokenizer['name']} makes no tokens; use CodeModel or VectorModel, or another"
            )
        if context < 2:
            raise ConfigError(f"window.length={context} is too short; this model needs 2 or more")
        goal = layout.prefix_size
        fields = built.fields_of(layout)
        super().__init__(
            layout,
            built,
            backbone,
            context=context,
            token_fields=fields,
            vocab_size=built.vocab_size,
            prefix_size=goal,
            prefix_ids=goal,
        )

    def encode_goals(self, goals: Tensor | None, rows: int) -> Tensor | None:
        """(rows, P) tokens of (rows, G) goals, each in the bins of its observation dimension."""
        if self.layout.goal is None:
            return None
        if goals is None:
            return torch.full((rows, self.prefix_size), self.termination_token, device=self.hidden.device)
        dims = torch.tensor(self.layout.goal.dims, device=goals.device)
        values = goals.new_zeros(rows, self.layout.size)
        values[:, self.layout.field("observation").start + dims] = goals
        return self.tokenizer.encode(values)[:, self.goal_columns]

    @property
    def goal_columns(self) -> list[int]:
        """Which tokens of a transition stand for the dimensions of the goal; empty without a goal."""
        if self.layout.goal is None:
            return []
        observation = self.places("observation")
        if observation.stop - observation.start != self.layout.field("observation").size:
            raise ConfigError("goals need a tokenizer with one token per dimension of the observation; use uniform")
        return [observation.start + dim for dim in self.layout.goal.dims]

    @property
    def difference_columns(self) -> list[int]:
        """Which tokens of a transition tell how the observation changes; empty without that field."""
        return [*range(self.tokens_per_step)[self.places("difference")]] if self.layout.has("difference") else []

    def encode_actions(self, actions: Tensor, observations: Tensor | None = None) -> Tensor:
        """(..., k) tokens of (..., A) actions in the data's units, taken in (..., O) observations; those are zeros if
        not given."""
        scalars = actions.new_zeros(*actions.shape[:-1], self.layout.size)
        if observations is not None:
            scalars[..., self.layout.field("observation").slice] = observations
        scalars[..., self.layout.field("action").slice] = actions
        return self.tokenizer.encode(scalars)[..., self.places("action")]

    def history(
        self, past: Tensor, present: Tensor, conditioning: Conditioning | None = None, *, time: int = 0
    ) -> TokenHistory:
        given = conditioning or Conditioning()
        known = self.tokenizer.encode(present)[:, : self.places("action").start]
        tokens = torch.cat([self.tokenizer.encode(past).flatten(1), known], dim=1)
        lengths = torch.full((len(past),), past.shape[1], dtype=torch.int64, device=past.device)
        observation = present[:, self.layout.field("observation").slice]
        return TokenHistory(
            tokens, lengths, given.goal, given.guidance, time=time, observation=observation, target=given.target
        )

    def opening(self, history: TokenHistory) -> Opening:
        if (history.goal is None) != (self.prefix_size == 0):
            raise ConfigError("the history's goal does not fit the layout; give one if and only if it has a goal")
        if history.goal is None:
            prefix = self.embedding.weight.new_zeros(len(history), 0, self.backbone.dim)
        else:
            prefix = self._embed_goal(history.goal)
        return Opening(history.tokens, history.lengths, prefix)

    def loss_inputs(self, batch: TokenBatch) -> LossInputs:
        """Every token but the first is predicted."""
        targets, mask = batch.tokens.flatten(1)[:, 1:], batch.mask.flatten(1)[:, 1:]
        places = torch.arange(1, 1 + targets.shape[1], device=targets.device) % self.tokens_per_step
        return LossInputs((batch.tokens, batch.goal), targets, mask, places)

    @property
    def targets_per_window(self) -> int:
        return self.context * self.tokens_per_step - 1

    def count_targets(self, batch: TokenBatch) -> Tensor:
        """() how many targets of a batch are no termination token, whether or not they carry a loss."""
        return (batch.tokens.flatten(1)[:, 1:] != self.termination_token).sum()

    def forward(self, tokens: Tensor, goal: Tensor | None = None) -> Tensor:
        """Logits of every token of a window but its first, each from the tokens before it.

        Args:
            tokens: (B, T, K) int64.
            goal: (B, P) int64; needed if and only if the layout has a goal.

        Returns:
            (B, T * K - 1, V + 1), of which entry i belongs to token i + 1.
        """
        features = self.read(tokens.flatten(1)[:, :-1], None if goal is None else self._embed_goal(goal))
        return self._logits_in_order(features[:, self.prefix_size :])

    def _embed_goal(self, goal: Tensor) -> Tensor:
        """(B, P) goal tokens to (B, P, D)."""
        place = self.tokens_per_step + torch.arange(goal.shape[1], device=goal.device)
        embedded: Tensor = self.embedding(goal + place * self.num_classes)
        return embedded

    def _logits_in_order(self, features: Tensor) -> Tensor:
        """(B, L - 1, D) to (B, L - 1, V + 1), each position through the head of the token that follows it."""
        batch, length, dim = features.shape
        steps = self.tokens_per_step
        padded = nn.functional.pad(features, (0, 0, 1, 0)).view(batch, -1, steps, dim)  # place k predicted at k
        heads = self.head.weight.view(steps, self.num_classes, dim)
        logits = torch.einsum("btkd,kvd->btkv", padded, heads)
        return logits.reshape(batch, length + 1, self.num_classes)[:, 1:]
