"""Commands given data and checkpoints of strangers: nothing that a file names is run, and the user is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from seqrl.cli import data, evaluate, train

FAST = ["debug=fast", "training.max_steps=2", "training.progress_bar=false", "training.loggers=[csv]"]
MODULE = """
from pathlib import Path
Path({mark!r}).touch()
import gymnasium
import numpy as np
from gymnasium.spaces import Box
class Task(gymnasium.Env):
    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {{}}
    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, False, {{}}
gymnasium.register("mine/Task-v0", Task, max_episode_steps=3)
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that appears when the module `task_module` of the current folder is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    place = tmp_path / "code ran"
    Path("task_module.py").write_text(MODULE.format(mark=str(place)))
    yield place
    sys.modules.pop("task_module", None)
    gymnasium.registry.pop("mine/Task-v0", None)


@pytest.fixture
def words(mark: Path) -> list[str]:
    """Of a training on `mine.npz`, which names no environment."""
    write_arrays("mine.npz")
    return ["data=arrays", "data.path=mine.npz", *FAST]


def write_arrays(path: str, **texts: str) -> None:
    rng = np.random.default_rng(0)
    rows = {"observations": (120, 3), "actions": (120, 1), "rewards": (120,)}
    np.savez(path, offsets=np.arange(0, 121, 20), **{key: rng.uniform(-1, 1, rows[key]) for key in rows}, **texts)


def write_minari(*, spaces: bool) -> None:
    pytest.importorskip("minari", reason="the optional package minari is not installed")
    assert data.run(["convert", "mine.npz", "minari:evil/task-v0"]) == 0
    file = Path("minari/evil/task-v0/data/metadata.json")
    content = json.loads(file.read_text())
    spec = {"id": "Pendulum-v1", "entry_point": "task_module:Task", "kwargs": {}, "additional_wrappers": []}
    content["env_spec"] = json.dumps(spec)
    if not spaces:
        del content["observation_space"]
    file.write_text(json.dumps(content))


def trained(words: list[str], capsys: pytest.CaptureFixture[str], **dataset: Any) -> Path:
    """The checkpoint of a run, in which a stranger wrote what the data were."""
    assert train.run([*words, "evaluation=none"]) == 0, capsys.readouterr().err
    (folder,) = Path("runs").iterdir()
    content = torch.load(folder / "model" / "last.ckpt", weights_only=False)
    content["hyper_parameters"]["config"]["dataset"].update(dataset)
    torch.save(content, "stranger.ckpt")
    return Path("stranger.ckpt")


@pytest.mark.parametrize("env_id", ["task_module:mine/Task-v0", "minari:evil/task-v0", "minari:evil/task-v0@a+b"])
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_checkpoint_names_no_code(
    env_id: str, check: list[str], words: list[str], mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if env_id.startswith("minari"):
        write_minari(spaces=True)
    checkpoint = trained(words, capsys, env_id=env_id)
    assert evaluate.run([f"checkpoint={checkpoint}", *check]) == 2
    said = capsys.readouterr().err
    assert "names a module to import" in said or "is not that ('gymnasium.envs.classic_control" in said
    assert not mark.exists()


@pytest.mark.parametrize("spaces", [True, False])
def test_a_minari_set_names_no_code(
    spaces: bool, words: list[str], mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_minari(spaces=spaces)
    minari = ["data=minari", "data.id=evil/task-v0", *FAST]
    assert data.run(["inspect", "minari:evil/task-v0"]) == (0 if spaces else 2)
    assert train.run([*minari, "evaluation=none"]) == (0 if spaces else 2)
    assert train.run(minari) == 2
    assert "is not that" in (said := capsys.readouterr().err) or "has no observation_space" in said
    assert not mark.exists()


def test_a_file_names_no_code(mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_arrays("theirs.npz", env_id="task_module:mine/Task-v0")
    assert train.run(["data=arrays", "data.path=theirs.npz", *FAST]) == 2
    assert "give plugins=[task_module] and evaluation.settings.env_id=mine/Task-v0" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("rows", [["evaluation=none"], ["strategy=imitation"]])
def test_an_environment_that_is_no_text_is_told(
    rows: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    import h5py

    assert data.run(["convert", "mine.npz", "theirs.hdf5"]) == 0
    with h5py.File("theirs.hdf5", "a") as file:
        file.attrs["env_id"] = [1, 2]
    assert train.run(["data=d4rl", "data.path=theirs.hdf5", *FAST, *rows]) == 2
    said = capsys.readouterr().err
    assert "the environment [1, 2]" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("key", ["data.env_id", "evaluation.settings.env_id", "evaluation.rows.a.env_id"])
def test_the_user_s_own_word_loads_the_module(
    key: str, words: list[str], mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["evaluation=none", "evaluation.rows.a={strategy: imitation}"] if "rows" in key else ["strategy=imitation"]
    assert train.run([*words, *rows, f"{key}=task_module:mine/Task-v0"]) == 0, capsys.readouterr().err
    (found,) = Path("runs").glob("*/evaluations/*/results.json")
    assert '"env_id": "mine/Task-v0"' in found.read_text()
    assert mark.exists()


def test_the_user_s_own_word_in_other_commands(
    words: list[str], mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained(words, capsys)
    assert evaluate.run([f"checkpoint={checkpoint}", "env_id=task_module:mine/Task-v0", "strategy=imitation"]) == 0
    assert data.run(["collect", "task_module:mine/Task-v0", "new.npz", "--episodes", "2"]) == 0
    assert str(np.load("new.npz")["env_id"]) == "mine/Task-v0"


@pytest.mark.parametrize("env_id", ["Nope-v3", "task_modul:mine/Task-v0", "mine/Task-v1"])
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_unknown_environments_are_refused_before_anything_runs(
    env_id: str, check: list[str], words: list[str], mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.run([*words, *check, "strategy=imitation", f"data.env_id={env_id}"]) == 2
    said = capsys.readouterr()
    assert "Gymnasium knows no environment" in said.err or "failed to import" in said.err
    assert not any(Path("runs").glob("*/model"))
    checkpoint = trained(words, capsys)
    assert evaluate.run([f"checkpoint={checkpoint}", *check, f"env_id={env_id}"]) == 2
    assert "sound" not in capsys.readouterr().out
