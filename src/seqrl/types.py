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

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class Batch:
    """Training windows of one kind, a dataclass each: every attribute is a tensor, a row for each window, or None.

    Not frozen, because Lightning converts batches to its precision attribute by attribute. Nobody else changes one.

    Attributes:
        mask: (B, ...) bool, False where nothing is to be learnt.
    """

    mask: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def size(self) -> int:
        """How many tokens, codes or values the windows hold: what throughput counts."""
        record: Any = self
        first: Tensor = getattr(self, fields(record)[0].name)
        return first.numel()

    def to(self, device: torch.device | str) -> Self:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        return self._each(Tensor.pin_memory)

    def without_loss(self) -> Self:
        """The same windows, of which nothing is to be learnt."""
        record: Any = self
        made: Self = replace(record, mask=torch.zeros_like(self.mask))
        return made

    def share(self, rank: int, world_size: int) -> Self:
        """The windows of one of `world_size` ranks."""
        return self._each(lambda tensor: tensor[rank::world_size])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        record: Any = self
        tensors = {each.name: getattr(self, each.name) for each in fields(record)}
        made: Self = replace(record, **{name: change(each) for name, each in tensors.items() if each is not None})
        return made


@dataclass
class TokenBatch(Batch):
    """Windows for a model of tokens.

    Attributes:
        tokens: (B, T, K) int64 in [0, V]; V is the termination token, which also pads past the end of an episode.
        mask: (B, T, K).
        goal: (B, P) int64 in [0, V], V standing for "no goal"; None where the layout has none.
    """

    tokens: Tensor
    mask: Tensor
    goal: Tensor | None = None


@dataclass
class CodeBatch(Batch):
    """Windows for a prior over codes.

    Attributes:
        codes: (B, n) int64 in [0, V), n = T // steps_per_code.
        mask: (B, n).
        state: (B, O) float32, the first observation of each window, normalised.
    """

    codes: Tensor
    mask: Tensor
    state: Tensor


@dataclass
class VectorBatch(Batch):
    """Windows for a model of vectors.

    Attributes:
        values: (B, T, S) float32, normalised, 0 past the end of the episode; discrete fields as they are.
        mask: (B, T).
        goal: (B, G) float32, normalised, NaN standing for "no goal"; None where the layout has none.
        starts: (B,) int64, steps from the beginning of the episode to that of the window; None for 0.
    """

    values: Tensor
    mask: Tensor
    goal: Tensor | None = None
    starts: Tensor | None = None


@dataclass
class ValueBatch(Batch):
    """Windows for an autoencoder of trajectories.

    Attributes:
        values: (B, T, S) float32, normalised, NaN past the end of the episode.
        mask: (B, T).
    """

    values: Tensor
    mask: Tensor


@dataclass(frozen=True)
class LossInputs:
    """What a model of tokens or codes predicts of a batch.

    Attributes:
        arguments: of the model's `forward`, which gives (B, M, V + 1) logits of the targets.
        targets: (B, M) int64 in [0, V].
        mask: (B, M) bool, False where a target carries no loss.
        places: (M,) int64 in [0, K), which token of its transition each target is.
    """

    arguments: tuple[Tensor | None, ...]
    targets: Tensor
    mask: Tensor
    places: Tensor


@dataclass(frozen=True)
class Conditioning:
    """What plans are conditioned on, a row for each environment: what a strategy hands to `Model.history`.

    Attributes:
        goal: (B, ...) as `Model.encode_goals` made it; None where the layout has no goal.
        guidance: how many times what the goal changes about actions counts, 0 or more; see
            `seqrl.decoding.guided.GuidedSession`.
        target: (B, G) goals in the data's units, for scores and planners that look at them; None where none does.
    """

    goal: Tensor | None = None
    guidance: float = 1.0
    target: Tensor | None = None

    def of(self, rows: Tensor) -> Conditioning:
        """That of some environments."""
        goal, target = (None if each is None else each[rows] for each in (self.goal, self.target))
        return Conditioning(goal, self.guidance, target)


@dataclass(frozen=True)
class History(ABC):
    """What the environments showed so far, as one kind of model reads it; the start of every plan.

    Attributes:
        time: steps since the episodes began.
        observation: (B, O) the present observation in the data's units, for planners that look at it unrounded; None
            where nobody gave one.
        target: (B, G) goals in the data's units, for scores and planners that look at them; None where none does.
    """

    time: int = field(default=0, kw_only=True)
    observation: Tensor | None = field(default=None, kw_only=True)
    target: Tensor | None = field(default=None, kw_only=True)

    @abstractmethod
    def __len__(self) -> int:
        """B, environments."""


@dataclass(frozen=True)
class TokenHistory(History):
    """Tokens of the past and of the present observation.

    Rows are right-aligned: the newest transition stands last, and a row with fewer transitions than the longest has
    padding on its left, which nothing attends to.

    Attributes:
        tokens: (B, n * K + k) int64: n past transitions, then the first k tokens of the present one, what is known
            before the action.
        lengths: (B,) int64 in [0, n]: how many past transitions of each row are real.
        goal: (B, P) int64 in [0, V], V standing for "no goal"; None where the layout has none.
        guidance: how many times what the goal changes about actions counts, 0 or more; see
            `seqrl.decoding.guided.GuidedSession`.
    """

    tokens: Tensor
    lengths: Tensor
    goal: Tensor | None = None
    guidance: float = 1.0

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class CodeHistory(History):
    """The present observation: a prior over codes knows nothing of the past.

    Attributes:
        state: (B, O) float32, the present observation, normalised.
    """

    state: Tensor

    def __len__(self) -> int:
        return len(self.state)


@dataclass(frozen=True)
class VectorHistory(History):
    """Vectors of the past and of the present transition; all rows are equally long.

    Attributes:
        values: (B, n + 1, S) float32, normalised: n past transitions and the present one, of which what stands before
            the action is known.
        goal: (B, G) float32, normalised, NaN standing for "no goal"; None where the layout has none.
    """

    values: Tensor
    goal: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Opening:
    """How a model of tokens or codes begins a sequence that decoding continues.

    Attributes:
        tokens: (B, n) int64, the known ones; their padding as in `TokenHistory`.
        lengths: (B,) int64, how many whole transitions of each row are real.
        prefix: (B, P, D) float, what stands before the tokens, embedded; P may be 0.
        everywhere: (B, D) float, what is added to every embedded token; None for nothing.
    """

    tokens: Tensor
    lengths: Tensor
    prefix: Tensor
    everywhere: Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """What a planner proposes, one row per environment, the present step first.

    Attributes:
        actions: (B, H, A) float32, in the units of the data; with `layout.chunk`, A counts the numbers of all actions
            of a transition, the first ones first.
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
