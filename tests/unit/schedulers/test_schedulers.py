"""Learning rates over a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from seqrl.errors import ConfigError
from seqrl.registry import SCHEDULER


def factor_of(config: dict[str, Any], *, max_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    factor: Callable[[int], float] = SCHEDULER.build(
        config, max_steps=max_steps, steps_per_epoch=steps_per_epoch
    ).factor
    return factor


def test_cosine_climbs_falls_and_stays_at_its_floor() -> None:
    config = {"name": "cosine", "warmup_fraction": 0.1, "final_ratio": 0.2}
    factor = factor_of(config, max_steps=1000, steps_per_epoch=7)
    assert factor(0) == pytest.approx(1 / 100)
    assert factor(49) == pytest.approx(0.5)
    assert factor(99) == factor(100) == pytest.approx(1.0)
    assert factor(550) == pytest.approx(0.6)  # half-way between 1 and 0.2
    assert factor(999) == pytest.approx(0.2, abs=1e-5)
    assert factor(1000) == factor(5000) == pytest.approx(0.2)
    assert all(b > a for a, b in pairwise(map(factor, range(100))))
    assert all(b < a for a, b in pairwise(map(factor, range(100, 1000))))


def test_cosine_without_warm_up_begins_at_the_top() -> None:
    config = {"name": "cosine", "warmup_fraction": 0.0, "final_ratio": 0.0}
    factor = factor_of(config, max_steps=10, steps_per_epoch=1)
    assert factor(0) == 1.0
    assert factor(10) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0.5, 0.5), (1, 1.0), (10.5, 0.5), (20, 0.10), (29.5, 0.5), (39, 1.0), (50, 0.377), (58, 0.10)],
)
def test_the_published_schedule_is_cyclic(epoch: float, expected: float) -> None:
    config = {"name": "tt_reference", "warmup_epochs": 1, "cosine_epochs": 20, "final_ratio": 0.1}
    factor = factor_of(config, max_steps=58_000, steps_per_epoch=1000)
    assert factor(round(1000 * epoch) - 1) == pytest.approx(expected, abs=2e-3)
    # The rule itself, in tokens seen: linear, then a cosine of 19 epochs that nothing stops.
    if epoch >= 1:
        assert expected == pytest.approx(max(0.1, 0.5 + 0.5 * math.cos(math.pi * (epoch - 1) / 19)), abs=1e-3)


def test_warmup_stable_decay_climbs_holds_and_falls_in_straight_lines() -> None:
    config = {"name": "warmup_stable_decay", "warmup_fraction": 0.1, "decay_fraction": 0.3, "final_ratio": 0.1}
    factor = factor_of(config, max_steps=1000, steps_per_epoch=7)
    assert [factor(step) for step in (0, 49, 99)] == pytest.approx([0.01, 0.5, 1.0])
    assert {factor(step) for step in (99, 100, 500, 700)} == {1.0}
    assert [factor(step) for step in (701, 850, 999)] == pytest.approx([0.997, 0.55, 0.103])
    assert factor(1000) == factor(5000) == pytest.approx(0.1)
    falls = [factor(step) - factor(step + 1) for step in range(700, 1000)]
    assert falls == pytest.approx([0.9 / 300] * 300)


def test_warmup_stable_decay_without_a_decay_stays_at_the_top() -> None:
    factor = factor_of({"name": "warmup_stable_decay", "decay_fraction": 0}, max_steps=10, steps_per_epoch=1)
    assert {factor(step) for step in range(20)} == {1.0}


def test_warmup_stable_decay_refuses_fractions_beyond_the_whole() -> None:
    with pytest.raises(ConfigError, match=r"warmup_fraction=0\.5 and scheduler\.decay_fraction=0\.6 are more than"):
        factor_of(
            {"name": "warmup_stable_decay", "warmup_fraction": 0.5, "decay_fraction": 0.6},
            max_steps=9,
            steps_per_epoch=1,
        )


def test_constant_is_constant() -> None:
    factor = factor_of({"name": "constant"}, max_steps=5, steps_per_epoch=1)
    assert {factor(step) for step in (0, 3, 100)} == {1.0}


def test_schedules_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no scheduler named 'cosin'\. Did you mean 'cosine'\?\n  available: const"):
        SCHEDULER.check({"name": "cosin"})
    with pytest.raises(ConfigError, match=r"scheduler 'cosine' has no option 'warmup'\..* Options: warmup_fraction"):
        SCHEDULER.check({"name": "cosine", "warmup": 3})
    with pytest.raises(ConfigError, match=r"scheduler\.warmup_fraction=2 is too large; give a number from 0 to 1"):
        SCHEDULER.check({"name": "cosine", "warmup_fraction": 2})
