"""A multilayer perceptron: every position for itself."""

from __future__ import annotations

from torch import Tensor, nn

from seqrl.attention import Attention
from seqrl.backbones import Backbone, Dim, Dropout, NumLayers
from seqrl.registry import register_backbone


@register_backbone("mlp")
class MlpBackbone(Backbone):
    """Linear layers with ReLU and dropout before each; no position sees another, and none knows where it stands.

    For the reference points that are no sequence models: behaviour cloning and RvS, over vectors.

    Args:
        num_layers: linear layers, less the embedding before and the head behind them.
        dim: D, the width.
        dropout: probability.

    Reference: Emmons et al. 2022 (RvS), section 4: two layers of width 1,024.
    """

    relative = True
    sees_context = False

    def __init__(
        self,
        *,
        num_layers: NumLayers = 2,
        dim: Dim = 256,
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.Sequential()
        for _ in range(num_layers):
            self.layers.extend([nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim)])
        self.layers.append(nn.ReLU())

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        features: Tensor = self.layers(x)
        return features
