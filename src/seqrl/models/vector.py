"""Sequence models of vectors: a field (or several together) is one position, and predictions are regressions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrl.attention import causal_mask
from seqrl.attention.full import FullAttention
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.registry import BACKBONE, TOKENIZER
from seqrl.tokenizers import VectorScaler
from seqrl.types import Conditioning, VectorHistory


class VectorModel(Model):
    """Embeds every vector of a transition by a linear layer of its own, and predicts fields from the vector before.

    With the layout `[return, observation, action]` this is the Decision Transformer; with `[observation, action]`, one
    transition and the backbone `mlp` it is behaviour cloning. Positions are steps of the episode, so that a backbone
    with learned positions adds the timestep embedding of the Decision Transformer. Discrete fields enter as one-hot
    vectors and are predicted as logits; actions end in a tanh, in the range of the data.

    A goal is a vector before the sequence, or part of the vectors that `layout.vectors` names it in. It carries a flag
    that says whether it is one, because zeros are a goal, too.

    Args:
        layout: what a transition is made of.
        tokenizer, backbone: component configs, `{"name": ..., **options}`.
        context: T, transitions of a training window, and the longest context at decoding time.
        longest_episode: steps; later ones than were trained count as the last that was.

    Raises:
        ConfigError: a tokenizer of tokens, a value that is not hidden, or a backbone to which what decides the action
            would not be shown.

    Reference: Chen et al. 2021, section 3 and appendix A.
    """

    reads = VectorScaler
    made_of = "vectors"
    shortest_context = 1

    def __init__(
        self,
        layout: Layout,
        tokenizer: Mapping[str, Any],
        backbone: Mapping[str, Any],
        *,
        context: int,
        longest_episode: int,
    ) -> None:
        super().__init__()
        self._refuse_differences(layout)
        self.layout = layout
        self.context = context
        built = TOKENIZER.build(tokenizer, size=layout.size, layout=layout, window=context)
        if not isinstance(built, VectorScaler):
            raise ConfigError(f"tokenizer={tokenizer['name']} makes no vectors; use tokenizer=continuous")
        self.tokenizer: VectorScaler = built
        if layout.has("value") and not layout.field("value").hidden:
            raise ConfigError(
                "layout.fields.value tells the future, which models of vectors would be shown; use "
                "layout.fields.value.hidden=true or '~layout.fields.value'"
            )
        self.tokens_per_step = len(layout.vectors)
        self.goal_size = 0 if layout.goal is None else len(layout.goal.dims)
        self.prefix_size = int(self.goal_size > 0 and not any("goal" in group for group in layout.vectors))
        self.longest_episode = longest_episode
        self.backbone = BACKBONE.build(backbone, max_length=longest_episode)
        places = {name: place for place, group in enumerate(layout.vectors) for name in group}
        decisive = {*layout.known} | ({"goal"} if layout.goal else set())
        if not self.backbone.sees_context and not decisive <= set(layout.vectors[places["action"] - 1]):
            raise ConfigError(
                f"backbone={backbone['name']} sees one vector at a time, and the action depends on "
                f"{', '.join(sorted(decisive))}; use one vector for all of it (layout.vectors, as in "
                "layout=rvs_return and layout=rvs_goal), or gpt or llama"
            )
        dim = self.backbone.dim
        # Biases of zero would leave of a return, a single number, no more than its sign behind the norm.
        self.embeddings = nn.ModuleList(nn.Linear(self._width(group), dim) for group in layout.vectors)
        if self.prefix_size:
            self.goal_embedding = nn.Linear(self.goal_size + 1, dim)
        self.norm = nn.Identity() if self.backbone.norms_input else nn.LayerNorm(dim)
        predicted = [f for f in layout.fields if f.loss_weight > 0 and (places[f.name] > 0 or context > 1)]
        self.heads = nn.ModuleDict({f.name: nn.Linear(dim, sum(layout.choices(f.name)) or f.size) for f in predicted})
        self._before = {f.name: places[f.name] - 1 for f in predicted}  # -1: the last vector of the transition before
        hidden = [any(f.hidden for f in layout.fields if f.name in group) for group in layout.vectors]
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that are predicted, in order."""
        return tuple(self.heads)

    @property
    def modal_fields(self) -> tuple[str, ...]:
        return tuple(name for name in self.heads if name in self.layout.categories)

    def follows_a_transition(self, field: str) -> bool:
        """Whether a field is predicted from the transition before, so that nothing comes before the first."""
        return self._before[field] < 0

    def forward(self, values: Tensor, goal: Tensor | None = None, starts: Tensor | None = None) -> dict[str, Tensor]:
        """Predict fields from what stands before them.

        Args:
            values: (B, T, S) float32, normalised; discrete fields as they are.
            goal: (B, G) normalised goals, NaN for none; needed if and only if the layout has a goal.
            starts: (B,) steps of the episode before the first transition; 0 by default.

        Returns:
            (B, T, size) normalised values of every field with a loss weight, or (B, T, n) logits of a discrete one,
            side by side where it has several scalars. What the transition before predicts means nothing in the first
            one.
        """
        batch, length = values.shape[:2]
        values = values.to(next(self.embeddings.parameters()).dtype)  # statistics are not rounded
        goal = None if goal is None else goal.to(values)
        groups = zip(self.layout.vectors, self.embeddings, strict=True)
        parts = [embed(self._inputs(group, values, goal)) for group, embed in groups]
        x = torch.stack(parts, dim=2).flatten(1, 2)  # (B, T * K, D)
        first = torch.zeros(batch, dtype=torch.int64, device=values.device) if starts is None else starts
        steps = first[:, None] + torch.arange(length, device=values.device) * self.layout.stride
        positions = steps.clamp(max=self.longest_episode - 1).repeat_interleave(self.tokens_per_step, dim=1)
        if self.prefix_size:
            assert goal is not None
            x = torch.cat([self.goal_embedding(_flagged(goal))[:, None], x], dim=1)
            positions = torch.cat([positions[:, :1], positions], dim=1)
        hidden = torch.cat([self.hidden.new_zeros(self.prefix_size), self.hidden.repeat(length)])
        mask = causal_mask(x.shape[1], x.device) & ~hidden
        features = self.backbone(self.norm(x), positions, FullAttention(mask[None, None]))[:, self.prefix_size :]
        features = features.unflatten(1, (length, self.tokens_per_step))
        found = {}
        for name, place in self._before.items():
            source = features[:, :, place] if place >= 0 else F.pad(features[:, :-1, -1], (0, 0, 1, 0))
            found[name] = self.heads[name](source)
            if name == "action" and name not in self.layout.categories:
                found[name] = found[name].tanh()
        return found

    def encode_goals(self, goals: Tensor | None, rows: int) -> Tensor | None:
        """(rows, G) normalised goals, NaN for the null goal."""
        if self.layout.goal is None:
            return None
        if goals is None:
            return torch.full((rows, self.goal_size), torch.nan, device=self.hidden.device)
        values = goals.new_zeros(rows, self.layout.size)
        values[:, self.goal_columns] = goals
        return self.tokenizer.normalise(values)[:, self.goal_columns]

    @property
    def goal_columns(self) -> list[int]:
        """Which scalars of a transition are the dimensions of the goal; empty without a goal."""
        dims = () if self.layout.goal is None else self.layout.goal.dims
        return [self.layout.field("observation").start + dim for dim in dims]

    def history(
        self, past: Tensor, present: Tensor, conditioning: Conditioning | None = None, *, time: int = 0
    ) -> VectorHistory:
        values = self.tokenizer.normalise(torch.cat([past, present[:, None]], dim=1))
        given = conditioning or Conditioning()
        observation = present[:, self.layout.field("observation").slice]
        return VectorHistory(values, given.goal, time=time, observation=observation, target=given.target)

    def act(self, history: VectorHistory, *, context: int | None = None) -> Tensor:
        """(B, A) actions in the data's units; (B, n) logits of discrete ones, side by side where A is above 1."""
        values = history.values[:, -(context or self.context) :]
        first = max(0, history.time - (values.shape[1] - 1) * self.layout.stride)
        starts = torch.full((len(values),), first, dtype=torch.int64, device=values.device)
        action = self(values, history.goal, starts)["action"][:, -1]
        if "action" in self.layout.categories:
            return action
        found = values.new_zeros(len(values), self.layout.size)
        found[:, self.layout.field("action").slice] = action
        return self.tokenizer.denormalise(found)[:, self.layout.field("action").slice]

    def cast(self, dtype: torch.dtype) -> Self:
        raise ConfigError("models of vectors are evaluated in float32, and are small; use precision=float32")

    def _width(self, group: tuple[str, ...]) -> int:
        """Inputs of the embedding of one vector."""
        sizes = {f.name: sum(self.layout.choices(f.name)) or f.size for f in self.layout.fields}
        return sum(self.goal_size + 1 if name == "goal" else sizes[name] for name in group)

    def _inputs(self, group: tuple[str, ...], values: Tensor, goal: Tensor | None) -> Tensor:
        """(B, T, width) inputs of one vector."""
        parts = []
        for name in group:
            if name == "goal":
                assert goal is not None
                parts.append(_flagged(goal)[:, None].expand(-1, values.shape[1], -1))
                continue
            value = values[..., self.layout.field(name).slice]
            if name in self.layout.categories:
                whole, counts = value.long(), self.layout.choices(name)
                each = [F.one_hot(whole[..., column], count) for column, count in enumerate(counts)]
                value = torch.cat(each, dim=-1).to(values.dtype)
            parts.append(value)
        return torch.cat(parts, dim=-1)


def _flagged(goals: Tensor) -> Tensor:
    """(B, G + 1): goals, zeros where there is none, and whether there is one."""
    known = ~goals.isnan().any(-1, keepdim=True)
    return torch.cat([goals.nan_to_num(0.0), known.to(goals.dtype)], dim=-1)
