"""Bootstrap intervals and paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from seqrl.evaluation.statistics import (
    Estimate,
    bootstrap,
    newcombe,
    paired_difference,
    rate_difference,
    seed_mean,
    seed_rate,
    success_rate,
    wilson,
)


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


def test_the_interval_of_two_independent_shares_is_the_published_one() -> None:
    """Newcombe 1998, table II, contrast (a): 56 of 70 and 48 of 80; method 10."""
    assert newcombe(56 / 70, 48 / 80, 70, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_shares_that_go_together_have_a_narrower_difference() -> None:
    alone, together = newcombe(0.6, 0.5, 40, 40), newcombe(0.6, 0.5, 40, 40, 0.8)
    assert together[0] > alone[0]
    assert together[1] < alone[1]
    swapped = newcombe(0.5, 0.6, 40, 40, 0.8)
    assert swapped == pytest.approx((-together[1], -together[0]))


@pytest.mark.parametrize("paired", [True, False])
def test_a_difference_of_rates_has_a_width_whatever_happened(paired: bool) -> None:
    ours, theirs = np.ones((1, 2, 1), bool), np.zeros((1, 2, 1), bool)
    found = rate_difference(ours, theirs, paired=paired)
    low = 1 - math.hypot(1 - wilson(1.0, 2)[0], wilson(0.0, 2)[1])
    assert (found.mean, found.high) == (100.0, 100.0)
    assert found.low == pytest.approx(100 * low)
    many = rate_difference(np.ones((3, 20, 1), bool), np.zeros((3, 20, 1), bool), paired=paired)
    assert found.low < many.low < 100.0
    same = rate_difference(ours, ours, paired=paired)
    assert same.low < 0.0 < same.high


def test_one_episode_judged_by_all_goals_is_one_trial() -> None:
    ours, theirs = np.ones((1, 10, 4), bool), np.zeros((1, 10, 4), bool)
    once, each = (rate_difference(ours, theirs, paired=True, drives=drives) for drives in (1, None))
    assert once.low == pytest.approx(rate_difference(ours[..., :1], theirs[..., :1], paired=True).low)
    assert once.low < each.low


def test_the_interval_of_a_difference_of_rates_covers_the_truth() -> None:
    """Of 15 starts, of which some are hard for both sides: the bootstrap alone covers 85 %."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        hard = rng.random((1, 15, 1)) < 0.2
        ours, theirs = (rng.random((1, 15, 1)) < np.where(hard, 0.3, rate) for rate in (0.95, 0.85))
        found = rate_difference(ours, theirs, paired=True)
        covered += found.low <= 100 * (0.8 * 0.10) <= found.high
    assert covered / 300 >= 0.93


def test_what_does_not_count_has_no_part_in_a_difference_of_rates() -> None:
    rng = np.random.default_rng(1)
    ours, theirs, counted = rng.random((2, 9, 2)) < 0.7, rng.random((2, 9, 2)) < 0.4, rng.random((9, 2)) < 0.6
    changed = ours ^ ~counted
    assert rate_difference(ours, theirs, counted, paired=True) == rate_difference(changed, theirs, counted, paired=True)
    assert math.isnan(rate_difference(ours, theirs, np.zeros((9, 2), bool), paired=True).mean)
