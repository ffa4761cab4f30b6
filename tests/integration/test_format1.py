"""Checkpoints of format 1 load, and do what the code that wrote them did; see tests/fixtures/format1/README.md."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as pl
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


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated", "ignore:.*your dataloader is not resumable")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_training_goes_on_from_format_1_as_if_nothing_had_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps at 3466b25 and three here give the weights, and moments, of six steps there."""
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.normal(size=(length, 3)),
            "actions": rng.uniform(-1, 1, size=(length, 2)),
            "rewards": rng.normal(size=length),
            "terminated": length % 2 == 0,
        }
        for length in (20, 9, 15, 30, 12)
    ]
    store = seqrl.EpisodeStore.from_episodes(episodes, attributes={"name": "random walks"})
    sizes = {"num_layers": 1, "num_heads": 2, "dim": 8}
    module = seqrl.SequenceModule.for_store(
        store, layout="tt", tokenizer={"name": "uniform", "num_bins": 8}, backbone=sizes, window=4, seed=1
    )
    data = seqrl.EpisodeDataModule.for_module(module, store, batch_size=4, validation_fraction=0.2)
    trainer = pl.Trainer(
        max_steps=6, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, use_distributed_sampler=False, max_epochs=-1, check_val_every_n_epoch=None,
        val_check_interval=3, num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=FOLDER / "resumed" / "step-3.ckpt", weights_only=True)
    with np.load(FOLDER / "resumed" / "step-6.npz") as wanted:
        found = {name: tensor for name, tensor in module.state_dict().items() if name.startswith("model.")}
        for name, tensor in found.items():
            np.testing.assert_allclose(tensor.numpy(), wanted[name], rtol=0, atol=1e-6, err_msg=name)
        assert set(found) <= set(wanted.files)
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    content = torch.load(tmp_path / "new.ckpt", weights_only=True)
    assert (content["seqrl"]["format"], content["seqrl"]["model"]) == (2, "tokens")
