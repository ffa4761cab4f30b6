"""Every tokenizer x backbone x layout x strategy: what fits learns a batch by heart and plans, the rest says why.

A combination may be refused by a ConfigError only, whose sentence names a setting that would help.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from seqrl.acting.policy import Policy
from seqrl.config import CriticConfig, ModelConfig
from seqrl.critics import build_critic
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.models.building import build_model, model_class
from seqrl.models.vector import VectorModel
from seqrl.paths import config_dir
from seqrl.registry import BACKBONE, TOKENIZER
from seqrl.testing import samples
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.module import SequenceModule

WINDOW, BATCH = 6, 8
LAYOUTS = sorted(path.stem for path in (config_dir() / "layout").glob("*.yaml"))
STRATEGIES = sorted(path.stem for path in (config_dir() / "strategy").glob("*.yaml"))
SMALL_PLANNERS: dict[str, dict[str, Any]] = {
    "beam": {"beam_width": 3, "horizon": 2, "context": 3},
    "latent_beam": {"beam_width": 3, "horizon": WINDOW},
    "rollouts": {"candidates": 3, "horizon": 2},
}
SMALL_TOKENIZERS: dict[str, dict[str, Any]] = {
    "uniform": {"num_bins": 12},
    "quantile": {"num_bins": 12},
    "kmeans": {"num_clusters": 4, "num_bins": 12},
    "continuous": {},
    "vq": {"num_codes": 8, "code_dim": 8, "backbone": {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}},
}
SMALL_BACKBONES: dict[str, dict[str, Any]] = {
    "gpt": {"num_layers": 2, "num_heads": 2, "dim": 32},
    "llama": {"num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "dim": 32},
    "mlp": {"num_layers": 2, "dim": 64},
}
# What must fit: a refusal of these is a bug, however well it is worded.
FITS = {
    **{
        (t, b): {"tt", "tt_difference", "tt_goal", "dt", "bc"}
        for t, b in product(("uniform", "quantile", "kmeans"), ("gpt", "llama"))
    },
    **{("continuous", b): {"tt", "tt_goal", "dt", "bc", "rvs_return", "rvs_goal"} for b in ("gpt", "llama")},
    ("continuous", "mlp"): {"tt", "bc", "rvs_return", "rvs_goal"},  # the others show returns or goals to no action
    **{("vq", b): {"tt"} for b in ("gpt", "llama")},
}
SERVES = {  # which strategies a layout must serve, by what the tokenizer makes
    ("tokens", "tt"): {"imitation", "reward", "critic", "rollouts"},
    ("tokens", "tt_difference"): {"imitation", "reward", "critic", "rollouts"},
    ("tokens", "tt_goal"): {"imitation", "reward", "critic", "goal"},
    ("tokens", "dt"): {"return"},
    ("tokens", "bc"): {"imitation"},
    ("vectors", "dt"): {"return"},
    ("vectors", "bc"): {"imitation"},
    ("vectors", "tt"): {"imitation"},
    ("vectors", "tt_goal"): {"imitation", "goal"},
    ("vectors", "rvs_return"): {"return"},
    ("vectors", "rvs_goal"): {"imitation", "goal"},
    ("codes", "tt"): {"latent"},
}
ALWAYS = {"zero", "random", "iql"}


@cache
def group(folder: str, name: str) -> dict[str, Any]:
    """A yaml file of the configuration on top of those of its folder that its defaults name."""
    content: dict[str, Any] = yaml.safe_load((config_dir() / folder / f"{name}.yaml").read_text()) or {}
    below = [group(folder, entry) for entry in content.pop("defaults", []) if entry != "_self_"]
    return {key: value for part in (*below, content) for key, value in part.items()}


def strategy(name: str) -> dict[str, dict[str, Any]]:
    """Planner, condition and score of `conf/strategy/<name>.yaml`, the planner made small."""
    parts: dict[str, dict[str, Any]] = {}
    content = yaml.safe_load((config_dir() / "strategy" / f"{name}.yaml").read_text())
    for entry in content["defaults"]:
        for slot, component in entry.items():
            parts[slot.lstrip("/")] = dict(group(slot.lstrip("/"), component))
    if parts["condition"]["name"] == "target_return":
        parts["condition"]["target"] = 3.0
    for slot, options in content.items():
        if slot in parts and isinstance(options, dict):
            parts[slot] |= options
    parts["planner"] |= SMALL_PLANNERS.get(parts["planner"]["name"], {})
    return parts


def run_config(tokenizer: str, backbone: str, layout: str) -> dict[str, Any]:
    store = samples.store()
    objective = "regression" if model_class({"name": tokenizer}) is VectorModel else "next_token"
    return {
        "layout": {**group("layout", layout), "termination_penalty": None},  # which a critic's values do not know
        "tokenizer": {"name": tokenizer, **SMALL_TOKENIZERS[tokenizer]},
        "backbone": {
            "name": backbone,
            **SMALL_BACKBONES[backbone],
            **({} if backbone == "mlp" else dict.fromkeys(("embedding_dropout", "residual_dropout"), 0.0)),
        },
        "objective": {"name": objective},
        "optimizer": {"learning_rate": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.0, "clip_norm": 1.0},
        "scheduler": {"name": "constant"},
        "critic": {"name": "iql", "dim": 8},
        "window": {"length": WINDOW, "terminate_truncated": False},
        "seed": 0,
        **store.sizes,
        "longest_episode": int(store.lengths.max()),
    }


def overfit(module: SequenceModule, steps: int = 150) -> tuple[float, float]:
    """(before, after) loss of one batch."""
    data = EpisodeDataModule.for_module(module, samples.store(), batch_size=BATCH, validation_fraction=0.0)
    windows = data.windows_for(module, data.train_episodes)
    batch = windows.batch(np.arange(BATCH) * 3, np.random.default_rng(0))
    model, objective = module.model.eval(), module._objective
    trained = [p for n, p in model.named_parameters() if not n.startswith("tokenizer.")]
    optimizer = torch.optim.Adam(trained, lr=5e-3)
    losses = []
    for _ in range(steps):
        outcome = objective(model, batch)
        loss = outcome.total / outcome.count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[0], losses[-1]


@pytest.mark.usefixtures("clean_plugins")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "backbone",
    [pytest.param(name, marks=() if name == "gpt" else pytest.mark.slow) for name in BACKBONE.builtin_names()],
)
@pytest.mark.parametrize("tokenizer", TOKENIZER.builtin_names())
def test_what_fits_learns_and_plans_and_the_rest_says_why(
    tokenizer: str, backbone: str, layout: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path))
    torch.manual_seed(0)
    config = run_config(tokenizer, backbone, layout)
    wanted = layout in FITS.get((tokenizer, backbone), set())
    refused = refusal(lambda: build_model(ModelConfig.from_saved(config), DataSizes.from_saved(config)))
    if refused is not None:
        assert not wanted, refused
        return
    module = SequenceModule(config)
    before, after = overfit(module)
    # A model without memory cannot tell windows apart that show the same; it may halve the loss, no more.
    bound = 0.6 if backbone == "mlp" else 0.35
    assert after < bound * before, f"the loss of one batch went from {before:.3f} to {after:.3f}"
    served = {name for name in STRATEGIES if plans(module, name, config)}
    must = SERVES.get((module.model.made_of, layout), set()) | ALWAYS
    assert must <= served, f"refused: {must - served}"


def refusal(make: Callable[[], object]) -> str | None:
    """The sentence by which something is refused, which must say what to do; None if it is not."""
    try:
        make()
    except ConfigError as error:
        reason = str(error)
    else:
        return None
    assert any(words in reason for words in ("train with", "use ", "give ", "add ")), reason
    return reason


def plans(module: SequenceModule, name: str, config: dict[str, Any]) -> bool:
    """Whether a strategy takes two actions; False if it is refused with a reason."""
    make = partial(
        Policy,
        module.model,
        **strategy(name),
        critic=build_critic(CriticConfig.from_saved(config), DataSizes.from_saved(config)),
    )
    if refusal(make) is not None:
        return False
    policy, goal = make(), module.model.layout.goal
    policy.reset(2, goals=None if goal is None else np.zeros((2, len(goal.dims)), np.float32))
    observations = np.random.default_rng(0).normal(size=(2, 2, samples.OBSERVATION_SIZE)).astype(np.float32)
    first = policy.act(observations[0])
    second = policy.act(observations[1], np.array([0.5, -0.5]))
    for actions in (first, second):
        assert actions.shape == (2, samples.ACTION_SIZE)
        assert np.isfinite(actions).all()
        if name != "iql":  # whose policy is a network of its own, untrained here
            assert np.abs(actions).max() <= 1.01, "beyond the actions of the data"
    return True
