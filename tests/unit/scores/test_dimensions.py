"""Scores that ask something of one dimension of a plan."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.registry import SCORE
from seqrl.scores import Score, Trace
from seqrl.scores.limit import LimitScore
from seqrl.scores.target import TargetScore
from seqrl.testing import samples


def trace_of(states: list[list[float]], actions: list[list[float]], over: list[bool] | None = None) -> Trace:
    """One plan; `states` has one more row than `actions`."""
    path, steps = torch.tensor(states), torch.tensor(actions)
    zeros = torch.zeros(len(steps))
    return Trace(
        zeros,
        zeros,
        None,
        None,
        observations=path[:-1],
        actions=steps,
        next_observation=path[-1],
        over=None if over is None else torch.tensor(over),
    )


def score_of(score: Score, trace: Trace) -> float:
    found: Tensor = score(trace)
    assert found.shape == ()
    return float(found)


SPEEDS = trace_of([[9.0, 50.0], [9.0, 1.0], [9.0, 2.0], [9.0, 6.0]], [[0.5], [-1.0], [2.0]])


def test_a_target_is_compared_with_the_mean_of_what_the_actions_bring_about() -> None:
    assert score_of(TargetScore(value=1.0, dim=1), SPEEDS) == -2.0  # (1 + 2 + 6) / 3, without the present 50
    assert score_of(TargetScore(value=4.5, dim=1), SPEEDS) == -1.5
    assert score_of(TargetScore(value=0.5, field="action"), SPEEDS) == 0.0


def test_limits_cost_by_how_far_and_how_often_they_are_left() -> None:
    assert score_of(LimitScore(high=1.5, dim=1), SPEEDS) == -5.0
    assert score_of(LimitScore(low=1.5, high=4.0, dim=1, cost=2.0), SPEEDS) == -2.0 * (0.5 + 2.0)
    assert score_of(LimitScore(low=0.0, field="action", cost=3.0), SPEEDS) == -3.0


def test_of_several_dimensions_their_norm_counts() -> None:
    ways = trace_of(
        [[7.0, 50.0, 50.0], [7.0, 3.0, 4.0], [7.0, 0.0, -2.0], [7.0, 6.0, 8.0]],
        [[0.6, 0.8], [0.0, -0.5], [0.0, 0.0]],
    )
    assert score_of(TargetScore(value=4.0, dim=(1, 2)), ways) == pytest.approx(4.0 - (5.0 + 2.0 + 10.0) / 3)
    assert score_of(TargetScore(value=0.5, field="action", dim=(0, 1)), ways) == pytest.approx(0.0)
    assert score_of(LimitScore(low=3.0, high=6.0, dim=(1, 2)), ways) == pytest.approx(-1.0 - 4.0)
    assert score_of(LimitScore(high=0.75, field="action", dim=(0, 1), total=True), ways) == pytest.approx(-0.75)
    assert score_of(TargetScore(value=-2.0, dim=(2,)), ways) == pytest.approx(-2.0 - (4.0 + 2.0 + 8.0) / 3)  # a norm


def test_what_follows_an_imagined_end_is_in_no_norm_either() -> None:
    ended = trace_of([[0.0, 0.0], [3.0, 4.0], [99.0, 99.0]], [[0.6, 0.8], [9.0, 9.0]], [False, False, True])
    assert score_of(TargetScore(value=6.0, dim=(0, 1)), ended) == pytest.approx(-1.0)
    assert score_of(LimitScore(high=4.5, dim=(0, 1)), ended) == pytest.approx(-0.5)


def test_nothing_counts_after_an_imagined_end() -> None:
    ended = trace_of(
        [[0.0, 50.0], [0.0, 1.0], [0.0, 99.0], [0.0, 99.0]], [[0.5], [0.25], [9.0]], [False, False, True, True]
    )
    assert score_of(TargetScore(value=3.0, dim=1), ended) == -2.0
    assert score_of(LimitScore(high=0.5, dim=1), ended) == -0.5
    assert score_of(TargetScore(value=0.0, field="action"), ended) == -0.375


@pytest.mark.parametrize("name", ["target", "limit"])
def test_dimensions_that_a_field_does_not_have_are_refused(name: str) -> None:
    made = {"target": TargetScore, "limit": LimitScore}[name]
    given = {"high": 1.0} if name == "limit" else {}
    layout = samples.layout()
    made(dim=samples.OBSERVATION_SIZE - 1, **given).check(layout)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"score.dim={samples.OBSERVATION_SIZE}.*observation"):
        made(dim=samples.OBSERVATION_SIZE, **given).check(layout)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"score.dim={samples.ACTION_SIZE}.*action"):
        made(dim=samples.ACTION_SIZE, field="action", **given).check(layout)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [TargetScore, LimitScore])
@pytest.mark.parametrize(
    ("dims", "field", "says"),
    [
        ((0, samples.OBSERVATION_SIZE), "observation", rf"score.dim=\[0, {samples.OBSERVATION_SIZE}\].*observation"),
        ((samples.ACTION_SIZE,), "action", rf"score.dim=\[{samples.ACTION_SIZE}\].*action"),
        ((0, 0), "observation", r"score.dim=\[0, 0\] names a dimension twice"),
        ((0,), "reward", r"score.field=reward is no field of dimensions"),
    ],
)
def test_norms_of_what_a_field_does_not_have_are_refused(
    score: type[Score], dims: tuple[int, ...], field: str, says: str
) -> None:
    given = {"high": 1.0} if score is LimitScore else {}
    with pytest.raises(ConfigError, match=says):
        score(dim=dims, field=field, **given).check(samples.layout())  # type: ignore[call-arg]


@pytest.mark.parametrize("wrong", [[], -1, [-1], 1.5, ["speed"], "speed", None, True])
@pytest.mark.parametrize("name", ["target", "limit"])
def test_dimensions_that_are_none_are_refused(name: str, wrong: object) -> None:
    assert isinstance(SCORE.build({"name": name, "dim": [2, 3]}), Score)
    with pytest.raises(ConfigError, match=r"score.dim="):
        SCORE.build({"name": name, "dim": wrong})


def test_limits_that_limit_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"score.low=2 is not below score.high=1"):
        LimitScore(low=2.0, high=1.0)
    with pytest.raises(ConfigError, match=r"give score.low, score.high or both"):
        LimitScore().check(samples.layout())
