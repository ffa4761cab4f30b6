"""A policy: a model, a strategy and what was seen so far. What evaluation and users call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.acting.episode_history import EpisodeHistory
from seqrl.acting.extras import Extras, read_extras, require_outcomes
from seqrl.acting.strategy import Strategy
from seqrl.critics import Critic
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.models import Model
from seqrl.types import Plan


class Policy:
    """Acts in a batch of environments: `act(observations) -> actions`.

    Args:
        model: trained; it is put into eval mode.
        strategy: how it is decoded; or None, and component configs instead.
        planner, condition, score: component configs, `{"name": ..., **options}`, of which the strategy is built; see
            `conf/strategy` and `Strategy.build`.
        critic: of the same run, for the strategies that need one; see `seqrl.checkpoints.loading.load_critic`. Of no
            concern to a strategy that is built already.
        seed: of all random choices.
        plan_every: actions of a plan that are carried out before the next plan, 1 or more, at most the horizon times
            `layout.chunk`; fewer where a time budget made the plan shorter.

    Attributes:
        plan: the newest plan of the active environments, for pictures and diagnostics; None before the first.
        goals: (B, G) float32, or None.

    Raises:
        ConfigError: the strategy needs what the model's layout lacks, or an option is wrong.
    """

    def __init__(
        self,
        model: Model,
        strategy: Strategy | None = None,
        *,
        planner: Mapping[str, Any] | None = None,
        condition: Mapping[str, Any] | None = None,
        score: Mapping[str, Any] | None = None,
        critic: Critic | None = None,
        seed: int = 0,
        plan_every: int = 1,
    ) -> None:
        if (strategy is None) == (planner is None):
            given = "neither" if strategy is None else "both"
            raise ConfigError(f"Policy takes a strategy or a planner's config, and {given} was given; give one of them")
        if strategy is None:
            assert planner is not None
            critic = None if critic is None else critic.eval().to(model.hidden.device)
            strategy = Strategy.build(model.layout, planner=planner, condition=condition, score=score, critic=critic)
        strategy.check(model, plan_every=plan_every)
        self.strategy = strategy
        self.model = model.eval()
        self.seed = seed
        self.plan_every = plan_every
        self.plan: Plan | None = None
        self.goals: Tensor | None = None
        self._begin(0)

    def reset(self, num: int, *, goals: np.ndarray | None = None, environments: np.ndarray | None = None) -> None:
        """Begin new episodes in `num` environments.

        Args:
            goals: (num, G) in the data's units; needed by conditions and scores that look at goals, ignored by
                the others.
            environments: (num,) int keys of the random choices; equal keys get equal draws. 0 to num - 1 by default.
        """
        device = self.model.hidden.device
        self._begin(num)
        self._keys = torch.as_tensor(np.arange(num) if environments is None else environments, device=device)
        self.goals = None
        if goals is not None and self.strategy.wants_goals:
            self.goals = torch.as_tensor(np.asarray(goals), dtype=torch.float32, device=device)
            if not self.goals.isfinite().all():
                raise ConfigError("a goal is not finite; give numbers in the data's units")
        self._conditioning = self.strategy.conditioning(self.model, self.goals, num)
        self._guide = None if self.goals is None else self.strategy.condition.follow(self.model, self.goals)
        if self._guide is not None:
            self._guide.seed_draws(self.seed, self._keys)
        self.plan = None

    def _begin(self, rows: int) -> None:
        """Forget what was seen and planned; `rows` environments are next."""
        target = self.strategy.condition.target_return
        device = self.model.hidden.device
        self._seen = EpisodeHistory(self.model.layout, self.model.context, rows, device, target)
        self._queue: list[Tensor] = []  # (B, A) each, the actions of the newest plan that are still to be carried out

    @torch.no_grad()
    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        active: np.ndarray | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> np.ndarray:
        """Choose the next actions.

        Args:
            observations: (B, O).
            rewards: (B,) earned by the previous actions; None in the first step.
            active: (B,) bool, environments that still run; None for all. The others get zeros and cost nothing. Those
                that finished must not come back before `reset`.

            extras: (B, n) or (B,) numbers by name: contexts of the present step, outcomes of the previous actions; see
                `seqrl.acting.extras.read_extras` for which are needed.

        Returns:
            (B, A) float32 actions, as the data has them: not clipped to any action space.
        """
        self._check(observations, rewards, active)
        layout, seen = self.model.layout, self._seen
        device = self.model.hidden.device
        running = np.ones(seen.rows, bool) if active is None else np.asarray(active, bool)
        contexts: Extras = {}
        outcomes: Extras = {}
        if self.strategy.planner.asks_model:
            contexts, outcomes = read_extras(layout, extras, running, self.strategy.condition.contexts, device)
        if seen.present is not None:
            if rewards is None and (layout.has("reward") or layout.has("return")):
                raise ConfigError("the layout has rewards or returns: give act() what the previous actions earned")
            if self.strategy.planner.asks_model:
                require_outcomes(layout, outcomes)
            earned = None if rewards is None else torch.as_tensor(rewards, dtype=torch.float32).to(device)
            seen.earn(earned, outcomes)
        seen.observe(torch.as_tensor(observations, dtype=torch.float32).to(device), contexts)
        if self._guide is not None:
            told = self._guide.choose(seen.observation)  # in every step: it keeps count of them
            if not self._queue:
                self._conditioning = self.strategy.conditioning(self.model, told, seen.rows)
        rows = torch.arange(seen.rows) if active is None else torch.from_numpy(np.flatnonzero(active))
        if not self._queue and len(rows):
            self._replan(rows.to(device))
        nothing = torch.zeros(seen.rows, layout.action_size, device=device)  # all environments have ended
        actions = self._queue.pop(0) if self._queue else nothing
        if active is not None:  # some may have ended since the plan was made
            actions = actions * torch.as_tensor(active, device=device)[:, None]
        seen.act(actions)
        return actions.cpu().numpy()

    def correct(self, actions: np.ndarray) -> None:
        """Say what was carried out instead of the (B, A) actions that `act` chose last; other plans are void."""
        self._seen.correct(torch.as_tensor(actions, dtype=torch.float32).to(self.model.hidden.device))
        self._queue.clear()

    def _check(self, observations: np.ndarray, rewards: np.ndarray | None, active: np.ndarray | None) -> None:
        """Refuse arguments of `act` that do not fit.

        Raises:
            ConfigError: a shape, or an observation of an active environment that is not finite.
        """
        rows, size = self._seen.rows, self.model.layout.field("observation").size
        if not rows:
            raise ConfigError(f"the policy was not reset; call reset({len(observations)}) before the first act")
        if observations.shape != (rows, size):
            raise ConfigError(
                f"observations have shape {observations.shape}; the policy was reset for ({rows}, {size})"
            )
        if rewards is not None and np.shape(rewards) != (rows,):
            raise ConfigError(f"rewards have shape {np.shape(rewards)}; the policy was reset for ({rows},)")
        if active is not None and np.shape(active) != (rows,):
            raise ConfigError(f"active has shape {np.shape(active)}; the policy was reset for ({rows},)")
        unknown = ~np.isfinite(observations).all(1) & (True if active is None else np.asarray(active, bool))
        if unknown.any():
            listed = np.flatnonzero(unknown).tolist()
            raise ConfigError(f"observations of environments {listed} are not finite; give numbers in the data's units")

    def _replan(self, rows: Tensor) -> None:
        """Plan for the active rows and queue the actions that will be carried out."""
        seen = self._seen
        assert seen.present is not None
        history = self.model.history(
            seen.transitions()[rows], seen.present[rows], self._conditioning.of(rows), time=seen.time
        )
        noise = Noise.of(self.seed, self._keys[rows], seen.time)
        self.plan = self.strategy.planner.plan(self.model, history, self.strategy.score, noise)
        planned = self.plan.actions.unflatten(-1, (-1, self.model.layout.action_size)).flatten(1, 2)
        for step in range(min(self.plan_every, planned.shape[1])):
            actions = torch.zeros(seen.rows, planned.shape[2], device=rows.device)
            actions[rows] = planned[:, step].float()
            self._queue.append(actions)
