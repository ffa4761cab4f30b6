"""A policy: a sequence model, a decoding strategy and what was seen so far. What evaluation and users call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.conditions import Condition
from seqrl.decoding import check_cache
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.model import SequenceModel
from seqrl.planners import Planner
from seqrl.registry import CONDITION, PLANNER, SCORE
from seqrl.sampling import Noise
from seqrl.scores import Score
from seqrl.types import History, Plan

# The published planner writes this return-to-go into every past transition: the top bin, "all went well".
OPTIMISTIC_VALUE = 1e6


def build_strategy(
    config: Mapping[str, Any], layout: Layout, *, window: int, relative: bool
) -> tuple[Planner, Condition, Score]:
    """Make the parts of a strategy, or refuse one that a model of this layout and training window cannot serve.

    Args:
        config: with `planner`, `condition`, `score` and `plan_every`, as in `conf/evaluate.yaml`.
        relative: whether the model's backbone has relative positions.

    Raises:
        ConfigError: says what is missing and the override that adds it.
    """
    planner: Planner = PLANNER.build(config["planner"])
    condition: Condition = CONDITION.build(config["condition"])
    score: Score = SCORE.build(config["score"], discount=layout.discount)
    condition.check(layout)
    planner.check(layout, score)
    context = config["planner"].get("context")
    if context is not None and not 2 <= context <= window:
        raise ConfigError(f"planner.context={context} is outside [2, {window}], the trained window")
    if config["planner"].get("cache") is not None:
        check_cache(config["planner"]["cache"], relative=relative)
    if not 1 <= config["plan_every"] <= planner.horizon:
        raise ConfigError(
            f"plan_every={config['plan_every']} is outside [1, {planner.horizon}], the steps of this planner's plans"
        )
    return planner, condition, score


class Policy:
    """Acts in a batch of environments: `act(observations) -> actions`.

    Args:
        model: trained; it is put into eval mode.
        planner, condition, score: component configs, `{"name": ..., **options}`; see `conf/strategy`.
        seed: of all random choices.
        plan_every: actions of a plan that are carried out before the next plan, 1 or more, at most the horizon; fewer
            where a time budget made the plan shorter.

    Attributes:
        plan: the newest plan of the active environments, for pictures and diagnostics; None before the first.
        goals: (B, G) float32, or None.

    Raises:
        ConfigError: the strategy needs what the model's layout lacks, or an option is wrong.
    """

    def __init__(
        self,
        model: SequenceModel,
        *,
        planner: Mapping[str, Any],
        condition: Mapping[str, Any] | None = None,
        score: Mapping[str, Any] | None = None,
        seed: int = 0,
        plan_every: int = 1,
    ) -> None:
        config: dict[str, Any] = {
            "planner": planner,
            "condition": condition or {"name": "none"},
            "score": score or {"name": "likelihood"},
            "plan_every": plan_every,
        }
        self.planner, self.condition, self.score = build_strategy(
            config, model.layout, window=model.context, relative=model.backbone.relative
        )
        self.model = model.eval()
        self.seed = seed
        self.plan_every = plan_every
        self.plan: Plan | None = None
        self.goals: Tensor | None = None
        self._rows = 0

    def reset(self, num: int, *, goals: np.ndarray | None = None, environments: np.ndarray | None = None) -> None:
        """Begin new episodes in `num` environments.

        Args:
            goals: (num, G) in the data's units; needed by goal conditions, ignored by the others.
            environments: (num,) int keys of the random choices; equal keys get equal draws. 0 to num - 1 by default.
        """
        device = self.model.hidden.device
        self._rows = num
        self._time = 0
        self._keys = torch.as_tensor(np.arange(num) if environments is None else environments, device=device)
        self.goals = None
        if goals is not None and self.condition.wants_goals:
            self.goals = torch.as_tensor(np.asarray(goals), dtype=torch.float32, device=device)
        self._prefix = self.condition.prefix(self.model, self.goals, num)
        self._past = torch.zeros(num, 0, self.model.tokens_per_step, dtype=torch.int64, device=device)
        self._current: Tensor | None = None  # (B, S) the transition that is being lived through
        self._queue: list[Tensor] = []
        self.plan = None

    @torch.no_grad()
    def act(
        self, observations: np.ndarray, rewards: np.ndarray | None = None, active: np.ndarray | None = None
    ) -> np.ndarray:
        """Choose the next actions.

        Args:
            observations: (B, O).
            rewards: (B,) earned by the previous actions; None in the first step.
            active: (B,) bool, environments that still run; None for all. The others get zeros and cost nothing. Those
                that finished must not come back before `reset`.

        Returns:
            (B, A) float32 actions, as the data has them: not clipped to any action space.
        """
        layout = self.model.layout
        if observations.shape != (self._rows, layout.field("observation").size):
            raise ConfigError(
                f"observations have shape {observations.shape}; the policy was reset for "
                f"({self._rows}, {layout.field('observation').size})"
            )
        device = self._past.device
        if self._current is not None:
            if rewards is None and layout.has("reward"):
                raise ConfigError("the layout has rewards: give act() those that the previous actions earned")
            self._remember(self._current, rewards)
        current = torch.zeros(self._rows, layout.size, device=device)
        current[:, layout.field("observation").slice] = torch.as_tensor(observations, dtype=torch.float32).to(device)
        rows = torch.arange(self._rows) if active is None else torch.from_numpy(np.flatnonzero(active))
        rows = rows.to(device)
        if not self._queue and len(rows):
            self._replan(current, rows)
        nothing = torch.zeros(self._rows, layout.field("action").size, device=device)  # all environments have ended
        actions = self._queue.pop(0) if self._queue else nothing  # (B, A)
        if active is not None:  # some may have ended since the plan was made
            actions = actions * torch.as_tensor(active, device=device)[:, None]
        current[:, layout.field("action").slice] = actions
        self._current = current
        self._time += 1
        return actions.cpu().numpy()

    def _remember(self, transition: Tensor, rewards: np.ndarray | None) -> None:
        layout = self.model.layout
        if layout.has("reward") and rewards is not None:
            transition[:, layout.field("reward").start] = torch.as_tensor(rewards, dtype=torch.float32)
        if layout.has("value"):
            transition[:, layout.field("value").start] = OPTIMISTIC_VALUE
        tokens = self.model.tokenizer.encode(transition)[:, None]
        self._past = torch.cat([self._past, tokens], dim=1)[:, -(self.model.context - 1) :]

    def _replan(self, current: Tensor, rows: Tensor) -> None:
        """Plan for the active rows and queue the actions that will be carried out."""
        size = self.model.layout.field("observation").size
        present = self.model.tokenizer.encode(current)[:, :size]
        tokens = torch.cat([self._past.flatten(1), present], dim=1)[rows]
        lengths = torch.full((len(rows),), self._past.shape[1], dtype=torch.int64, device=rows.device)
        prefix = None if self._prefix is None else self._prefix[rows]
        noise = Noise.of(self.seed, self._keys[rows], self._time)
        self.plan = self.planner.plan(self.model, History(tokens, lengths, prefix), self.score, noise)
        for step in range(min(self.plan_every, self.plan.actions.shape[1])):
            actions = torch.zeros(self._rows, self.plan.actions.shape[2], device=rows.device)
            actions[rows] = self.plan.actions[:, step].float()
            self._queue.append(actions)
