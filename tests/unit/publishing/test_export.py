"""Exported folders: what comes back of a model, what is refused, and what is not told to others."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import seqrl
from seqrl.checkpoints.loading import checkpoint_file, load, load_critic, run_folder
from seqrl.cli import export, zoo
from seqrl.config import CriticConfig
from seqrl.critics import build_critic
from seqrl.data.landmarks import LandmarkGraph
from seqrl.data.summary import DataSizes
from seqrl.errors import CheckpointError, ConfigError
from seqrl.evaluation.archive import Evaluation, write_evaluation
from seqrl.evaluation.rows import ResultsRow
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.publishing.export import export_model

HOME = "/home/somebody/secret project"


@pytest.fixture
def run(tmp_path: Path, plain_layout_config: Callable[..., dict[str, Any]]) -> Path:
    """A run folder with a model, a critic and the command that trained them."""
    config = {
        "observation_size": 2,
        "action_size": 1,
        "layout": plain_layout_config(),
        "tokenizer": {"name": "quantile", "num_bins": 4},
        "backbone": {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 8},
        "window": {"length": 3},
        "critic": {"name": "iql"},
        "seed": 5,
        "plugins": [f"{HOME}/mine.py"],
        "data": {"name": "d4rl", "path": f"{HOME}/data.hdf5", "cache_dir": HOME, "parts": [f"{HOME}/a.npz", "b"]},
        "dataset": {"name": "data.hdf5", "env_id": "Hopper-v5", "num_transitions": 20, "num_episodes": 2},
    }
    torch.manual_seed(3)
    model = TokenModel(Layout.from_config(config["layout"], 2, 1), config["tokenizer"], config["backbone"], context=3)
    model.tokenizer.fit(torch.from_numpy(np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    critic = build_critic(CriticConfig.from_saved(config), DataSizes.from_saved(config))
    assert critic is not None
    folder = tmp_path / "run"
    for stage, module in (("model", model), ("critic", critic)):
        (folder / stage).mkdir(parents=True)
        note = {"format": 2, "model": "tokens" if stage == "model" else None, "plugins": config["plugins"]}
        content = {
            "stage": stage,
            "seqrl": {**note, "versions": {"seqrl": "0.1.0"}, "machine": {"threads": 3}},
            "hyper_parameters": {"config": config},
            "state_dict": {f"{stage}.{name}": tensor for name, tensor in module.state_dict().items()},
            "global_step": 70,
            "optimizer_states": [],
        }
        torch.save(content, folder / stage / "last.ckpt")
    command = f"seqrl train 'data.path={HOME}/data.hdf5' plugins=[{HOME.replace(' ', '_')}/mine.py] seed=5"
    (folder / "provenance.yaml").write_text(yaml.safe_dump([{"command": command}]))
    return folder


def exported(run: Path, **wishes: Any) -> Path:
    folder = run.parent / "out"
    list(export_model(run, folder, **wishes))
    return folder


def logits_of(model: Any) -> torch.Tensor:
    tokens = torch.arange(15).view(1, 3, 5) % 4
    with torch.no_grad():
        found: torch.Tensor = model.double()(tokens, None)
    return found


def test_an_exported_model_is_the_same_model(run: Path) -> None:
    folder = exported(run)
    before, after = load(run), seqrl.load(folder)
    assert after.step == 70
    assert after.config["seed"] == 5
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(tensor, after.model.state_dict()[name])
    assert torch.equal(logits_of(before.model), logits_of(after.model))
    critic, old = load_critic(folder), load_critic(run)
    assert critic is not None
    assert old is not None
    assert all(torch.equal(tensor, critic.state_dict()[name]) for name, tensor in old.state_dict().items())
    assert checkpoint_file(folder) == folder / "model.safetensors"
    assert run_folder(checkpoint_file(folder)) == folder


def test_half_precision_rounds_weights_and_leaves_the_tokenizer(run: Path) -> None:
    folder = exported(run, half=True)
    before, after = load(run).model.state_dict(), load(folder).model.state_dict()
    for name, tensor in before.items():
        rounded = tensor if name.startswith("tokenizer.") else tensor.half().float()
        assert torch.equal(after[name], rounded)
    assert (folder / "model.safetensors").stat().st_size < 0.7 * sum(
        each.nbytes for name, each in before.items() if not name.startswith("tokenizer.")
    ) + 4096


def test_rows_of_other_weights_are_left_out(run: Path, make_row: Callable[..., ResultsRow]) -> None:
    for label, steps in (("final", 70), ("early", 30)):
        place = run / "evaluations" / f"{label}-0"
        place.mkdir(parents=True)
        row = make_row(strategy=label, training_steps=steps)
        write_evaluation(Evaluation(place, row, {"returns": np.zeros((2, 1))}, []))
    reading, *told = export_model(run, run.parent / "out")
    assert reading == f"reading {run / 'model' / 'last.ckpt'}"
    card = (run.parent / "out" / "README.md").read_text()
    assert "final" in card
    assert "early" not in card
    assert "left out: 1 rows of the run's weights at other steps than 70" in told


def test_a_folder_exported_again_tells_the_same(run: Path) -> None:
    first = exported(run, half=True, use=["strategy=reward"])
    second = run.parent / "again"
    list(export_model(first, second, half=True, use=["strategy=reward"]))
    for name in ("config.json", "model.safetensors", "tokenizer.safetensors", "critic.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert json.loads((first / "config.json").read_text())["use"] == ["strategy=reward"]


def test_no_folder_of_the_machine_is_told(run: Path) -> None:
    folder = exported(run)
    texts = [path.read_text() for path in folder.iterdir() if path.suffix in (".json", ".md", "")]
    assert not any("/home" in text or "somebody" in text for text in texts)
    config = json.loads((folder / "config.json").read_text())["model"]
    assert config["config"]["data"] == {"name": "d4rl", "path": "data.hdf5", "cache_dir": None, "parts": ["a.npz", "b"]}
    assert config["config"]["plugins"] == config["seqrl"]["plugins"] == ["mine.py"]
    assert "seqrl train data.path=data.hdf5 'plugins=[mine.py]' seed=5" in (folder / "README.md").read_text()


def test_policies_of_one_pass_lie_beside_the_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'seqrl[onnx]'")
    pytest.importorskip("onnxscript", reason="pip install 'seqrl[onnx]'")
    assert export.run([str(run), str(run.parent / "out"), "--onnx", "--half"]) == 0
    assert "actor.onnx" in capsys.readouterr().out
    assert "actor.onnx" in (run.parent / "out" / "SHA256SUMS").read_text()
    seqrl.load(run.parent / "out")
    shutil.rmtree(run / "critic")
    assert export.run([str(run), str(run.parent / "more"), "--onnx"]) == 2
    assert "--onnx writes policies of one pass" in capsys.readouterr().err
    assert not (run.parent / "more").exists()


def test_no_flipped_bit_of_any_file_is_loaded(run: Path) -> None:
    folder, draw = exported(run), random.Random(0)
    for name in ("config.json", "model.safetensors", "tokenizer.safetensors"):
        path = folder / name
        content = path.read_bytes()
        for _ in range(60):
            bit = draw.randrange(8 * len(content))
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            with pytest.raises(CheckpointError, match="is not the file whose digest"):
                load(folder)
        path.write_bytes(content)
    load(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="fetch the folder again"):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "its format is 2, and this seqrl reads 1"),
        ("library_name", "transformers", "it is not of a model of seqrl"),
        ("model", None, "cannot be used"),
        ("model", {"seqrl": {}, "step": 0, "config": {}}, "has checkpoint format None"),
    ],
)
def test_what_others_wrote_is_refused(run: Path, key: str, value: Any, message: str) -> None:
    folder = exported(run)
    noted = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**noted, key: value}))
    renew_digests(folder)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_component_is_looked_up_by_name_and_nothing_is_imported(run: Path, tmp_path: Path) -> None:
    folder = exported(run)
    noted = json.loads((folder / "config.json").read_text())
    noted["model"]["config"]["backbone"] = {"name": "os:system", "command": f"touch {tmp_path}/ran"}
    (folder / "config.json").write_text(json.dumps(noted))
    renew_digests(folder)
    with pytest.raises(CheckpointError, match="os:system"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def renew_digests(folder: Path) -> None:
    from seqrl.checkpoints.exported import write_digests

    (folder / "SHA256SUMS").unlink()
    write_digests(folder)


def test_nothing_is_written_over_and_nothing_half(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run.parent / "taken"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    assert export.run([str(run), str(folder)]) == 2
    assert "exists already; choose another name, or --overwrite it" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    shutil.rmtree(run / "model")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        list(export_model(run, run.parent / "new"))
    assert not (run.parent / "new").exists()
    with pytest.raises(ConfigError):
        list(export_model(run, folder))


def test_unknown_models_of_the_zoo_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="there is no model zoo:nothing"):
        load("zoo:nothing")
    assert zoo.run(["nothing"]) == 2
    assert "there is no model zoo:nothing" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["changed", "missing", "not listed", "links elsewhere"])
def test_landmarks_are_those_whose_digest_the_folder_holds(run: Path, how: str) -> None:
    places = np.arange(8, dtype=np.float32).reshape(4, 2)
    graph = LandmarkGraph(places, np.array([0, 1]), np.array([1, 2]), np.ones(2, np.float32))
    graph.save(run / "landmarks" / "graph.npz")
    folder = exported(run)
    file = folder / "landmarks" / "graph.npz"
    landmarks = seqrl.load(folder).model.landmarks
    assert landmarks is not None
    np.testing.assert_array_equal(landmarks.nodes, places)
    if how == "changed":
        LandmarkGraph(places + 1, graph.sources, graph.targets, graph.steps).save(file)
    elif how == "links elsewhere":
        other = run / "other.npz"
        LandmarkGraph(places[::-1].copy(), graph.sources, graph.targets, graph.steps).save(other)
        file.unlink()
        file.symlink_to(other)
    elif how == "missing":
        file.unlink()
    else:
        sums = folder / "SHA256SUMS"
        sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "landmarks" not in line))
    with pytest.raises(CheckpointError, match=r"graph\.npz' (is not the file whose digest|cannot be read)"):
        seqrl.load(folder)
