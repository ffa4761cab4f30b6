"""Names of runs, and how a run finds the folder that it has."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seqrl.config import RunConfig
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


def run_of(**settings: Any) -> RunConfig:
    return RunConfig.from_saved({**CONFIG, **settings})


def named(overrides: dict[str, Any], **settings: Any) -> str:
    run = run_of(**settings)
    name, _, digest = name_run(run, identify(run), overrides).rpartition("-")
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
    run = run_of(runs_dir=str(tmp_path))
    identity = identify(run)
    assert find_run(run, identity) is None
    place = tmp_path / folder.format(identity.digest)
    place.mkdir()
    assert find_run(run, identity) == place
    assert find_run(replace(run, experiment_name="maz"), identity) is None
    assert find_run(replace(run, name="mine"), identity) is None
    another = replace(run, seed=1)
    other = identify(another)
    assert find_run(another, other) is None
    (place / IDENTITY).write_text(other.to_json())  # the same 8 digits by chance
    assert find_run(run, identity) is None


def test_a_run_with_a_name_of_before_is_taken_over(tmp_path: Path) -> None:
    run = run_of(runs_dir=str(tmp_path))
    identity = identify(run)
    old = tmp_path / old_run_name(run.given)
    old.mkdir()
    assert find_run(run, identity) is None  # an empty folder is no run
    (old / "config.yaml").write_text("")
    assert find_run(run, identity) == old
    (old / IDENTITY).write_text(identity.to_json())
    assert find_run(run, identity) == old
    (old / IDENTITY).write_text(identify(replace(run, seed=1)).to_json())  # taken over with what was there then
    assert find_run(run, identity) is None


def test_a_name_of_before_is_of_the_words_that_were_given(tmp_path: Path) -> None:
    """Of -100, not of the -100.0 that it means, and of no setting that nobody had thought of."""
    layout = {"fields": {"observation": {}, "action": {}}, "termination_penalty": -100}
    run = run_of(runs_dir=str(tmp_path), layout=layout)
    old = tmp_path / old_run_name({**CONFIG, "runs_dir": str(tmp_path), "layout": layout})
    old.mkdir()
    (old / "config.yaml").write_text("")
    assert find_run(run, identify(run)) == old


@pytest.mark.parametrize("name", ["../outside", "team/../../outside", "/outside", ".."])
def test_a_name_does_not_lead_out_of_the_folder_of_the_runs(tmp_path: Path, name: str) -> None:
    runs = tmp_path / "runs"
    run = run_of(runs_dir=str(runs), experiment_name=name)
    old = old_run_name(run.given)
    for place in (runs / old, runs / "team" / old):
        if place.resolve().is_relative_to(tmp_path):
            place.mkdir(parents=True, exist_ok=True)
            (place / "config.yaml").touch()
    identity = identify(run)
    assert find_run(run, identity) is None
    made = runs / name_run(run, identity, {})
    assert made.resolve().parent == runs
    nested = run_of(runs_dir=str(runs), experiment_name="team/first")
    inside = runs / old_run_name(nested.given)
    inside.mkdir(parents=True)
    (inside / "config.yaml").touch()
    assert find_run(nested, identity) == inside
