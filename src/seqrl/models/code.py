"""The model of codes: one integer for a stretch of transitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.registry import TOKENIZER
from seqrl.tokenizers import TrajectoryAutoencoder
from seqrl.types import CodeBatch, CodeHistory, Conditioning, LossInputs, Opening


class CodeModel(AutoregressiveModel):
    """A prior over latent plans: codes behind one position, the embedded present observation. K is 1.

    Args:
        layout: what a transition is made of.
        tokenizer, backbone: component configs, `{"name": ..., **options}`.
        context: transitions of a training window.

    Attributes:
        context: codes of a training window.

    Raises:
        ConfigError: whatever the components refuse, a tokenizer of tokens or vectors, goals or returns in the layout,
            or a window that is shorter than one code.

    Reference: Jiang et al. 2022, "Efficient Planning in a Compact Latent Action Space", section 3.2.
    """

    reads = TrajectoryAutoencoder
    made_of = "codes"
    tokenizer: TrajectoryAutoencoder

    def __init__(
        self, layout: Layout, tokenizer: Mapping[str, Any], backbone: Mapping[str, Any], *, context: int
    ) -> None:
        self._refuse_differences(layout)
        built = TOKENIZER.build(tokenizer, size=layout.size, layout=layout, window=context, model_backbone=backbone)
        if not isinstance(built, TrajectoryAutoencoder):
            raise ConfigError(
                f"tokenizer={tokenizer['name']} makes no codes; use TokenModel or VectorModel, or another"
            )
        if layout.goal is not None or len(layout.known) > 1:
            raise ConfigError(
                f"tokenizer={tokenizer['name']} makes codes, which follow the present observation alone, and the "
                "layout has a goal, a return or a context; use layout=tt, or another tokenizer"
            )
        codes = context // built.steps_per_code
        if codes < 1:
            raise ConfigError(f"window.length={context} is too short; give {built.steps_per_code}, one code, or more")
        super().__init__(
            layout,
            built,
            backbone,
            context=codes,
            token_fields=("code",),
            vocab_size=built.vocab_size,
            prefix_size=1,
            prefix_ids=0,
        )
        self.state_embedding = nn.Linear(layout.field("observation").size, self.backbone.dim)
        nn.init.normal_(self.state_embedding.weight, std=0.02)
        nn.init.zeros_(self.state_embedding.bias)

    def encode_goals(self, goals: Tensor | None, rows: int) -> None:
        """Layouts of codes have no goal."""

    def history(
        self, past: Tensor, present: Tensor, conditioning: Conditioning | None = None, *, time: int = 0
    ) -> CodeHistory:
        observation = present[:, self.layout.field("observation").slice]
        target = None if conditioning is None else conditioning.target
        return CodeHistory(self.tokenizer.state(observation), time=time, observation=observation, target=target)

    def opening(self, history: CodeHistory) -> Opening:
        nothing = torch.zeros(len(history), 0, dtype=torch.int64, device=history.state.device)
        state = self._embed_state(history.state)
        return Opening(nothing, nothing.sum(1), state, state[:, 0] if self.tokenizer.state_everywhere else None)

    def loss_inputs(self, batch: CodeBatch) -> LossInputs:
        """Every code is predicted; the state before the first one predicts that."""
        return LossInputs((batch.codes, batch.state), batch.codes, batch.mask, torch.zeros_like(batch.codes[0]))

    def forward(self, codes: Tensor, state: Tensor) -> Tensor:
        """Logits of every code of a window, each from the state and the codes before it.

        Args:
            codes: (B, n) int64.
            state: (B, O) normalised observations.

        Returns:
            (B, n, V + 1).
        """
        embedded = self._embed_state(state)
        everywhere = embedded[:, 0] if self.tokenizer.state_everywhere else None
        return self.next_logits(self.read(codes[:, :-1], embedded, everywhere), 0)

    def _embed_state(self, state: Tensor) -> Tensor:
        """(B, O) normalised observations to (B, 1, D)."""
        embedded: Tensor = self.state_embedding(state.to(self.state_embedding.weight.dtype))[:, None]
        return embedded
