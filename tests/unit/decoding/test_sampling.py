"""Noise with an address, filters of distributions, and drawing from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqrl.decoding.noise import Noise, draw, drop_tail, keep_top_k

LARGEST = torch.tensor([1 - 2**-53], dtype=torch.float64)  # the largest uniform number

logits = arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(2, 12)), elements=st.floats(-20, 20, width=32)
).map(torch.from_numpy)


def splitmix(x: int) -> int:
    """The finaliser of SplitMix64 in Python's own integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


def signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def noise(seed: int = 0, count: int = 3, time: int = 0) -> Noise:
    return Noise.of(seed, torch.arange(count), time)


def test_noise_is_splitmix64_of_its_address() -> None:
    gamma = 0x9E3779B97F4A7C15
    assert splitmix(gamma) == 0xE220A8397B1DCDAF  # the first number of the published generator, seeded with 0
    environment, seed, time, beam, step = 5, 17, 40, 3, 12
    key = splitmix((splitmix((environment * gamma + seed) % 2**64) + time * gamma) % 2**64)
    bits = splitmix((splitmix((key + beam * gamma) % 2**64) + step * gamma) % 2**64)
    found = Noise.of(seed, torch.tensor([environment]), time)
    assert found.keys.tolist() == [signed(key)]
    assert found.uniform(step, beams=4)[0, beam] == (bits >> 11) / 2**53


def test_noise_of_a_row_depends_on_nothing_beside_it() -> None:
    whole = noise(count=6, time=9).uniform(4, beams=5)
    alone = Noise.of(0, torch.tensor([3]), 9)
    assert alone.uniform(4, beams=5).equal(whole[3:4])
    assert alone.uniform(4, beams=2).equal(whole[3:4, :2])  # nor on how many beams there are
    shuffled = Noise.of(0, torch.tensor([5, 0, 3]), 9).uniform(4, beams=5)
    assert shuffled.equal(whole[[5, 0, 3]])
    assert Noise.of(0, torch.arange(6), torch.full((6,), 9)).uniform(4, beams=5).equal(whole)


def test_other_addresses_get_other_numbers() -> None:
    numbers = {
        float(u)
        for seed in range(3)
        for time in range(5)
        for step in range(5)
        for u in noise(seed, count=4, time=time).uniform(step, beams=6).flatten()
    }
    assert len(numbers) == 3 * 5 * 5 * 4 * 6


@pytest.mark.parametrize("axis", ["environments", "times", "draws", "beams", "seeds"])
def test_noise_is_uniform_and_uncorrelated_along_every_axis(axis: str) -> None:
    count = 4000
    many, one = torch.arange(count), torch.tensor([7])
    numbers = {
        "environments": lambda: Noise.of(3, many, 5).uniform(2)[:, 0],
        "times": lambda: Noise.of(3, one.expand(count), many).uniform(2)[:, 0],
        "draws": lambda: torch.cat([Noise.of(3, one, 5).uniform(d)[0] for d in range(count)]),
        "beams": lambda: Noise.of(3, one, 5).uniform(2, beams=count)[0],
        "seeds": lambda: torch.cat([Noise.of(s, one, 5).uniform(2)[0] for s in range(count)]),
    }[axis]().numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    # Five standard errors each; chi-square of 19 degrees of freedom exceeds 50 once in ten thousand times.
    assert abs(numbers.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / count)
    assert abs(numbers.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / count)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 5 / np.sqrt(count)
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    assert ((counts - count / 20) ** 2 / (count / 20)).sum() < 50


def test_top_k_keeps_the_likeliest_and_ties_at_the_border() -> None:
    given_logits = torch.tensor([[0.0, 3.0, 1.0, 2.0], [1.0, 1.0, 0.0, 1.0]])
    inf = torch.inf
    assert keep_top_k(given_logits, 2).tolist() == [[-inf, 3.0, -inf, 2.0], [1.0, 1.0, -inf, 1.0]]
    assert keep_top_k(given_logits, None) is given_logits
    assert keep_top_k(given_logits, 4).equal(given_logits)
    assert keep_top_k(given_logits, 9).equal(given_logits)


