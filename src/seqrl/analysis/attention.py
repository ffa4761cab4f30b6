"""What a model of tokens attends to: the weights of every head, and how much of them lies in which pattern."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqrl.attention import Attention, causal_mask
from seqrl.attention.recurrence import Run
from seqrl.errors import ConfigError
from seqrl.models.token import TokenModel


class WatchedAttention(Attention):
    """Attention over whole sequences that keeps the mean of its weights over the rows, layer by layer.

    Args:
        mask: (n, n) bool, True where query i may see key j.

    Attributes:
        weights: of each layer that attends, (heads, n, n).
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.weights: list[Tensor] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, dropout: float = 0.0) -> Tensor:
        shared = query.shape[2] // key.shape[2]
        key, value = (each.repeat_interleave(shared, 2) for each in (key, value))
        scores = torch.einsum("rihd,rjhd->rhij", query, key) * query.shape[-1] ** -0.5
        weights = scores.masked_fill(~self.mask, -torch.inf).softmax(-1)
        self.weights.append(weights.mean(0))
        return torch.einsum("rhij,rjhd->rihd", weights, value).flatten(2)

    def advance(self, layer: int, run: Run) -> Tensor:
        return run(None, self.mask[-1:])


@torch.no_grad()
def watch_attention(model: TokenModel, tokens: Tensor) -> np.ndarray:
    """The mean attention weights of a model over windows.

    Args:
        model: in eval mode, without a goal.
        tokens: (B, T, K).

    Returns:
        (layers, heads, n, n) float32, n = T K - 1: of the queries, each of which predicts the token after it.

    Raises:
        ConfigError: no layer of the backbone attends.
    """
    flat = tokens.flatten(1)[:, :-1]
    length = flat.shape[1]
    mask = causal_mask(length, flat.device) & ~model.hidden_keys(length)
    watched = WatchedAttention(mask)
    model.backbone(model.embed(flat), torch.arange(length, device=flat.device)[None], watched)
    if not watched.weights:
        raise ConfigError(
            "no layer of this backbone attends, so that there are no weights to look at; use gpt or llama"
        )
    return torch.stack(watched.weights).cpu().numpy()


@dataclass(frozen=True)
class Patterns:
    """Shares of the attention that lie in a pattern, as means over the queries that can see all patterns.

    A query is known by the token that it predicts, of a transition and a place in it.

    Attributes:
        markov: on the transition that is predicted, as far as it is known, and on the one just before.
        striated: on the place that is predicted, in all earlier transitions.
        striated_beyond: the same without the transition just before, which the Markov band holds as well.
        read_again: on the place of the token that was read last, in all earlier transitions.
        action_on_actions: of queries that predict actions, on actions of earlier transitions.
        action_on_states: of the same, on observations of earlier transitions.
    """

    markov: np.ndarray
    striated: np.ndarray
    striated_beyond: np.ndarray
    read_again: np.ndarray
    action_on_actions: np.ndarray
    action_on_states: np.ndarray


def measure_patterns(weights: np.ndarray, fields: tuple[str, ...]) -> Patterns:
    """How much attention lies in the two patterns that the paper describes.

    Args:
        weights: (..., n, n) of queries and keys; rows sum to 1.
        fields: (K,) which field each token of a transition stands for.

    Returns:
        Arrays of the shape (...).
    """
    steps, length = len(fields), weights.shape[-1]
    key = np.arange(length)
    target = key + 1
    when, place = target[:, None] // steps, target[:, None] % steps
    earlier = key // steps < when
    same = (key % steps == place) & earlier
    again = (key % steps == key[:, None] % steps) & (key // steps < key[:, None] // steps)
    of = np.array(fields)
    acts = of[target % steps] == "action"
    patterns = {
        "markov": key // steps >= when - 1,
        "striated": same,
        "striated_beyond": same & (key // steps < when - 1),
        "read_again": again,
        "action_on_actions": (of[key % steps] == "action") & earlier,
        "action_on_states": (of[key % steps] == "observation") & earlier,
    }
    judged = target // steps >= 2  # before, nothing lies outside of the Markov band
    found = {}
    for name, pattern in patterns.items():
        rows = judged & acts if name.startswith("action") else judged
        found[name] = (weights * pattern)[..., rows, :].sum(-1).mean(-1)
    return Patterns(**found)


def even_attention(length: int) -> np.ndarray:
    """(length, length) weights of a head that attends to all it can see alike: what shares are compared with."""
    visible = np.tri(length)
    return visible / visible.sum(-1, keepdims=True)
