"""How tokens see each other: the contract, whole passes, trees of passes, caches, and recorded steps."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from seqrl.attention.recurrence import Cell, Run, run_linear, run_slowly
from seqrl.errors import ConfigError

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values by layer, in the order in which a pass comes to the layers that attend."""

States = dict[int, Tensor]
"""(R, *S) states of recurrences, by layer."""


class Attention(ABC):
    """How tokens meet. A backbone calls it in every layer and need not know of masks or caches.

    Attention lets a token look at those before it, a recurrence hands it a state that they left behind. Tokens may
    meet in no other way.
    """

    @abstractmethod
    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        """Softmax attention, scaled by `1 / sqrt(head_dim)`, over the new tokens and those before them.

        Args:
            layer: counts from 0; what earlier tokens left behind is kept by layer.
            query: (R, n, heads, head_dim) of the new tokens.
            key, value: (R, n, kv_heads, head_dim); `heads` is a multiple of `kv_heads`, and consecutive query heads
                share a key head (grouped-query attention).
            dropout: probability with which an attention weight is dropped.

        Returns:
            (R, n, heads * head_dim).
        """

    @abstractmethod
    def advance(self, layer: int, run: Run) -> Tensor:
        """Run a recurrence over the new tokens, from the state that those before them left; (R, n, *S) states.

        Backbones call `recur` or `recur_slowly`.
        """

    def recur(self, layer: int, decay: Tensor, inputs: Tensor) -> Tensor:
        """The recurrence h = decay * h + inputs, element by element, in the order of the tokens; h is 0 before them.

        In training it is a parallel scan, in decoding one step. A token that nothing may see (a hidden value, padding)
        reads the state and leaves it as it is. The state is kept in float32 or finer; in mixed precision, compute
        decays near 1 in float32 as well.

        Args:
            layer: counts from 0; the state is kept by layer. Call it once a layer.
            decay: (R, n, *S) of the new tokens, or what broadcasts to that; in [0, 1], or states may grow without end.
            inputs: (R, n, *S), what the tokens write.

        Returns:
            (R, n, *S) of the type of `inputs`: h after each token.

        Raises:
            ConfigError: shapes that do not fit.
        """
        _check_tokens(layer, inputs)
        sizes = zip(reversed(decay.shape), reversed(inputs.shape), strict=False)
        if decay.ndim > inputs.ndim or any(size not in (1, whole) for size, whole in sizes):
            raise ConfigError(
                f"layer {layer} of the backbone recurs with decay {tuple(decay.shape)} and inputs "
                f"{tuple(inputs.shape)}; give a decay of the inputs' shape, or one that broadcasts to it"
            )
        return self.advance(layer, run_linear(decay, inputs)).to(inputs.dtype)

    def recur_slowly(self, layer: int, cell: Cell, inputs: Tensor, initial: Tensor) -> Tensor:
        """Any recurrence, one token after another, in training too: slow where `recur` is not.

        Args:
            layer: as in `recur`.
            cell: (R, *I) inputs of a token and the (R, *S) state before it to the state after it; `nn.GRUCell` is one.
            inputs: (R, n, *I) of the new tokens.
            initial: (*S), the state before the first token.

        Returns:
            (R, n, *S): the state after each token.

        Raises:
            ConfigError: shapes that do not fit.
        """
        _check_tokens(layer, inputs)
        return self.advance(layer, run_slowly(cell, inputs, initial))


def _check_tokens(layer: int, inputs: Tensor) -> None:
    if inputs.ndim < 2 or not inputs.shape[1]:
        raise ConfigError(
            f"layer {layer} of the backbone recurs over inputs {tuple(inputs.shape)}; give (R, n, ...) for n tokens"
        )


def causal_mask(length: int, device: torch.device) -> Tensor:
    """(length, length) bool, True where query i may see key j <= i."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
