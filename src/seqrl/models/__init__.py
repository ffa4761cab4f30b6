"""Sequence models: embedding, backbone and heads of tokens, of codes and of vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from seqrl.backbones import Backbone
from seqrl.data.landmarks import LandmarkGraph
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.tokenizers import Codec
from seqrl.types import Conditioning, History


class Model(nn.Module, ABC):
    """What is trained and decoded. Final classes are `TokenModel`, `CodeModel` and `VectorModel`.

    Models hold no decoding and no training: planners and objectives declare which class of model they work with.

    Attributes:
        reads: the kind of tokenizer that this class of model goes with.
        made_of: what a sequence of this class consists of, for messages and tables: `tokens`, `codes`, `vectors`.
        shortest_context: how few transitions a decoder may show it.
        layout: what a transition is made of.
        context: T, the longest context at decoding time: transitions, or codes.
        tokens_per_step: K, tokens, codes or vectors of a transition.
        landmarks: of the data that it was trained on; None where none were fitted.
        hidden: (K,) bool, which of them nothing may attend to.
    """

    reads: ClassVar[type[Codec]]
    made_of: ClassVar[str]
    shortest_context: ClassVar[int] = 2
    layout: Layout
    landmarks: LandmarkGraph | None = None
    tokenizer: Codec
    backbone: Backbone
    context: int
    tokens_per_step: int
    hidden: Tensor

    @property
    @abstractmethod
    def fields(self) -> tuple[str, ...]:
        """Names of what is predicted, in order."""

    @property
    def modal_fields(self) -> tuple[str, ...]:
        """Those of the fields whose predictions have a mode, which can be right."""
        return self.fields

    @abstractmethod
    def encode_goals(self, goals: Tensor | None, rows: int) -> Tensor | None:
        """Goals as this model's histories and batches hold them; None where the layout has no goal.

        Args:
            goals: (rows, G) in the data's units; None for the null goal.
        """

    @abstractmethod
    def history(
        self, past: Tensor, present: Tensor, conditioning: Conditioning | None = None, *, time: int = 0
    ) -> History:
        """What environments showed, as the start of a plan.

        Args:
            past: (B, n, S) values of the transitions before the present one, in the data's units, the newest last.
            present: (B, S) of the present transition, of which what stands before the action is known.
            conditioning: with a goal if and only if the layout has one; None is none.
            time: steps since the episodes began.
        """

    @property
    def targets_per_window(self) -> int:
        """How many things a training window has to predict: here its transitions, or codes."""
        return self.context

    def count_targets(self, batch: Any) -> Tensor:
        """() how many targets of a batch of windows stand for something, whether or not they carry a loss."""
        return batch.mask.sum()

    def _refuse_differences(self, layout: Layout) -> None:
        """For models that cannot compute what they imagine from the field `difference`.

        Raises:
            ConfigError: the layout has that field.
        """
        if layout.has("difference"):
            raise ConfigError(
                f"layout.fields.difference is for models of tokens, and this one reads {self.made_of}; leave it out, "
                "or use tokenizer=quantile or uniform"
            )

    @abstractmethod
    def cast(self, dtype: torch.dtype) -> Self:
        """Round the weights to `dtype`, in place; the model itself.

        `model.to(dtype)` would round the tokenizer's statistics as well: in bfloat16, other bins than those that the
        model was trained on. Decode after `model.cast(torch.bfloat16)`; logits and all that follows from them stay in
        float32.

        Raises:
            ConfigError: a model that is evaluated in float32 alone.
        """
