import torch
from torch import Tensor, nn

from seqrl import Backbone, register_backbone
from seqrl.attention import Attention


@register_backbone("parallel")
class ParallelBackbone(Backbone):
    """Attention and feed-forward layer side by side in every block, as in GPT-J; learned positions.

    Args:
        max_length: positions that can be told apart.
        num_layers, num_heads: of attention.
        dim: D, a multiple of `num_heads`.
    """

    def __init__(self, max_length: int, *, num_layers: int = 4, num_heads: int = 4, dim: int = 128) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.positions = nn.Embedding(max_length, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(num_layers + 1))
        self.inputs = nn.ModuleList(nn.Linear(dim, 7 * dim) for _ in range(num_layers))
        self.outputs = nn.ModuleList(nn.Linear(5 * dim, dim) for _ in range(num_layers))

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        x = x + self.positions(positions)
        for layer in range(len(self.inputs)):
            projected = self.inputs[layer](self.norms[layer](x))
            query_key_value, hidden = projected.split((3 * self.dim, 4 * self.dim), dim=-1)
            query, key, value = query_key_value.unflatten(-1, (3, self.num_heads, -1)).unbind(2)
            attended = attention.attend(layer, query, key, value)
            x = x + self.outputs[layer](torch.cat([attended, nn.functional.gelu(hidden)], dim=-1))
        return self.norms[-1](x)
