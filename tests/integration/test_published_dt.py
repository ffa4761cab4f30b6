"""The published Decision Transformers, imported: what their code computed, and its arithmetic at other sizes."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from tests.integration.published_blocks import FOLDER, Weights
from torch import Tensor, nn
from torch.nn import functional as F

from seqrl.checkpoints.loading import load
from seqrl.cli import importing
from seqrl.paths import config_dir

SIZES = [(1, 1, 1, 1, 8, 9), (5, 3, 2, 4, 16, 30)]  # O, A, layers, heads, width, steps that can be told apart


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def imported(kind: str, source: Path | str, *words: str) -> nn.Module:
    assert importing.run([kind, str(source), "--output", "mine", *words]) == 0
    return load("mine/model/last.ckpt").model


def actions_of(model: nn.Module, returns: Tensor, states: Tensor, actions: Tensor, times: Tensor) -> Tensor:
    """Predictions of seqrl for inputs that are normalised already."""
    with torch.no_grad():
        found: Tensor = model(torch.cat([returns, states, actions], dim=-1), None, times[:, 0])["action"]
    return found


def write_data(observation: int, action: int) -> None:
    rng = np.random.default_rng(0)
    with h5py.File("tiny.hdf5", "w") as file:
        file["observations"] = rng.normal(3, 2, size=(90, observation)).astype(np.float32)
        file["actions"] = rng.uniform(-0.5, 0.7, (90, action)).astype(np.float32)
        file["rewards"] = rng.normal(size=90).astype(np.float32)
        file["terminals"], file["timeouts"] = np.zeros(90, bool), np.arange(90) % 40 == 39  # ten rows are unfinished


def random_weights(sizes: tuple[int, ...], seed: int) -> Weights:
    """Weights by CORL's names."""
    observation, action, layers, _, width, steps = sizes
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"timestep_emb.weight": (steps, width)}
    for name, size in (("state", observation), ("action", action), ("return", 1)):
        shapes |= {f"{name}_emb.weight": (width, size), f"{name}_emb.bias": (width,)}
    for norm in ("emb_norm", "out_norm", *(f"blocks.{i}.norm{k}" for i in range(layers) for k in (1, 2))):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for i in range(layers):
        attention, mlp = f"blocks.{i}.attention", f"blocks.{i}.mlp"
        shapes |= {f"{attention}.in_proj_weight": (3 * width, width), f"{attention}.in_proj_bias": (3 * width,)}
        shapes |= {f"{attention}.out_proj.weight": (width, width), f"{attention}.out_proj.bias": (width,)}
        shapes |= {f"{mlp}.0.weight": (4 * width, width), f"{mlp}.0.bias": (4 * width,)}
        shapes |= {f"{mlp}.2.weight": (width, 4 * width), f"{mlp}.2.bias": (width,)}
    shapes |= {"action_head.0.weight": (action, width), "action_head.0.bias": (action,)}
    return {name: torch.randn(shape, generator=generator) / 2 for name, shape in shapes.items()}


