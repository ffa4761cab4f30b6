"""The published Trajectory Transformer: what its code computed, and its arithmetic written down again in plain loops.

The numbers are described in tests/fixtures/published/README.md. The loops below share nothing with seqrl. They are held
to the published numbers as seqrl is, and then stand in for the published code at other sizes and weights.

Published bins decode to the midpoints of their edges, which no option of a tokenizer reaches; here edges and centres of
`tokenizer=quantile` are set by hand. The published loss takes its mask from the inputs; here the mask is shifted.
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
from torch import Tensor
from torch.utils.data import DataLoader

import seqrl
from seqrl.registry import OBJECTIVE, PLANNER, SCORE
from seqrl.types import TokenBatch

FOLDER = Path(__file__).parents[1] / "fixtures" / "published"
DISCOUNT = 0.99
Weights = dict[str, Tensor]


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
    dropout = dict.fromkeys(("embedding_dropout", "residual_dropout", "attention_dropout"), 0.0)
    module = seqrl.SequenceModule.for_store(
        seqrl.EpisodeStore.from_episodes([episode]),
        layout="tt",
        tokenizer={"name": "quantile", "num_bins": sizes.bins},
        backbone={"num_layers": sizes.layers, "num_heads": sizes.heads, "dim": sizes.width, **dropout},
        objective={"average": "all"},
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


# The published arithmetic


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


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
    size = sizes.width // sizes.heads
    for layer in range(sizes.layers):
        block = f"blocks.{layer}."
        normed = layer_norm(x, weights, f"{block}ln1")
        query, key, value = (linear(normed, weights, f"{block}attn.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(sizes.heads):
            own = slice(head * size, (head + 1) * size)
            scores = query[..., own] @ key[..., own].transpose(1, 2) / math.sqrt(size)
            shares = scores.masked_fill(~seen, -torch.inf).softmax(-1)
            heads.append(shares @ value[..., own])
        x = x + linear(torch.cat(heads, dim=-1), weights, f"{block}attn.proj")
        widened = linear(layer_norm(x, weights, f"{block}ln2"), weights, f"{block}mlp.0")
        activated = widened * 0.5 * (1 + torch.erf(widened / math.sqrt(2)))
        x = x + linear(activated, weights, f"{block}mlp.2")
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
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
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
    if (
        mask_of == "inputs"
    ):  # seqrl's mask is of targets: what the published one says of an input goes to the next token
        mask = torch.cat([mask.flatten(1)[:, :1], mask.flatten(1)[:, :-1]], dim=1).view_as(mask)
    expected = float(file[f"loss_mask_of_{mask_of}"])
    assert float(loss_by_hand(weights, PUBLISHED, tokens, mask.flatten(1)[:, 1:])) == pytest.approx(expected, abs=1e-6)
    objective = OBJECTIVE.build({"name": "next_token", "average": "all"})
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
        loss = loss_by_hand(weights, sizes, batch, mask.flatten(1)[:, 1:])
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
)


@LIGHTNING_SAYS
def test_training_is_the_published_one(tmp_path: Path) -> None:
    file = stored("tt_training")
    tokens = torch.from_numpy(file["tokens"].astype(np.int64))
    masks = torch.ones_like(tokens, dtype=torch.bool)
    weights = published_weights("tt_training")
    found = trained(weights, PUBLISHED, tokens, masks, tmp_path)
    losses, norms = train_by_hand({k: v.double() for k, v in weights.items()}, PUBLISHED, tokens, masks)
    for each in (found.losses, losses):
        np.testing.assert_allclose(each, file["losses"], rtol=0, atol=5e-6)
    for each in (found.norms, norms):
        np.testing.assert_allclose(each, file["gradient_norms"], rtol=1e-4)


@LIGHTNING_SAYS
@pytest.mark.parametrize("sizes", OTHERS)
def test_training_is_that_of_the_published_arithmetic(sizes: Sizes, tmp_path: Path) -> None:
    """With windows that carry no loss after some place.

    Termination tokens are left out: the published code has one embedding of them for all places, seqrl one for each,
    and what AdamW makes of a sum of gradients is not the sum of what it makes of each.
    """
    generator = torch.Generator().manual_seed(4)
    weights = random_weights(sizes, seed=4)
    shape = (12, 5, sizes.window, sizes.step)
    tokens = torch.randint(sizes.bins, shape, generator=generator)
    masks = torch.rand((12, 5, 1), generator=generator) > torch.arange(sizes.window * sizes.step) / 80
    losses, norms = train_by_hand(weights, sizes, tokens, masks.view(shape))
    found = trained(weights, sizes, tokens, masks.view(shape), tmp_path)
    np.testing.assert_allclose(found.losses, losses, rtol=0, atol=1e-5)  # seqrl takes losses in float32
    np.testing.assert_allclose(found.norms, norms, rtol=1e-5)
