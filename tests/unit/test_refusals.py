"""Every strategy with every kind of checkpoint: served, or refused with what is missing and the words that add it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml

from seqrl.acting.strategy import Strategy
from seqrl.config import RunConfig
from seqrl.critics import build_critic
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.models.building import build_model
from seqrl.paths import config_dir

GOAL = r"no goal, .* 'layout\.goal=\{dims: \[0, 1\]"
VALUE = r"no 'value' field .*'\+layout\.fields\.value=\{hidden: true\}'"
REWARD = r"no 'reward' field .*'\+layout\.fields\.reward=\{\}'"
RETURN = r"no 'return' field .*method=dt"
TARGET = r"has a 'return' field, .*strategy=return condition\.target="
CRITIC = "needs a critic .*critic=iql"
ACTOR = r"lets a critic's policy act .*train with critic=iql, or use planner\.(actor_share=0|follow=model)"
PENALTY = r"layout\.termination_penalty=null"
TOKENS, TOKENS_OR_VECTORS = "decodes tokens, .*or train with method=tt$", "decodes tokens or vectors, .*method=tt or"
PLACE, GRAPH = r"distance to a goal .*layout=tt_goal", r"train with 'landmarks=\{spacing: 0\.3\}'"
MIXES = "guidance=3 mixes distributions of tokens, .*method=tt_goal"
CODES = "decodes codes, .*method=tap$"

CHECKPOINTS = (
    *("tt", "tt with iql", "tt without penalty with iql", "tt_goal", "tt less value", "tt less reward"),
    *("dt", "bc", "rvs_goal", "rvs_return", "tap", "tap less value"),
    *("tt_difference", "tt_difference without penalty with iql"),
)
ALL = [None] * len(CHECKPOINTS)
EXPECTED = {  # None: served
    "zero": ALL,
    "random": ALL,
    "imitation": [*ALL[:6], TARGET, None, None, TARGET, *[TOKENS_OR_VECTORS] * 2, None, None],
    "goal": [*[GOAL] * 3, None, GOAL, GOAL, TARGET, GOAL, None, TARGET, *[TOKENS_OR_VECTORS] * 2, GOAL, GOAL],
    "return": [*[RETURN] * 6, None, RETURN, RETURN, None, *[TOKENS_OR_VECTORS] * 2, RETURN, RETURN],
    "reward": [*ALL[:4], VALUE, REWARD, *[TOKENS] * 6, None, None],
    "critic": [CRITIC, PENALTY, None, CRITIC, CRITIC, REWARD, *[TOKENS] * 6, CRITIC, None],
    "rollouts": [ACTOR, PENALTY, None, *[ACTOR] * 3, *[TOKENS] * 6, ACTOR, None],
    "iql": [CRITIC, None, None, *[CRITIC] * 10, None],
    "detour": [*[PLACE] * 3, None, PLACE, PLACE, *[TOKENS] * 6, PLACE, PLACE],
    "objective": [*ALL[:6], *[TOKENS] * 6, None, None],
    "landmarks": [*[GOAL] * 3, GRAPH, GOAL, GOAL, TARGET, MIXES, MIXES, TARGET, *[TOKENS_OR_VECTORS] * 2, GOAL, GOAL],
    "latent": [*[CODES] * 10, None, VALUE, CODES, CODES],
}


def read(name: str) -> dict[str, Any]:
    """A yaml file below the configuration folder, on top of those that it begins with."""
    content = yaml.safe_load((config_dir() / f"{name}.yaml").read_text())
    merged: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            merged |= read(f"{name.partition('/')[0]}/{entry}")
    return {**merged, **content}


def strategy(name: str) -> dict[str, Any]:
    parts: dict[str, Any] = {"plan_every": 1}
    content = yaml.safe_load((config_dir() / "strategy" / f"{name}.yaml").read_text())
    for entry in content["defaults"]:
        ((group, option),) = entry.items()
        parts[group.strip("/")] = {**read(f"{group.strip('/')}/{option}"), **content.get(group.strip("/"), {})}
    if name == "return":
        parts["condition"]["target"] = 100.0
    if name == "objective":
        parts["score"]["terms"] = {"likely": {"name": "likelihood"}}
    return parts


def build(name: str, checkpoint: str, **options: Any) -> None:
    method, *changes = re.split(" (?=less|with)", checkpoint)
    layout = read(f"layout/{'tt' if method == 'tap' else method}")
    if "without penalty" in changes:
        layout["termination_penalty"] = None
    if changes and changes[0].endswith("dropout"):
        layout["goal"]["dropout"] = 0.5 if changes[0] == "with dropout" else 0.0
    for field in ("value", "reward"):
        if f"less {field}" in changes:
            layout["fields"] = {key: value for key, value in layout["fields"].items() if key != field}
    tokenizer = {"tap": "vq", **dict.fromkeys(("tt", "tt_goal", "tt_difference"), "uniform")}.get(method, "continuous")
    config = {
        "layout": layout,
        "tokenizer": read(f"tokenizer/{tokenizer}"),
        "backbone": read(f"backbone/{'mlp' if method in ('bc', 'rvs_goal', 'rvs_return') else 'gpt'}"),
        "window": {"length": 24},
        "critic": {"name": "iql"} if "with iql" in changes else None,
    }
    run, sizes = RunConfig.from_dict(config), DataSizes(3, 2, longest_episode=30)
    with torch.device("meta"):
        model = build_model(run, sizes)
    parts = {**strategy(name), **options}
    plan_every = parts.pop("plan_every")
    Strategy.build(model.layout, **parts, critic=build_critic(run, sizes)).check(model, plan_every=plan_every)


def test_the_table_is_whole() -> None:
    assert set(EXPECTED) == {path.stem for path in (config_dir() / "strategy").glob("*.yaml")}
    methods = {re.split(" (?=less|with)", checkpoint)[0] for checkpoint in CHECKPOINTS}
    assert methods >= {path.stem for path in (config_dir() / "layout").glob("*.yaml")}


@pytest.mark.parametrize(
    ("name", "checkpoint", "words"),
    [(name, each, words) for name, row in EXPECTED.items() for each, words in zip(CHECKPOINTS, row, strict=True)],
)
def test_a_strategy_serves_or_says_what_is_missing(name: str, checkpoint: str, words: str | None) -> None:
    if words is None:
        build(name, checkpoint)
        return
    with pytest.raises(ConfigError, match=words) as refusal:
        build(name, checkpoint)
    assert "\n" not in str(refusal.value)
    assert not str(refusal.value).endswith(".")


def test_baselines_stand_beside_planners_that_carry_out_more_of_a_plan() -> None:
    build("zero", "tt", plan_every=2)
    build("random", "dt", plan_every=2)
    with pytest.raises(ConfigError, match=r"plan_every=2 is outside \[1, 1\]"):
        build("imitation", "tt", plan_every=2)
    with pytest.raises(ConfigError, match=r"plan_every=0 is outside"):
        build("zero", "tt", plan_every=0)


def test_guidance_needs_a_null_goal_and_tokens() -> None:
    guided = {"name": "goal", "guidance": 2.0}
    build("goal", "tt_goal", condition=guided)
    with pytest.raises(
        ConfigError, match=r"guidance=2 compares .* use condition.guidance=1, or train with layout.goal"
    ):
        build("goal", "tt_goal without dropout", condition=guided)
    build("goal", "tt_goal without dropout")
    with pytest.raises(ConfigError, match=r"guidance=2 mixes distributions of tokens, .* use condition.guidance=1"):
        build("goal", "rvs_goal with dropout", condition=guided)


@pytest.mark.parametrize("horizon", [4, 27])
def test_a_plan_between_two_codes_or_beyond_the_window_is_refused_before_anything_is_planned(horizon: int) -> None:
    with pytest.raises(ConfigError, match=r"multiple of 3 up to 24"):
        build("latent", "tap", planner={"name": "latent_beam", "horizon": horizon})