def actions_by_hand(
    weights: Weights, sizes: tuple[int, ...], inputs: tuple[Tensor, ...], activation: nn.Module
) -> Tensor:
    """The published arithmetic: time steps are added before the norm; attention is torch's own module."""
    times = inputs[3]
    _, _, layers, heads, width, _ = sizes

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    time = weights["timestep_emb.weight"][times]
    parts = [linear(x, f"{name}_emb") + time for name, x in zip(("return", "state", "action"), inputs, strict=False)]
    x = norm(torch.stack(parts, dim=2).flatten(1, 2), "emb_norm")
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    for i in range(layers):
        attention = nn.MultiheadAttention(width, heads, batch_first=True).eval()
        prefix = f"blocks.{i}.attention."
        attention.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
        normed = norm(x, f"blocks.{i}.norm1")
        with torch.no_grad():
            x = x + attention(normed, normed, normed, attn_mask=mask)[0]
        x = x + linear(activation(linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.0")), f"blocks.{i}.mlp.2")
    return linear(norm(x, "out_norm"), "action_head.0")[:, 1::3].tanh()


def random_inputs(sizes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    returns, states, actions = (torch.randn(3, 4, n, generator=generator) for n in (1, sizes[0], sizes[1]))
    return returns, states, actions, torch.tensor([[0], [2], [5]]) + torch.arange(4)


def as_gpt2(weights: Weights, layers: int, prefix: str) -> Weights:
    """The same weights by the names of kzl's code and of transformers."""
    names = {"timestep_emb": "embed_timestep", "emb_norm": "embed_ln", "out_norm": f"{prefix}ln_f"}
    names |= {"action_head": "predict_action"} | {f"{p}_emb": f"embed_{p}" for p in ("state", "action", "return")}
    found = {}
    for name, value in weights.items():
        top, _, rest = name.partition(".")
        if top in names:
            found[f"{names[top]}.{rest}"] = value
    inner = {"norm1.": "ln_1.", "norm2.": "ln_2.", "attention.in_proj_": "attn.c_attn."}
    inner |= {"attention.out_proj.": "attn.c_proj.", "mlp.0.": "mlp.c_fc.", "mlp.2.": "mlp.c_proj."}
    for i in range(layers):
        for theirs, ours in inner.items():
            for kind in ("weight", "bias"):
                value = weights[f"blocks.{i}.{theirs}{kind}"]
                turned = kind == "weight" and not ours.startswith("ln")
                found[f"{prefix}h.{i}.{ours}{kind}"] = value.T.contiguous() if turned else value
    return found


def test_the_folder_of_transformers_predicts_what_it_predicted() -> None:
    write_data(3, 2)
    source = FOLDER / "hf_decision_transformer"
    model = imported("hf-dt", source, "--data", "tiny.hdf5")
    with np.load(source / "example.npz") as file:
        given = {key: torch.from_numpy(file[key]) for key in file.files}
    found = actions_of(model, given["returns_to_go"], given["states"], given["actions"], given["timesteps"])
    torch.testing.assert_close(found, given["action_preds"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("with_statistics", [True, False])
def test_weights_of_corl_predict_what_they_predicted(with_statistics: bool) -> None:
    with np.load(FOLDER / "dt.npz") as file:
        given = {key: torch.from_numpy(file[key]) for key in file.files}
    weights = {k.removeprefix("weights/"): v for k, v in given.items() if k.startswith("weights/")}
    content: object = weights
    if with_statistics:
        mean, deviation = np.array([[1.0, 2.0, 3.0]], np.float32), np.array([[0.5, 1.0, 2.0]])
        content = {"model_state": weights, "state_mean": mean, "state_std": deviation}
    torch.save(content, "dt.pt")
    write_data(3, 2)
    model = imported("dt", "dt.pt", *([] if with_statistics else ["--data", "tiny.hdf5"]))
    found = actions_of(model, given["returns_to_go"], given["states"], given["actions"], given["timesteps"])
    torch.testing.assert_close(found, given["action_preds"], rtol=1e-5, atol=1e-5)
    if with_statistics:
        values = torch.tensor([[500.0, 1.5, 3.0, 5.0, 0.25, -0.5]])
        torch.testing.assert_close(model.tokenizer.normalise(values), torch.tensor([[0.5, 1.0, 1.0, 1.0, 0.25, -0.5]]))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["corl", "kzl", "transformers", "transformers, gelu_new"])
def test_predictions_are_those_of_the_published_arithmetic(sizes: tuple[int, ...], kind: str) -> None:
    write_data(sizes[0], sizes[1])
    weights, inputs = random_weights(sizes, seed=sizes[0]), random_inputs(sizes)
    words = ["--data", "tiny.hdf5", "--heads", str(sizes[3])]
    expected = dict(weights)
    if kind == "corl":
        torch.save(weights, "a.pt")
        model, activation = imported("dt", "a.pt", *words), nn.GELU()
    elif kind == "kzl":
        more = {f"predict_{n}.weight": torch.zeros(1, sizes[4]) for n in ("state", "return")}
        torch.save({**as_gpt2(weights, sizes[2], "transformer."), **more}, "a.pt")
        model, activation = imported("dt", "a.pt", *words, "--window", "4"), nn.ReLU()
        assert model.context == 4
    else:
        constant = torch.randn(7, sizes[4], generator=torch.Generator().manual_seed(1))
        expected["emb_norm.bias"] = weights["emb_norm.bias"] + constant[0]
        new = "gelu" in kind
        config = {"model_type": "decision_transformer", "n_head": sizes[3]}
        config["activation_function"] = "gelu_new" if new else "relu"
        Path("hf").mkdir()
        Path("hf/config.json").write_text(json.dumps(config))
        torch.save({**as_gpt2(weights, sizes[2], "encoder."), "encoder.wpe.weight": constant}, "hf/pytorch_model.bin")
        model = imported("hf-dt", "hf", *words[:2])
        activation = nn.GELU(approximate="tanh") if new else nn.ReLU()
    by_hand = actions_by_hand(expected, sizes, inputs, activation)
    torch.testing.assert_close(actions_of(model, *inputs), by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "rows"), [("kzl", 80), ("corl", 90)])
def test_statistics_of_states_follow_the_published_rule(kind: str, rows: int) -> None:
    """kzl's code leaves the unfinished last trajectory out, CORL's does not; actions stay as they are."""
    sizes = SIZES[1]
    write_data(sizes[0], sizes[1])
    weights = random_weights(sizes, seed=0)
    torch.save(weights if kind == "corl" else as_gpt2(weights, sizes[2], "transformer."), "a.pt")
    scaler = imported("dt", "a.pt", "--data", "tiny.hdf5").tokenizer
    with h5py.File("tiny.hdf5") as file:
        states = np.asarray(file["observations"])[:rows].astype(np.float64)
    np.testing.assert_allclose(scaler.shift[1:6], states.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scaler.scale[1:6], states.std(0) + 1e-6, rtol=1e-6)
    assert torch.equal(scaler.scale[6:], torch.ones(3))
    assert torch.equal(scaler.shift[6:], torch.zeros(3))


def test_the_preset_is_what_is_imported() -> None:
    write_data(3, 2)
    imported("hf-dt", FOLDER / "hf_decision_transformer", "--data", "tiny.hdf5")
    config = yaml.safe_load(Path("mine/config.yaml").read_text())
    preset = yaml.safe_load((config_dir() / "method" / "dt_code.yaml").read_text())
    for section in ("backbone", "tokenizer"):
        assert config[section].items() >= preset[section].items()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"activation_function": "silu"}, "activation_function is 'silu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "only False can be imported"),
        ({"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon=0.001"),
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
    ],
)
def test_settings_that_would_change_the_numbers_are_refused(
    said: dict[str, object], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = FOLDER / "hf_decision_transformer"
    Path("hf").mkdir()
    Path("hf/config.json").write_text(json.dumps({**json.loads((source / "config.json").read_text()), **said}))
    Path("hf/pytorch_model.bin").write_bytes((source / "pytorch_model.bin").read_bytes())
    assert importing.run(["hf-dt", "hf", "--output", "mine"]) == 2
    assert why in capsys.readouterr().err
    assert not Path("mine").exists()
