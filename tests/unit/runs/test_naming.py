"""Names of runs, and how a run finds the folder that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from seqrl.errors import ConfigError
from seqrl.runs.identity import identify
from seqrl.runs.naming import IDENTITY, find_run, name_run
from seqrl.runs.old_names import old_run_name

CONFIG: dict[str, Any] = {
    "name": None,
    "experiment_name": "maze",
    "seed": 0,
    "tokenizer": {"name": "uniform", "num_bins": 100},
    "plugins": [],
}


def named(overrides: dict[str, Any], **settings: Any) -> str:
    config = {**CONFIG, **settings}
    name, _, digest = name_run(config, identify(config), overrides).rpartition("-")
    assert re.fullmatch("[0-9a-f]{8}", digest)
    return name


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({}, "maze"),
        ({"backbone": "llama", "training.max_steps": 4000}, "maze-llama-steps4000"),
        ({"experiment": "maze", "seed": 3}, "maze-seed3"),
        ({"experiment": "other", "critic": None}, "maze-other-no_critic"),
        ({"data.path": "/home/me/my data/hopper-medium.hdf5"}, "maze-hopper-medium"),
        ({"data.parts": ["x/a.hdf5", "b-v2"]}, "maze-a-b-v2"),
        ({"optimizer.learning_rate": 3e-4, "layout.x.hidden": False}, "maze-learning_rate0.0003-hidden-off"),
        ({"layout.goal": {"dims": [0, 1]}}, "maze-goal-dims-0-1"),
        ({"evaluation": "none", "evaluation.settings.seed": 1, "runs_dir": "/x", "plugins": ["a.py"]}, "maze"),
        ({"trainer.devices": 2, "training.loggers": [], "data.cache_dir": "/x", "hydra/launcher": "basic"}, "maze"),
    ],
)  # fmt: skip
def test_a_name_says_what_was_changed(overrides: dict[str, Any], words: str) -> None:
    assert named(overrides) == words


def test_a_name_is_a_short_name_of_a_folder_whatever_is_in_it() -> None:
    name = named({f"backbone.x{n}": "ü/=\n ../*" for n in range(50)}, experiment_name="a b/../c=")
    assert re.fullmatch(r"[\w.+-]+", name, re.ASCII)
    assert len(name) < 80
    assert named({}, experiment_name="//") == "run"


def test_the_users_name_stands_alone() -> None:
    assert named({"backbone": "llama"}, name="my_run-2.0") == "my_run-2.0"
    for bad in ("a/b", "..", "a b", "x" * 61, "-x"):
        with pytest.raises(ConfigError, match=r"name=.* cannot begin the name of a folder; give up to 60 letters"):
            named({}, name=bad)


@pytest.mark.parametrize("folder", ["maze-{}", "maze-llama-seed3-{}"])
def test_a_run_is_found_whatever_its_words_say(tmp_path: Path, folder: str) -> None:
    config = {**CONFIG, "runs_dir": str(tmp_path)}
    identity = identify(config)
    assert find_run(config, identity) is None
    run = tmp_path / folder.format(identity.digest)
    run.mkdir()
    assert find_run(config, identity) == run
    assert find_run({**config, "experiment_name": "maz"}, identity) is None
    assert find_run({**config, "name": "mine"}, identity) is None
    other = identify({**config, "seed": 1})
    assert find_run({**config, "seed": 1}, other) is None
    (run / IDENTITY).write_text(other.to_json())  # the same 8 digits by chance
    assert find_run(config, identity) is None


def test_a_run_with_a_name_of_before_is_taken_over(tmp_path: Path) -> None:
    config = {**CONFIG, "runs_dir": str(tmp_path)}
    identity = identify(config)
    old = tmp_path / old_run_name(config)
    old.mkdir()
    assert find_run(config, identity) is None  # an empty folder is no run
    (old / "config.yaml").write_text("")
    assert find_run(config, identity) == old
    (old / IDENTITY).write_text(identity.to_json())
    assert find_run(config, identity) == old
    (old / IDENTITY).write_text(identify({**config, "seed": 1}).to_json())  # taken over with what was there then
    assert find_run(config, identity) is None


@pytest.mark.parametrize("name", ["../outside", "team/../../outside", "/outside", ".."])
def test_a_name_does_not_lead_out_of_the_folder_of_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("seqrl.runs.naming.old_run_name", lambda config: f"{config['experiment_name']}-12345678")
    runs = tmp_path / "runs"
    config = {**CONFIG, "runs_dir": str(runs), "experiment_name": name, "name": None}
    for place in (runs / f"{name}-12345678", runs / "team" / f"{name}-12345678"):
        if place.resolve().is_relative_to(tmp_path):
            place.mkdir(parents=True, exist_ok=True)
            (place / "config.yaml").touch()
    identity = identify(config)
    assert find_run(config, identity) is None
    made = runs / name_run(config, identity, {})
    assert made.resolve().parent == runs
    nested = {**config, "experiment_name": "team/first"}
    old = runs / "team" / "first-12345678"
    old.mkdir(parents=True)
    (old / "config.yaml").touch()
    assert find_run(nested, identity) == old
