"""Actions as the nearest of a few typical ones, and what they differ from it by."""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Interval
from scipy.cluster.vq import kmeans2
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import TOKENIZER, register_tokenizer
from seqrl.tokenizers import NumBins, Tokenizer

_ROWS = 2**17  # of the actions that clusters are sought among: more of them move the centres by little
_ITERATIONS = 50


@register_tokenizer("kmeans")
class KmeansTokenizer(Tokenizer):
    """The action becomes a code, the nearest of `num_clusters` centres, and one token per dimension for the offset.

    The code comes first, so that a model can choose among far-apart ways to act before it commits to numbers; offsets,
    small where the data act in clusters, are then binned more finely than the actions themselves would be. Everything
    else has one token per scalar. K is therefore S + 1, and V the larger of both vocabularies. A decoded action lies
    within the range of the data.

    Args:
        size, layout: known from the data.
        num_clusters: of the centres, at most; fewer where the data have fewer different actions.
        num_bins: of each offset, and of everything that is no action.
        bins: `quantile` or `uniform`, how these are made; see the tokenizers of that name.

    Raises:
        ConfigError: an option outside its range, or discrete actions, which need no clusters.

    Reference: Shafiullah et al. 2022, "Behavior Transformers: Cloning k modes with one stone", section 3.1; there the
    offset is regressed, and depends on the code.
    """

    centres: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        size: int,
        layout: Layout,
        *,
        num_clusters: Annotated[int, Interval(ge=1, le=65_536)] = 64,
        num_bins: NumBins = 100,
        bins: Literal["quantile", "uniform"] = "quantile",
    ) -> None:
        super().__init__()
        if "action" in layout.categories:
            raise ConfigError("tokenizer=kmeans is for continuous actions, and these are discrete; use uniform")
        self.tokens_per_step = size + 1
        self.num_clusters = num_clusters
        self.vocab_size = max(num_clusters, num_bins)
        self._action = layout.field("action").slice
        self.scalars: Tokenizer = TOKENIZER.build({"name": bins, "num_bins": num_bins}, size=size, layout=layout)
        action_size = layout.field("action").size
        self.register_buffer("centres", torch.zeros(num_clusters, action_size, dtype=torch.float64))
        self.register_buffer("low", torch.zeros(action_size))
        self.register_buffer("high", torch.zeros(action_size))

    def fields_of(self, layout: Layout) -> tuple[str, ...]:
        return tuple(f.name for f in layout.fields for _ in range(f.size + (f.name == "action")))

    def fit(self, values: Tensor) -> None:
        actions = values[:, self._action]
        self.low.copy_(actions.amin(0))
        self.high.copy_(actions.amax(0))
        self.centres.copy_(torch.from_numpy(_centres(actions.detach().cpu().double().numpy(), self.num_clusters)))
        self.scalars.fit(self._with_offsets(values, self._nearest(actions)))

    def encode(self, values: Tensor) -> Tensor:
        codes = self._nearest(values[..., self._action])
        tokens = self.scalars.encode(self._with_offsets(values, codes))
        before, after = tokens[..., : self._action.start], tokens[..., self._action.start :]
        return torch.cat([before, codes[..., None], after], -1)

    def decode(self, tokens: Tensor) -> Tensor:
        place = self._action.start
        codes = tokens[..., place].clamp(max=self.num_clusters - 1)
        values = self.scalars.decode(torch.cat([tokens[..., :place], tokens[..., place + 1 :]], -1))
        actions = self.centres[codes] + values[..., self._action]
        values[..., self._action] = actions.to(values.dtype).clamp(self.low, self.high)
        return values

    def action_range(self, layout: Layout) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    def bin_centres(self, position: int) -> Tensor:
        """(V,) values of the tokens at a position: offsets, for an action's; a code is of no single value (NaN)."""
        place = self._action.start
        if position == place:
            return torch.full((self.vocab_size,), torch.nan, device=self.low.device)
        centres = self.scalars.bin_centres(position - (position > place))
        return torch.cat([centres, centres[-1:].expand(self.vocab_size - len(centres))])  # as `decode` has it

    def _nearest(self, actions: Tensor) -> Tensor:
        """(..., A) actions to (...) codes; the lower one of two that are equally near."""
        flat = actions.reshape(-1, actions.shape[-1]).to(self.centres.dtype)
        mode = "donot_use_mm_for_euclid_dist"  # exact, so that a row's code does not depend on the rows beside it
        pieces = [torch.cdist(part, self.centres, compute_mode=mode).argmin(-1) for part in flat.split(2**16)]
        return torch.cat(pieces).view(actions.shape[:-1])

    def _with_offsets(self, values: Tensor, codes: Tensor) -> Tensor:
        """(..., S) values with offsets from the centres in the place of actions."""
        changed = values.clone()
        actions = values[..., self._action]
        changed[..., self._action] = (actions.to(self.centres.dtype) - self.centres[codes]).to(values.dtype)
        return changed


def _centres(actions: np.ndarray, count: int) -> np.ndarray:
    """(count, A) centres of (N, A) actions; where fewer are different, each of them, the last one repeated."""
    rows = actions[np.linspace(0, len(actions) - 1, min(len(actions), _ROWS)).astype(np.int64)]
    different = np.unique(rows, axis=0)
    if len(different) <= count:
        return np.concatenate([different, np.repeat(different[-1:], count - len(different), axis=0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # it stays where it is
        centres: np.ndarray = kmeans2(rows, count, iter=_ITERATIONS, minit="++", seed=np.random.default_rng(0))[0]
    return centres
