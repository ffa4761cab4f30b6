"""The shape legend, and the records that pass between parts of the project.

Letters in shapes, everywhere in the code:

    B  windows of a batch, or environments     D  model width
    T  transitions of a window                 V  bins of a tokenizer; token id V is the termination token
    S  scalars per transition                  W  beam width
    K  tokens per transition                   H  planning horizon in transitions
    L  tokens of a sequence, L = T * K         R  rows of a decoding session (environments x beams)
    P  prefix tokens (a goal), before the sequence
    O, A, G  dimensions of an observation, an action, a goal
    N, E  transitions and episodes of a data set
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Training windows.

    Attributes:
        tokens: (B, T, K) int64 in [0, V]; V is the termination token, which also pads past the end of an episode.
        mask: (B, T, K) bool; False where a token carries no loss as a target.
        prefix: (B, P) int64 in [0, V], V standing for "no goal"; None where the layout has no prefix.
    """

    tokens: Tensor
    mask: Tensor
    prefix: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        prefix = None if self.prefix is None else self.prefix.to(device, non_blocking=True)
        return Batch(self.tokens.to(device, non_blocking=True), self.mask.to(device, non_blocking=True), prefix)

    def pin_memory(self) -> Batch:
        prefix = None if self.prefix is None else self.prefix.pin_memory()
        return Batch(self.tokens.pin_memory(), self.mask.pin_memory(), prefix)


@dataclass(frozen=True)
class History:
    """What the environments showed so far, tokenized; the start of every plan.

    Rows are right-aligned: the newest transition stands last, and a row with fewer transitions than the longest has
    padding on its left, which nothing attends to.

    Attributes:
        tokens: (B, n * K + k) int64: n past transitions, then the first k tokens of the present one (its observation).
        lengths: (B,) int64 in [0, n]: how many past transitions of each row are real.
        prefix: (B, P) int64, or None where the layout has no prefix.
    """

    tokens: Tensor
    lengths: Tensor
    prefix: Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """What a planner proposes, one row per environment, the present step first.

    Attributes:
        actions: (B, H, A) float32, in the units of the data.
        value: (B,) float, the score of the plan; comparable only between plans of one planner and score.
        tokens: (B, H, K) int64 of the imagined transitions, the present observation included; None for planners that
            imagine nothing.
    """

    actions: Tensor
    value: Tensor
    tokens: Tensor | None = None
