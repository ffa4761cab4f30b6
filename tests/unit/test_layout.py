"""The layout of a transition, and how wrong ones are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from seqrl.errors import ConfigError
from seqrl.layout import Layout

Config = Callable[..., dict[str, Any]]


def test_fields_lie_behind_each_other_in_the_order_of_the_config(plain_layout_config: Config) -> None:
    layout = Layout.from_config(plain_layout_config(), 3, 2)
    assert [(f.name, f.start, f.size) for f in layout.fields] == [
        ("observation", 0, 3),
        ("action", 3, 2),
        ("reward", 5, 1),
        ("value", 6, 1),
    ]
    assert layout.size == 7
    assert layout.prefix_size == 0
    assert layout.hidden == [False] * 6 + [True]
    assert layout.loss_weights == [1.0] * 3 + [5.0] * 2 + [1.0] * 2
    assert list(range(7))[layout.field("action").slice] == [3, 4]
    assert (layout.discount, layout.termination_penalty) == (0.99, -100.0)


def test_the_order_of_later_fields_is_free_and_null_leaves_one_out(plain_layout_config: Config) -> None:
    fields = {"observation": {}, "action": {}, "value": {"hidden": True}, "reward": None}
    layout = Layout.from_config(plain_layout_config(fields=fields), 2, 1)
    assert [(f.name, f.start) for f in layout.fields] == [("observation", 0), ("action", 2), ("value", 3)]
    assert layout.has("value")
    assert not layout.has("reward")


def test_a_missing_field_names_the_override_that_adds_it(plain_layout_config: Config) -> None:
    layout = Layout.from_config(plain_layout_config(fields={"observation": {}, "action": {}}), 2, 1)
    with pytest.raises(
        ConfigError, match=r"no 'value' field \(it has observation, action\).*fields\.value=\{hidden: t"
    ):
        layout.field("value")
    with pytest.raises(ConfigError, match=r"train with '\+layout\.fields\.reward=\{\}'"):
        layout.field("reward")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"observation": {}, "action": {}, "rewards": {}},
            r"no setting 'layout\.fields\.rewards'\. Did you mean 'layout\.fields\.reward'\? Settings in",
        ),
        (
            {"observation": {}, "action": {"loss_wait": 2}},
            r"no setting 'layout\.fields\.action\.loss_wait'\. Did you mean 'layout\.fields\.action\.loss_weight'\?",
        ),
        (
            {"observation": {"loss_weight": -1}, "action": {}},
            r"observation\.loss_weight=-1 is too small; give 0 or m",
        ),
        ({"observation": {"loss_weight": math.nan}, "action": {}}, r"observation\.loss_weight=nan is no number"),
        (
            {"observation": {}, "action": {}, "reward": 3},
            r"fields\.reward=3 is no set of options; give \{loss_weight: \.\.\., hidden: \.\.\.\}, or null",
        ),
        (
            {"action": {}, "observation": {}},
            r"order \['action', 'observation'\]; it needs an observation and, after it",
        ),
        ({"observation": {}}, r"order \['observation'\]; it needs"),
        ({"observation": {}, "reward": {}, "action": {}}, r"what is known before the action, observation and return"),
        ({"observation": {}, "action": {}, "return": {}}, r"what is known before the action, observation and return"),
        ({"return": {"hidden": True}, "observation": {}, "action": {}}, r"return is hidden"),
        ({"observation": {"hidden": True}, "action": {}}, r"observation is hidden"),
        (
            {"observation": {}, "action": {"loss_weight": 0}},
            r"action\.loss_weight=0 leaves actions unlearnt",
        ),
    ],
)
def test_fields_that_cannot_be_used_are_refused(plain_layout_config: Config, fields: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Layout.from_config(plain_layout_config(fields=fields), 2, 1)


@pytest.mark.parametrize("discount", [-0.01, 1.01])
def test_a_discount_outside_its_range_is_refused(plain_layout_config: Config, discount: float) -> None:
    with pytest.raises(ConfigError, match=rf"discount={discount} is too (small|large); give a number from 0 to 1"):
        Layout.from_config(plain_layout_config(discount=discount), 2, 1)


def test_no_termination_penalty_is_none(plain_layout_config: Config) -> None:
    assert Layout.from_config(plain_layout_config(termination_penalty=None), 2, 1).termination_penalty is None
    assert Layout.from_config(plain_layout_config(termination_penalty=0), 2, 1).termination_penalty == 0.0


def test_a_goal_makes_the_prefix(plain_layout_config: Config) -> None:
    goal = {"dims": [2, 0], "dropout": 0.25, "draw": "last"}
    layout = Layout.from_config(plain_layout_config(goal=goal), 3, 1)
    assert layout.goal is not None
    assert (layout.goal.dims, layout.goal.dropout, layout.goal.draw) == ((2, 0), 0.25, "last")
    assert layout.prefix_size == 2


@pytest.mark.parametrize(("given", "wanted"), [(None, 0.99), (0.5, 0.5), (0.0, 0.0)])
def test_near_goals_may_have_a_discount_of_their_own(
    plain_layout_config: Config, given: float | None, wanted: float
) -> None:
    goal = {"dims": [0], "draw": "geometric", "discount": given}
    layout = Layout.from_config(plain_layout_config(goal=goal), 3, 1)
    assert layout.goal is not None
    assert (layout.goal.discount, layout.discount) == (wanted, 0.99)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({"dims": [0, 3]}, r"goal\.dims=\[0, 3\] must name observation dimensions 0 to 2"),
        ({"dims": [-1]}, r"goal\.dims=\[-1\]"),
        ({"dims": []}, r"goal\.dims=\[\]"),
        ({"dropout": 0.1}, r"goal\.dims is not set; give a list of 1 or more"),
        ({"dims": [0], "dropout": 1.5}, r"goal\.dropout=1\.5 is too large; give a number from 0 to 1"),
        ({"dims": [0], "draw": "lost"}, r"goal\.draw='lost' is unknown\. Did you mean 'last'\? Choices: "),
        ({"dims": [0], "draw": "geometric", "discount": 1.5}, r"goal\.discount=1\.5 is too large"),
        ({"dims": [0], "discount": 0.9}, r"goal\.discount=0\.9 is of geometric draws, and layout\.goal\.draw=uniform"),
        ({"dims": [0], "draw": "last", "discount": 0}, r"goal\.discount=0 is of geometric draws, .*goal\.draw=last"),
        ({"dims": ["a"]}, r"goal\.dims=\['a'\]"),
        ({"dims": 1}, r"goal\.dims=1 is no list"),
        (0, r"goal=0 is no set of options; give \{dims: .*\}, or null"),
        (
            {"dims": [0], "dropuot": 0.2},
            r"no setting 'layout\.goal\.dropuot'\. Did you mean 'layout\.goal\.dropout'\? Settings in ",
        ),
    ],
)
def test_goals_that_cannot_be_used_are_refused(plain_layout_config: Config, goal: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Layout.from_config(plain_layout_config(goal=goal), 3, 1)
