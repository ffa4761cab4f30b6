"""The published TAP, imported: what its code computed, and its arithmetic written down again, at other sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
import torch
import yaml
from tests.integration.published_blocks import FOLDER, Weights, block, layer_norm, linear
from torch import Tensor
from torch.nn import functional as F

import seqrl
from seqrl import decoding
from seqrl.checkpoints.loading import load
from seqrl.cli import evaluate, importing
from seqrl.paths import config_dir
from seqrl.tokenizers._codebook import Codebook
from seqrl.types import CodeHistory


class Sizes(NamedTuple):
    observation: int
    action: int
    window: int
    codes: int
    layers: int
    heads: int
    width: int
    code_dim: int

    @property
    def scalars(self) -> int:
        return self.observation + self.action + 2


PUBLISHED = Sizes(3, 2, 12, 16, 2, 2, 16, 16)
OTHERS = [Sizes(2, 1, 6, 5, 1, 1, 8, 3), Sizes(5, 3, 24, 20, 3, 4, 16, 12)]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_data(observation: int, action: int) -> None:
    rng = np.random.default_rng(0)
    with h5py.File("tiny.hdf5", "w") as file:
        file["observations"] = rng.normal(1, 2, size=(120, observation)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (120, action)).astype(np.float32)
        file["rewards"] = rng.normal(size=120).astype(np.float32)
        file["terminals"], file["timeouts"] = np.arange(120) % 30 == 29, np.zeros(120, bool)


def block_shapes(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for norm in ("ln1", "ln2"):
        shapes |= {f"{prefix}{norm}.weight": (width,), f"{prefix}{norm}.bias": (width,)}
    for name in ("attn.key", "attn.query", "attn.value", "attn.proj", "mlp.0", "mlp.2"):
        rows, columns = (4 * width if name == "mlp.0" else width), (4 * width if name == "mlp.2" else width)
        shapes |= {f"{prefix}{name}.weight": (rows, columns), f"{prefix}{name}.bias": (rows,)}
    return shapes


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) / 2 for name, shape in shapes.items()}


def random_autoencoder(sizes: Sizes, seed: int) -> Weights:
    width, shapes = sizes.width, {"model.pos_emb": (1, sizes.window, sizes.width)}
    inputs = {"embed": sizes.scalars + 1, "predict": width, "cast_embed": width}
    inputs["latent_mixing"] = sizes.code_dim + sizes.observation
    outputs = {"embed": width, "predict": sizes.scalars + 1, "cast_embed": sizes.code_dim, "latent_mixing": width}
    for name, rows in outputs.items():
        shapes |= {f"model.{name}.weight": (rows, inputs[name]), f"model.{name}.bias": (rows,)}
    for part in ("encoder", "decoder"):
        for layer in range(sizes.layers):
            shapes |= block_shapes(f"model.{part}.{layer}.", width)
    shapes |= {"model.ln_f.weight": (width,), "model.ln_f.bias": (width,)}
    shapes |= {"model.codebook.embedding": (sizes.codes, sizes.code_dim)}
    return drawn(shapes, seed)


def random_prior(sizes: Sizes, seed: int) -> Weights:
    width = sizes.width
    shapes = {"tok_emb.weight": (sizes.codes, width), "pos_emb": (1, sizes.window // 3, width)}
    shapes |= {"state_emb.weight": (width, sizes.observation), "state_emb.bias": (width,)}
    for layer in range(sizes.layers):
        shapes |= block_shapes(f"blocks.{layer}.", width)
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,), "head.weight": (sizes.codes, width)}
    return drawn(shapes, seed)


# The published arithmetic


def blocks(x: Tensor, weights: Weights, prefix: str, sizes: Sizes, *, hides: bool) -> Tensor:
    """With `hides`, nothing attends to every S-th step: the mask was made for a value in every S-th token."""
    length = x.shape[1]
    seen = [
        [j <= i and not (hides and j % sizes.scalars == sizes.scalars - 1) for j in range(length)]
        for i in range(length)
    ]
    for layer in range(sizes.layers):
        x = block(x, weights, f"{prefix}{layer}.", sizes.heads, torch.tensor(seen))
    return x


def codes_by_hand(weights: Weights, sizes: Sizes, windows: Tensor, end: int | None, padding: Tensor) -> Tensor:
    x, over = windows.clone(), torch.zeros(*windows.shape[:2], 1)
    if end is not None:
        x[:, end:], over[:, end:] = padding, 1.0
    x = linear(torch.cat([x, over], -1), weights, "model.embed") + weights["model.pos_emb"][:, : x.shape[1]]
    x = blocks(x, weights, "model.encoder.", sizes, hides=True)
    features = linear(x.unflatten(1, (-1, 3)).amax(2), weights, "model.cast_embed")
    return (features[:, :, None] - weights["model.codebook.embedding"]).square().sum(-1).argmin(-1)


def decoded_by_hand(weights: Weights, sizes: Sizes, codes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    vectors = weights["model.codebook.embedding"][codes]
    mixed = torch.cat([state[:, None].expand(-1, codes.shape[1], -1), vectors], -1)
    x = linear(mixed, weights, "model.latent_mixing").repeat_interleave(3, 1)
    x = blocks(x + weights["model.pos_emb"][:, : x.shape[1]], weights, "model.decoder.", sizes, hides=True)
    out = linear(layer_norm(x, weights, "model.ln_f"), weights, "model.predict")
    values = out[..., :-1].clone()
    values[..., : sizes.observation] += state[:, None]
    return values, out[..., -1].sigmoid()


def prior_by_hand(weights: Weights, sizes: Sizes, codes: Tensor, state: Tensor) -> Tensor:
    """(B, n) codes to (B, n + 1, V) logits; the state is added to every position."""
    table = weights["tok_emb.weight"][codes]
    x = torch.cat([torch.zeros(len(codes), 1, sizes.width), table], 1)
    x = x + weights["pos_emb"][:, : x.shape[1]] + linear(state, weights, "state_emb")[:, None]
    x = layer_norm(blocks(x, weights, "blocks.", sizes, hides=False), weights, "ln_f")
    return x @ weights["head.weight"].T


# Tests


def imported(autoencoder: Weights, prior: Weights | None, sizes: Sizes) -> seqrl.SequenceModel:
    write_data(sizes.observation, sizes.action)
    Path("source").mkdir()
    torch.save(autoencoder, "source/state_3.pt")
    if prior is not None:
        torch.save(prior, "source/prior_state_3.pt")
    words = ["--data", "tiny.hdf5", "--heads", str(sizes.heads), "--output", "mine"]
    assert importing.run(["tap", "source", *words]) == 0
    return load("mine/model/last.ckpt").model


def assert_same(model: seqrl.SequenceModel, weights: Weights, sizes: Sizes, windows: Tensor, end: int) -> None:
    tokenizer = model.tokenizer
    padding = -tokenizer.mean / tokenizer.std
    assert torch.equal(tokenizer.encode_windows(windows), codes_by_hand(weights, sizes, windows, None, padding))
    cut = windows.clone()
    cut[:, end:] = torch.nan
    codes = tokenizer.encode_windows(cut)
    assert torch.equal(codes, codes_by_hand(weights, sizes, windows, end, padding))
    state = windows[:, 0, : sizes.observation]
    values, over = decoded_by_hand(weights, sizes, codes, state)
    for steps in ([codes.shape[1]], [1] * codes.shape[1]):  # at once, and code by code
        imagination, rows, found, ends = tokenizer.imagine(state), torch.arange(len(codes)), [], []
        for part in codes.split(steps, dim=1):
            transitions, ended = imagination.grow(part, rows)
            found.append(transitions)
            ends.append(ended)
        torch.testing.assert_close(torch.cat(found, 1), values * tokenizer.std + tokenizer.mean, rtol=1e-5, atol=1e-5)
        assert torch.equal(torch.cat(ends, 1), over > 0.5)


def test_the_autoencoder_computes_what_it_computed() -> None:
    with np.load(FOLDER / "tap.npz") as file:
        given = {key: torch.from_numpy(file[key]) for key in file.files}
    weights = {k.removeprefix("weights/"): v for k, v in given.items() if k.startswith("weights/")}
    weights["model.codebook.embedding"] = given["codebook"]
    model = imported(weights, None, PUBLISHED)
    tokenizer = model.tokenizer
    tokenizer.mean.copy_(-given["padding_vector"])  # of a deviation of one: zeros of the data are the padding
    tokenizer.std.fill_(1.0)
    assert torch.equal(tokenizer.encode_windows(given["windows"]), given["codes_of_whole_windows"])
    cut = given["windows"].clone()
    cut[:, int(given["end"]) :] = torch.nan
    assert torch.equal(tokenizer.encode_windows(cut), given["codes_of_cut_windows"])
    with torch.no_grad():
        values, termination = tokenizer._transitions(tokenizer.codebook.vectors[given["codes"]], given["states"])
    torch.testing.assert_close(values, given["decoded"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(termination.sigmoid(), given["termination_probability"], rtol=1e-5, atol=1e-5)
    assert_same(model, weights, PUBLISHED, given["windows"], int(given["end"]))


@pytest.mark.parametrize("sizes", OTHERS)
def test_autoencoder_and_prior_are_those_of_the_published_arithmetic(sizes: Sizes) -> None:
    weights, prior = random_autoencoder(sizes, 1), random_prior(sizes, 2)
    model = imported(weights, prior, sizes)
    generator = torch.Generator().manual_seed(3)
    assert_same(model, weights, sizes, torch.randn(4, sizes.window, sizes.scalars, generator=generator), 4)
    state = torch.randn(3, sizes.observation, generator=generator)
    codes = torch.randint(sizes.codes, (3, sizes.window // 3), generator=generator)
    expected = prior_by_hand(prior, sizes, codes[:, :-1], state)
    with torch.no_grad():
        torch.testing.assert_close(model(codes, state)[..., : sizes.codes], expected, rtol=1e-5, atol=1e-5)
    for cache in ("none", "exact"):
        for static in (False, True):
            session = decoding.start(model, CodeHistory(state, time=0, observation=state), cache=cache, static=static)
            rows = torch.tensor([2, 0, 0, 1])
            session.select(rows)
            for place in range(codes.shape[1]):
                by_hand = expected[rows, place]
                torch.testing.assert_close(session.logits[:, : sizes.codes], by_hand, rtol=1e-4, atol=1e-4)
                if place + 1 < codes.shape[1]:
                    session.append(codes[rows, place])


def test_statistics_follow_the_published_rule() -> None:
    """Deviations are plain, of rewards those before the penalty; a file's last row is left out."""
    sizes = OTHERS[0]
    tokenizer = imported(random_autoencoder(sizes, 0), None, sizes).tokenizer
    with h5py.File("tiny.hdf5") as file:
        columns = [np.asarray(file[name])[:-1].reshape(119, -1) for name in ("observations", "actions", "rewards")]
    known = np.concatenate(columns, 1).astype(np.float64)
    np.testing.assert_allclose(tokenizer.mean[:-1], known.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tokenizer.std[:-1], known.std(0), rtol=1e-5)


