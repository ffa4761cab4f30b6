"""Stretches to be foretold, imagined futures and what is held likely, against computations that share nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.analysis.masking import OBSERVED, mask_observations
from seqrl.analysis.open_loop import imagine
from seqrl.analysis.references import References, pick_references
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transitions
from seqrl.errors import ConfigError, DataError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel


@pytest.fixture
def layout(plain_layout_config: Callable[..., dict[str, Any]]) -> Layout:
    fields = {"observation": {"loss_weight": 1.0}, "action": {"loss_weight": 5.0}}
    return Layout.from_config(plain_layout_config(fields=fields), 3, 2)


@pytest.fixture
def store() -> EpisodeStore:
    """Three episodes of 12, 5 and 20 steps, whose first observation counts the rows."""
    rng = np.random.default_rng(3)
    ends = np.isin(np.arange(37), [11, 16, 36])
    observations = rng.normal(size=(37, 3))
    observations[:, 0] = np.arange(37)
    return EpisodeStore.from_arrays(
        observations, rng.uniform(-1, 1, (37, 2)), rng.normal(size=37), ends, np.zeros(37, bool)
    )


def make_model(layout: Layout, store: EpisodeStore, *, context: int = 4, **tokenizer: Any) -> TokenModel:
    torch.manual_seed(0)
    backbone = {"name": "gpt", "num_layers": 2, "num_heads": 2, "dim": 16}
    model = TokenModel(layout, {"name": "quantile", "num_bins": 6, **tokenizer}, backbone, context=context)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.tokenizer.fit(torch.from_numpy(transitions(store, layout)))
    return model.eval()


def test_references_are_stretches_of_one_episode(store: EpisodeStore, layout: Layout) -> None:
    found = pick_references(store, layout, [0, 2], past=2, horizon=5, count=100)
    rows = found.values[:, :, 0].astype(int)
    assert [row.tolist() for row in rows] == [list(range(first, first + 8)) for first in [*range(5), *range(17, 30)]]
    np.testing.assert_array_equal(found.present[:, 0], rows[:, 2])
    np.testing.assert_array_equal(found.future[..., 0], rows[:, 3:])
    np.testing.assert_array_equal(found.actions, np.asarray(store.actions)[rows[:, 2:-1]])
    fewer = pick_references(store, layout, [0, 2], past=2, horizon=5, count=3)
    assert fewer.rows.tolist() == [found.rows[place] for place in (3, 9, 15)]


def test_episodes_that_are_too_short_are_told(store: EpisodeStore, layout: Layout) -> None:
    with pytest.raises(DataError, match=r"13 steps \(the longest has 5\); give a shorter --horizon"):
        pick_references(store, layout, [1], past=2, horizon=10, count=1)


def test_hidden_numbers_have_one_mark(store: EpisodeStore, layout: Layout) -> None:
    masked = mask_observations(store, share=0.5, seed=1)
    observed = np.asarray(masked.extras[OBSERVED])
    assert 0.3 < observed.mean() < 0.7
    before, after = np.asarray(store.observations), np.asarray(masked.observations)
    np.testing.assert_array_equal(after[observed], before[observed])
    np.testing.assert_allclose(after[~observed], np.broadcast_to(before.mean(0), after.shape)[~observed], rtol=1e-6)
    assert np.array_equal(observed, np.asarray(mask_observations(store, seed=1).extras[OBSERVED]))
    assert masked.fingerprint() != store.fingerprint()
    found = pick_references(masked, layout, [2], past=1, horizon=3, count=2)
    np.testing.assert_array_equal(found.observed, np.stack([observed[row : row + 5] for row in found.rows]))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_no_other_share_can_be_hidden(store: EpisodeStore, share: float) -> None:
    with pytest.raises(ConfigError, match="cannot be hidden"):
        mask_observations(store, share=share)


@torch.no_grad()
def enumerate_futures(model: TokenModel, known: torch.Tensor, actions: torch.Tensor, dims: int) -> np.ndarray:
    """(H, O, V) exact marginals: all futures are gone through by whole passes, each weighed by its probability."""
    steps, bins = model.tokens_per_step, model.tokenizer.vocab_size
    marginals = np.zeros((len(actions), dims, bins))
    futures, weights = known[None], torch.ones(1, dtype=torch.float64)
    for step in range(len(actions)):
        futures = torch.cat([futures, actions[step].expand(len(futures), -1)], 1)
        for dim in range(dims):
            padded = torch.nn.functional.pad(futures, (0, 1 + -(futures.shape[1] + 1) % steps))
            logits = model(padded.unflatten(1, (-1, steps)))[:, futures.shape[1] - 1, :-1]
            probabilities = logits.double().softmax(-1) * weights[:, None]
            marginals[step, dim] = probabilities.sum(0).numpy()
            weights = probabilities.flatten()
            tokens = torch.arange(bins).repeat(len(futures))
            futures = torch.cat([futures.repeat_interleave(bins, 0), tokens[:, None]], 1)
    return marginals


def test_marginals_are_those_of_all_futures(layout: Layout, store: EpisodeStore) -> None:
    """By going through all of them: with rollouts enough, the means of what was predicted come near."""
    model = make_model(layout, store, num_bins=4)
    found = pick_references(store, layout, [0], past=1, horizon=2, count=1)
    tokens = model.tokenizer.encode(torch.from_numpy(found.values))[0]
    known = torch.cat([tokens[0], tokens[1, :3]])
    exact = enumerate_futures(model, known, tokens[1:3, 3:], dims=3)
    imagined = imagine(model, found, rollouts=4000)
    np.testing.assert_allclose(imagined.probabilities[0].sum(-1), 1)
    np.testing.assert_allclose(imagined.probabilities[0, 0, 0], exact[0, 0], rtol=1e-5)  # nothing is sampled before
    np.testing.assert_allclose(imagined.probabilities[0], exact, atol=0.015)
    centres = np.stack([model.tokenizer.bin_centres(place).numpy() for place in range(3)])
    for dim in range(3):
        shares = (imagined.samples[0, :, 1, dim, None] == centres[dim]).mean(0)
        np.testing.assert_allclose(shares, exact[1, dim], atol=0.03)


def test_a_short_context_forgets_the_past(layout: Layout, store: EpisodeStore) -> None:
    """With a window of two the past before the present transition makes no difference; with the whole one it does."""
    model = make_model(layout, store)
    found = pick_references(store, layout, [2], past=3, horizon=2, count=1)
    other = found.values.copy()
    other[:, :3] = other[:, :3][:, ::-1]
    changed = References(other, found.observed, found.past, found.observation, found.action, found.rows)
    for context, same in ((2, True), (None, False)):
        one, two = (imagine(model, each, rollouts=5, context=context) for each in (found, changed))
        assert np.allclose(one.probabilities, two.probabilities) == same


def test_hidden_numbers_stay_hidden_in_rollouts(layout: Layout, store: EpisodeStore) -> None:
    masked = mask_observations(store, share=0.5)
    model = make_model(layout, masked, num_bins=20)
    found = pick_references(masked, layout, [2], past=1, horizon=6, count=2)
    hidden = ~np.asarray(masked.extras[OBSERVED])[:, 0]
    marks = model.tokenizer.encode(torch.from_numpy(transitions(masked, layout)))[hidden, 0]
    assert len(set(marks.tolist())) == 1
    imagined = imagine(model, found, rollouts=50)
    seen = found.future_observed
    centre = float(model.tokenizer.bin_centres(0)[marks[0]])
    assert (imagined.samples[..., 0].transpose(0, 2, 1)[~seen[..., 0]] == centre).all()
    assert (imagined.probabilities[:, :, 0, marks[0]][seen[..., 0]] == 0).all()


def test_rewards_are_imagined_where_the_layout_has_them(tiny_layout: Layout, store: EpisodeStore) -> None:
    model = make_model(tiny_layout, store)
    found = pick_references(store, tiny_layout, [2], past=1, horizon=2, count=2)
    assert imagine(model, found, rollouts=3).samples.shape == (2, 3, 2, 3)


def test_other_layouts_are_refused(plain_layout_config: Callable[..., dict[str, Any]], store: EpisodeStore) -> None:
    goal = {"dims": [0], "dropout": 0.1, "draw": "uniform"}
    layout = Layout.from_config(plain_layout_config(goal=goal), 3, 2)
    found = pick_references(store, layout, [2], past=1, horizon=2, count=2)
    with pytest.raises(ConfigError, match="without a goal"):
        imagine(make_model(layout, store, name="uniform"), found, rollouts=3)


def make_drifting(store: EpisodeStore, config: dict[str, Any]) -> TokenModel:
    """A model that holds one difference certain, whatever it has read: the last bin of every number."""
    model = make_model(Layout.from_config(config, 3, 2), store)
    norm = next(module for name, module in model.backbone.named_modules() if name == "norm")
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(1.0)
        model.head.weight.view(model.tokens_per_step, model.num_classes, -1)[model.places("difference"), -2] += 9.0
    return model


def test_differences_add_up(store: EpisodeStore, plain_layout_config: Callable[..., dict[str, Any]]) -> None:
    model = make_drifting(store, plain_layout_config(fields={"observation": {}, "action": {}, "difference": {}}))
    found = pick_references(store, model.layout, [2], past=2, horizon=6, count=5)  # longer than its window
    imagined = imagine(model, found, rollouts=3)
    places = model.places("difference")
    step = np.array([float(model.tokenizer.bin_centres(place)[-1]) for place in range(places.start, places.stop)])
    wanted = found.present[:, None] + step * np.arange(1, 7)[:, None]
    np.testing.assert_allclose(imagined.samples, np.broadcast_to(wanted[:, None], (5, 3, 6, 3)), rtol=1e-5)
    scalars = torch.zeros(5, 6, model.layout.size)
    scalars[..., :3] = torch.from_numpy(wanted).float()
    np.testing.assert_array_equal(imagined.probabilities.argmax(-1), model.tokenizer.encode(scalars)[..., :3].numpy())
    assert (imagined.probabilities.max(-1) == 1).all()


def test_what_is_hidden_has_no_difference(
    store: EpisodeStore, plain_layout_config: Callable[..., dict[str, Any]]
) -> None:
    model = make_drifting(store, plain_layout_config(fields={"observation": {}, "action": {}, "difference": {}}))
    masked = mask_observations(store, share=0.5, seed=1)
    found = pick_references(masked, model.layout, [2], past=1, horizon=3, count=2)
    with pytest.raises(ConfigError, match=r"what is hidden has no difference; train with layout=tt"):
        imagine(model, found, rollouts=2)
