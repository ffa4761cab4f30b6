"""No tokens at all: normalised values, for models of vectors."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from seqrl.layout import Layout
from seqrl.layout_config import FIELDS
from seqrl.registry import register_tokenizer
from seqrl.tokenizers import VectorScaler


@register_tokenizer("continuous")
class ContinuousTokenizer(VectorScaler):
    """Observations and extras by mean and standard deviation, actions by their range to [-1, 1], returns by a scale.

    Discrete fields stay as they are. `denormalise` is the exact inverse of `normalise`, up to rounding; a constant
    dimension of an observation is shifted to zero and not scaled.

    Args:
        size, layout: known from the data.
        return_scale: what rewards, values and returns are divided by, in the data's units; None for the largest
            magnitude of the data.
        statistics: None for that, or `published`: actions stay as they are, and 1e-6 is added to the deviations.

    Reference: Chen et al. 2021, appendix A: state normalisation, and returns divided by 1,000.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        size: int,
        layout: Layout,
        *,
        return_scale: Annotated[float, Gt(0)] | None = 1000.0,
        statistics: Literal["published"] | None = None,
    ) -> None:
        super().__init__()
        self._as_published = self.fits_all = statistics == "published"
        self.return_scale = return_scale
        self._fields = [field for field in layout.fields if field.name not in layout.categories]
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, values: Tensor) -> None:
        self.shift.zero_()
        self.scale.fill_(1.0)
        for field in self._fields:
            own = values[:, field.slice].double()
            shift = torch.zeros(field.size, dtype=torch.float64)
            if field.name == "observation" or field.name not in FIELDS:
                shift, scale = own.mean(0), own.std(0, correction=0) + (1e-6 if self._as_published else 0.0)
            elif field.name == "action" and self._as_published:
                scale = torch.ones_like(shift)
            elif field.name == "action":
                low, high = own.amin(0), own.amax(0)
                shift, scale = (high + low) / 2, (high - low) / 2
            else:
                scale = own.abs().amax(0) if self.return_scale is None else shift + self.return_scale
            if not self._as_published:
                scale = torch.where(scale > 1e-6 * (1 + shift.abs()), scale, 1.0)  # constants, up to rounding
            self.shift[field.slice], self.scale[field.slice] = shift.float(), scale.float()

    def normalise(self, values: Tensor) -> Tensor:
        return (values - self.shift) / self.scale

    def action_range(self, layout: Layout) -> tuple[Tensor, Tensor]:
        action = layout.field("action").slice
        return self.shift[action] - self.scale[action], self.shift[action] + self.scale[action]

    def denormalise(self, vectors: Tensor) -> Tensor:
        return vectors * self.scale + self.shift
