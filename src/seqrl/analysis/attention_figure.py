"""A picture of what heads attend to, and of how much lies in the patterns of the paper's Figure 4."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.files import write_file


def draw_attention(
    path: Path,
    weights: np.ndarray,
    shares: Sequence[Mapping[str, np.ndarray]],
    even: Mapping[str, float],
    *,
    steps: int,
    title: str,
) -> Path:
    """Draw the weights of every head of one model, and the shares of the patterns of all models.

    Args:
        weights: (layers, heads, n, n) of the first model.
        shares: of each model, by pattern, (layers, heads).
        even: by pattern, the share of a head that attends to all alike.
        steps: K, tokens of a transition.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure

    layers, heads = weights.shape[:2]
    patterns = list(even)
    figure = Figure(figsize=(11, 3.4 * heads + 3.4), dpi=110, layout="constrained")
    grid = figure.add_gridspec(heads + 1, 12)
    span = 12 // layers
    for layer in range(layers):
        for head in range(heads):
            axes = figure.add_subplot(grid[head, layer * span : (layer + 1) * span])
            _draw_head(axes, weights[layer, head], steps, f"layer {layer + 1}, head {head + 1}")
    wide = 12 // len(patterns)
    for place, pattern in enumerate(patterns):
        axes = figure.add_subplot(grid[heads, place * wide : (place + 1) * wide])
        _draw_shares(axes, [each[pattern] for each in shares], even[pattern], pattern)
    figure.suptitle(textwrap.fill(title, 120), fontsize=9)
    with write_file(path) as file:
        figure.savefig(file, format="png")
    return path


def _draw_head(axes: Any, weights: np.ndarray, steps: int, name: str) -> None:
    shown = np.where(weights > 0, weights, np.nan)
    axes.imshow(np.log10(np.maximum(shown, 1e-4)), cmap="viridis", vmin=-4, vmax=0, interpolation="nearest")
    for boundary in range(steps, len(weights), steps):
        axes.axhline(boundary - 1.5, color="white", linewidth=0.2, alpha=0.6)  # of the tokens that are predicted
        axes.axvline(boundary - 0.5, color="white", linewidth=0.2, alpha=0.6)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(name, fontsize=9)
    axes.set_xlabel("token attended to", fontsize=8)
    axes.set_ylabel("token predicted", fontsize=8)


def _draw_shares(axes: Any, shares: Sequence[np.ndarray], even: float, name: str) -> None:
    layers, heads = shares[0].shape
    for model, each in enumerate(shares):
        places = np.arange(layers * heads) + (model - (len(shares) - 1) / 2) * 0.25
        axes.bar(places, each.flatten(), 0.22, color=f"C{model}", label=f"seed {model}")
    axes.axhline(even, color="black", linewidth=1, linestyle="--")
    axes.set_xticks(range(layers * heads), [f"{n // heads + 1}.{n % heads + 1}" for n in range(layers * heads)])
    axes.tick_params(labelsize=7)
    axes.set_ylim(0, 1)
    axes.set_title(name, fontsize=8)
    axes.set_xlabel("layer.head; dashes: attends to all alike", fontsize=7)
