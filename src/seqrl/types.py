"""The shape legend, and the records that pass between parts of the project.

Letters in shapes, everywhere in the code:

    B  windows of a batch, or environments     D  model width
    T  transitions of a window                 V  bins of a tokenizer; token id V is the termination token
    S  scalars per transition                  W  beam width
    K  tokens (or vectors) per transition      H  planning horizon in transitions
    L  tokens of a sequence, L = T * K         R  rows of a decoding session (environments x beams)
    P  prefix tokens (a goal), before the sequence
    O, A, G  dimensions of an observation, an action, a goal
    N, E  transitions and episodes of a data set
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Training windows.

    Attributes:
        tokens: (B, T, K) int64 in [0, V]; V is the termination token, which also pads past the end of an episode. For
            tokenizers of vectors or codes (B, T, S) float32, normalised values, 0 past the end.
        mask: (B, T, K or S) bool; False where a token carries no loss as a target.
        prefix: (B, P) int64 in [0, V], V standing for "no goal", or float32 with NaN for it; None where the layout has
            no prefix.
        starts: (B,) int64, steps from the beginning of the episode to that of the window; None for 0.
    """

    tokens: Tensor
    mask: Tensor
    prefix: Tensor | None = None
    starts: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._each(Tensor.pin_memory)

    def share(self, rank: int, world_size: int) -> Batch:
        """The windows of one of `world_size` ranks."""
        return self._each(lambda tensor: tensor[rank::world_size])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        prefix = None if self.prefix is None else change(self.prefix)
        starts = None if self.starts is None else change(self.starts)
        return Batch(change(self.tokens), change(self.mask), prefix, starts)


@dataclass(frozen=True)
class History:
    """What the environments showed so far, tokenized; the start of every plan.

    Rows are right-aligned: the newest transition stands last, and a row with fewer transitions than the longest has
    padding on its left, which nothing attends to.

    Attributes:
        tokens: (B, n * K + k) int64: n past transitions, then the first k tokens of the present one, what is known
            before the action. For models of vectors (B, n + 1, S) float32. For models of codes (B, 0).
        lengths: (B,) int64 in [0, n]: how many past transitions of each row are real.
        prefix: (B, P) int64 goal tokens; (B, G) float32 goals of a model of vectors; (B, O) float32, the present
            observation, for a model of codes; None where the layout has no prefix.
        time: steps since the episodes began.
        observation: (B, O) the present observation in the data's units, for planners that look at it unrounded; None
            where nobody gave one.
        guidance: how many times what the prefix changes about actions counts, 0 or more; see
            `seqrl.decoding.session.GuidedSession`.
    """

    tokens: Tensor
    lengths: Tensor
    prefix: Tensor | None = None
    time: int = 0
    observation: Tensor | None = None
    guidance: float = 1.0


@dataclass(frozen=True)
class Plan:
    """What a planner proposes, one row per environment, the present step first.

    Attributes:
        actions: (B, H, A) float32, in the units of the data.
        value: (B,) float, the score of the plan; comparable only between plans of one planner and score.
        tokens: (B, H, K) int64 of the imagined transitions, the present observation included; None for planners that
            imagine nothing.
        transitions: (B, H, S) the imagined transitions in the units of the data, rewards and values as the planner
            estimated them; None for planners that look no further than the action.
    """

    actions: Tensor
    value: Tensor
    tokens: Tensor | None = None
    transitions: Tensor | None = None
