"""Attention weights and what lies in their patterns, on matrices made by hand and on a small model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.analysis.attention import even_attention, measure_patterns, watch_attention
from seqrl.layout import Layout
from seqrl.models.token import TokenModel

FIELDS = ("observation", "observation", "action")  # K = 3
STEPS = 4
LENGTH = STEPS * 3 - 1


def one_key(key_of: Callable[[int, int], int]) -> np.ndarray:
    """Weights that lie on one key for each query; `key_of(transition, place)` of the token that is predicted."""
    weights = np.zeros((LENGTH, LENGTH))
    for query in range(LENGTH):
        when, place = divmod(query + 1, 3)
        weights[query, min(query, max(0, key_of(when, place)))] = 1.0
    return weights


@pytest.mark.parametrize(
    ("key_of", "expected"),
    [
        # The same place one transition before: in both patterns.
        (lambda when, place: 3 * (when - 1) + place, {"markov": 1.0, "striated": 1.0, "striated_beyond": 0.0}),
        # The same place two transitions before: a stripe outside of the Markov band.
        (lambda when, place: 3 * (when - 2) + place, {"markov": 0.0, "striated": 1.0, "striated_beyond": 1.0}),
        # The first token of the transition before, whatever is predicted: one place of three is its own.
        (lambda when, place: 3 * (when - 1), {"markov": 1.0, "striated": 1 / 3}),
        # The very first token: beyond the band for all that counts.
        (lambda when, place: 0, {"markov": 0.0, "striated": 1 / 3, "striated_beyond": 1 / 3}),
        # The action two transitions before.
        (lambda when, place: 3 * (when - 2) + 2, {"action_on_actions": 1.0, "action_on_states": 0.0}),
        (lambda when, place: 3 * (when - 1) + 1, {"action_on_actions": 0.0, "action_on_states": 1.0}),
        # The token that was read last is at place - 1; its twin one transition before.
        (lambda when, place: 3 * (when - 1) + place - 1, {"read_again": 1.0, "striated": 0.0}),
    ],
)  # fmt: skip
def test_all_of_a_head_in_one_pattern(key_of: Callable[[int, int], int], expected: dict[str, float]) -> None:
    found = measure_patterns(one_key(key_of)[None], FIELDS)
    assert {name: getattr(found, name)[0] for name in expected} == pytest.approx(expected)


def test_shares_of_a_mixture_add_up() -> None:
    before = one_key(lambda when, place: 3 * (when - 1) + place)
    long_before = one_key(lambda when, place: 3 * (when - 2) + place)
    found = measure_patterns(np.stack([0.25 * before + 0.75 * long_before, before]), FIELDS)
    np.testing.assert_allclose(found.markov, [0.25, 1.0])
    np.testing.assert_allclose(found.striated_beyond, [0.75, 0.0])


def test_even_attention_by_counting() -> None:
    """The shares of a head that attends to all alike, counted key by key."""
    found = measure_patterns(even_attention(LENGTH), FIELDS)
    markov, beyond = [], []
    for query in range(LENGTH):
        when, place = divmod(query + 1, 3)
        if when >= 2:
            keys = range(query + 1)
            markov.append(sum(key // 3 >= when - 1 for key in keys) / len(keys))
            beyond.append(sum(key % 3 == place and key // 3 < when - 1 for key in keys) / len(keys))
    assert found.markov == pytest.approx(np.mean(markov))
    assert found.striated_beyond == pytest.approx(np.mean(beyond))


@pytest.mark.parametrize("backbone", ["gpt", "llama"])
def test_watched_attention_changes_nothing(
    backbone: str, plain_layout_config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features are those of the model, and the weights those of its own queries and keys, hidden ones at zero."""
    torch.manual_seed(0)
    layout = Layout.from_config(plain_layout_config(), 3, 2)
    options = {"name": backbone, "num_layers": 2, "num_heads": 2, "dim": 8}
    model = TokenModel(layout, {"name": "uniform", "num_bins": 5}, options, context=4).eval()
    tokens = torch.randint(0, 5, (6, 4, layout.size))
    features: list[torch.Tensor] = []
    hook = model.backbone.register_forward_hook(lambda *args: features.append(args[-1]))
    weights = watch_attention(model, tokens)
    model(tokens)
    hook.remove()
    torch.testing.assert_close(features[0], features[1])
    assert weights.shape == (2, 2, 27, 27)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert (weights[..., np.arange(27) % 7 == 6] == 0).all(), "values are hidden"
    assert (np.triu(weights, 1) == 0).all()
