"""ONNX files of policies: the actions of PyTorch under ONNX Runtime, and what cannot be one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.config import CriticConfig
from seqrl.critics import Critic, build_critic
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.publishing import single_pass
from seqrl.publishing.single_pass import ACTOR, POLICY, write_policies
from seqrl.types import Conditioning

ort = pytest.importorskip("onnxruntime", reason="pip install 'seqrl[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'seqrl[onnx]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the converter, about itself

GPT = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 8}
MLP = {"name": "mlp", "num_layers": 1, "dim": 8}
SEEN: dict[str, Any] = {"loss_weight": 0}
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "dt": ({"fields": {"return": SEEN, "observation": SEEN, "action": {}}}, GPT, 4),
    "dt with strides": ({"fields": {"return": SEEN, "observation": SEEN, "action": {}}, "stride": 3}, GPT, 4),
    "dt of discrete actions": (
        {"fields": {"return": SEEN, "observation": SEEN, "action": {}}, "categories": {"action": 5}}, GPT, 3,
    ),
    "bc": ({"fields": {"observation": SEEN, "action": {}}}, MLP, 1),
    "goal before the sequence": (
        {"fields": {"observation": SEEN, "action": {}}, "goal": {"dims": [0, 2]}}, GPT, 3,
    ),
    "rvs_goal": (
        {"fields": {"observation": SEEN, "action": {}}, "goal": {"dims": [1]},
         "vectors": [["goal", "observation"], ["action"]]}, MLP, 1,
    ),
}  # fmt: skip


def model_of(kind: str, plain_layout_config: Callable[..., dict[str, Any]]) -> VectorModel:
    """A model with drawn weights and statistics, and five actions where they are discrete."""
    changes, backbone, context = LAYOUTS[kind]
    torch.manual_seed(1)
    size = 1 if "categories" in changes else 2
    categories = changes.get("categories")
    given = {key: value for key, value in changes.items() if key != "categories"}
    layout = Layout.from_config(
        plain_layout_config(**given), 3, size, **({"categories": categories} if categories else {})
    )
    model = VectorModel(layout, {"name": "continuous"}, backbone, context=context, longest_episode=30)
    values = torch.randn(200, layout.size) * torch.linspace(1, 9, layout.size) + 3
    if categories:
        values[:, layout.field("action").slice] = torch.randint(5, (200, 1)).float()
    model.tokenizer.fit(values)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def written(*given: Any) -> list[str]:
    """The names of the files; what takes its time is told before each of them."""
    names: list[str] = []

    def run() -> Iterator[str]:
        names.extend((yield from write_policies(*given)))

    told = list(run())
    assert [line.split()[1] for line in told] == names
    return names


@pytest.fixture
def iql(plain_layout_config: Callable[..., dict[str, Any]]) -> Critic:
    sizes = {"observation_size": 3, "action_size": 2, "window": {"length": 3}}
    config = {**sizes, "layout": plain_layout_config(), "critic": {"name": "iql", "dim": 16}, "dataset": {}}
    torch.manual_seed(2)
    critic = build_critic(CriticConfig.from_saved(config), DataSizes.from_saved(config))
    assert critic is not None
    critic.fit(torch.randn(50, 3) * 7 + 1, torch.randn(50, 2) * 2)
    return critic.eval()


def session(path: Path) -> Any:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "kind", [kind if kind in ("dt", "bc") else pytest.param(kind, marks=pytest.mark.slow) for kind in LAYOUTS]
)
def test_an_episode_acts_alike(tmp_path: Path, plain_layout_config: Callable[..., dict[str, Any]], kind: str) -> None:
    model = model_of(kind, plain_layout_config)
    assert written(tmp_path, model, None) == [POLICY]
    runtime, layout = session(tmp_path / POLICY), model.layout
    notes = {key: json.loads(value) for key, value in runtime.get_modelmeta().custom_metadata_map.items()}
    assert notes["context"] == model.context
    assert notes["columns"] == {f.name: [f.start, f.start + f.size] for f in layout.fields}
    rng, rows = np.random.default_rng(0), 3
    goal = rng.normal(size=(rows, model.goal_size)).astype(np.float32) + 3
    if layout.goal is not None:
        goal[1] = np.nan  # told no goal
    aim = torch.from_numpy(goal) if layout.goal is not None else None
    past: list[np.ndarray] = []
    for time in range(14):
        now = (rng.normal(size=(rows, layout.size)) * 5 + 3).astype(np.float32)
        if layout.categories:
            now[:, layout.field("action").slice] = rng.integers(5, size=(rows, 1))
        seen = np.stack([*past, now], 1)[:, ::-1][:, :: layout.stride][:, ::-1][:, -model.context :]
        inputs = {"values": np.ascontiguousarray(seen), "time": np.full(rows, time)}
        if aim is not None:
            inputs["goal"] = goal
        (found,) = runtime.run(None, inputs)
        told = Conditioning(goal=model.encode_goals(aim, rows))
        history = model.history(torch.from_numpy(seen[:, :-1].copy()), torch.from_numpy(now), told, time=time)
        np.testing.assert_allclose(found, model.act(history).detach().numpy(), rtol=1e-4, atol=1e-4)
        past.append(now)


def test_a_critics_actor_acts_alike(tmp_path: Path, iql: Critic, tiny_layout: Layout) -> None:
    model = TokenModel(tiny_layout, {"name": "uniform", "num_bins": 4}, GPT, context=3)
    assert written(tmp_path, model, iql) == [ACTOR]
    observations = torch.randn(9, 3, generator=torch.Generator().manual_seed(7)) * 5
    (found,) = session(tmp_path / ACTOR).run(None, {"observation": observations.numpy()})
    np.testing.assert_allclose(found, iql.act(observations).detach().numpy(), rtol=1e-5, atol=1e-5)
    policy = Policy(model, planner={"name": "actor"}, critic=iql)
    policy.reset(9)
    np.testing.assert_allclose(found, policy.act(observations.numpy()), rtol=1e-5, atol=1e-5)


def test_what_is_no_single_pass_is_refused(tmp_path: Path, tiny_layout: Layout) -> None:
    with pytest.raises(ConfigError, match="a model of tokens decodes one after the other; train with method=dt"):
        written(tmp_path, TokenModel(tiny_layout, {"name": "uniform", "num_bins": 4}, GPT, context=3), None)


@pytest.mark.slow
def test_what_the_format_cannot_hold_is_refused(
    tmp_path: Path, plain_layout_config: Callable[..., dict[str, Any]]
) -> None:
    recurrent = {"name": "mingru", "num_layers": 1, "dim": 8}
    layout = Layout.from_config(plain_layout_config(**LAYOUTS["dt"][0]), 3, 2)
    model = VectorModel(layout, {"name": "continuous"}, recurrent, context=4, longest_episode=30).eval()
    with pytest.raises(ConfigError, match="ONNX cannot hold this policy"):
        written(tmp_path, model, None)


def test_a_missing_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_layout_config: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.setattr(single_pass, "_PACKAGES", ("onnx", "no_such_runtime"))
    with pytest.raises(ConfigError, match=r"--onnx needs no_such_runtime; pip install 'seqrl\[onnx\]'"):
        written(tmp_path, model_of("bc", plain_layout_config), None)
