"""The published Trajectory Transformer: what its code computed, and its arithmetic written down again in plain loops.

The numbers are described in tests/fixtures/published/README.md. The loops below share nothing with seqrl. They are held
to the published numbers as seqrl is, and then stand in for the published code at other sizes and weights.

`method=tt_code` has the options that reach the published behaviour where the defaults differ; models made here have
them, and bins between given thresholds are set by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from tests.integration.published_blocks import FOLDER, Weights, block, layer_norm
from torch import Tensor
from torch.utils.data import DataLoader

import seqrl
from seqrl.paths import config_dir
from seqrl.registry import OBJECTIVE, PLANNER, SCHEDULER, SCORE, TOKENIZER
from seqrl.types import TokenBatch

DISCOUNT = 0.99


class Sizes(NamedTuple):
    """O, A, T, V and the network's; K scalars and tokens per transition."""

    observation: int
    action: int
    window: int
    bins: int
    layers: int
    heads: int
    width: int

    @property
    def step(self) -> int:
        return self.observation + self.action + 2


PUBLISHED = Sizes(3, 2, 6, 12, 2, 2, 16)
OTHERS = [Sizes(1, 1, 3, 5, 1, 1, 8), Sizes(4, 3, 5, 9, 3, 4, 16), Sizes(2, 5, 7, 20, 2, 3, 12)]


@cache
def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def published_weights(name: str) -> Weights:
    return {
        k.removeprefix("weights/"): torch.from_numpy(v) for k, v in stored(name).items() if k.startswith("weights/")
    }


