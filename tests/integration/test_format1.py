"""Checkpoints of format 1 load, and do what the code that wrote them did; see tests/fixtures/format1/README.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import seqrl

FOLDER = Path(__file__).parents[1] / "fixtures" / "format1"
STRATEGIES = {
    "token": ["greedy", "goal", "reward", "critic", "actor"],
    "code": ["latent", "greedy"],
    "vector": ["return"],
}


def checkpoint(name: str) -> Path:
    return FOLDER / name / "model" / "last.ckpt"


def numbers(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def tensors(name: str, *keys: str) -> list[torch.Tensor]:
    found = numbers(name)
    return [torch.from_numpy(found[key]) for key in keys]


@torch.no_grad()
def test_a_model_of_tokens_gives_the_same_logits() -> None:
    model = seqrl.load(checkpoint("token")).model
    tokens, prefix, logits = tensors("token", "tokens", "prefix", "logits")
    torch.testing.assert_close(model(tokens, prefix), logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_model_of_codes_gives_the_same_codes_and_logits() -> None:
    model = seqrl.load(checkpoint("code")).model
    values, codes, state, logits = tensors("code", "values", "codes", "state", "logits")
    assert torch.equal(model.tokenizer.encode_windows(values), codes[..., 0])
    torch.testing.assert_close(model(codes[..., 0], state), logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_model_of_vectors_gives_the_same_predictions() -> None:
    model = seqrl.load(checkpoint("vector")).model
    values, starts, action = tensors("vector", "values", "starts", "action")
    torch.testing.assert_close(model(values, None, starts)["action"], action, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "strategy"), [(name, strategy) for name, strategies in STRATEGIES.items() for strategy in strategies]
)
def test_a_policy_does_the_same(name: str, strategy: str) -> None:
    stored = numbers(name)
    parts = json.loads(str(stored["strategies"]))
    assert [label.split("/")[1] for label in parts] == STRATEGIES[name]
    critic = seqrl.load_critic(checkpoint(name))
    assert (critic is None) == (name != "token")
    policy = seqrl.Policy(seqrl.load(checkpoint(name)).model, **parts[f"{name}/{strategy}"], critic=critic, seed=2)
    policy.reset(2, goals=stored.get("goals"))
    rewards = None
    for step, observations in enumerate(stored["observations"]):
        actions = policy.act(observations, rewards)
        rewards = stored["rewards"][step]
        np.testing.assert_allclose(actions, stored[f"{name}/{strategy}/actions"][step], rtol=0, atol=1e-5)
        assert policy.plan is not None
        value = policy.plan.value.detach().numpy()
        np.testing.assert_allclose(value, stored[f"{name}/{strategy}/plan_values"][step], rtol=0, atol=1e-5)


def test_what_is_known_of_a_run_is_kept() -> None:
    loaded = seqrl.load(checkpoint("token"))
    assert (loaded.step, loaded.config["dataset"]["num_episodes"]) == (20, 8)
    assert loaded.versions["seqrl"] == "0.1.0"
