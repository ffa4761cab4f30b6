"""Actions as the nearest of a few, and an offset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.registry import TOKENIZER
from seqrl.tokenizers import Tokenizer
from seqrl.tokenizers.kmeans import KmeansTokenizer
from seqrl.types import TokenBatch

OBSERVATION, ACTION = 3, 2
SIZE = OBSERVATION + ACTION + 2
FIELDS: dict[str, Any] = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
PLACES = [0, 1, 2, 4, 5, 6, 7]  # of the scalars among the tokens


def make_layout() -> Layout:
    return Layout.from_config({"fields": FIELDS}, OBSERVATION, ACTION)


def make_values(rows: int = 3000) -> torch.Tensor:
    """Actions around five points of a circle."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, SIZE))
    angle = 2 * np.pi * rng.integers(5, size=rows) / 5
    values[:, 3:5] = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.03 * rng.normal(size=(rows, 2))
    return torch.from_numpy(values.astype(np.float32))


def fitted(values: torch.Tensor | None = None, **options: Any) -> KmeansTokenizer:
    config = {"name": "kmeans", "num_clusters": 5, "num_bins": 20, **options}
    tokenizer: KmeansTokenizer = TOKENIZER.build(config, size=SIZE, layout=make_layout())
    tokenizer.fit(make_values() if values is None else values)
    return tokenizer


def test_codes_are_the_nearest_centres_and_centres_the_means_of_their_actions() -> None:
    values = make_values()
    tokenizer = fitted(values)
    codes = tokenizer.encode(values)[:, 3].numpy()
    centres, actions = tokenizer.centres.numpy(), values[:, 3:5].double().numpy()
    for row in range(0, len(actions), 37):
        assert codes[row] == np.argmin([np.sum((actions[row] - centre) ** 2) for centre in centres])
    for code in range(5):
        assert np.allclose(actions[codes == code].mean(0), centres[code], atol=1e-6)
    angles = np.sort(np.arctan2(centres[:, 1], centres[:, 0]) % (2 * np.pi))
    assert np.allclose(np.diff(angles), 2 * np.pi / 5, atol=0.05)  # every point of the circle is found


@pytest.mark.parametrize("bins", ["quantile", "uniform"])
def test_offsets_and_other_fields_are_binned_as_by_the_tokenizer_of_that_name(bins: str) -> None:
    values = make_values()
    tokenizer = fitted(values, bins=bins)
    tokens = tokenizer.encode(values)
    assert tokens.shape == (len(values), SIZE + 1)
    offsets = values.clone()
    offsets[:, 3:5] = (values[:, 3:5].double() - tokenizer.centres[tokens[:, 3]]).float()
    plain: Tokenizer = TOKENIZER.build({"name": bins, "num_bins": 20}, size=SIZE)
    plain.fit(offsets)
    assert torch.equal(tokens[:, PLACES], plain.encode(offsets))
    for position, scalar in zip(PLACES, range(SIZE), strict=True):
        assert torch.equal(tokenizer.bin_centres(position), plain.bin_centres(scalar))


def test_round_trip_is_as_fine_as_the_bins_of_offsets() -> None:
    values = make_values()
    tokenizer = fitted(values, bins="uniform")
    errors = (tokenizer.decode(tokenizer.encode(values)) - values).abs()
    offsets = values[:, 3:5].double() - tokenizer.centres[tokenizer.encode(values)[:, 3]]
    width = (offsets.amax(0) - offsets.amin(0)) / 20
    assert bool((errors[:, 3:5] <= width / 2 + 1e-6).all())
    plain: Tokenizer = TOKENIZER.build({"name": "uniform", "num_bins": 20}, size=SIZE)
    plain.fit(values)
    assert float(errors[:, 3:5].mean()) < 0.3 * float(
        (plain.decode(plain.encode(values)) - values)[:, 3:5].abs().mean()
    )


def test_decoded_actions_stay_within_the_data_whatever_the_tokens_are() -> None:
    values = make_values()
    values[::2, 3:5] = 3.0 + 0.01 * values[::2, :2]  # a narrow cluster at the border, and offsets of wide ones
    tokenizer = fitted(values, num_clusters=2)
    generator = torch.Generator().manual_seed(0)
    decoded = tokenizer.decode(torch.randint(tokenizer.vocab_size + 1, (500, SIZE + 1), generator=generator))
    low, high = values[:, 3:5].amin(0), values[:, 3:5].amax(0)
    assert bool((decoded[:, 3:5] >= low).all())
    assert bool((decoded[:, 3:5] <= high).all())
    assert all(torch.equal(*pair) for pair in zip(tokenizer.action_range(make_layout()), (low, high), strict=True))


def test_vocabulary_is_the_larger_one_and_its_rest_means_the_last() -> None:
    for clusters, bins in ((5, 20), (20, 5)):
        tokenizer = fitted(num_clusters=clusters, num_bins=bins)
        assert tokenizer.vocab_size == 20
        last = torch.full((1, SIZE + 1), bins - 1)
        last[0, 3] = clusters - 1
        assert torch.equal(tokenizer.decode(torch.full((1, SIZE + 1), 20)), tokenizer.decode(last))
        assert tokenizer.bin_centres(7).shape == (20,)
    assert bool(tokenizer.bin_centres(3).isnan().all())  # a code is of no single value


def test_fewer_actions_than_clusters_are_kept_exactly() -> None:
    values = make_values(50)
    values[:, 3:5] = torch.tensor([[0.5, -0.25], [1.0, 0.0]]).repeat(25, 1)
    tokenizer = fitted(values)
    assert torch.equal(tokenizer.decode(tokenizer.encode(values))[:, 3:5], values[:, 3:5])
    assert set(tokenizer.encode(values)[:, 3].tolist()) == {0, 1}


def test_the_same_data_give_the_same_centres() -> None:
    first = fitted().centres
    assert torch.equal(fitted().centres, first)


def test_model_knows_where_the_code_is() -> None:
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 8}
    tokenizer = {"name": "kmeans", "num_clusters": 5, "num_bins": 6}
    model = TokenModel(make_layout(), tokenizer, backbone, context=3)
    assert model.tokens_per_step == SIZE + 1
    assert model.places("action") == slice(3, 6)
    assert model.places("reward") == slice(6, 7)
    assert model.hidden.tolist() == [False] * 7 + [True]
    model.tokenizer.fit(make_values(100))
    tokens = model.tokenizer.encode(make_values(12).view(4, 3, SIZE))
    batch = TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert model(batch.tokens).shape == (4, 3 * (SIZE + 1) - 1, 7)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"num_clusters": 0}, "num_clusters"), ({"num_bins": 1}, "num_bins"), ({"bins": "equal"}, "bins")],
)
def test_refusals(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        fitted(**options)


def test_discrete_actions_are_refused() -> None:
    layout = Layout.from_config({"fields": FIELDS}, OBSERVATION, 1, {"action": 4})
    with pytest.raises(ConfigError, match="continuous actions"):
        TOKENIZER.build({"name": "kmeans"}, size=SIZE - 1, layout=layout)
