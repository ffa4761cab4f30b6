"""Bootstrap intervals and paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from seqrl.evaluation.statistics import Estimate, bootstrap, paired_difference, seed_mean, seed_rate, success_rate


def test_the_interval_of_a_mean_agrees_with_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    found = bootstrap(values)
    error = values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_the_interval_of_two_values_is_exact() -> None:
    # Resampled means are 0, 1 and 2 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap(np.array([0.0, 2.0])) == Estimate(1.0, 0.0, 2.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    estimates = [bootstrap(rng.normal(size=30), samples=400, seed=i) for i in range(300)]
    coverage = np.mean([e.low <= 0.0 <= e.high for e in estimates])
    assert 0.88 < coverage < 0.98


def test_columns_of_a_row_are_no_independent_episodes() -> None:
    starts = np.random.default_rng(0).normal(size=40)
    repeated = np.repeat(starts[:, None], 25, axis=1)  # 25 goals from each start, all alike
    alone, clustered, flat = bootstrap(starts), bootstrap(repeated), bootstrap(repeated.reshape(-1))
    assert (clustered.mean, clustered.low, clustered.high) == pytest.approx((alone.mean, alone.low, alone.high))
    assert flat.mean == pytest.approx(alone.mean)
    assert (clustered.high - clustered.low) > 4 * (flat.high - flat.low)


def test_what_does_not_count_has_no_influence() -> None:
    values = np.array([[1.0, 9.0], [3.0, np.nan], [2.0, -9.0], [np.nan, np.nan]])
    counted = np.array([[True, False], [True, False], [True, False], [False, False]])
    found = bootstrap(values, counted)
    assert found.mean == 2.0  # over three entries, not over rows
    assert 1.0 <= found.low <= 2.0 <= found.high <= 3.0
    uneven = bootstrap(np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0]]), np.array([[1, 1, 1], [1, 0, 0]], bool))
    assert uneven.mean == 1.5  # every entry weighs the same, whatever its row


def test_nothing_that_counts_gives_nan() -> None:
    nothing = bootstrap(np.ones((3, 2)), np.zeros((3, 2), bool))
    assert math.isnan(nothing.mean)
    assert nothing.interval is None
    assert bootstrap(np.array([3.0])).interval is None


def test_the_same_data_give_the_same_interval_and_other_seeds_nearly() -> None:
    values = np.random.default_rng(1).exponential(size=50)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=1)
    assert bootstrap(values, seed=1).low == pytest.approx(bootstrap(values).low, abs=0.02)


def test_pairing_finds_a_difference_that_is_small_beside_the_spread_of_starts() -> None:
    rng = np.random.default_rng(0)
    starts = rng.normal(0.0, 10.0, size=60)
    ours, theirs = starts + 1.0 + 0.5 * rng.normal(size=60), starts
    paired = paired_difference(ours, theirs)
    assert paired.low > 0
    assert paired.mean == pytest.approx((ours - theirs).mean())
    # Without the pairing the intervals of both overlap by far.
    assert bootstrap(ours).low < bootstrap(theirs).high


def test_a_difference_by_chance_includes_zero_and_changes_sign_with_the_sides() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(size=60), rng.normal(size=60)
    found = paired_difference(ours, theirs)
    assert found.low < 0 < found.high
    assert paired_difference(theirs, ours).mean == pytest.approx(-found.mean)


def test_successes_are_compared_where_they_count() -> None:
    ours = np.array([[True, True], [True, True], [True, False]])
    theirs = np.array([[False, True], [False, True], [False, True]])
    counted = np.array([[True, False], [True, False], [True, False]])
    assert paired_difference(ours, theirs, counted) == Estimate(1.0, 1.0, 1.0)


@pytest.mark.parametrize(("reached", "trials"), [(0, 10), (10, 10), (3, 7), (137, 150), (1, 1)])
def test_success_has_the_interval_of_wilson(reached: int, trials: int) -> None:
    found = success_rate(np.arange(trials) < reached)
    expected = binomtest(reached, trials).proportion_ci(0.95, method="wilson")
    assert found.mean == pytest.approx(100 * reached / trials)
    assert [found.low, found.high] == pytest.approx([100 * expected.low, 100 * expected.high], abs=1e-9)


def test_an_episode_that_many_goals_judge_is_one_trial() -> None:
    success = np.random.default_rng(0).random((20, 3)) < 0.5
    counted = np.ones((20, 3), bool)
    counted[15:] = False
    counted[0, 1:] = False
    driven_once, driven_each = success_rate(success, counted, drives=1), success_rate(success, counted, drives=3)
    assert driven_once.mean == driven_each.mean == pytest.approx(100 * success[counted].mean())
    k, n = int(success[counted].sum()), int(counted.sum())
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert [driven_each.low, driven_each.high] == pytest.approx([100 * expected.low, 100 * expected.high])
    assert driven_once.high - driven_once.low > 1.5 * (driven_each.high - driven_each.low)
    assert success_rate(success, np.zeros_like(counted)).interval is None


def test_seeds_that_all_ended_alike_have_a_width() -> None:
    everything = np.ones((3, 10, 1), bool)
    found = seed_rate(everything)
    assert (found.mean, found.high) == (100.0, 100.0)
    assert found.low == pytest.approx(100 * binomtest(30, 30).proportion_ci(0.95, method="wilson").low)
    assert seed_rate(everything[:1]) == success_rate(everything[0])


def test_seeds_that_differ_are_what_an_interval_tells_of() -> None:
    success = np.zeros((4, 50, 1), bool)
    success[:2] = True  # two seeds reach everything, two nothing
    found, over_seeds = seed_rate(success), seed_mean(100.0 * success)
    assert found.mean == 50.0
    assert [found.low, found.high] == [over_seeds.low, over_seeds.high] == [0.0, 100.0]
