"""What a run is: which settings, data and code decide what each of its stages computes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hydra
import pytest

from seqrl.cli.application import plain
from seqrl.config import RunConfig
from seqrl.paths import config_dir
from seqrl.plugins import load_plugins
from seqrl.runs import identity as runs_identity
from seqrl.runs.identity import RunIdentity
from seqrl.runs.old_names import old_run_name, training_digest

CONFIG: dict[str, Any] = {
    "name": None,
    "experiment_name": "maze",
    "runs_dir": "runs",
    "seed": 0,
    "data": {"name": "maze2d", "maze": "umaze", "cache_dir": None},
    "tokenizer": {"name": "uniform", "num_bins": 100},
    "plugins": [],
    "window": {"length": 10, "terminate_truncated": True},
    "optimizer": {"betas": [0.9, 0.95], "learning_rate": 6e-4},
    "scheduler": {"name": "cosine"},
    "objective": {"name": "next_token"},
    "critic": {"name": "iql", "expectile": 0.7},
    "trainer": {"devices": 1, "precision": "32-true", "num_threads": None},
    "training": {"max_steps": 5, "batch_size": 4, "log_every": 1},
    "tokenizer_training": {"max_steps": None},
    "critic_training": {"max_steps": 7, "batch_size": 4},
}
STAGES = {"tokenizer", "model", "critic"}


def identify(config: Mapping[str, Any]) -> RunIdentity:
    return runs_identity.identify(RunConfig.from_saved(config))


def changed(path: str, value: object) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    *parents, last = path.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    return config


def differing(one: dict[str, Any], other: dict[str, Any] = CONFIG) -> set[str]:
    """The stages that two configs do not have in common."""
    a, b = identify(one).stages, identify(other).stages
    return {stage for stage in {*a, *b} if a.get(stage) != b.get(stage)}


@pytest.mark.parametrize(
    ("path", "value", "stages"),
    [
        ("seed", 1, STAGES),
        ("data.maze", "medium", STAGES),
        ("window.terminate_truncated", False, STAGES),
        ("trainer.precision", "bf16-mixed", STAGES),
        ("trainer.fast_cpu", True, STAGES),
        ("training.batch_size", 8, {"tokenizer", "model"}),  # the critic has its own
        ("training.validation_fraction", 0.1, STAGES),
        ("tokenizer.num_bins", 101, STAGES),  # the critic's first weights are drawn after the model's
        ("objective.name", "regression", {"model", "critic"}),
        ("optimizer.betas", [0.95, 0.9], {"tokenizer", "model"}),
        ("optimizer.learning_rate", 6.0001e-4, {"tokenizer", "model"}),
        ("scheduler.name", "constant", {"tokenizer", "model"}),
        ("training.max_steps", 6, {"tokenizer", "model"}),
        ("tokenizer_training.max_steps", 6, {"tokenizer", "model"}),
        ("critic.expectile", 0.9, {"critic"}),
        ("critic_training.max_steps", 8, {"critic"}),
        ("critic", None, {"critic"}),
    ],
)
def test_every_setting_counts_for_the_stages_that_it_decides(path: str, value: object, stages: set[str]) -> None:
    assert differing(changed(path, value)) == stages
    assert identify(changed(path, value)).digest != identify(CONFIG).digest


def test_runs_from_before_goals_had_a_discount_stay_what_they_were() -> None:
    goal = {"dims": [0, 1], "dropout": 0.1, "draw": "geometric"}
    fields = {"observation": {}, "action": {}}
    before, now, other = (
        {**CONFIG, "layout": {"fields": fields, "goal": {**goal, **discount}}}
        for discount in ({}, {"discount": None}, {"discount": 0.5})
    )
    assert identify(before) == identify(now)
    assert differing(before, other) == STAGES
    assert training_digest(before) == training_digest(now) != training_digest(other)


def test_digests_stay_what_they_were_when_settings_are_added() -> None:
    """They stand in the names of folders: a digest that moves trains every run of every user again.

    These two were computed before layouts had chunks, trainings callbacks and runs `check_plugins`.
    """
    fields = {"fields": {"observation": {}, "action": {}}}
    assert identify(CONFIG).digest == "1ed16ff4"
    assert identify({**CONFIG, "layout": fields}).digest == "813a230d"
    assert identify({**CONFIG, "layout": {**fields, "chunk": 1}}).digest == "813a230d"
    assert identify(changed("trainer.fast_cpu", False)).digest == "1ed16ff4"
    strided, chunked = ({**CONFIG, "layout": {**fields, "stride": 2, "chunk": chunk}} for chunk in (1, 2))
    assert differing(strided, chunked) == STAGES


def test_a_backbone_that_computes_something_else_now_makes_other_runs() -> None:
    """`s6` lost its gate and got biases: a finished run of before holds weights that fit no longer."""
    old = "70d87a52"  # of the fixed words below with this backbone, at 80ee52a plus the option `uniform_fields`
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        found = {
            name: runs_identity.identify(
                RunConfig.from_dict(plain(hydra.compose("train", ["debug=fast", f"backbone={name}"])))
            ).digest
            for name in ("s6", "mingru")
        }
    assert found["s6"] not in (old, "3006e6bd")  # with and without that option
    assert found["mingru"] == "79c1ac47"  # as at 80ee52a


@pytest.mark.parametrize(
    ("words", "digest"),
    [
        (["debug=fast"], "e8c0f1f2"),
        (["experiment=four_rooms"], "75ddc627"),
        (["experiment=maze2d_sparse_ttq"], "c6275c8a"),
        (["experiment=maze2d_large_landmarks"], "ff364b7b"),
        (["experiment=d4rl_tap_cpu", "data.id=hopper-medium-v2"], "40bace05"),
        (["experiment=d4rl_cpu", "data.id=hopper-medium-v2", "method=dt"], "f7295d4d"),
    ],
)
def test_commands_mean_the_runs_that_they_meant(words: list[str], digest: str) -> None:
    """What these words named on 2026-11-29: an option that a component gets must not train all its runs again.

    Where one of them moves without a reason that makes the runs others, the option belongs into `identity._LATER`.
    """
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        run = RunConfig.from_dict(plain(hydra.compose("train", words)))
    assert runs_identity.identify(run).digest == digest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("runs_dir", "/somewhere/else"),
        ("name", "mine"),
        ("experiment_name", "maze2"),
        ("data.cache_dir", "/cache"),
        ("trainer.devices", 4),
        ("trainer.num_threads", 2),
        ("training.log_every", 3),
        ("training.loggers", []),
        ("critic_training.log_every", 3),
        ("evaluation", {"settings": {"num_episodes": 3}}),
        ("objective_metric", "val/loss"),
    ],
)
def test_places_names_and_what_follows_count_for_nothing(path: str, value: object) -> None:
    assert identify(changed(path, value)) == identify(CONFIG)


def test_the_order_of_settings_one_and_one_point_zero_and_what_is_null_count_for_nothing() -> None:
    assert identify(dict(reversed(CONFIG.items()))) == identify(CONFIG)
    assert identify(changed("critic.temperature", 1)) == identify(changed("critic.temperature", 1.0))


def test_settings_that_are_left_out_are_the_defaults() -> None:
    """So that a new setting changes no run, and a `config.yaml` says the same as the command."""
    assert identify(RunConfig.from_saved(CONFIG).to_dict()) == identify(CONFIG)
    assert identify({**CONFIG, "observation_size": 3, "evaluation": {}}) == identify(CONFIG)


def test_an_identity_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    assert RunIdentity.read(path) is None
    path.write_text(identify(CONFIG).to_json())
    assert RunIdentity.read(path) == identify(CONFIG)
    for damaged in ("", "{", "[1]", '{"model": {}}', '{"model": 3}'):
        path.write_text(damaged)
        assert RunIdentity.read(path) is None


def test_files_count_by_name_and_content_and_not_by_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"a/x.npz": "1", "b/x.npz": "1", "b/y.npz": "1", "c/x.npz": "2"}.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)

    def of(path: str) -> dict[str, Any]:
        return {**CONFIG, "data": {"name": "arrays", "path": path}}

    assert identify(of("a/x.npz")) == identify(of("b/x.npz"))
    assert differing(of("b/y.npz"), of("a/x.npz")) == STAGES  # sources read a data set's name off it
    assert differing(of("c/x.npz"), of("a/x.npz")) == STAGES
    assert identify(of("c/x.npz")).difference(identify(of("a/x.npz"))) == "the content of 'c/x.npz'"
    assert identify(of("c/x.npz")).difference(identify(of("b/y.npz"))) is None
    mixes = [["a/x.npz", "c/x.npz"], ["c/x.npz", "a/x.npz"], ["a/x.npz"], [{"name": "arrays", "path": "a/x.npz"}]]
    found = {identify({**CONFIG, "data": {"name": "mix", "parts": parts}}).digest for parts in mixes}
    assert len(found) == 4


def test_an_id_counts_as_what_the_catalogue_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from seqrl.d4rl import catalogue

    config = {**CONFIG, "data": {"name": "d4rl", "id": "hopper-medium-v2", "path": None}}
    mix = {**CONFIG, "data": {"name": "mix", "parts": ["hopper-medium-v2", "hopper-expert-v2"]}}
    before, mixed = identify(config), identify(mix)
    moved = tuple(replace(entry, url=f"{entry.url}.new") for entry in catalogue.entries())
    monkeypatch.setattr(catalogue, "entries", lambda: moved)
    assert identify(config) != before
    assert identify(mix) != mixed


TOKENIZER = """
from seqrl import register_tokenizer
from seqrl.tokenizers import Tokenizer


