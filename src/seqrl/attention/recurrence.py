"""Recurrences over tokens: h = decay * h + inputs as a parallel scan, and any other one token after another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Run = Callable[[Tensor | None, Tensor | None], Tensor]
"""(R, n, *S) states after each of n tokens, from the (R, *S) state before them (None: the first tokens of a sequence)
and (R or 1, n) bool, which tokens write (None: all). The state passes those that do not as it is."""

Cell = Callable[[Tensor, Tensor], Tensor]
"""(R, *I) inputs of one token and the (R, *S) state before it to the state after it, as `torch.nn.GRUCell`."""


def scan_in_order(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    """States h[t] = decay[t] * h[t - 1] + inputs[t], one after another: what `scan` computes, as it is defined.

    Args:
        decay, inputs: (R, n, *S).
        state: (R, *S), h[-1].

    Returns:
        (R, n, *S).
    """
    states = []
    for token in range(inputs.shape[1]):
        state = decay[:, token] * state + inputs[:, token]
        states.append(state)
    return torch.stack(states, dim=1)


def scan(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    """What `scan_in_order` computes, in about 2 sqrt(n) steps: all chunks of sqrt(n) tokens at once, then their ends.

    Nothing is divided and no logarithm taken, so that decays of 0, and products of many, do no harm. The gradient is a
    scan in the other direction, for which states and decays alone are kept.

    Args:
        decay, inputs: (R, n, *S).
        state: (R, *S), before the first token.

    Returns:
        (R, n, *S).

    Reference: Blelloch 1990, "Prefix Sums and Their Applications", section 1.4; Martin and Cundy 2018, section 2.2.
    """
    if inputs.shape[1] == 1:
        return decay * state[:, None] + inputs
    states: Tensor = _Scan.apply(decay.flatten(2), inputs.flatten(2), state.flatten(1))  # type: ignore[no-untyped-call]
    return states.view(inputs.shape)


class _Scan(torch.autograd.Function):
    """`scan` of (R, n, C), with its gradient."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
        states = _scan_chunks(decay, inputs, state)
        ctx.save_for_backward(decay, state, states)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, state, states = ctx.saved_tensors
        # The gradient of a state is its own and, through the next state, decay[t + 1] times that one's.
        later = F.pad(decay[:, 1:], (0, 0, 0, 1)).flip(1)
        total = scan(later, gradients[0].flip(1), torch.zeros_like(state)).flip(1)
        before = torch.cat([state[:, None], states[:, :-1]], dim=1)
        return total * before, total, total[:, 0] * decay[:, 0]


def _scan_chunks(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    rows, count, channels = inputs.shape
    size = math.isqrt(count - 1) + 1  # tokens of a chunk
    missing = -count % size
    if missing:
        decay, inputs = (F.pad(tensor, (0, 0, 0, missing)) for tensor in (decay, inputs))
    decay, inputs = (tensor.view(rows, -1, size, channels) for tensor in (decay, inputs))
    states, products = torch.empty_like(inputs), torch.empty_like(decay)
    states[:, :, 0], products[:, :, 0] = inputs[:, :, 0], decay[:, :, 0]
    for token in range(1, size):  # every chunk as if the state before it were 0
        factor = decay[:, :, token]
        torch.addcmul(inputs[:, :, token], factor, states[:, :, token - 1], out=states[:, :, token])
        torch.mul(factor, products[:, :, token - 1], out=products[:, :, token])
    before = [state]
    for chunk in range(states.shape[1] - 1):
        before.append(products[:, chunk, -1] * before[-1] + states[:, chunk, -1])
    states.addcmul_(products, torch.stack(before, dim=1)[:, :, None])
    return states.view(rows, -1, channels)[:, :count]


def widen(tensor: Tensor) -> Tensor:
    """The same in float32, if it is in half precision: where decays near 1 would all be the same."""
    return tensor.float() if tensor.dtype.itemsize < torch.float32.itemsize else tensor


def run_linear(decay: Tensor, inputs: Tensor) -> Run:
    """The recurrence h = decay * h + inputs, in float32 or finer, from 0 on.

    Args:
        inputs: (R, n, *S).
        decay: the same shape, or one that broadcasts to it.
    """
    decay, inputs = widen(decay).expand_as(inputs), widen(inputs)

    def run(state: Tensor | None, writes: Tensor | None) -> Tensor:
        rates, new = decay, inputs
        if writes is not None:
            writing = _along(writes, inputs)
            rates, new = torch.where(writing, decay, 1.0), torch.where(writing, inputs, 0.0)
        return scan(rates, new, torch.zeros_like(inputs[:, 0]) if state is None else state)

    return run


def run_slowly(cell: Cell, inputs: Tensor, initial: Tensor) -> Run:
    """Any recurrence, one token after another.

    Args:
        cell: the new state of a token's inputs and the state before.
        inputs: (R, n, *I).
        initial: (*S), the state before the first token of a sequence.
    """

    def run(state: Tensor | None, writes: Tensor | None) -> Tensor:
        state = initial.expand(len(inputs), *initial.shape) if state is None else state
        states = []
        for token in range(inputs.shape[1]):
            new = cell(inputs[:, token], state)
            state = new if writes is None else torch.where(_along(writes[:, token], new), new, state)
            states.append(state)
        return torch.stack(states, dim=1)

    return run


def _along(mask: Tensor, like: Tensor) -> Tensor:
    """A mask of the first dimensions of `like`, with dimensions of 1 for its others."""
    return mask.to(like.device).view(*mask.shape, *(1,) * (like.ndim - mask.ndim))
