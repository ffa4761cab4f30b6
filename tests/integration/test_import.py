"""Published checkpoints as runs: they are read, told of, and plan and are evaluated as others."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from seqrl.checkpoints.loading import load
from seqrl.cli import evaluate, importing, status

FOLDER = Path(__file__).parents[1] / "fixtures" / "published"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_data(name: str, observation: int, action: int) -> np.ndarray:
    """A file in D4RL's layout with 8 episodes of 25 steps; returns its observations."""
    rng = np.random.default_rng(0)
    with h5py.File(name, "w") as file:
        file["observations"] = rng.normal(size=(200, observation)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (200, action)).astype(np.float32)
        file["rewards"] = rng.normal(size=200).astype(np.float32)
        file["terminals"], file["timeouts"] = np.arange(200) % 25 == 24, np.zeros(200, bool)
        return np.asarray(file["observations"])


def test_a_published_training_is_imported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    observations = write_data("tiny.hdf5", 3, 2)
    assert importing.run(["tt", str(FOLDER / "tt_checkpoint"), "--output", "mine", "--data", "tiny.hdf5"]) == 0
    said = capsys.readouterr().out
    for told in ("mapped: 37 weights", "dropped: blocks.0.attn.mask", "taken from the data", "checked on", "written"):
        assert told in said
    loaded = load("mine/model/last.ckpt")
    assert "trajectory" not in sys.modules
    with np.load(FOLDER / "tt_gpt.npz") as file:
        tokens, expected = torch.from_numpy(file["tokens"]), file["logits_float64"]
    with torch.no_grad():
        np.testing.assert_allclose(loaded.model(tokens), expected, rtol=1e-5, atol=1e-5)
    assert loaded.config["layout"]["termination"] == "shared"
    # The published code looks at all rows of a file but the last.
    ordered = np.sort(observations[:-1, 0].astype(np.float64))
    thresholds = np.append(ordered[:: -(-199 // 12)], ordered[-1])
    found = loaded.model.tokenizer.boundaries[0]
    np.testing.assert_array_equal(found[: len(thresholds) - 2], thresholds[1:-1])
    told = json.loads(Path("mine/imported.json").read_text())
    assert told["format"] == "tt"
    assert told["mapped"]["blocks.1.mlp.2.bias"] == "backbone.blocks.1.feed_forward.2.bias"
    assert status.run(["mine"]) == 0


def test_a_folder_of_transformers_is_imported(folder: Path) -> None:
    write_data("tiny.hdf5", 3, 2)
    source = FOLDER / "hf_trajectory_transformer"
    assert importing.run(["hf-tt", str(source), "--output", "mine", "--data", "tiny.hdf5"]) == 0
    with np.load(source / "example.npz") as file, torch.no_grad():
        logits = load("mine/model/last.ckpt").model(torch.from_numpy(file["tokens"]))
        np.testing.assert_allclose(logits, file["logits"], rtol=1e-5, atol=1e-5)


def made(sizes: tuple[int, ...], seed: int, folder: Path) -> None:
    """A folder as the published training script writes it, of random weights."""
    observation, action, window, bins, layers, heads, width = sizes
    step, generator = observation + action + 2, torch.Generator().manual_seed(seed)
    shapes = {
        "pos_emb": (1, window * step - 1, width),
        "tok_emb.weight": (bins * step + 1, width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
        "head.weight": (step, bins + 1, width),
    }
    for layer in range(layers):
        for norm in ("ln1", "ln2"):
            shapes |= {f"blocks.{layer}.{norm}.{kind}": (width,) for kind in ("weight", "bias")}
        for name in ("attn.key", "attn.query", "attn.value", "attn.proj", "mlp.0", "mlp.2"):
            rows, columns = (4 * width if name == "mlp.0" else width), (4 * width if name == "mlp.2" else width)
            shapes |= {f"blocks.{layer}.{name}.weight": (rows, columns), f"blocks.{layer}.{name}.bias": (rows,)}
    folder.mkdir()
    for epoch in (3, 20):
        weights = {name: torch.randn(shape, generator=generator) / 4 for name, shape in shapes.items()}
        torch.save(weights, folder / f"state_{epoch}.pt")
    config = ModuleType("trajectory.utils.config")
    config.Config = type("Config", (), {"__module__": "trajectory.utils.config"})
    record = config.Config()
    record._dict = {"observation_dim": observation, "action_dim": action, "n_head": heads, "vocab_size": bins}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("trajectory", "trajectory.utils"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, "trajectory.utils.config", config)
        (folder / "model_config.pkl").write_bytes(pickle.dumps(record))


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "seed"), [((11, 3, 4, 6, 1, 2, 8), 0), ((11, 3, 3, 9, 2, 1, 6), 1)])
def test_an_imported_model_plans_and_is_evaluated(folder: Path, sizes: tuple[int, ...], seed: int) -> None:
    """In an environment, with the newest weights of the folder."""
    write_data("tiny.hdf5", 11, 3)
    made(sizes, seed, folder / "source")
    assert importing.run(["tt", "source", "--output", "mine", "--data", "tiny.hdf5"]) == 0
    weights = torch.load(folder / "source/state_20.pt")
    assert torch.equal(load("mine/model/last.ckpt").model.state_dict()["backbone.norm.bias"], weights["ln_f.bias"])
    words = ["checkpoint=mine", "env_id=Hopper-v5", "strategy=reward", "planner.beam_width=2", "planner.horizon=2"]
    assert evaluate.run([*words, "num_episodes=1", "max_steps=2", "progress_bar=false", "planner.context=2"]) == 0
    (row,) = json.loads(next(Path("mine").glob("evaluations/*/results.json")).read_text())
    assert np.isfinite(row["return_mean"])


class Drift(gymnasium.Env[np.ndarray, np.ndarray]):
    """Three numbers that the two of an action push about; the reward is the first of them."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float64)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=3)
        return self.state, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.state = self.state + 0.1 * np.array([action[0], action[1], action[0] - action[1]])
        return self.state, float(self.state[0]), False, False, {}


@pytest.fixture
def drift() -> Iterator[str]:
    """The id of that environment, registered for a while."""
    gymnasium.register("Drift-v0", Drift, max_episode_steps=4)
    yield "Drift-v0"
    del gymnasium.registry["Drift-v0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "source", "strategies"),
    [
        ("tt", "tt_checkpoint", ["strategy=reward planner.beam_width=4 planner.horizon=2", "strategy=imitation"]),
        ("hf-tt", "hf_trajectory_transformer", ["strategy=reward planner.beam_width=4 planner.horizon=2"]),
        ("hf-dt", "hf_decision_transformer", ["strategy=return condition.target=2"]),
        ("dt", "dt.pt", ["strategy=return condition.target=2", "strategy=return condition.target=-2"]),
    ],
)  # fmt: skip
def test_what_is_imported_acts(folder: Path, drift: str, kind: str, source: str, strategies: list[str]) -> None:
    """In an environment of the fixtures' sizes, to the end of its episodes, the same way each time."""
    write_data("tiny.hdf5", 3, 2)
    if kind == "dt":
        with np.load(FOLDER / "dt.npz") as file:
            weights = {key.removeprefix("weights/"): torch.from_numpy(file[key]) for key in file if "weights/" in key}
        torch.save(weights, "dt.pt")
    where = source if kind == "dt" else str(FOLDER / source)
    assert importing.run([kind, where, "--output", "mine", "--data", "tiny.hdf5"]) == 0
    for words in strategies:
        for output in ("first", "second"):
            run = ["checkpoint=mine", f"env_id={drift}", *words.split(), "num_episodes=3", "progress_bar=false"]
            assert evaluate.run([*run, f"output={output}"]) == 0
        (one,), (two,) = (json.loads(Path(f"{name}/results.json").read_text()) for name in ("first", "second"))
        assert one["return_mean"] == two["return_mean"]
        assert one["length_mean"] == 4
        assert one["score_mean"] is None, "nobody knows references of this environment"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert importing.run([*words, "--output", "mine"]) == 2
    assert not Path("mine").exists()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_what_does_not_fit_is_refused_and_nothing_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data("tiny.hdf5", 3, 2)
    write_data("other.hdf5", 4, 2)
    source = folder / "source"
    shutil.copytree(FOLDER / "tt_checkpoint", source)
    assert "--data" in refused(capsys, "tt", "source")
    assert "other.hdf5 has 4 and 2" in refused(capsys, "tt", "source", "--data", "other.hdf5")
    assert "it has epochs 50" in refused(capsys, "tt", "source", "--epoch", "3", "--data", "tiny.hdf5")
    assert "no 'nowhere'" in refused(capsys, "tt", "nowhere", "--data", "tiny.hdf5").replace(str(folder) + "/", "")
    assert "config.json" in refused(capsys, "hf-tt", "source/state_50.pt", "--data", "tiny.hdf5")
    weights: dict[str, Any] = torch.load(source / "state_50.pt")
    torch.save({**weights, "more": torch.zeros(1)}, source / "state_50.pt")
    assert "such as 'more'" in refused(capsys, "tt", "source", "--data", "tiny.hdf5")
    torch.save({**weights, "ln_f.bias": torch.zeros(3)}, source / "state_50.pt")
    assert "do not fit the model" in refused(capsys, "tt", "source", "--data", "tiny.hdf5")
    torch.save({name: value for name, value in weights.items() if name != "ln_f.bias"}, source / "state_50.pt")
    assert "no weight 'ln_f.bias'" in refused(capsys, "tt", "source", "--data", "tiny.hdf5")


def test_a_pickle_that_names_code_stops_an_import(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data("tiny.hdf5", 3, 2)
    shutil.copytree(FOLDER / "tt_checkpoint", folder / "source")
    (folder / "source/data_config.pkl").write_bytes(b"cos\nsystem\n(Vtouch ran\ntR.")
    assert "names os.system" in refused(capsys, "tt", "source", "--data", "tiny.hdf5")
    assert not Path("ran").exists()
