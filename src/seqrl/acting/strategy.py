"""A decoding strategy: condition x planner x score, made and checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from seqrl.conditions import Condition
from seqrl.critics import Critic
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.models.building import MODELS
from seqrl.planners import Planner
from seqrl.registry import CONDITION, PLANNER, SCORE
from seqrl.scores import Score
from seqrl.types import Conditioning

_REMEDIES = {
    "tokens": "use planner=sample or planner=beam",
    "vectors": "use strategy=imitation or, of a model of returns, strategy=return",
    "codes": "use strategy=latent",
}
_METHODS = {"tokens": "method=tt", "vectors": "method=dt", "codes": "method=tap"}


@dataclass(frozen=True)
class Strategy:
    """How a model is decoded. Its parts have settings and no state, so that one strategy serves many policies.

    Attributes:
        planner: the search.
        condition: what plans are conditioned on.
        score: how good a plan is.
    """

    planner: Planner
    condition: Condition
    score: Score

    @property
    def wants_goals(self) -> bool:
        """Whether episodes must have goals."""
        return self.condition.wants_goals or self.score.wants_goals or self.planner.wants_target

    @classmethod
    def build(
        cls,
        layout: Layout,
        *,
        planner: Mapping[str, Any],
        condition: Mapping[str, Any] | None = None,
        score: Mapping[str, Any] | None = None,
        critic: Critic | None = None,
    ) -> Self:
        """Make the parts from component configs, `{"name": ..., **options}`; `check` tells whether a model fits.

        Args:
            layout: of the model.
            planner, condition, score: no condition and the likelihood, if nothing else is given.
            critic: of the same run; None where it has none.

        Raises:
            ConfigError: whatever a component refuses.
        """
        return cls(
            PLANNER.build(planner, critic=critic),
            CONDITION.build(condition or {"name": "none"}),
            SCORE.build(score or {"name": "likelihood"}, discount=layout.step_discount, critic=critic),
        )

    def check(self, model: Model, *, plan_every: int = 1) -> None:
        """Refuse a model that lacks what the strategy needs, and plans that are carried out for longer than they are.

        Args:
            model: trained or not; its weights are not looked at.
            plan_every: actions of a plan that are carried out before the next plan.

        Raises:
            ConfigError: says what is missing and the override that adds it.
        """
        planner, condition, layout = self.planner, self.condition, model.layout
        if not isinstance(model, planner.serves):
            served = [each.made_of for each in MODELS if issubclass(each, planner.serves)]
            raise ConfigError(
                f"planner={PLANNER.name_of(planner)} decodes {' or '.join(served)}, and this checkpoint's "
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
                f"condition.guidance={condition.guidance:g} mixes distributions of tokens, and this checkpoint "
                "predicts vectors; use condition.guidance=1, or train with method=tt_goal"
            )
        condition.check(layout)
        if condition.wants_landmarks and model.landmarks is None:
            raise ConfigError(
                f"condition={CONDITION.name_of(condition)} follows landmarks of the data, and this run fitted none; "
                "train with 'landmarks={spacing: 0.3}' (the distance between two, in the data's units): a finished run "
                "needs no other training for it"
            )
        planner.check_score(self.score)
        planner.check(model, self.score)
        self._check_plan_every(plan_every, layout)

    def conditioning(self, model: Model, goals: Tensor | None, rows: int) -> Conditioning:
        """What the plans of `rows` episodes are conditioned on.

        Args:
            goals: (rows, G) float32 in the data's units, or None.

        Raises:
            ConfigError: goals are needed and missing, or have the wrong size.
        """
        target = goals if self.score.wants_goals or self.planner.wants_target else None
        if self.score.wants_goals and target is None:
            raise ConfigError("the score looks at a goal and none is given; add goals=[[x,y]], or reset(goals=...)")
        told = goals if self.condition.wants_goals else None
        return Conditioning(self.condition.prefix(model, told, rows), self.condition.guidance, target)

    def steps_held(self, plan_every: int, layout: Layout) -> int:
        """How many actions of a plan are carried out: a baseline's plan may end sooner than those beside it."""
        return min(plan_every, self.planner.horizon * layout.chunk)

    def _check_plan_every(self, plan_every: int, layout: Layout) -> None:
        planner = self.planner
        longest = planner.horizon * layout.chunk
        # Baselines decide in every step and may stand beside planners that do not.
        if plan_every < 1 or (planner.asks_model and plan_every > longest):
            raise ConfigError(f"plan_every={plan_every} is outside [1, {longest}], the steps of this planner's plans")
        if plan_every > 1 and layout.stride > layout.chunk:
            raise ConfigError(
                f"plan_every={plan_every} needs actions of consecutive steps, and this checkpoint's layout has "
                f"stride {layout.stride}; use plan_every=1, or train with layout.chunk={layout.stride}"
            )
