"""Recurrent backbones against their papers' formulas, number by number, and what their options do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqrl.attention import Attention
from seqrl.attention.full import FullAttention
from seqrl.attention.recurrence import Run
from seqrl.backbones import Backbone
from seqrl.errors import ConfigError
from seqrl.registry import BACKBONE
from seqrl.testing.samples import scramble

DIM, LENGTH = 8, 5


def make(name: str, **options: Any) -> Backbone:
    backbone: Backbone = BACKBONE.build({"name": name, "dim": DIM, **options}).double().eval().requires_grad_(False)
    scramble(backbone)
    return backbone


def tokens() -> Tensor:
    return torch.randn(2, LENGTH, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def run(backbone: Backbone, x: Tensor, attention: Attention | None = None) -> Tensor:
    features: Tensor = backbone(x, torch.arange(x.shape[1])[None], attention or FullAttention())
    return features


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def linear(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    weight = layer.weight.numpy() @ x
    return weight if getattr(layer, "bias", None) is None else weight + layer.bias.numpy()


def norm(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean() + 1e-5) * layer.weight.numpy()


def min_gru(mixer: Any, sequence: list[np.ndarray]) -> list[np.ndarray]:
    """Section 3.1 of Feng et al.: z = sigma(linear), h~ = linear, h = (1 - z) h + z h~."""
    width = mixer.out.weight.shape[1]
    h, found = np.zeros(width), []
    for x in sequence:
        both = linear(mixer.gate_and_candidate, x)
        z, candidate = np.array([sigmoid(value) for value in both[:width]]), both[width:]
        h = (1 - z) * h + z * candidate
        found.append(linear(mixer.out, h))
    return found


def selective(mixer: Any, sequence: list[np.ndarray]) -> list[np.ndarray]:
    """Algorithm 2 of Gu and Dao, every channel and state by itself."""
    width, size = mixer.log_rate.shape
    h, found = np.zeros((width, size)), []
    for x in sequence:
        chosen = linear(mixer.project, x)
        u, step, b, c = chosen[:width], chosen[width : 2 * width], chosen[-2 * size : -size], chosen[-size:]
        y = np.zeros(width)
        for channel in range(width):
            delta = softplus(step[channel])
            for state in range(size):
                a = -math.exp(mixer.log_rate[channel, state])
                h[channel, state] = math.exp(delta * a) * h[channel, state] + delta * b[state] * u[channel]
                y[channel] += c[state] * h[channel, state]
            y[channel] += float(mixer.skip[channel]) * u[channel]
        found.append(linear(mixer.out, y))
    return found


@pytest.mark.parametrize(("name", "mix"), [("mingru", min_gru), ("s6", selective)])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_backbone_computes_its_papers_formulas(name: str, mix: Any, layers: int) -> None:
    backbone, x = make(name, num_layers=layers), tokens()
    features = run(backbone, x)
    for row in range(2):
        sequence = [x[row, token].numpy() for token in range(LENGTH)]
        for block in backbone.stack.blocks:
            mixed = mix(block.mixer, [norm(block.mixer_norm, each) for each in sequence])
            sequence = [each + more for each, more in zip(sequence, mixed, strict=True)]
            for token, each in enumerate(sequence):
                gate, up = np.split(linear(block.gate_and_up, norm(block.feed_forward_norm, each)), 2)
                gated = np.array([value * sigmoid(value) for value in gate]) * up
                sequence[token] = each + linear(block.down, gated)
        expected = np.stack([norm(backbone.stack.norm, each) for each in sequence])
        np.testing.assert_allclose(features[row], expected, atol=1e-10)


class Watched(FullAttention):
    """Notes in which order a backbone attends and recurs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def attend(self, layer: int, *arguments: Any, **options: Any) -> Tensor:
        self.calls.append(("attention", layer))
        return super().attend(layer, *arguments, **options)

    def advance(self, layer: int, run: Run) -> Tensor:
        self.calls.append(("recurrence", layer))
        return super().advance(layer, run)


@pytest.mark.parametrize("name", ["mingru", "s6"])
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (["recurrence"], ["recurrence"] * 4),
        (["attention"], ["attention"] * 4),
        (["recurrence", "attention"], ["recurrence", "attention"] * 2),
        (["recurrence", "recurrence", "attention"], ["recurrence", "recurrence", "attention", "recurrence"]),
    ],
)
def test_a_pattern_is_repeated_over_the_layers(name: str, pattern: list[str], expected: list[str]) -> None:
    watched = Watched()
    run(make(name, pattern=pattern, num_heads=2), tokens(), watched)
    assert watched.calls == [(kind, layer) for layer, kind in enumerate(expected)]


@pytest.mark.parametrize("name", ["mingru", "s6"])
def test_sizes_are_those_of_the_options(name: str) -> None:
    backbone = make(name, num_layers=3, expansion=3, **({"state_size": 5} if name == "s6" else {}))
    watched: list[torch.Size] = []

    class Sizes(FullAttention):
        def advance(self, layer: int, run: Run) -> Tensor:
            states = super().advance(layer, run)
            watched.append(states.shape)
            return states

    run(backbone, tokens(), Sizes())
    assert watched == [(2, LENGTH, 3 * DIM, 5) if name == "s6" else (2, LENGTH, 3 * DIM)] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pattern": ["recurrence", "attention"], "num_heads": 3}, "no multiple of twice backbone.num_heads=3"),
        ({"pattern": []}, "backbone.pattern"),
        ({"pattern": ["gru"]}, "backbone.pattern"),
        ({"expansion": 0}, "backbone.expansion"),
    ],
)
@pytest.mark.parametrize("name", ["mingru", "s6"])
def test_options_that_make_no_backbone_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(name, **options)


@pytest.mark.parametrize("name", ["mingru", "s6"])
def test_in_bfloat16_features_stay_near(name: str) -> None:
    """The state is kept finer than what is written to it, over sequences longer than its memory."""
    x = torch.randn(1, 300, DIM, generator=torch.Generator().manual_seed(1)).bfloat16().double()
    backbone = make(name, num_layers=1)
    fine = run(backbone, x)
    coarse = run(backbone.to(torch.bfloat16), x.bfloat16())
    assert coarse.dtype == torch.bfloat16
    assert float((coarse.double() - fine).abs().mean()) < 0.05


@pytest.mark.parametrize("name", ["mingru", "s6"])
@pytest.mark.parametrize("layers", [1, 3])
def test_what_stood_before_is_seen_when_training_begins(name: str, layers: int) -> None:
    """A token tells at first of the one before it at least a hundredth of what it tells of itself, and what lets it do
    so has gradients: where it is a product of small numbers, a training stands still."""
    torch.manual_seed(0)
    backbone: Backbone = BACKBONE.build({"name": name, "dim": 64, "num_layers": layers, "num_heads": 2}).eval()
    x = 0.02 * torch.randn(4, 20, 64)
    changed = x.clone()
    changed[:, 10] = 0.02 * torch.randn(4, 64)
    with torch.no_grad():
        moved = (run(backbone, changed) - run(backbone, x)).norm(dim=-1).mean(0)
    assert moved[11] > 0.01 * moved[10]
    assert moved[15] > 0.001 * moved[10] or name == "mingru"
    (run(backbone, x)[:, 1:] * x[:, :-1]).sum().backward()  # tell what stood before
    norms = {key: float(each.grad.norm()) for key, each in backbone.stack.blocks[0].mixer.named_parameters()}
    assert min(norms.values()) > 1e-3 * max(norms.values()), norms
