"""Field values to tokens and back (slot `tokenizer`)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from seqrl.errors import ConfigError

SUPPORT_MODULES = ("report",)


class Tokenizer(nn.Module, ABC):
    """Turns transitions of S scalars into K tokens and back; its state lies in buffers and travels in checkpoints.

    Attributes:
        tokens_per_step: K.
        vocab_size: V; token ids are 0 to V - 1, and the model adds V as the termination token.
    """

    tokens_per_step: int
    vocab_size: int

    @abstractmethod
    def fit(self, values: Tensor) -> None:
        """Collect statistics from (N, S) transitions, N at least 1."""

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """(..., S) finite floats to (..., K) int64 tokens in [0, V); values outside the data take the nearest bin."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """(..., K) tokens to (..., S) bin centres; the termination token V decodes as the last bin."""

    def bin_centres(self, position: int) -> Tensor:
        """(V,) value of every token at one position of the transition, for expectations of predicted distributions."""
        every = torch.arange(self.vocab_size, device=next(self.buffers()).device)
        tokens = torch.zeros(self.vocab_size, self.tokens_per_step, dtype=torch.int64, device=every.device)
        tokens[:, position] = every
        return self.decode(tokens)[:, position]


def check_num_bins(num_bins: int) -> int:
    """`num_bins` itself if it can be a vocabulary."""
    if num_bins < 2:
        raise ConfigError(f"tokenizer.num_bins={num_bins} is too small; give 2 or more")
    return num_bins