def random_weights(sizes: Sizes, seed: int) -> Weights:
    """Weights by their published names, large enough for predictions that are far from uniform."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return std * torch.randn(*shape, generator=generator, dtype=torch.float64)

    width, step = sizes.width, sizes.step
    weights = {
        "pos_emb": normal(1, sizes.window * step - 1, width, std=0.5),
        "tok_emb.weight": normal(sizes.bins * step + 1, width, std=0.5),
        "ln_f.weight": 1 + normal(width, std=0.2),
        "ln_f.bias": normal(width, std=0.1),
        "head.weight": normal(step, sizes.bins + 1, width, std=0.6),
    }
    for layer in range(sizes.layers):
        block = f"blocks.{layer}."
        for norm in ("ln1", "ln2"):
            weights[f"{block}{norm}.weight"] = 1 + normal(width, std=0.2)
            weights[f"{block}{norm}.bias"] = normal(width, std=0.1)
        for linear in ("attn.key", "attn.query", "attn.value", "attn.proj", "mlp.0", "mlp.2"):
            rows = 4 * width if linear == "mlp.0" else width
            columns = 4 * width if linear == "mlp.2" else width
            weights[f"{block}{linear}.weight"] = normal(rows, columns, std=1.5 / math.sqrt(columns))
            weights[f"{block}{linear}.bias"] = normal(rows, std=0.1)
    return weights


# seqrl's side


def converted(weights: Weights, sizes: Sizes) -> Weights:
    """The same weights under seqrl's names, for a `SequenceModule`'s model."""
    step, classes = sizes.step, sizes.bins + 1
    table, stop = weights["tok_emb.weight"][:-1].view(step, sizes.bins, -1), weights["tok_emb.weight"][-1]
    rows = torch.cat([table, stop.expand(step, 1, -1)], dim=1)  # (K, V + 1, D)
    positions = weights["pos_emb"][0]
    found = {
        "embedding.weight": rows.reshape(step * classes, -1),
        # The published head e reads the features of place e and predicts place e + 1.
        "head.weight": weights["head.weight"].roll(1, 0).reshape(step * classes, -1),
        "backbone.positions.weight": torch.cat([positions, torch.zeros_like(positions[:1])]),
        "backbone.norm.weight": weights["ln_f.weight"],
        "backbone.norm.bias": weights["ln_f.bias"],
    }
    names = {"ln1": "attention_norm", "ln2": "feed_forward_norm", "attn.proj": "attention_out"}
    names |= {"mlp.0": "feed_forward.0", "mlp.2": "feed_forward.2"}
    for layer in range(sizes.layers):
        for kind in ("weight", "bias"):
            ours, theirs = f"backbone.blocks.{layer}.{{}}.{kind}", f"blocks.{layer}.{{}}.{kind}"
            found |= {ours.format(our): weights[theirs.format(their)] for their, our in names.items()}
            parts = [weights[theirs.format(f"attn.{part}")] for part in ("query", "key", "value")]
            found[ours.format("query_key_value")] = torch.cat(parts)
    return found


def module_of(weights: Weights, sizes: Sizes, thresholds: Tensor | None = None) -> seqrl.SequenceModule:
    """A module with given weights, of their dtype, and with bins between (V + 1, K) thresholds."""
    episode = {
        "observations": np.zeros((9, sizes.observation)),
        "actions": np.zeros((9, sizes.action)),
        "rewards": np.zeros(9),
        "terminated": False,
    }
    preset = yaml.safe_load((config_dir() / "method" / "tt_code.yaml").read_text())
    dropout = dict.fromkeys(("embedding_dropout", "residual_dropout", "attention_dropout"), 0.0)
    module = seqrl.SequenceModule.for_store(
        seqrl.EpisodeStore.from_episodes([episode]),
        layout={"name": "tt", **preset["layout"]},
        tokenizer={**preset["tokenizer"], "name": "quantile", "num_bins": sizes.bins},
        backbone={"num_layers": sizes.layers, "num_heads": sizes.heads, "dim": sizes.width, **dropout},
        objective=preset["objective"],
        scheduler={"name": "constant"},
        window=sizes.window,
    )
    state = converted(weights, sizes)
    if thresholds is not None:
        state["tokenizer.boundaries"] = thresholds[1:-1].T
        state["tokenizer.centres"] = ((thresholds[1:] + thresholds[:-1]) / 2).T
    if any(value.dtype == torch.float64 for value in state.values()):
        module.model.double()
    left_out = module.model.load_state_dict(state, strict=False)
    assert not left_out.unexpected_keys
    assert all(key.startswith("tokenizer.") for key in left_out.missing_keys)
    return module


class GivenNoise:
    """Uniform numbers by draw, in the place of seqrl's own."""

    def __init__(self, numbers: Mapping[int, Tensor]) -> None:
        self.numbers = numbers

    def uniform(self, draw: int, beams: int = 1) -> Tensor:
        assert len(self.numbers[draw]) == beams
        return self.numbers[draw][None]


def planned(model: Any, case: Mapping[str, Any], past: Tensor, present: Tensor, cache_mode: str) -> Any:
    """seqrl's plan after (past, K) tokens of transitions and (O,) tokens of an observation."""
    centres = torch.stack([model.tokenizer.bin_centres(place) for place in range(model.tokens_per_step)])  # (K, V)
    places = torch.arange(model.tokens_per_step)
    values = centres[places, past]
    current = torch.zeros_like(centres[:, 0])
    current[: len(present)] = centres[places[: len(present)], present]
    history = model.history(values[None], current[None])
    assert torch.equal(history.tokens[0], torch.cat([past.flatten(), present])), "bins are told apart"
    options = {key: value for key, value in case.items() if key in OPTIONS}
    planner = PLANNER.build({"name": "beam", "cdf_act": None, **options, "cache": cache_mode})
    score = SCORE.build({"name": "reward"}, discount=DISCOUNT)
    with torch.no_grad():
        return planner.plan(model, history, score, GivenNoise(case["uniform"]))


OPTIONS = ("horizon", "beam_width", "n_expand", "context", "k_obs", "k_act", "cdf_obs", "cdf_act")
OPTIONS += ("percentile", "percentile_rule")


# The published arithmetic


