"""The sequence model and its decoding session against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.registry import BACKBONE
from seqrl.testing import samples
from seqrl.types import TokenBatch

OBS, ACT, V, T = 3, 2, 7, 5
K = OBS + ACT + 2


def make(goal: bool = False, hidden: bool = True, context: int = T, seed: int = 0) -> TokenModel:
    """A tiny float64 model with large random weights, so that every token matters."""
    torch.manual_seed(seed)
    layout = Layout.from_config(
        {
            "fields": {
                "observation": {},
                "action": {"loss_weight": 5.0},
                "reward": {},
                "value": {"hidden": hidden},
            },
            "goal": {"dims": [0, 2]} if goal else None,
        },
        OBS,
        ACT,
    )
    model = TokenModel(
        layout,
        {"name": "uniform", "num_bins": V},
        {"name": "gpt", "num_layers": 2, "num_heads": 2, "dim": 8},
        context=context,
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


def random_tokens(rows: int, transitions: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, V + 1, (rows, transitions, K), generator=torch.Generator().manual_seed(seed))


def gpt_by_hand(model: TokenModel, tokens: list[int], prefix: list[int]) -> np.ndarray:
    """Logits of every next token, one position after the other, in NumPy loops; value keys left out."""
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    classes, dim, heads = V + 1, 8, 2

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    rows = [prefix[p] + (K + p) * classes for p in range(len(prefix))]
    rows += [token + (i % K) * classes for i, token in enumerate(tokens)]
    x = weights["embedding.weight"][rows] + weights["backbone.positions.weight"][: len(rows)]
    visible = [True] * len(prefix) + [i % K != K - 1 for i in range(len(tokens))]
    for layer in range(2):
        block = f"backbone.blocks.{layer}"
        query, key, value = np.split(linear(norm(x, f"{block}.attention_norm"), f"{block}.query_key_value"), 3, -1)
        out = np.zeros_like(x)
        for head in range(heads):
            part = slice(head * dim // heads, (head + 1) * dim // heads)
            for i in range(len(rows)):
                keys = [j for j in range(i + 1) if visible[j]]
                scores = key[keys, part] @ query[i, part] / np.sqrt(dim // heads)
                probabilities = np.exp(scores - scores.max())
                out[i, part] = (probabilities / probabilities.sum()) @ value[keys, part]
        x = x + linear(out, f"{block}.attention_out")
        inner = linear(norm(x, f"{block}.feed_forward_norm"), f"{block}.feed_forward.0")
        gelu = torch.nn.functional.gelu(torch.from_numpy(inner)).numpy()
        x = x + linear(gelu, f"{block}.feed_forward.2")
    features = norm(x, "backbone.norm")[len(prefix) :]
    head_weights = weights["head.weight"].reshape(K, classes, dim)
    return np.stack([head_weights[(i + 1) % K] @ features[i] for i in range(len(tokens))])


def llama_by_hand(model: TokenModel, tokens: list[int], base: float) -> np.ndarray:
    """The same for `llama` with 4 query heads on 2 key heads: positions as complex rotations, everything in loops."""
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    classes, dim, heads, kv_heads = V + 1, 16, 4, 2
    size = dim // heads

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * gain

    def turned(x: np.ndarray, position: int) -> np.ndarray:
        pairs = x[: size // 2] + 1j * x[size // 2 :]
        pairs = pairs * np.exp(1j * position / base ** (np.arange(size // 2) * 2 / size))
        return np.concatenate([pairs.real, pairs.imag])

    x = weights["embedding.weight"][[token + (i % K) * classes for i, token in enumerate(tokens)]]
    for layer in range(2):
        block = f"backbone.blocks.{layer}"
        qkv = norm(x, weights[f"{block}.attention_norm.weight"]) @ weights[f"{block}.query_key_value.weight"].T
        parts = qkv.reshape(len(tokens), heads + 2 * kv_heads, size)
        if f"{block}.query_key_gain" in weights:
            gains = np.concatenate([weights[f"{block}.query_key_gain"], np.zeros((kv_heads, size))])
            values = parts[:, heads + kv_heads :].copy()
            parts = norm(parts, gains)
            parts[:, heads + kv_heads :] = values
        out = np.zeros((len(tokens), heads, size))
        for head in range(heads):
            group = head // (heads // kv_heads)
            for i in range(len(tokens)):
                keys = [j for j in range(i + 1) if j % K != K - 1]
                query = turned(parts[i, head], i)
                scores = np.array([turned(parts[j, heads + group], j) @ query for j in keys]) / np.sqrt(size)
                probabilities = np.exp(scores - scores.max())
                out[i, head] = (probabilities / probabilities.sum()) @ parts[keys, heads + kv_heads + group]
        x = x + out.reshape(len(tokens), dim) @ weights[f"{block}.attention_out.weight"].T
        both = norm(x, weights[f"{block}.feed_forward_norm.weight"]) @ weights[f"{block}.gate_and_up.weight"].T
        gate, up = np.split(both, 2, -1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[f"{block}.down.weight"].T
    features = norm(x, weights["backbone.norm.weight"])
    head_weights = weights["head.weight"].reshape(K, classes, dim)
    return np.stack([head_weights[(i + 1) % K] @ features[i] for i in range(len(tokens))])


@pytest.mark.parametrize(("qk_norm", "base"), [(False, 10_000.0), (True, 10_000.0), (False, 30.0)])
def test_llama_equals_a_computation_by_hand(qk_norm: bool, base: float) -> None:
    torch.manual_seed(0)
    model = TokenModel(
        make().layout,
        {"name": "uniform", "num_bins": V},
        {
            "name": "llama",
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "dim": 16,
            "qk_norm": qk_norm,
            "rope_base": base,
        },
        context=T,
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = random_tokens(1, 2)
    expected = llama_by_hand(model.double().eval(), tokens.flatten().tolist()[:-1], base)
    np.testing.assert_allclose(model(tokens)[0].detach().numpy(), expected, atol=1e-10)


def test_llama_has_as_many_weights_as_gpt() -> None:
    sizes = {}
    for name, options in (("gpt", {}), ("llama", {"num_kv_heads": None})):
        model = TokenModel(make().layout, {"name": "uniform"}, {"name": name, **options}, context=10)
        sizes[name] = sum(p.numel() for p in model.backbone.parameters() if p.ndim == 2)
    positions = 10 * K * 128
    assert sizes["llama"] == pytest.approx(sizes["gpt"] - positions, rel=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim": 20}, "no multiple of twice"),
        ({"num_kv_heads": 3}, "does not divide"),
        ({"num_kv_heads": 0}, "from 1 to 1024"),
    ],
)
def test_llama_refuses_sizes_that_do_not_divide(options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BACKBONE.build({"name": "llama", **options}, max_length=8)


@pytest.mark.parametrize("goal", [False, True])
def test_logits_equal_a_computation_by_hand(goal: bool) -> None:
    model = make(goal)
    tokens = random_tokens(1, 2)
    prefix = torch.tensor([[3, V]]) if goal else None
    expected = gpt_by_hand(model, tokens.flatten().tolist()[:-1], [3, V] if goal else [])
    np.testing.assert_allclose(model(tokens, prefix)[0].detach().numpy(), expected, atol=1e-10)


def test_loss_equals_a_float64_computation_by_hand() -> None:
    from seqrl.registry import OBJECTIVE

    model = make()
    tokens = random_tokens(2, 2, seed=1)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, 1] = False
    total, count, correct = 0.0, 0, 0
    for row in range(2):
        flat = tokens[row].flatten().tolist()
        logits = gpt_by_hand(model, flat[:-1], [])
        for i, target in enumerate(flat[1:], start=1):
            if not mask[row].flatten()[i]:
                continue
            log_probs = logits[i - 1] - np.log(np.exp(logits[i - 1]).sum())
            total -= log_probs[target] * (5.0 if OBS <= i % K < OBS + ACT else 1.0)
            count += 1
            correct += (OBS <= i % K < OBS + ACT) and int(logits[i - 1].argmax() == target)
    valid = OBJECTIVE.build({"name": "next_token"})(model, TokenBatch(tokens, mask))
    assert (valid.total / valid.count).item() == pytest.approx(total / count, abs=1e-5)
    assert int(valid.fields["action"].correct) == correct
    assert int(valid.fields["observation"].count) == 2 * OBS - 2 + OBS  # two windows less their first token, one masked
    published = OBJECTIVE.build({"name": "next_token", "average": "all"})(model, TokenBatch(tokens, mask))
    assert (published.total / published.count).item() == pytest.approx(total / (2 * (2 * K - 1)), abs=1e-5)


@pytest.mark.parametrize("dropout", ["embedding_dropout", "residual_dropout", "attention_dropout"])
@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_every_dropout_acts_in_training_alone(name: str, dropout: str) -> None:
    rates = {"embedding_dropout": 0.0, "residual_dropout": 0.0, "attention_dropout": 0.0, dropout: 0.5}
    backbone = {"name": name, "num_layers": 1, "num_heads": 2, "dim": 8, **rates}
    model = TokenModel(make().layout, {"name": "uniform", "num_bins": V}, backbone, context=T)
    tokens = random_tokens(2, 2)
    assert not torch.equal(model.train()(tokens), model(tokens))
    assert torch.equal(model.eval()(tokens), model(tokens))


def test_nothing_looks_ahead() -> None:
    model = make()
    tokens = random_tokens(1, 3)
    before = model(tokens)
    for position in range(1, 3 * K - 1):
        changed = tokens.clone()
        changed.view(-1)[position] = (changed.view(-1)[position] + 1) % (V + 1)
        after = model(changed)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.equal(after[:, position], before[:, position])


def test_value_tokens_reach_only_the_token_that_follows() -> None:
    """Hidden as keys from every position, but the value's own residual stream predicts the next observation."""
    model = make()
    tokens = random_tokens(1, 3)
    before = model(tokens)
    value = K - 1
    changed = tokens.clone()
    changed[0, 0, value] = (changed[0, 0, value] + 1) % (V + 1)
    difference = (model(changed) - before).detach().abs().amax(-1)[0]
    assert difference[value] > 1e-3
    assert float(torch.cat([difference[:value], difference[value + 1 :]]).max()) == 0.0
    visible = make(hidden=False)
    seen = (visible(changed) - visible(tokens)).detach().abs().amax(-1)[0]
    assert float(seen[value + 1 :].min()) > 1e-6