def test_drop_tail_drops_what_sums_to_less_than_the_mass_and_keeps_the_head() -> None:
    probabilities = torch.tensor([[0.05, 0.5, 0.1, 0.35]])
    kept = drop_tail(probabilities.log(), 0.6)
    # 0.05 + 0.1 + 0.35 = 0.5 is less than 0.6 and goes; a nucleus of 0.6 would have kept the 0.35.
    assert torch.isfinite(kept).tolist() == [[False, True, False, False]]
    assert torch.isfinite(drop_tail(probabilities.log(), 0.4)).tolist() == [[False, True, False, True]]
    assert torch.isfinite(drop_tail(probabilities.log(), 0.01)).all()
    assert drop_tail(probabilities.log(), None).equal(probabilities.log())
    assert kept[0, 1] == probabilities.log()[0, 1]  # what stays is not changed


@given(logits, st.floats(0.01, 0.99))
def test_drop_tail_against_a_loop(given_logits: torch.Tensor, mass: float) -> None:
    kept = torch.isfinite(drop_tail(given_logits.double(), mass)).numpy()
    for row, mask in zip(given_logits.double().numpy(), kept, strict=True):
        probabilities = np.exp(row - row.max())
        probabilities /= probabilities.sum()
        assert mask[probabilities.argmax()] or np.isclose(probabilities[mask].max(), probabilities.max())
        assert probabilities[~mask].sum() < mass
        lowest = probabilities[mask].min()
        if mask.sum() > 1:  # one more, and it would have been too much
            assert probabilities[~mask].sum() + lowest >= mass - 1e-9
        assert (probabilities[~mask] <= lowest + 1e-12).all()


@given(logits, st.floats(0.01, 1.5))
def test_drop_tail_leaves_the_likeliest_token(given_logits: torch.Tensor, mass: float) -> None:
    assert torch.isfinite(drop_tail(given_logits, mass)).any(-1).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_drawn_frequencies_match_the_softmax(temperature: float) -> None:
    given_logits = torch.tensor([1.0, -2.0, 0.5, -torch.inf, 2.0])
    count = 20_000
    # A grid instead of random numbers: inversion must then give each token its share, to the nearest grid point.
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    drawn = np.bincount(draw(given_logits.expand(count, -1), grid, temperature), minlength=5)
    finite = np.exp(np.array([1.0, -2.0, 0.5, -np.inf, 2.0]) / temperature)
    np.testing.assert_allclose(drawn / count, finite / finite.sum(), atol=1.1 / count)


def test_temperature_zero_takes_the_likeliest_with_the_lowest_id() -> None:
    given_logits = torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0], [-1.0, -torch.inf, 0.0]])
    assert draw(given_logits, LARGEST.expand(3), temperature=0).tolist() == [1, 0, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(given_logits=logits, data=st.data())
def test_ruled_out_tokens_are_never_drawn(dtype: torch.dtype, given_logits: torch.Tensor, data: st.DataObject) -> None:
    classes = given_logits.shape[1]
    out = data.draw(st.lists(st.integers(0, classes - 1), max_size=classes - 1, unique=True))
    filtered = given_logits.to(dtype).clone()
    filtered[:, out] = -torch.inf
    for uniform in (torch.zeros(1, dtype=torch.float64), LARGEST, 1 - torch.logspace(-16, -6, 11, dtype=torch.float64)):
        for u in uniform:
            assert not set(draw(filtered, u.expand(len(filtered))).tolist()) & set(out)


def test_the_largest_uniform_number_draws_the_last_token_that_is_left() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(2000, 101)).astype(np.float32))
    rows[:, 90:] = -torch.inf
    assert (draw(rows, LARGEST.expand(2000)) < 90).all()
    assert (draw(rows, LARGEST.expand(2000)) > 85).all()