@register_tokenizer("own_bins")
class OwnBins(Tokenizer):
    ...
"""
PLANNER = TOKENIZER.replace("tokenizer", "planner").replace("Tokenizer", "Planner").replace("own_bins", "own_search")


@pytest.fixture
def plugin(tmp_path: Path, clean_plugins: None) -> Callable[[str, str], str]:
    def written(name: str, code: str) -> str:
        (tmp_path / name).write_text(code)
        load_plugins([str(tmp_path / name)])
        return str(tmp_path / name)

    return written


def test_a_plugin_counts_by_its_source_where_a_stage_needs_it(plugin: Callable[[str, str], str]) -> None:
    bins, search = plugin("bins.py", TOKENIZER), plugin("search.py", PLANNER)
    config = {**CONFIG, "plugins": [bins, search], "tokenizer": {"name": "own_bins"}}
    before = identify(config)
    Path(search).write_text(PLANNER + "# edited\n")  # concerns the evaluation
    assert identify(config) == before
    assert identify({**config, "plugins": [bins]}) == before
    Path(bins).write_text(TOKENIZER + "# edited\n")
    assert identify(config).difference(before) == "the code of a plugin"
    assert identify({**config, "tokenizer": {"name": "uniform"}}).stages["model"].code != before.stages["model"].code


def test_a_plugin_that_defines_nothing_counts(plugin: Callable[[str, str], str]) -> None:
    path = plugin("environment.py", "x = 1\n")
    before = identify(changed("plugins", [path]))
    assert before != identify(CONFIG)
    Path(path).write_text("x = 2\n")
    assert identify(changed("plugins", [path])) != before


# Computed at 3466b25.
OLD = {
    "experiment_name": "maze", "runs_dir": "runs", "seed": 0, "tokenizer": {"name": "uniform", "num_bins": 100},
    "plugins": [], "window": {"length": 10, "terminate_truncated": True},
    "optimizer": {"betas": [0.9, 0.95], "learning_rate": 6e-4},
    "data": {"name": "maze2d", "maze": "umaze", "cache_dir": "/x"}, "trainer": {"devices": 2, "precision": "32-true"},
    "training": {"max_steps": 5, "log_every": 3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["debug=fast", "data.num_transitions=900"], "run-d9c4a87b"),
        (["experiment=maze2d_umaze", "seed=1"], "maze2d_umaze-20a97b4f"),
        (["experiment=d4rl_tap_cpu", "data.id=hopper-medium-v2"], "d4rl_tap_cpu-4db74917"),
        (["experiment=maze2d_sparse_ttq"], "maze2d_sparse_ttq-824f82b7"),
    ],
)
def test_runs_of_before_have_the_names_that_they_had(words: list[str], name: str) -> None:
    """What these words made at 3466b25. A setting that is new since then belongs into `old_names._NEWER`."""
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        assert old_run_name(plain(hydra.compose("train", words))) == name


def test_the_rule_of_before_is_kept() -> None:
    newer = {**OLD, "name": None, "optimizer": {"name": "adamw", **OLD["optimizer"]}, "evaluation": {}}  # type: ignore[dict-item]
    assert old_run_name(OLD) == old_run_name(newer) == "maze-66f13bb3"
    assert training_digest(OLD) == "2914988e"


def test_runs_that_differ_in_the_seed_share_what_was_trained() -> None:
    config = {
        "seed": 0,
        "experiment_name": "a",
        "layout": {"discount": 0.99},
        "training": {"max_steps": 5, "log_every": 1},
    }
    same = {**config, "seed": 1, "experiment_name": "b", "training": {"max_steps": 5, "log_every": 2}, "runs_dir": "x"}
    assert training_digest(config) == training_digest(same)
    as_ever = RunConfig().to_dict()["trainer"]
    for alike in ({"trainer": as_ever}, {"trainer": {**as_ever, "devices": 2, "strategy": "ddp"}}, {"landmarks": None}):
        assert training_digest(config) == training_digest({**config, **alike})
    changes: list[dict[str, Any]] = [{"layout": {"discount": 0.9}}, {"training": {"max_steps": 6}}]
    changes += [{"critic": {"name": "iql"}}, {"landmarks": {"spacing": 0.3}}]
    odd = {"precision": "bf16-mixed", "accumulate_grad_batches": 8, "overfit_batches": 0.1, "fast_cpu": True}
    changes += [{"trainer": {**as_ever, key: value}} for key, value in odd.items()]
    digests = [training_digest(each) for each in (config, *({**config, **change} for change in changes))]
    assert len(set(digests)) == len(digests)