def test_a_goal_reaches_every_token() -> None:
    model = make(goal=True)
    tokens = random_tokens(1, 3)
    one, other = model(tokens, torch.tensor([[1, 2]])), model(tokens, torch.tensor([[1, 3]]))
    assert float((one - other).detach().abs().amax(-1).min()) > 1e-6


def test_the_model_overfits_one_batch() -> None:
    from seqrl.registry import OBJECTIVE

    model = make().float().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for block in model.backbone.blocks:
        block.attention_dropout = 0.0
    batch = TokenBatch(random_tokens(4, 2), torch.ones(4, 2, K, dtype=torch.bool))
    objective = OBJECTIVE.build({"name": "next_token"})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(200):
        outcome = objective(model, batch)
        optimizer.zero_grad()
        (outcome.total / outcome.count).backward()
        optimizer.step()
    logits = model(batch.tokens).detach().flatten(0, 1)
    assert float(F.cross_entropy(logits, batch.tokens.flatten(1)[:, 1:].flatten())) < 0.05


@pytest.mark.parametrize("in_states", [False, True])
def test_actions_are_read_back_from_their_tokens(in_states: bool) -> None:
    model = samples.model(samples.layout())
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(2, 4, samples.ACTION_SIZE, generator=generator) * 2 - 1
    states = torch.randn(2, 4, samples.OBSERVATION_SIZE, generator=generator) if in_states else None
    tokens = model.encode_actions(actions, states)
    whole = torch.zeros(2, 4, model.tokens_per_step, dtype=torch.int64)
    whole[..., model.places("action")] = tokens
    read = model.tokenizer.decode(whole)[..., model.layout.field("action").slice]
    low, high = model.tokenizer.action_range(model.layout)  # centres of the outer of 8 bins
    assert ((read - actions.clamp(low, high)).abs() <= (high - low) / 7 / 2 + 1e-5).all()
