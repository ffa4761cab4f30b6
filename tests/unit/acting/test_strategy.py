"""Strategies: what is checked against a model, and what of a planner is nobody's business but its own."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.errors import ConfigError, PluginError
from seqrl.models import Model
from seqrl.models.token import TokenModel
from seqrl.planners import Planner
from seqrl.planners.sample import SamplePlanner
from seqrl.testing import samples
from seqrl.types import Plan

SAMPLE = {"name": "sample"}


class _Stay(Planner):
    """A planner of a plugin, with options that mean something else than those of the built-in ones."""

    horizon = 4

    def __init__(self, context: str = "wide", cache: int = 999) -> None:
        self.context, self.cache = context, cache

    def check(self, model: TokenModel, score: Any) -> None:
        """Fits everything."""

    def plan(self, model: TokenModel, history: Any, score: Any, noise: Any) -> Plan:
        size = model.layout.field("action").size
        return Plan(torch.full((len(history), self.horizon, size), 0.25), torch.zeros(len(history)))


def strategy(planner: Planner) -> Strategy:
    parts = Strategy.build(samples.layout(), planner=SAMPLE)
    return Strategy(planner, parts.condition, parts.score)


def test_no_more_actions_of_a_plan_are_carried_out_than_it_has() -> None:
    layout = samples.layout()
    assert [strategy(_Stay()).steps_held(each, layout) for each in (1, 4, 1000)] == [1, 4, 4]


def test_a_policy_takes_a_strategy_or_what_one_is_built_of() -> None:
    model = samples.model(samples.layout())
    built = Strategy.build(model.layout, planner={**SAMPLE, "temperature": 0.5}, score={"name": "reward"})
    actions = []
    for policy in (
        Policy(model, built, seed=3),
        Policy(model, planner={**SAMPLE, "temperature": 0.5}, score={"name": "reward"}, seed=3),
    ):
        policy.reset(3)
        actions.append(policy.act(np.zeros((3, samples.OBSERVATION_SIZE))))
    np.testing.assert_array_equal(*actions)
    with pytest.raises(ConfigError, match="a strategy or a planner's config, and both was given"):
        Policy(model, built, planner=SAMPLE)
    with pytest.raises(ConfigError, match="and neither was given; give one of them"):
        Policy(model)


def test_a_strategy_stays_what_was_checked() -> None:
    with pytest.raises(FrozenInstanceError):
        strategy(_Stay()).planner = SamplePlanner()  # type: ignore[misc]


def test_options_of_a_planner_are_its_own_business() -> None:
    """`context` and `cache` of a plugin are judged by its own `check`, and by nothing else."""
    model = samples.model(samples.layout())
    policy = Policy(model, strategy(_Stay()), plan_every=4)
    policy.reset(2)
    assert (policy.act(np.zeros((2, samples.OBSERVATION_SIZE))) == 0.25).all()
    with pytest.raises(ConfigError, match=r"plan_every=5 is outside \[1, 4\]"):
        Policy(model, strategy(_Stay()), plan_every=5)


@pytest.mark.parametrize(("planner", "context"), [("sample", 7), ("beam", 1)])
def test_built_in_planners_judge_their_context(planner: str, context: int) -> None:
    model = samples.model(samples.layout())
    made = Strategy.build(model.layout, planner={"name": planner, "context": context})
    with pytest.raises(ConfigError, match=rf"planner.context={context} is outside \[2, 6\], the trained window"):
        made.check(model)
    Strategy.build(model.layout, planner={"name": planner, "context": 6}).check(model)


def test_models_of_vectors_may_be_shown_one_transition() -> None:
    model = samples.vector_model(samples.layout())
    Strategy.build(model.layout, planner={**SAMPLE, "context": 1}).check(model)
    with pytest.raises(ConfigError, match=r"planner.context=7 is outside \[1, 6\]"):
        Strategy.build(model.layout, planner={**SAMPLE, "context": 7}).check(model)


def test_a_planner_serves_classes_of_models() -> None:
    codes, tokens = samples.code_model(samples.layout()), samples.model(samples.layout())
    with pytest.raises(ConfigError, match="planner=_Stay decodes tokens, and this checkpoint's tokenizer makes codes"):
        strategy(_Stay()).check(codes)
    anything = type("Anything", (_Stay,), {"serves": Model})
    for model in (codes, tokens):
        strategy(anything()).check(model)


def test_a_planner_for_an_older_version_is_told_what_to_write() -> None:
    sentence = r"planner class .* is written for an older seqrl; give it check\(self, model, score\)"
    with pytest.raises(PluginError, match=sentence):
        type("Old", (_Stay,), {"check": lambda self, layout, score: None})
    with pytest.raises(PluginError, match=sentence):
        type("Older", (_Stay,), {"serves": ("tokens", "vectors")})
