"""A policy: a sequence model, a decoding strategy and what was seen so far. What evaluation and users call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.conditions import Condition
from seqrl.critics import Critic
from seqrl.decoding.noise import Noise
from seqrl.decoding.session import check_session
from seqrl.errors import ConfigError
from seqrl.models import Model
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.models.building import MODELS
from seqrl.models.code import CodeModel
from seqrl.planners import Planner
from seqrl.registry import CONDITION, PLANNER, SCORE
from seqrl.scores import Score
from seqrl.types import Plan, TokenHistory

_REMEDIES = {
    "tokens": "use planner=sample or planner=beam",
    "vectors": "use strategy=imitation or, of a model of returns, strategy=return",
    "codes": "use strategy=latent",
}
_METHODS = {"tokens": "method=tt", "vectors": "method=dt", "codes": "method=tap"}
# The published planner writes this return-to-go into every past transition: the top bin, "all went well".
OPTIMISTIC_VALUE = 1e6


def build_strategy(
    config: Mapping[str, Any], model: Model, critic: Critic | None = None
) -> tuple[Planner, Condition, Score]:
    """Make the parts of a strategy, or refuse one that a model cannot serve.

    Args:
        config: with `planner`, `condition`, `score` and `plan_every`, as in `conf/evaluate.yaml`.
        model: trained or not; its weights are not looked at.
        critic: of the same run; None where it has none.

    Raises:
        ConfigError: says what is missing and the override that adds it.
    """
    layout, window = model.layout, model.context
    planner: Planner = PLANNER.build(config["planner"], critic=critic)
    condition: Condition = CONDITION.build(config["condition"])
    score: Score = SCORE.build(config["score"], discount=layout.step_discount, critic=critic)
    if not isinstance(model, planner.serves):
        served = [each.made_of for each in MODELS if issubclass(each, planner.serves)]
        raise ConfigError(
            f"planner={config['planner']['name']} decodes {' or '.join(served)}, and this checkpoint's "
            f"tokenizer makes {model.made_of}; {_REMEDIES[model.made_of]}, or train with "
            f"{' or '.join(_METHODS[each] for each in served)}"
        )
    if layout.has("return") and condition.target_return is None and planner.asks_model:
        raise ConfigError(
            "the checkpoint's layout has a 'return' field, so that every decision needs a desired return; use "
            "strategy=return condition.target=... (of a whole episode, in the units of the data's rewards)"
        )
    if condition.guidance != 1 and planner.asks_model and not isinstance(model, AutoregressiveModel):
        raise ConfigError(
            f"condition.guidance={condition.guidance:g} mixes distributions of tokens, and this checkpoint predicts "
            "vectors; use condition.guidance=1, or train with method=tt_goal"
        )
    condition.check(layout)
    planner.check(layout, score)
    context = config["planner"].get("context")
    shortest = model.shortest_context
    if context is not None and not shortest <= context <= window:
        raise ConfigError(
            f"planner.context={context} is outside [{shortest}, {window}], the trained window; use "
            "planner.context=null for all of it"
        )
    if config["planner"].get("cache") is not None and isinstance(model, AutoregressiveModel):
        check_session(model, cache=config["planner"]["cache"])
    if isinstance(model, CodeModel) and planner.asks_model:
        model.tokenizer.codes_of_plan(planner.horizon, window)
    # Baselines decide in every step and may stand beside planners that do not.
    if config["plan_every"] < 1 or (planner.asks_model and config["plan_every"] > planner.horizon):
        raise ConfigError(
            f"plan_every={config['plan_every']} is outside [1, {planner.horizon}], the steps of this planner's plans"
        )
    if config["plan_every"] > 1 and layout.stride > 1:
        raise ConfigError(
            f"plan_every={config['plan_every']} needs actions of consecutive steps, and this checkpoint's layout has "
            f"stride {layout.stride}; use plan_every=1"
        )
    return planner, condition, score


class Policy:
    """Acts in a batch of environments: `act(observations) -> actions`.

    Args:
        model: trained; it is put into eval mode.
        planner, condition, score: component configs, `{"name": ..., **options}`; see `conf/strategy`.
        critic: of the same run, for the strategies that need one; see `seqrl.checkpoints.loading.load_critic`.
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
        model: Model,
        *,
        planner: Mapping[str, Any],
        condition: Mapping[str, Any] | None = None,
        score: Mapping[str, Any] | None = None,
        critic: Critic | None = None,
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
            config, model, None if critic is None else critic.eval().to(model.hidden.device)
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
            if not self.goals.isfinite().all():
                raise ConfigError("a goal is not finite; give numbers in the data's units")
        self._prefix = self.condition.prefix(self.model, self.goals, num)
        size = self.model.layout.size
        self._past = torch.zeros(num, 0, size, device=device)  # (B, n, S) values of the steps so far, the newest last
        self._current: Tensor | None = None  # (B, S) the step that is being lived through
        target = self.condition.target_return
        self._desired = torch.full((num,), float("nan") if target is None else target, device=device)
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
        if rewards is not None and np.shape(rewards) != (self._rows,):
            raise ConfigError(f"rewards have shape {np.shape(rewards)}; the policy was reset for ({self._rows},)")
        if active is not None and np.shape(active) != (self._rows,):
            raise ConfigError(f"active has shape {np.shape(active)}; the policy was reset for ({self._rows},)")
        unknown = ~np.isfinite(observations).all(1) & (True if active is None else np.asarray(active, bool))
        if unknown.any():
            listed = np.flatnonzero(unknown).tolist()
            raise ConfigError(f"observations of environments {listed} are not finite; give numbers in the data's units")
        device = self._past.device
        if self._current is not None:
            if rewards is None and (layout.has("reward") or layout.has("return")):
                raise ConfigError("the layout has rewards or returns: give act() what the previous actions earned")
            self._remember(self._current, rewards)
        current = torch.zeros(self._rows, layout.size, device=device)
        current[:, layout.field("observation").slice] = torch.as_tensor(observations, dtype=torch.float32).to(device)
        if layout.has("return"):
            current[:, layout.field("return").start] = self._desired
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

    def _remember(self, step: Tensor, rewards: np.ndarray | None) -> None:
        layout = self.model.layout
        if rewards is not None:
            earned = torch.as_tensor(rewards, dtype=torch.float32).to(step.device)
            if layout.has("reward"):
                step[:, layout.field("reward").start] = earned
            self._desired = (self._desired - earned) / layout.discount if layout.discount else self._desired
        if layout.has("value"):
            step[:, layout.field("value").start] = OPTIMISTIC_VALUE
        kept = (self.model.context - 1) * layout.stride
        self._past = torch.cat([self._past, step[:, None]], dim=1)[:, -kept:] if kept else self._past

    def _transitions(self) -> Tensor:
        """(B, n, S) past transitions, `stride` steps apart: the rewards between two of them add up."""
        layout, steps = self.model.layout, self._past
        if layout.stride == 1:
            return steps
        whole = steps.shape[1] // layout.stride
        pieces = steps[:, steps.shape[1] - whole * layout.stride :].unflatten(1, (whole, layout.stride))
        found = pieces[:, :, 0].clone()
        if layout.has("reward"):
            powers = layout.discount ** torch.arange(layout.stride, device=steps.device)
            reward = layout.field("reward").start
            found[..., reward] = (pieces[..., reward] * powers).sum(-1)
        return found

    def _replan(self, current: Tensor, rows: Tensor) -> None:
        """Plan for the active rows and queue the actions that will be carried out."""
        prefix = None if self._prefix is None else self._prefix[rows]
        history = self.model.history(self._transitions()[rows], current[rows], prefix, time=self._time)
        observation = current[rows, self.model.layout.field("observation").slice]
        history = replace(history, observation=observation)
        if isinstance(history, TokenHistory):
            history = replace(history, guidance=self.condition.guidance)
        noise = Noise.of(self.seed, self._keys[rows], self._time)
        self.plan = self.planner.plan(self.model, history, self.score, noise)
        for step in range(min(self.plan_every, self.plan.actions.shape[1])):
            actions = torch.zeros(self._rows, self.plan.actions.shape[2], device=rows.device)
            actions[rows] = self.plan.actions[:, step].float()
            self._queue.append(actions)
