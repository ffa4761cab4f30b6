"""Scores that ask something of one dimension of a plan."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqrl.errors import ConfigError
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


def test_limits_that_limit_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"score.low=2 is not below score.high=1"):
        LimitScore(low=2.0, high=1.0)
    with pytest.raises(ConfigError, match=r"give score.low, score.high or both"):
        LimitScore().check(samples.layout())