def test_the_codebook_moves_after_a_step_has_used_it() -> None:
    """What is decoded is the vectors of before; what features are pulled to, those of after."""
    late, ours = (Codebook(4, 2, decay=0.5, revive_after=None, late=each).train() for each in (True, False))
    for book in (late, ours):
        book.vectors.copy_(torch.tensor([[0.0, 0], [1, 0], [0, 1], [5, 5]]))
        book.sums.copy_(book.vectors)
        book.idle.zero_()
    features = torch.tensor([[[0.2, 0.1], [0.9, 0.3]]])
    before = late.vectors.clone()
    found, other = late(features), ours(features)
    torch.testing.assert_close(found.vectors, before[found.codes])
    assert not torch.allclose(other.vectors, before[other.codes])
    torch.testing.assert_close(found.commitment, (features - late.vectors[found.codes]).square().mean())
    torch.testing.assert_close(found.commitment, other.commitment)
    torch.testing.assert_close(late.vectors, ours.vectors)


def test_the_loss_is_the_published_one() -> None:
    """Nothing is reconstructed past the end, and ends count past the longest episode as well."""
    sizes = OTHERS[1]
    weights = random_autoencoder(sizes, 4)
    tokenizer = imported(weights, None, sizes).tokenizer.eval()
    windows = torch.randn(3, sizes.window, sizes.scalars, generator=torch.Generator().manual_seed(1))
    over = torch.arange(sizes.window) >= torch.tensor([[5], [24], [11]])
    mask = torch.arange(sizes.window).expand(3, -1) < 14
    found = tokenizer.loss(windows.masked_fill(over[..., None], torch.nan), mask)
    padding = -tokenizer.mean / tokenizer.std
    inputs = torch.where(over[..., None], padding, windows)
    codes = tokenizer.encode_windows(windows.masked_fill(over[..., None], torch.nan))
    values, ends = decoded_by_hand(weights, sizes, codes, inputs[:, 0, : sizes.observation])
    factors = torch.tensor([1.0] * sizes.observation + [5.0] * sizes.action + [1.0, 1.0])
    squares = (values - inputs).square() * factors * (mask & ~over)[..., None]
    torch.testing.assert_close(found["reconstruction"], squares.mean(), rtol=1e-4, atol=1e-5)
    entropy = F.binary_cross_entropy(ends, over.float())
    torch.testing.assert_close(found["termination"], entropy, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("with_prior", [True, False])
def test_an_imported_planner_is_evaluated(with_prior: bool, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = Sizes(11, 3, 6, 5, 1, 2, 8, 4)
    imported(random_autoencoder(sizes, 1), random_prior(sizes, 2) if with_prior else None, sizes)
    assert ("all codes equally likely" in capsys.readouterr().out) != with_prior
    words = ["checkpoint=mine", "env_id=Hopper-v5", "strategy=latent", "planner.beam_width=2", "planner.horizon=6"]
    assert evaluate.run([*words, "num_episodes=1", "max_steps=2", "progress_bar=false"]) == 0
    (row,) = json.loads(next(Path("mine").glob("evaluations/*/results.json")).read_text())
    assert np.isfinite(row["return_mean"])


def test_the_preset_is_what_is_imported() -> None:
    imported(random_autoencoder(OTHERS[0], 1), None, OTHERS[0])
    config = yaml.safe_load(Path("mine/config.yaml").read_text())
    preset = yaml.safe_load((config_dir() / "method" / "tap_code.yaml").read_text())
    assert config["tokenizer"].items() >= preset["tokenizer"].items()
