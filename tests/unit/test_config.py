"""The typed configuration and the yaml files say the same."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest
import yaml

from seqrl.cli.schema import component_yaml, write_files
from seqrl.config import (
    CriticTrainingConfig,
    DecodingConfig,
    EvaluationConfig,
    ResultsConfig,
    RowSettings,
    RunConfig,
    TokenizerTrainingConfig,
    TrainerConfig,
    TrainingConfig,
    WindowConfig,
)
from seqrl.errors import ConfigError
from seqrl.paths import config_dir
from seqrl.registry import registries
from seqrl.schema import check_value

COMPONENTS = [(registry, name) for registry in registries() for name in registry.builtin_names()]


@pytest.mark.parametrize(("registry", "name"), COMPONENTS, ids=[f"{each.slot}-{name}" for each, name in COMPONENTS])
def test_a_yaml_says_what_its_constructor_says(registry: Any, name: str) -> None:
    text = (config_dir() / registry.slot / f"{name}.yaml").read_text()
    defaults = {option.name: "???" if option.required else option.default for option in registry.options(name)}
    defaults |= {} if registry.slot == "data" else {option.name: option.default for option in registry.shared}
    told = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert yaml.safe_load(text) == {"name": name, **told}


def test_the_written_files_are_up_to_date() -> None:
    assert list(write_files(config_dir())) == [], "run `seqrl schema --write`"


def test_a_changed_default_is_written_and_comments_stay() -> None:
    (registry,) = (each for each in registries() if each.slot == "optimizer")
    text = component_yaml(registry, "adamw", "# Mine.\nname: adamw\nlearning_rate: 1.0 # fast\nweight_decay: 0.1\n")
    assert text.splitlines() == [
        "# yaml-language-server: $schema=../schema/optimizer.json",
        *("# Mine.", "name: adamw", "learning_rate: 0.0006 # fast", "weight_decay: 0.1"),
        *("betas: [0.9, 0.95]", "clip_norm: 1.0"),
    ]


def test_the_defaults_of_a_run_are_those_of_its_yaml() -> None:
    train = yaml.safe_load((config_dir() / "train.yaml").read_text())
    groups = {key: name for entry in train.pop("defaults") if isinstance(entry, dict) for key, name in entry.items()}
    run = RunConfig().to_dict()
    for key, value in train.items():
        for name, each in value.items() if isinstance(value, dict) else [(None, value)]:
            assert (run[key] if name is None else run[key][name]) == each, (key, name)
    for slot in ("data", "tokenizer", "backbone", "objective", "optimizer", "scheduler"):
        assert run[slot]["name"] == groups[slot]
    assert (
        run["layout"]
        == RunConfig.from_dict(
            {"layout": yaml.safe_load((config_dir() / "layout" / f"{groups['layout']}.yaml").read_text())}
        ).to_dict()["layout"]
    )


def test_the_defaults_of_an_evaluation_are_those_of_its_yaml() -> None:
    evaluate = yaml.safe_load((config_dir() / "evaluate.yaml").read_text())
    del evaluate["defaults"]
    defaults = {each.name: each.default for each in fields(EvaluationConfig)}
    assert evaluate.pop("checkpoint") == "???"
    assert {key: list(each) if isinstance(each := defaults[key], tuple) else each for key in evaluate} == evaluate


def test_a_run_goes_through_plain_values_and_back() -> None:
    run = RunConfig.from_dict({"training": {"max_steps": 3}, "layout": {"fields": {"observation": {}, "action": {}}}})
    assert RunConfig.from_dict(yaml.safe_load(yaml.safe_dump(run.to_dict(), sort_keys=False))) == run


def test_a_run_of_an_older_version_loads() -> None:
    saved = {
        "optimizer": {"learning_rate": 1e-3, "clip_norm": 1.0},
        "training": {"max_steps": 5, "gone": 1},
        "observation_size": 3,
        "dataset": {"name": "x"},
    }
    run = RunConfig.from_saved(saved)
    assert run.optimizer["name"] == "adamw"
    assert run.training.max_steps == 5
    with pytest.raises(ConfigError, match=r"no setting 'training\.gone'"):
        RunConfig.from_dict({"training": saved["training"]})


@pytest.mark.parametrize(
    ("file", "section", "kind"),
    [
        ("train", "training", TrainingConfig),
        ("train", "tokenizer_training", TokenizerTrainingConfig),
        ("train", "critic_training", CriticTrainingConfig),
        ("train", "window", WindowConfig),
        ("trainer/cpu", None, TrainerConfig),
        ("trainer/gpu", None, TrainerConfig),
        ("trainer/ddp", None, TrainerConfig),
        ("evaluation/none", None, ResultsConfig),
        ("evaluation/none", "settings", RowSettings),
        ("evaluation/none", "decoding", DecodingConfig),
    ],
)
def test_a_yaml_has_every_setting_of_its_section(file: str, section: str | None, kind: type) -> None:
    """Hydra wants a + before others."""
    tree = yaml.safe_load((config_dir() / f"{file}.yaml").read_text(encoding="utf-8"))
    assert set(tree[section] if section else tree) == {each.name for each in fields(kind)}


@pytest.mark.parametrize("group", ["experiment", "method", "debug", "trainer", "evaluation"])
def test_files_that_stand_over_others_name_a_schema_that_knows_their_keys(group: str) -> None:
    for path in sorted((config_dir() / group).glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        named = re.match(r"(?:# @package _global_\n)?# yaml-language-server: \$schema=(\S+)\n", text)
        assert named is not None, path
        schema = json.loads((path.parent / named[1]).read_text(encoding="utf-8"))
        for key, value in yaml.safe_load(text).items():
            known = schema["properties"][key]
            known = schema["$defs"][known["$ref"].rpartition("/")[2]] if "$ref" in known else known
            if isinstance(value, dict) and "properties" in known:
                assert set(value) <= set(known["properties"]), (path, key)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "bfloat"}, "precision='bfloat' is unknown. Did you mean 'bfloat16'"),
        ({"precision": "16"}, "Choices: float32 or bfloat16"),
        ({"device": "gpu"}, "device='gpu' is unknown; give auto, cpu, cuda"),
        ({"device": "cuda:x"}, "device='cuda:x' is unknown; give auto, cpu, cuda"),
    ],
)
def test_unknown_places_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_value("", options, RowSettings)