def logits_by_hand(weights: Weights, sizes: Sizes, tokens: Tensor) -> Tensor:
    """(R, n) tokens, of which the first opens a transition, to (R, n, V + 1) logits of the token after each."""
    length = tokens.shape[1]
    columns = []
    for i in range(length):
        row = tokens[:, i] + (i % sizes.step) * sizes.bins
        row = torch.where(tokens[:, i] == sizes.bins, sizes.bins * sizes.step, row)  # one stop token for all places
        columns.append(weights["tok_emb.weight"][row] + weights["pos_emb"][0, i])
    x = torch.stack(columns, dim=1)
    is_value = [j % sizes.step == sizes.step - 1 for j in range(length)]  # which tell the future
    seen = torch.tensor([[j <= i and not is_value[j] for j in range(length)] for i in range(length)])
    for layer in range(sizes.layers):
        x = block(x, weights, f"blocks.{layer}.", sizes.heads, seen)
    x = layer_norm(x, weights, "ln_f")
    return torch.stack([x[:, i] @ weights["head.weight"][i % sizes.step].T for i in range(length)], dim=1)


def loss_by_hand(weights: Weights, sizes: Sizes, tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of the weighted losses over all targets, those that (B, T K - 1) mask rules out included as zeros."""
    flat = tokens.flatten(1)
    log_probs = logits_by_hand(weights, sizes, flat[:, :-1]).log_softmax(-1)
    total = torch.zeros((), dtype=log_probs.dtype)
    for i in range(flat.shape[1] - 1):
        place = (i + 1) % sizes.step
        is_action = sizes.observation <= place < sizes.observation + sizes.action
        nats = -log_probs[:, i].gather(1, flat[:, i + 1, None])[:, 0]
        total = total + (5.0 if is_action else 1.0) * (nats * mask[:, i]).sum()
    return total / mask.numel()


def drawn_by_hand(logits: Tensor, top_k: int | None, tail: float | None, uniform: float | None) -> int:
    """The first token whose cumulative probability exceeds a uniform number, of those that two filters leave."""
    probabilities = logits.softmax(-1).tolist()
    order = sorted(range(len(probabilities)), key=lambda token: probabilities[token])
    kept, mass = [], 0.0
    for token in order:  # the least likely first
        mass += probabilities[token]
        if tail is None or mass >= tail:
            kept.append(token)
    kept = kept[-top_k:] if top_k is not None else kept
    if len(kept) == 1:
        return kept[0]
    assert uniform is not None
    whole, cumulative = sum(probabilities[token] for token in kept), 0.0
    for token in sorted(kept):
        cumulative += probabilities[token] / whole
        if cumulative > uniform:
            return token
    return max(kept)


def plan_by_hand(
    weights: Weights, sizes: Sizes, thresholds: Tensor, case: Mapping[str, Any], start: list[int]
) -> tuple[list[list[int]], float]:
    """The published search: tokens of the best plan, transition by transition, and what it is worth."""
    step, context = sizes.step, case["context"]
    middles = (thresholds[1:] + thresholds[:-1]) / 2  # (V, K)

    def following(sequences: list[list[int]]) -> Tensor:
        """(R, V + 1) logits of the next token; whole transitions leave on the left until the context fits."""
        tokens = torch.tensor(sequences)
        while tokens.shape[1] > context * step - 1:
            tokens = tokens[:, step:]
        return logits_by_hand(weights, sizes, tokens)[:, -1]

    def extend(sequences: list[list[int]], place: int, depth: int, top_k: int | None, tail: float | None) -> None:
        uniforms = case["uniform"].get(depth * step + place)
        for number, logits in enumerate(following(sequences)):
            uniform = None if uniforms is None else float(uniforms[number])
            sequences[number].append(drawn_by_hand(logits, top_k, tail, uniform))

    survivors = [(list(start), [0.0])] * case["beam_width"]  # tokens, and the rewards so far with the value last
    for depth in range(case["horizon"]):
        sequences, rewards = [], []
        for tokens, earned in survivors:
            for _ in range(case["n_expand"]):
                sequences.append(list(tokens))
                rewards.append(list(earned[:-1]))
        for place in range(sizes.observation, sizes.observation + sizes.action):
            extend(sequences, place, depth, case.get("k_act"), case.get("cdf_act"))
        for place in (step - 2, step - 1):
            expected = following(sequences).softmax(-1)[:, :-1] @ middles[:, place]
            for own, number in zip(rewards, expected.tolist(), strict=True):
                own.append(number)
            extend(sequences, place, depth, 1, None)
        worth = [sum(DISCOUNT**k * number for k, number in enumerate(own)) for own in rewards]
        best = sorted(range(len(worth)), key=lambda number: -worth[number])[: case["beam_width"]]
        survivors = [(sequences[number], rewards[number]) for number in best]
        if depth + 1 < case["horizon"]:
            sequences = [tokens for tokens, _ in survivors]
            for place in range(sizes.observation):
                extend(sequences, place, depth + 1, case.get("k_obs"), case.get("cdf_obs"))
    plan = survivors[0][0][len(start) - sizes.observation :]
    return [plan[i : i + step] for i in range(0, len(plan), step)], worth[best[0]]


# Tests


def assert_same_logits(weights: Weights, sizes: Sizes, tokens: Tensor, expected: Tensor) -> None:
    """In double precision to the last digits; single precision rounds otherwise on other processors (by 1.6e-5 with
    AVX-512)."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        model = module_of({k: v.to(dtype) for k, v in weights.items()}, sizes).model.eval()
        with torch.no_grad():
            found = model(tokens)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


def test_logits_are_the_published_ones() -> None:
    file = stored("tt_gpt")
    weights, tokens = published_weights("tt_gpt"), torch.from_numpy(file["tokens"])
    expected = torch.from_numpy(file["logits_float64"])
    by_hand = logits_by_hand({k: v.double() for k, v in weights.items()}, PUBLISHED, tokens.flatten(1)[:, :-1])
    torch.testing.assert_close(by_hand, expected, atol=1e-12, rtol=1e-12)
    assert_same_logits(weights, PUBLISHED, tokens, expected)


@pytest.mark.parametrize("sizes", OTHERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_are_those_of_the_published_arithmetic(sizes: Sizes, seed: int) -> None:
    weights = random_weights(sizes, seed)
    shape = (6, sizes.window, sizes.step)
    tokens = torch.randint(sizes.bins + 1, shape, generator=torch.Generator().manual_seed(seed))
    assert_same_logits(weights, sizes, tokens, logits_by_hand(weights, sizes, tokens.flatten(1)[:, :-1]))


@pytest.mark.parametrize("mask_of", ["targets", "inputs"])
def test_the_loss_is_the_published_one(mask_of: str) -> None:
    file = stored("tt_gpt")
    tokens, mask = torch.from_numpy(file["tokens"]), torch.from_numpy(file["mask"])
    weights = {k: v.double() for k, v in published_weights("tt_gpt").items()}
    expected = float(file[f"loss_mask_of_{mask_of}"])
    own = mask.flatten(1)[:, 1:] if mask_of == "targets" else mask.flatten(1)[:, :-1]
    assert float(loss_by_hand(weights, PUBLISHED, tokens, own)) == pytest.approx(expected, abs=1e-6)
    option = None if mask_of == "targets" else "inputs"
    objective = OBJECTIVE.build({"name": "next_token", "average": "all", "mask": option})
    with torch.no_grad():
        outcome = objective(module_of(weights, PUBLISHED).model.eval(), TokenBatch(tokens, mask))
    assert float(outcome.total / outcome.count) == pytest.approx(expected, abs=1e-6)


@cache
def published_model(dtype: torch.dtype) -> Any:
    thresholds = torch.from_numpy(stored("tt_plans")["thresholds"]).to(dtype)
    weights = {k: v.to(dtype) for k, v in published_weights("tt_gpt").items()}
    return module_of(weights, PUBLISHED, thresholds).model.eval()


def published_case(number: int) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Options with the uniform numbers, tokens of the past, tokens of the present observation."""
    file = stored("tt_plans")
    case: dict[str, Any] = json.loads(str(file["cases"]))[number]
    prefix = f"{number}/uniform/"
    uniform = {int(k.removeprefix(prefix)): torch.from_numpy(v) for k, v in file.items() if k.startswith(prefix)}
    past, present = (torch.from_numpy(file[f"{number}/{key}"]) for key in ("history", "observation"))
    return {**case, "uniform": uniform}, past, present


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cache_mode", ["none", "exact"])
@pytest.mark.parametrize("number", range(20))
def test_plans_are_the_published_ones(number: int, cache_mode: str, dtype: torch.dtype) -> None:
    case, past, present = published_case(number)
    model = published_model(dtype)
    found = planned(model, case, past, present, cache_mode)
    assert found.tokens[0].tolist() == stored("tt_plans")[f"{number}/plan"].tolist()
    assert float(found.value[0]) == pytest.approx(case["value"], abs=1e-5)


def test_plans_by_hand_are_the_published_ones() -> None:
    weights = {k: v.double() for k, v in published_weights("tt_gpt").items()}
    thresholds = torch.from_numpy(stored("tt_plans")["thresholds"])
    for number in range(20):
        case, past, present = published_case(number)
        start = [*past.flatten().tolist(), *present.tolist()]
        tokens, value = plan_by_hand(weights, PUBLISHED, thresholds, case, start)
        assert tokens == stored("tt_plans")[f"{number}/plan"].tolist()
        assert value == pytest.approx(case["value"], abs=1e-5)


SEARCHES: list[dict[str, Any]] = [
    {"horizon": 3, "beam_width": 3, "n_expand": 2, "k_obs": 1, "cdf_act": 0.6},
    {"horizon": 2, "beam_width": 4, "n_expand": 3, "k_obs": 1, "k_act": 3},
    {"horizon": 4, "beam_width": 3, "n_expand": 1, "k_obs": None, "cdf_obs": 0.4, "k_act": 4, "cdf_act": 0.1},
]


@pytest.mark.parametrize("past", [0, 5])
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("sizes", OTHERS)
def test_plans_are_those_of_the_published_arithmetic(sizes: Sizes, search: dict[str, Any], past: int) -> None:
    generator = torch.Generator().manual_seed(past)
    weights = random_weights(sizes, seed=past)
    thresholds = torch.randn(sizes.bins + 1, sizes.step, generator=generator, dtype=torch.float64).sort(dim=0).values
    history = torch.randint(sizes.bins, (past, sizes.step), generator=generator)
    present = torch.randint(sizes.bins, (sizes.observation,), generator=generator)
    uniform = {}
    for depth in range(search["horizon"]):
        for place in range(sizes.step):
            beams = search["beam_width"] * (1 if place < sizes.observation else search["n_expand"])
            uniform[depth * sizes.step + place] = torch.rand(beams, generator=generator, dtype=torch.float64)
    model = module_of(weights, sizes, thresholds).model.eval()
    for context in {2, sizes.window}:
        case = {**search, "context": context, "uniform": uniform}
        start = [*history.flatten().tolist(), *present.tolist()]
        tokens, value = plan_by_hand(weights, sizes, thresholds, case, start)
        for cache_mode in ("none", "exact"):
            found = planned(model, case, history, present, cache_mode)
            assert found.tokens[0].tolist() == tokens
            assert float(found.value[0]) == pytest.approx(value, abs=1e-9)


class Watch(pl.Callback):
    """Losses, and norms of the gradients before they are clipped."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        gradients = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat(gradients).norm()))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))


def trained(weights: Weights, sizes: Sizes, tokens: Tensor, masks: Tensor, folder: Path) -> Watch:
    """seqrl's training in a plain trainer, a step for each of (steps, B, T, K) tokens."""
    watch = Watch()
    trainer = pl.Trainer(
        max_steps=len(tokens),
        gradient_clip_val=1.0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[watch],
    )
    batches = [TokenBatch(step, mask) for step, mask in zip(tokens, masks, strict=True)]
    trainer.fit(module_of(weights, sizes), DataLoader(batches, batch_size=None))
    return watch


def train_by_hand(weights: Weights, sizes: Sizes, tokens: Tensor, masks: Tensor) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of AdamW at 6e-4, betas 0.9 and 0.95, decay 0.1 of the weights of linear layers."""
    weights = {name: value.clone().requires_grad_() for name, value in weights.items()}
    decayed = [name for name in weights if ".attn." in name or ".mlp." in name or name.startswith("head")]
    first, second = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    losses, norms = [], []
    for step, (batch, mask) in enumerate(zip(tokens, masks, strict=True), start=1):
        loss = loss_by_hand(weights, sizes, batch, mask)
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
        losses.append(float(loss.detach()))
        norms.append(norm)
        for name, gradient in gradients.items():
            clipped = gradient * min(1.0, 1.0 / (norm + 1e-6))
            first[name] = 0.9 * first[name] + 0.1 * clipped
            second[name] = 0.95 * second[name] + 0.05 * clipped**2
            change = first[name] / (1 - 0.9**step) / ((second[name] / (1 - 0.95**step)).sqrt() + 1e-8)
            decay = 0.1 if name in decayed and name.endswith("weight") else 0.0
            with torch.no_grad():
                weights[name] -= 6e-4 * (change + decay * weights[name])
    return losses, norms


LIGHTNING_SAYS = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated",
    "ignore:.*does not have many workers",
    "ignore:You defined a `validation_step` but have no `val_dataloader`",
    "ignore:The `srun` command is available",
    "ignore:.*your dataloader is not resumable",
)


@LIGHTNING_SAYS
def test_training_is_the_published_one(tmp_path: Path) -> None:
    file = stored("tt_training")
    tokens = torch.from_numpy(file["tokens"].astype(np.int64))
    masks = torch.ones_like(tokens, dtype=torch.bool)
    weights = published_weights("tt_training")
    found = trained(weights, PUBLISHED, tokens, masks, tmp_path)
    shifted = masks.flatten(2)[..., :-1]
    losses, norms = train_by_hand({k: v.double() for k, v in weights.items()}, PUBLISHED, tokens, shifted)
    for each in (found.losses, losses):
        np.testing.assert_allclose(each, file["losses"], rtol=0, atol=5e-6)
    for each in (found.norms, norms):
        np.testing.assert_allclose(each, file["gradient_norms"], rtol=1e-4)


@LIGHTNING_SAYS
@pytest.mark.parametrize("sizes", OTHERS)
def test_training_is_that_of_the_published_arithmetic(sizes: Sizes, tmp_path: Path) -> None:
    """With windows that end, and carry no loss after some place.

    The termination token has one row of the embedding: what AdamW makes of a sum of gradients is not the sum of what it
    makes of each.
    """
    generator = torch.Generator().manual_seed(4)
    weights = random_weights(sizes, seed=4)
    shape = (12, 5, sizes.window, sizes.step)
    tokens = torch.randint(sizes.bins, shape, generator=generator)
    ends = torch.randint(1, 2 * sizes.window, shape[:2], generator=generator)
    tokens[torch.arange(sizes.window) >= ends[..., None]] = sizes.bins
    steps = torch.randint(1, sizes.window + 1, shape[:2], generator=generator)
    masks = (torch.arange(sizes.window) < steps[..., None])[..., None].expand(shape)
    losses, norms = train_by_hand(weights, sizes, tokens, masks.flatten(2)[..., :-1])
    found = trained(weights, sizes, tokens, masks, tmp_path)
    np.testing.assert_allclose(found.losses, losses, rtol=0, atol=1e-5)  # seqrl takes losses in float32
    np.testing.assert_allclose(found.norms, norms, rtol=1e-5)


# Bins and schedule


def tokens_by_hand(values: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) published tokens of a column, and its (V + 1,) thresholds: fewer where n is small."""
    per_bin = math.ceil(len(values) / num_bins)
    thresholds = np.append(np.sort(values)[::per_bin], values.max())
    tokens = []
    for value in values:
        reached = [i for i, threshold in enumerate(thresholds) if value >= threshold]
        number = len(thresholds) if len(reached) == len(thresholds) else max(reached, default=0)
        tokens.append(min(number, num_bins - 1))
    return np.array(tokens), thresholds


def published_bins(columns: int, num_bins: int) -> Any:
    preset = yaml.safe_load((config_dir() / "method" / "tt_code.yaml").read_text())["tokenizer"]
    return TOKENIZER.build({"name": "quantile", "num_bins": num_bins, **preset}, size=columns)


def test_bins_are_the_published_ones() -> None:
    """Tied columns included: one of tenths, and one that is mostly zero."""
    file = stored("tt_bins")
    values = torch.from_numpy(file["values"])
    tokenizer = published_bins(values.shape[1], 100)
    tokenizer.fit(values)
    tokens = tokenizer.encode(values)
    np.testing.assert_array_equal(tokens, file["tokens"])
    np.testing.assert_array_equal(tokenizer.decode(tokens), file["decoded"].astype(np.float32))
    np.testing.assert_array_equal(tokenizer.boundaries.T, file["thresholds"][1:-1])


@pytest.mark.parametrize(("count", "num_bins"), [(700, 7), (150, 100), (99, 100), (395, 40), (7, 10), (4000, 100)])
@pytest.mark.parametrize("seed", [0, 1])
def test_bins_are_those_of_the_published_rule(count: int, num_bins: int, seed: int) -> None:
    """The published code cannot decode the largest value where it has fewer bins than it was asked for."""
    values = np.random.default_rng(seed).normal(size=count).round(seed + 1)
    tokens, thresholds = tokens_by_hand(values, num_bins)
    tokenizer = published_bins(1, num_bins)
    tokenizer.fit(torch.from_numpy(values)[:, None])
    found = tokenizer.encode(torch.from_numpy(values)[:, None])
    np.testing.assert_array_equal(found[:, 0], tokens)
    decodable = tokens + 1 < len(thresholds)
    expected = (thresholds[tokens[decodable]] + thresholds[tokens[decodable] + 1]) / 2
    np.testing.assert_array_equal(tokenizer.decode(found)[decodable, 0], expected.astype(np.float32))
    assert decodable.sum() > 0


def test_midpoints_alone_move_heavy_ties() -> None:
    """The two options are told apart: our edges with their centres."""
    values = torch.cat([torch.zeros(90), torch.arange(1.0, 11.0)])[:, None]
    ours = TOKENIZER.build({"name": "quantile", "num_bins": 10}, size=1)
    middles = TOKENIZER.build({"name": "quantile", "num_bins": 10, "decode_to": "midpoints"}, size=1)
    for tokenizer in (ours, middles):
        tokenizer.fit(values)
    assert torch.equal(ours.boundaries, middles.boundaries)
    assert not torch.equal(ours.centres, middles.centres)


def test_the_schedule_is_the_published_one() -> None:
    file = stored("tt_schedule")
    scheduler = SCHEDULER.build(
        {"name": "tt_reference"},
        max_steps=len(file["multipliers"]),
        steps_per_epoch=int(file["windows"] // file["batch_size"]),
        targets_per_epoch=int(file["windows"] * file["targets_per_window"]),
    )
    found = []
    for step, targets in enumerate(file["targets_that_are_no_termination"]):
        found.append(scheduler.factor(step))
        scheduler.count(int(targets))
    np.testing.assert_allclose(found, file["multipliers"], rtol=0, atol=1e-12)


class Rates(pl.Callback):
    """Learning rates of the steps, and how many of their targets are no termination token."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.targets: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rates.append(float(trainer.optimizers[0].param_groups[0]["lr"]))
        self.targets.append(int((batch.tokens.flatten(1)[:, 1:] != pl_module.model.termination_token).sum()))


@LIGHTNING_SAYS
def test_a_training_keeps_the_published_schedule_and_so_does_its_rest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.normal(size=(n, 2)),
            "actions": rng.normal(size=(n, 1)),
            "rewards": np.ones(n),
            "terminated": True,
        }
        for n in (9, 5, 7)
    ]
    store = seqrl.EpisodeStore.from_episodes(episodes)

    def fit(steps: int, checkpoint: Path | None) -> tuple[pl.Trainer, Rates, int]:
        module = seqrl.SequenceModule.for_store(
            store,
            backbone={"num_layers": 1, "num_heads": 1, "dim": 8},
            tokenizer={"num_bins": 5},
            scheduler={"name": "tt_reference", "cosine_epochs": 3},
            window=4,
        )
        data = seqrl.EpisodeDataModule.for_module(module, store, batch_size=4, validation_fraction=0.0)
        watch = Rates()
        quiet: dict[str, Any] = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        quiet |= {"max_steps": steps, "limit_val_batches": 0, "default_root_dir": tmp_path, "accelerator": "cpu"}
        trainer = pl.Trainer(callbacks=[watch], **quiet)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        return trainer, watch, len(data.train_windows) * (4 * module.model.tokens_per_step - 1)

    _, whole, epoch = fit(20, None)
    expected, seen = [6e-4], 0
    for targets in whole.targets[:-1]:
        seen += targets
        progress = (seen - epoch) / (3 * epoch - epoch)
        factor = seen / epoch if seen < epoch else max(0.1, 0.5 * (1 + math.cos(math.pi * progress)))
        expected.append(6e-4 * factor)
    np.testing.assert_allclose(whole.rates, expected, rtol=1e-9)
    assert len(set(whole.targets)) > 1, "some windows pass the end of their episode"
    trainer, first, _ = fit(8, None)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, second, _ = fit(20, tmp_path / "half.ckpt")
    assert first.rates + second.rates == whole.rates


def test_a_percentile_is_the_published_one() -> None:
    """The value of the bin below the one at which the probability, not renormalised, is passed."""
    weights = random_weights(OTHERS[1], seed=3)
    sizes = OTHERS[1]
    generator = torch.Generator().manual_seed(3)
    thresholds = torch.randn(sizes.bins + 1, sizes.step, generator=generator, dtype=torch.float64).sort(dim=0).values
    model = module_of(weights, sizes, thresholds).model.eval()
    present = torch.randint(sizes.bins, (sizes.observation,), generator=generator)
    past = torch.randint(sizes.bins, (0, sizes.step), generator=generator)
    for percentile in (0.0, 0.3, 0.7, 0.999):
        case = {"horizon": 1, "beam_width": 1, "n_expand": 1, "k_act": 1, "context": 3, "uniform": {}}
        case |= {"percentile": percentile, "percentile_rule": "published"}
        plan = planned(model, case, past, present, "none")
        sequence = [*present.tolist(), *plan.tokens[0, 0].tolist()[sizes.observation :]]
        worth = 0.0
        for power, place in enumerate((sizes.step - 2, sizes.step - 1)):
            logits = logits_by_hand(weights, sizes, torch.tensor([sequence[:place]]))[0, -1]
            cumulative = logits.softmax(-1)[:-1].cumsum(-1).tolist()
            first = next((i for i, mass in enumerate(cumulative) if mass > percentile), 0)
            column = thresholds[:, place].tolist()
            worth += DISCOUNT**power * (column[first - 1] + column[first]) / 2
        assert float(plan.value[0]) == pytest.approx(worth, abs=1e-6)
