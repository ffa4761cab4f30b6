"""The ensemble on linear worlds with Gaussian noise, where every density is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from seqrl.analysis.bins import Bins
from seqrl.analysis.ensemble import Ensemble, Rollouts, fit_ensemble, roll_out
from seqrl.analysis.masking import OBSERVED, mask_observations
from seqrl.analysis.references import References
from seqrl.data.episodes import EpisodeStore

DECAY, PUSH, NOISE = np.array([0.9, 0.5]), np.array([[0.3], [-0.2]]), np.array([0.05, 0.2])


def linear_world(episodes: int, steps: int, seed: int = 0) -> EpisodeStore:
    """`s' = DECAY s + PUSH a + NOISE e`, with actions drawn evenly."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, size=(episodes, steps, 1))
    states = np.zeros((episodes, steps, 2))
    states[:, 0] = rng.normal(size=(episodes, 2))
    for t in range(steps - 1):
        states[:, t + 1] = DECAY * states[:, t] + actions[:, t] @ PUSH.T + NOISE * rng.normal(size=(episodes, 2))
    ends = np.arange(episodes * steps) % steps == steps - 1
    flat = states.reshape(-1, 2), actions.reshape(-1, 1)
    return EpisodeStore.from_arrays(*flat, np.zeros(len(ends)), ends, np.zeros(len(ends), bool))


def reference(store: EpisodeStore, rows: list[int], horizon: int) -> References:
    around = np.array(rows)[:, None] + np.arange(horizon + 1)
    values = np.concatenate([np.asarray(store.observations), np.asarray(store.actions)], 1)[around]
    observed = np.ones((*around.shape, 2), bool)
    return References(values, observed, 0, slice(0, 2), slice(2, 3), np.array(rows))


@pytest.fixture(scope="module")
def world() -> EpisodeStore:
    return linear_world(100, 40)


@pytest.fixture(scope="module")
def ensemble(world: EpisodeStore) -> Ensemble:
    sizes = {"members": 3, "width": 24, "layers": 1, "batch_size": 128}
    return fit_ensemble(world, np.arange(80), steps=400, learning_rate=1e-2, **sizes)


def test_one_step_is_the_world(world: EpisodeStore, ensemble: Ensemble) -> None:
    states, actions = torch.from_numpy(world.observations[3200:3239]), torch.from_numpy(world.actions[3200:3239])
    with torch.no_grad():
        means, deviations = ensemble.predict(torch.cat([states, actions], 1).expand(3, -1, -1))
    truth = DECAY * states.numpy() + actions.numpy() @ PUSH.T
    np.testing.assert_allclose(means.mean(0), truth, atol=0.05)
    np.testing.assert_allclose(deviations.mean((0, 1)), NOISE, rtol=0.15)


def test_rollouts_spread_as_the_world_does(world: EpisodeStore, ensemble: Ensemble) -> None:
    """After h steps the state is Gaussian, with the mean of the noiseless run and the noise of all steps."""
    found = reference(world, [3200, 3600], 12)
    rollouts = roll_out(ensemble, found, rollouts=399)
    assert rollouts.samples.shape == (2, 399, 12, 2)
    mean = found.present.astype(np.float64)
    variance = np.zeros(2)
    for step in range(12):
        mean = DECAY * mean + found.actions[:, step] @ PUSH.T
        variance = DECAY**2 * variance + NOISE**2
        np.testing.assert_allclose(rollouts.samples[:, :, step].mean(1), mean, atol=4 * np.sqrt(variance).max() / 10)
        np.testing.assert_allclose(rollouts.samples[:, :, step].std(1), np.sqrt([variance] * 2), rtol=0.25)
    scale = np.array([1.0, 2.0])
    density = rollouts.log_density(found.future, scale)[:, -1]
    expected = norm.logpdf(found.future[:, -1], mean, np.sqrt(variance)) + np.log(scale)
    np.testing.assert_allclose(density, expected, atol=0.35)


def test_the_density_of_a_mixture_by_hand() -> None:
    means = np.array([0.0, 1.0]).reshape(1, 2, 1, 1)
    rollouts = Rollouts(means, np.array([0.5, 2.0]).reshape(1, 2, 1, 1), means)
    value = np.array([[[0.25]]])
    by_hand = np.log((norm.pdf(0.25, 0, 0.5) + norm.pdf(0.25, 1, 2)) / 2)
    assert rollouts.log_density(value, np.ones(1)).item() == pytest.approx(by_hand)
    assert rollouts.log_density(value, np.array([3.0])).item() == pytest.approx(by_hand + np.log(3))


