"""`seqrl train --check` judges what is known of the data before their episodes are read, and says what is not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrl.cli import train

SMALL = ["backbone.num_layers=1", "backbone.dim=16"]
IMITATE = ["evaluation=none", "evaluation.strategy=imitation"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def check(*words: str) -> int:
    return train.run(["--check", *SMALL, *words])


def record_minari(**changes: Any) -> None:
    """`mine/task-v0` in `Pendulum-v1`; None takes a key of its metadata out."""
    import gymnasium
    from gymnasium.spaces import Box
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder = Path("minari/mine/task-v0/data").absolute()
    folder.parent.mkdir(parents=True)
    storage = MinariStorage.new(
        folder, observation_space=Box(-9, 9, (3,)), action_space=Box(-2, 2, (1,)), data_format="hdf5"
    )
    spec = gymnasium.spec("Pendulum-v1").to_json()
    storage.update_metadata({"dataset_id": "mine/task-v0", "minari_version": "0.5.4", "env_spec": spec})
    last = np.arange(20) == 19
    seen = np.zeros((21, 3), "f4")
    storage.update_episodes([EpisodeBuffer(None, None, None, seen, np.zeros((20, 1), "f4"), np.zeros(20), last, last)])
    file = folder / "metadata.json"
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


EVIL = json.dumps({"id": "Evil-v0", "entry_point": "os:system", "kwargs": {"command": "no"}, "additional_wrappers": []})
CHOICE = {"type": "Discrete", "dtype": "int64", "n": 2, "start": 0}
CHOICES = json.dumps({"type": "Tuple", "subspaces": [CHOICE, CHOICE]})


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({"observation_space": None}, [], "has no observation_space in its metadata.json"),
        ({"action_space": CHOICES}, [], "has actions of kind Tuple"),
        ({"env_spec": EVIL}, IMITATE, "Evil-v0"),
        ({}, ["data.observation_keys=[a]"], "has observations of one part"),
        ({}, ["layout=tt_goal", "layout.goal.dims=[0,7]"], "layout.goal.dims"),
        ({}, [*IMITATE, "evaluation.settings.env_id=MountainCarContinuous-v0"], "has 3 observation dimensions"),
    ],
)
def test_a_minari_set_that_lies_here_is_judged(
    changes: dict[str, Any], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("minari")
    record_minari(**changes)
    assert check("data=minari", "data.id=mine/task-v0", "data.download=false", *words) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert "sound" not in told.out


def test_a_sound_minari_set_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minari")
    record_minari()
    assert check("data=minari", "data.id=mine/task-v0", *IMITATE) == 0
    told = capsys.readouterr()
    assert "is sound" in told.out
    assert "not there" not in told.out + told.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=minari", "data.id=nonsense"], "'nonsense' is no Minari id"),
        (["data=minari", "data.id=../mine/task-v0"], "is no Minari id"),
        (["data=minari", "data.id=mine/other-v0", "data.download=false"], "'mine/other-v0' is not in"),
        (["data=arrays", "data.path=empty.npz"], "empty.npz is an empty file"),
        (["data=d4rl", "data.path=other.npz"], "is a device, pipe or socket"),
        (["data=mix", "data.parts=[empty.npz,other.npz]"], "empty.npz is an empty file"),
    ],
)
def test_what_cannot_be_data_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.npz").touch()
    os.mkfifo("other.npz")
    assert check(*words, "evaluation=none") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["data=minari", "data.id=mine/task-v0"], "minari/mine/task-v0/data"),
        (["data=arrays", "data.path=later.npz"], "later.npz"),
        (["data=store", "data.path=saved"], "saved"),
    ],
)
def test_what_is_not_there_is_said(words: list[str], place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The data may lie on another machine, where the command is to run."""
    assert check(*words, "evaluation=none") == 0
    told = capsys.readouterr().out
    assert f"{place}' is not there, so that nothing can be told of what it will hold" in told
    assert "is sound" in told


SOURCE = """
import seqrl


@seqrl.register_data("hopping")
class Hopping(seqrl.DataSource):
    {env_id}

    def load(self):
        raise RuntimeError("nothing is recorded to check a configuration")
"""


@pytest.mark.usefixtures("clean_plugins")
@pytest.mark.parametrize(
    ("env_id", "words", "status"),
    [
        ("Hopper-v4", ["evaluation=none", "layout=tt_goal", "layout.goal.dims=[7,10]"], 0),  # of 11 dimensions
        ("Hopper-v4", ["evaluation.rows={far: {strategy: reward, score: {name: target, dim: 10}}}"], 0),
        ("Hopper-v4", ["evaluation.rows={far: {strategy: reward, score: {name: target, dim: 11}}}"], 2),
        (None, ["evaluation.rows={far: {strategy: reward, score: {name: target, dim: 10}, env_id: Hopper-v4}}"], 0),
        (None, ["evaluation.rows={far: {strategy: reward, score: {name: target, dim: 4}, env_id: CartPole-v1}}"], 2),
        ("nobody/Has-v0", ["evaluation=none"], 0),  # which rows alone need
    ],
)
def test_a_source_that_does_not_know_its_sizes_is_as_large_as_its_environment(
    env_id: str | None, words: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("hop.py").write_text(SOURCE.format(env_id=f"env_id = {env_id!r}"))
    assert check("plugins=[hop.py]", "data=hopping", *words) == status, capsys.readouterr().err


def test_a_schedule_that_refuses_its_options_together_does_so_before_data_are_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check("scheduler=warmup_stable_decay", "scheduler.decay_fraction=0.99", *IMITATE) == 2
    assert "scheduler.decay_fraction=0.99 are more than the whole training" in " ".join(capsys.readouterr().err.split())
