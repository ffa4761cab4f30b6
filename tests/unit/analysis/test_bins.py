"""Bins as densities, against widths that are known without asking a tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqrl.analysis.bins import Bins, find_bins
from seqrl.errors import ConfigError
from seqrl.tokenizers.quantile import QuantileTokenizer
from seqrl.tokenizers.uniform import UniformTokenizer


@pytest.fixture
def values() -> np.ndarray:
    """Three scalars of different spread; the last one has a value that half of the rows share."""
    values = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32) * [1, 10, 0.1]
    values[::2, 2] = 0.03125
    return values.astype(np.float32)


def test_uniform_bins_have_the_width_of_the_range_by_their_number(values: np.ndarray) -> None:
    tokenizer = UniformTokenizer(3, num_bins=7)
    tokenizer.fit(torch.from_numpy(values))
    bins = find_bins(tokenizer, values, slice(0, 2))
    low, high = values.min(0)[:2], values.max(0)[:2]
    np.testing.assert_allclose(bins.edges, low[:, None] + (high - low)[:, None] * np.arange(8) / 7, atol=1e-5)
    ceiling = -np.log((high - low) / 7 / values[:, :2].std(0))
    np.testing.assert_allclose(bins.ceiling(values[:50, :2]), np.broadcast_to(ceiling, (50, 2)), atol=1e-5)


@pytest.mark.parametrize("edges", [None, "published"])
def test_edges_say_what_the_tokenizer_does(values: np.ndarray, edges: str | None) -> None:
    tokenizer = QuantileTokenizer(3, num_bins=16, edges=edges)  # type: ignore[arg-type]
    tokenizer.fit(torch.from_numpy(values))
    bins = find_bins(tokenizer, values, slice(0, 3))
    fresh = np.random.default_rng(1).uniform(values.min(0), values.max(0), size=(5000, 3)).astype(np.float32)
    assert (bins.locate(fresh) == tokenizer.encode(torch.from_numpy(fresh)).numpy()).mean() > 0.999
    np.testing.assert_allclose(bins.edges[:, [0, -1]], np.stack([values.min(0), values.max(0)], 1))
    widths = np.diff(bins.edges)
    shared = bins.locate(np.array([[0.0, 0.0, 0.03125]]))[0, 2]
    if edges is None:
        assert widths[2, shared] < np.median(widths[2]) / 20, "a heavy tie has a bin to itself"


def test_what_a_bin_of_equal_shares_is_worth(values: np.ndarray) -> None:
    """The density of a histogram integrates to one, and its mean log is that of the histogram by hand."""
    tokenizer = QuantileTokenizer(3, num_bins=10)
    tokenizer.fit(torch.from_numpy(values))
    bins = find_bins(tokenizer, values, slice(0, 2))
    shares = np.stack([np.bincount(column, minlength=10) for column in bins.locate(values[:, :2]).T]) / len(values)
    density = bins.log_density(np.broadcast_to(shares, (len(values), 2, 10)), values[:, :2])
    by_hand = [
        np.log(np.histogram(column, edges, density=True)[0][np.clip(np.searchsorted(edges, column, "right") - 1, 0, 9)]
               * column.std())
        for column, edges in zip(values[:, :2].T.astype(np.float64), bins.edges, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(density.mean(0), np.mean(by_hand, 1), rtol=1e-3)
    assert (bins.ceiling(values[:, :2]) >= density).all()
    np.testing.assert_allclose((np.exp(density.mean(0)) > 0), True)


def test_the_scale_is_the_unit(values: np.ndarray) -> None:
    bins = Bins(np.array([[0.0, 1.0, 4.0]]), np.array([2.0]))
    found = bins.log_density(np.array([[[0.25, 0.75]], [[0.25, 0.75]], [[0.5, 0.5]]]), np.array([[0.5], [3.0], [9.0]]))
    np.testing.assert_allclose(found[:, 0], np.log([0.25 / 0.5, 0.75 / 1.5, 0.5 / 1.5]))


def test_hidden_numbers_do_not_count(values: np.ndarray) -> None:
    tokenizer = QuantileTokenizer(3, num_bins=8)
    tokenizer.fit(torch.from_numpy(values))
    observed = np.abs(values) < [1.0, 10.0, 0.1]
    bins = find_bins(tokenizer, values, slice(0, 3), observed=observed)
    for column, seen, edges, scale in zip(values.T, observed.T, bins.edges, bins.scale, strict=True):
        assert (edges[0], edges[-1]) == (column[seen].min(), column[seen].max())
        assert scale == pytest.approx(column[seen].std(), rel=1e-5)


def test_tokens_of_several_scalars_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="uniform or quantile"):
        find_bins(_Pairs(), values, slice(0, 2))


class _Pairs(UniformTokenizer):
    def __init__(self) -> None:
        super().__init__(3)
        self.tokens_per_step = 2