def test_the_mass_of_a_bin_by_hand() -> None:
    """Inner bins by the difference of two cumulative ones; the outermost ones take the tails."""
    means = np.array([0.0, 1.0]).reshape(1, 2, 1, 1)
    rollouts = Rollouts(means, np.array([0.5, 2.0]).reshape(1, 2, 1, 1), means)
    bins = Bins(np.array([[-1.0, 0.0, 0.5, 3.0]]), np.ones(1))
    for value, low, high, width in ((-0.5, -np.inf, 0.0, 1.0), (0.25, 0.0, 0.5, 0.5), (9.0, 0.5, np.inf, 2.5)):
        mass = np.mean([norm.cdf(high, m, s) - norm.cdf(low, m, s) for m, s in ((0, 0.5), (1, 2))])
        found = rollouts.log_bin_density(np.array([[[value]]]), bins)
        assert found.item() == pytest.approx(np.log(mass / width))


def test_an_even_share_is_a_floor_for_both_kinds_of_models() -> None:
    """Far away nothing is left but the even share of a bin; close by it makes no difference."""
    zero = np.zeros((1, 1, 1, 1))
    bins = Bins(np.array([[-100.0, -90.0, 0.0, 10.0]]), np.ones(1))
    rollouts = Rollouts(zero + 5, zero + 1, zero)
    far, near = (np.array([[[value]]]) for value in (-95.0, 5.0))
    assert rollouts.log_bin_density(far, bins, even=0.01).item() == pytest.approx(np.log(0.01 / 3 / 10), rel=1e-6)
    assert rollouts.log_bin_density(near, bins, even=0.01).item() == pytest.approx(
        np.log((0.99 + 0.01 / 3) / 10), rel=1e-4
    )
    sure = np.array([[[[0.0, 0.0, 1.0]]]])
    for value in (far, near):
        of_ensemble, of_bins = (
            rollouts.log_bin_density(value, bins, even=0.01),
            bins.log_density(sure, value, even=0.01),
        )
        assert of_ensemble == pytest.approx(of_bins, abs=1e-4)


@pytest.mark.parametrize("value", [40.25, -40.25])
def test_bins_far_away_have_a_mass_that_is_not_zero(value: float) -> None:
    """Where the difference of cumulative ones is lost to rounding: width times density, for a narrow bin."""
    zero = np.zeros((1, 1, 1, 1))
    edges = np.concatenate([-np.linspace(41, 40, 101), np.linspace(40, 41, 101)])[None]
    bins = Bins(edges, np.ones(1))
    found = Rollouts(zero, zero + 1, zero).log_bin_density(np.array([[[value + 0.005]]]), bins)
    assert found.item() == pytest.approx(norm.logpdf(value + 0.005), abs=0.05)


def test_narrow_bins_are_densities(world: EpisodeStore, ensemble: Ensemble) -> None:
    found = reference(world, [3200], 5)
    rollouts = roll_out(ensemble, found, rollouts=40)
    edges = np.tile(np.linspace(-5, 5, 50001), (2, 1))
    bins = Bins(edges, np.array([0.7, 0.3]))
    np.testing.assert_allclose(
        rollouts.log_bin_density(found.future, bins), rollouts.log_density(found.future, bins.scale), atol=0.02
    )


def test_hidden_numbers_are_neither_targets_nor_inputs(world: EpisodeStore) -> None:
    """One step ahead, what is seen is foretold well, and what was hidden no better than the spread of the world."""
    masked = mask_observations(world, share=0.5)
    fitted = fit_ensemble(masked, np.arange(80), steps=300, members=2, width=32, layers=1, learning_rate=1e-2)
    rows = list(range(3200, 4000, 4))
    found = reference(masked, rows, 1)
    observed = np.asarray(masked.extras[OBSERVED])[np.array(rows)[:, None] + np.arange(2)]
    found = References(found.values, observed, 0, found.observation, found.action, found.rows)
    rollouts = roll_out(fitted, found, rollouts=2)
    truth = np.asarray(world.observations)[np.array(rows) + 1]
    errors = np.abs(rollouts.means.mean(1)[:, 0] - truth)[:, 0]
    seen = observed[:, 0, 0]
    assert errors[seen].mean() < 0.5 * errors[~seen].mean()


def test_training_is_a_function_of_the_seed(world: EpisodeStore) -> None:
    one, two, other = (
        fit_ensemble(world, np.arange(5), steps=3, members=2, width=8, layers=1, seed=seed) for seed in (0, 0, 1)
    )
    for same, weights, others in zip(one.weights, two.weights, other.weights, strict=True):
        assert torch.equal(same, weights)
        assert not torch.equal(same, others)
