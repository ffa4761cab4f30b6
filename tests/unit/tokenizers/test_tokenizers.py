"""Tokenizers: what survives a round trip, and which bins values fall into."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import TOKENIZER
from seqrl.tokenizers import Tokenizer
from seqrl.tokenizers._report import round_trip_report

NAMES = ["quantile", "uniform"]
FAR = 1e6  # what the planner writes for the value of past transitions

floats = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
columns = arrays(np.float32, st.integers(1, 60), elements=floats)
# Few different values, so that some of them weigh several bins.
tied_columns = st.lists(st.sampled_from([-1.0, -0.1, 0.0, 0.3, 1e-30, 7.0]), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32)
)


def fitted(name: str, values: np.ndarray, num_bins: int = 10) -> Tokenizer:
    values = values.reshape(len(values), -1)
    tokenizer: Tokenizer = TOKENIZER.build({"name": name, "num_bins": num_bins}, size=values.shape[1])
    tokenizer.fit(torch.from_numpy(values))
    return tokenizer


def encode(tokenizer: Tokenizer, values: np.ndarray | list[float]) -> np.ndarray:
    """Tokens of a single column."""
    return tokenizer.encode(torch.as_tensor(values).reshape(-1, 1))[:, 0].numpy()


def round_trip(tokenizer: Tokenizer, values: np.ndarray | list[float]) -> np.ndarray:
    return tokenizer.decode(tokenizer.encode(torch.as_tensor(values).reshape(-1, 1)))[:, 0].numpy()


@given(columns, st.integers(2, 40))
def test_uniform_round_trip_errs_by_half_a_bin_at_most(column: np.ndarray, num_bins: int) -> None:
    tokenizer = fitted("uniform", column, num_bins)
    half = (float(column.max()) - float(column.min())) / num_bins / 2
    rounding = 1e-6 * float(np.abs(column).max())  # of float32 results
    assert np.abs(round_trip(tokenizer, column) - column).max() <= half * (1 + 1e-9) + rounding


def test_uniform_bins_are_those_of_a_histogram() -> None:
    column = np.random.default_rng(0).exponential(size=500).astype(np.float32)
    tokens = encode(fitted("uniform", column, 23), column)
    wanted, _ = np.histogram(column, bins=23)
    np.testing.assert_array_equal(np.bincount(tokens, minlength=23), wanted)


@given(tied_columns, st.integers(2, 40))
@example(np.array([0.0] * 97 + [1.0] * 3, np.float32), 100)  # a sparse reward
@example(np.array([0.0] * 3 + list(range(1, 148)), np.float32), 100)  # the smallest value has exactly two bins' weight
def test_quantile_keeps_values_with_the_weight_of_two_bins_exactly(column: np.ndarray, num_bins: int) -> None:
    decoded = round_trip(fitted("quantile", column, num_bins), column)
    for value, count in zip(*np.unique(column, return_counts=True), strict=True):
        if count * num_bins >= 2 * len(column):
            assert set(decoded[column == value]) == {value}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 0.1, -3.75, 1e5])
def test_constant_columns_are_exact_whatever_is_encoded(name: str, value: float) -> None:
    tokenizer = fitted(name, np.full(7, value, np.float32))
    below, above = np.nextafter(np.float32(value), np.float32([-np.inf, np.inf]))
    found = round_trip(tokenizer, np.array([value, below, above, -FAR, FAR], np.float32))
    assert set(found) == {np.float32(value)}
    assert len(set(encode(tokenizer, [value, below, above]))) == 1 or name == "quantile"


@pytest.mark.parametrize("count", [1, 2, 3, 25, 50])
def test_quantile_with_up_to_half_as_many_rows_as_bins_is_exact(count: int) -> None:
    column = np.random.default_rng(count).normal(size=count).astype(np.float32)
    np.testing.assert_array_equal(round_trip(fitted("quantile", column, 100), column), column)


def test_quantile_with_fewer_rows_than_bins_merges_neighbours_at_most() -> None:
    column = np.sort(np.random.default_rng(0).normal(size=80).astype(np.float32))
    tokens = encode(fitted("quantile", column, 100), column)
    assert (np.diff(tokens) >= 0).all()
    assert np.bincount(tokens).max() <= 2


@pytest.mark.parametrize("name", NAMES)
@given(column=st.one_of(columns, tied_columns), num_bins=st.integers(2, 40))
def test_values_outside_the_data_take_the_bin_of_the_nearest_datum(
    name: str, column: np.ndarray, num_bins: int
) -> None:
    tokenizer = fitted(name, column, num_bins)
    lowest, highest = column.min(), column.max()
    assert encode(tokenizer, np.array([-FAR, lowest - abs(lowest) - 1], np.float32)).tolist() == (
        encode(tokenizer, [lowest, lowest]).tolist()
    )
    assert encode(tokenizer, [FAR])[0] == encode(tokenizer, [highest])[0]


@given(
    column=st.one_of(columns, tied_columns), num_bins=st.integers(2, 40), values=arrays(np.float32, 20, elements=floats)
)
@example(np.array([0.0, 1.0], np.float32), 10, np.linspace(-1, 2, 20, dtype=np.float32))
@example(np.array([-1.0] * 5 + [0.5, 0.6, 1.0], np.float32), 4, np.linspace(-2, 2, 20, dtype=np.float32))
def test_quantile_never_leaves_the_bins_that_training_used(
    column: np.ndarray, num_bins: int, values: np.ndarray
) -> None:
    tokenizer = fitted("quantile", column, num_bins)
    used = set(encode(tokenizer, column))
    assert set(encode(tokenizer, values)) <= used


@pytest.mark.parametrize("name", NAMES)
@given(
    column=st.one_of(columns, tied_columns), num_bins=st.integers(2, 40), values=arrays(np.float32, 20, elements=floats)
)
def test_larger_values_never_get_smaller_tokens(
    name: str, column: np.ndarray, num_bins: int, values: np.ndarray
) -> None:
    tokenizer = fitted(name, column, num_bins)
    values = np.sort(np.concatenate([values, column]))
    tokens = encode(tokenizer, values)
    assert tokens.min() >= 0
    assert tokens.max() < num_bins
    assert (np.diff(tokens) >= 0).all()
    assert (np.diff(round_trip(tokenizer, values)) >= 0).all()


def test_quantile_bins_hold_equal_shares_and_decode_to_their_means() -> None:
    column = np.random.default_rng(0).standard_cauchy(1000).astype(np.float32)
    tokenizer = fitted("quantile", column, 10)
    tokens = encode(tokenizer, column)
    assert np.bincount(tokens).tolist() == [100] * 10
    means = [part.astype(np.float64).mean() for part in np.split(np.sort(column), 10)]
    np.testing.assert_allclose(tokenizer.bin_centres(0).numpy(), means, rtol=1e-6)


def test_quantile_shares_are_near_equal_where_rows_do_not_divide() -> None:
    column = np.random.default_rng(1).normal(size=997).astype(np.float32)
    counts = np.bincount(encode(fitted("quantile", column, 13), column), minlength=13)
    assert np.abs(counts - 997 / 13).max() < 2


@pytest.mark.parametrize("name", NAMES)
def test_columns_do_not_mix_and_leading_dimensions_are_free(name: str) -> None:
    values = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32) * [1, 10, 100]
    values = values.astype(np.float32)
    tokenizer = fitted(name, values, 8)
    tokens = tokenizer.encode(torch.from_numpy(values))
    assert tokens.dtype == torch.int64
    for s in range(3):
        alone = fitted(name, values[:, s], 8)
        np.testing.assert_array_equal(tokens[:, s].numpy(), encode(alone, values[:, s]))
        torch.testing.assert_close(tokenizer.bin_centres(s), alone.bin_centres(0))
    shaped = torch.from_numpy(values).view(4, 15, 3)
    assert tokenizer.encode(shaped).equal(tokens.view(4, 15, 3))
    assert tokenizer.decode(tokens.view(4, 15, 3)).equal(tokenizer.decode(tokens).view(4, 15, 3))


@pytest.mark.parametrize("name", NAMES)
def test_float64_input_gets_the_tokens_of_its_float32_rounding(name: str) -> None:
    column = np.array([0.1] * 30 + list(np.linspace(-1, 1, 70)), np.float32)
    tokenizer = fitted(name, column, 20)
    np.testing.assert_array_equal(encode(tokenizer, column.astype(np.float64)), encode(tokenizer, column))
    if name == "quantile":
        assert round_trip(tokenizer, np.array([0.1], np.float64)) == np.float32(0.1)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_in_double_precision_keeps_its_tokens(name: str) -> None:
    column = np.array([0.1] * 30 + list(np.linspace(-1, 1, 70)), np.float32)
    tokenizer = fitted(name, column, 20)
    values = np.append(np.linspace(-1.5, 1.5, 50), 0.1)  # 0.1 is not what float32 makes of it
    before = encode(tokenizer, values), encode(tokenizer, column)
    after = encode(tokenizer.double(), values), encode(tokenizer, column)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_termination_token_decodes_as_the_last_bin(name: str) -> None:
    tokenizer = fitted(name, np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32), 6)
    decoded = tokenizer.decode(torch.tensor([[6, 0], [5, 6]]))
    last = tokenizer.decode(torch.tensor([[5, 5]]))[0]
    assert decoded[0, 0] == last[0]
    assert decoded[1].equal(last)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_travels_in_a_state_dict(name: str) -> None:
    values = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    tokenizer = fitted(name, values, 6)
    other: Tokenizer = TOKENIZER.build({"name": name, "num_bins": 6}, size=2)
    other.load_state_dict(tokenizer.state_dict())
    probes = torch.from_numpy(values * 1.5)
    assert other.encode(probes).equal(tokenizer.encode(probes))
    assert other.decode(tokenizer.encode(probes)).equal(tokenizer.decode(tokenizer.encode(probes)))


@pytest.mark.parametrize("name", NAMES)
def test_bin_centres_lie_where_their_tokens_decode(name: str) -> None:
    values = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    tokenizer = fitted(name, values, 5)
    for position in range(3):
        wanted = [float(tokenizer.decode(torch.full((1, 3), token))[0, position]) for token in range(5)]
        assert tokenizer.bin_centres(position).tolist() == wanted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_bins", [1, 0, -3])
def test_too_few_bins_are_refused(name: str, num_bins: int) -> None:
    with pytest.raises(ConfigError, match=rf"num_bins={num_bins} is too small; give a number from 2 "):
        TOKENIZER.build({"name": name, "num_bins": num_bins}, size=1)


def test_the_report_agrees_with_numpy() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 5)).astype(np.float32)
    values[:, 4] = 2.5  # constant reward
    layout = Layout.from_config({"fields": {"observation": {}, "action": {}, "reward": {}}}, 2, 2)
    rows = round_trip_report(fitted("uniform", values, 7), values, layout)
    assert [(row["field"], row["dim"]) for row in rows] == [
        ("observation", 0),
        ("observation", 1),
        ("action", 0),
        ("action", 1),
        ("reward", 0),
    ]
    for s, row in enumerate(rows[:4]):
        column = values[:, s].astype(np.float64)
        counts, edges = np.histogram(column, bins=7)
        centres = (edges[:-1] + edges[1:]) / 2
        errors = np.abs(centres[np.clip(np.digitize(column, edges) - 1, 0, 6)] - column)
        assert row["mean_error"] == pytest.approx(errors.mean(), rel=1e-4)
        assert row["max_error"] == pytest.approx(errors.max(), rel=1e-4)
        assert row["relative_error"] == pytest.approx(errors.mean() / column.std(), rel=1e-4)
        assert row["bins_used"] == (counts > 0).sum()
        assert row["largest_bin"] == pytest.approx(counts.max() / 300)
    assert rows[4] == {
        "field": "reward",
        "dim": 0,
        "mean_error": 0.0,
        "max_error": 0.0,
        "relative_error": 0.0,
        "bins_used": 1,
        "largest_bin": 1.0,
    }


@given(arrays(np.float32, st.tuples(st.integers(1, 60), st.just(3)), elements=floats), st.integers(2, 40))
def test_quantile_cuts_the_fields_that_are_named_as_uniform_does(values: np.ndarray, num_bins: int) -> None:
    layout = Layout.from_config({"fields": {"observation": {}, "action": {}}}, 1, 2)
    rows = torch.from_numpy(values)
    built = {
        label: TOKENIZER.build({"num_bins": num_bins, **config}, size=3, layout=layout)
        for label, config in {
            "mixed": {"name": "quantile", "uniform_fields": ["action"]},
            "quantile": {"name": "quantile"},
            "uniform": {"name": "uniform"},
        }.items()
    }
    found = {}
    for label, tokenizer in built.items():
        tokenizer.fit(rows)
        found[label] = tokenizer.decode(tokenizer.encode(rows)).numpy()
    np.testing.assert_array_equal(found["mixed"][:, 0], found["quantile"][:, 0])
    half = (values.max(0) - values.min(0))[1:].astype(np.float64) / num_bins / 2
    off = np.abs(found["mixed"][:, 1:] - values[:, 1:].astype(np.float64))
    assert (off <= half * (1 + 1e-6) + 1e-6 * np.abs(values).max()).all()
    centres = [built[label].bin_centres(1).numpy() for label in ("mixed", "uniform")]
    np.testing.assert_allclose(*centres, rtol=1e-6, atol=1e-6 * float(np.abs(values).max()))


def test_quantile_refuses_uniform_fields_that_the_layout_does_not_have() -> None:
    with pytest.raises(ConfigError, match=r"uniform_fields names .actions., which the layout does not"):
        TOKENIZER.build({"name": "quantile", "uniform_fields": ["actions"]}, size=3)
