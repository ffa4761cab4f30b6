"""Checkpoints: what comes back, and what is refused without being run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqrl
from seqrl.checkpoints.loading import checkpoint_file, load
from seqrl.errors import CheckpointError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.training.module import SequenceModule

BACKBONE = {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 4}


@pytest.fixture
def config(plain_layout_config: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return {
        "observation_size": 2,
        "action_size": 1,
        "layout": plain_layout_config(),
        "tokenizer": {"name": "quantile", "num_bins": 4},
        "backbone": BACKBONE,
        "objective": {"name": "next_token"},
        "window": {"length": 3},
        "seed": 0,
        "plugins": ["mine.py"],
    }


@pytest.fixture
def model(config: dict[str, Any]) -> TokenModel:
    layout = Layout.from_config(config["layout"], 2, 1)
    found = TokenModel(layout, config["tokenizer"], config["backbone"], context=3)
    found.tokenizer.fit(torch.from_numpy(np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)))
    return found.eval()


@pytest.fixture
def content(config: dict[str, Any], model: TokenModel) -> dict[str, Any]:
    return {
        "seqrl": {"format": 2, "model": "tokens", "plugins": [], "versions": {"seqrl": "0.1.0"}},
        "hyper_parameters": {"config": config},
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "global_step": 70,
    }


def saved(tmp_path: Path, content: object) -> Path:
    torch.save(content, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_a_model_comes_back_with_its_tokenizer(
    tmp_path: Path, content: dict[str, Any], model: TokenModel, config: dict[str, Any]
) -> None:
    loaded = load(saved(tmp_path, content))
    assert not loaded.model.training
    assert (loaded.step, loaded.versions) == (70, {"seqrl": "0.1.0"})
    assert loaded.config.items() >= config.items()
    assert loaded.config["dataset"]["env_id"] is None  # nothing is known of the data of other people's scripts
    values = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32))
    tokens = loaded.model.tokenizer.encode(values)
    assert tokens.equal(model.tokenizer.encode(values))
    with torch.no_grad():
        assert loaded.model(tokens).equal(model(tokens))


def test_what_the_lightning_module_writes_can_be_read(tmp_path: Path, config: dict[str, Any]) -> None:
    module = SequenceModule({**config, "optimizer": {}, "scheduler": {"name": "constant"}})
    module.fit_tokenizer(np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32))
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "global_step": 3}
    module.on_save_checkpoint(content)
    loaded = load(saved(tmp_path, content))
    for name, tensor in module.model.state_dict().items():
        assert loaded.model.state_dict()[name].equal(tensor)
    assert {"seqrl", "torch", "lightning"} <= set(loaded.versions)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no checkpoint at" in refusal(tmp_path / "nowhere.ckpt")
    assert "no checkpoint at" in refusal(tmp_path)


@pytest.mark.parametrize(
    "foreign",
    [
        {"state_dict": {}},
        {"state_dict": {}, "hyper_parameters": {"config": {}}},
        {"state_dict": {}, "hyper_parameters": None, "seqrl": {"format": 1}},
        {"state_dict": {}, "hyper_parameters": {"config": {}}, "seqrl": "0.1"},
        {"state_dict": {}, "hyper_parameters": [], "seqrl": {"format": 1}},
    ],
)
def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path, foreign: dict[str, Any]) -> None:
    assert "was not written by seqrl; give the last.ckpt of a run" in refusal(saved(tmp_path, foreign))


@pytest.mark.parametrize("foreign", [torch.zeros(3), [1, 2], "text", None])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, foreign: object) -> None:
    assert "not a checkpoint" in refusal(saved(tmp_path, foreign))


@pytest.mark.parametrize("text", ["", "name: not a checkpoint\n", "{}", "x" * 5000, "\x80\x02."])
def test_text_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "last.ckpt"
    path.write_text(text, encoding="latin-1")
    assert "no checkpoint" in refusal(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, content: dict[str, Any], share: float) -> None:
    path = saved(tmp_path, content)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "is damaged or no checkpoint" in refusal(path)


def test_damaged_bytes_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    """Whatever is broken in the pickled part, the answer is one sentence."""
    path = saved(tmp_path, content)
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in members if name.endswith("data.pkl"))
    for _ in range(60):
        broken = bytearray(members[pickled])
        for place in rng.integers(len(broken), size=3):
            broken[place] = rng.integers(256)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, bytes(broken) if name == pickled else data)
        with suppress(CheckpointError):  # a changed number may go unnoticed
            load(path)


class _Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["hyper_parameters", "extra", "zip", "legacy", "bare pickle"])
def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path, content: dict[str, Any], place: str) -> None:
    target = tmp_path / "executed"
    attack, path = _Attack(target), tmp_path / "last.ckpt"
    if place == "bare pickle":
        path.write_bytes(pickle.dumps(attack, protocol=2))
    elif place == "legacy":
        torch.save({**content, "extra": attack}, path, _use_new_zipfile_serialization=False)
    else:
        holder = content["hyper_parameters"]["config"] if place == "hyper_parameters" else content
        holder["extra"] = attack
        torch.save(content, path)
    assert "was not loaded" in refusal(path)
    assert not target.exists()
    pickle.loads(pickle.dumps(attack))  # the attack itself works
    assert target.exists()


@pytest.mark.parametrize("version", [3, 0, "1", None, True])
def test_another_format_is_refused(tmp_path: Path, content: dict[str, Any], version: object) -> None:
    content["seqrl"]["format"] = version
    said = refusal(saved(tmp_path, content))
    assert f"has checkpoint format {version!r}; this seqrl reads formats 1 and 2; install" in said


def test_format_1_says_nothing_of_the_model_and_loads(tmp_path: Path, content: dict[str, Any]) -> None:
    new = load(saved(tmp_path, content)).model.state_dict()
    content["seqrl"] = {"format": 1, "plugins": [], "versions": {}}
    content["hyper_parameters"]["config"]["optimizer"] = {"learning_rate": 0.1}
    loaded = load(saved(tmp_path, content))
    assert all(tensor.equal(new[name]) for name, tensor in loaded.model.state_dict().items())
    assert loaded.config["optimizer"] == {"name": "adamw", "learning_rate": 0.1}


def test_what_a_newer_version_says_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    content["seqrl"]["sparse"] = True
    assert "says sparse of itself, which this seqrl does not know; install" in refusal(saved(tmp_path, content))


@pytest.mark.parametrize(("held", "words"), [("codes", "a model of codes"), (None, "no model")])
def test_a_model_of_another_class_than_the_config_builds_is_refused(
    tmp_path: Path, content: dict[str, Any], held: str | None, words: str
) -> None:
    content["seqrl"]["model"] = held
    assert f"holds {words}, and its config asks for one of tokens" in refusal(saved(tmp_path, content))


@pytest.mark.parametrize("slot", ["tokenizer", "backbone"])
@pytest.mark.parametrize("path", ["os.system", "seqrl.plugins.load_plugins", "builtins.eval"])
def test_an_import_path_in_a_slot_is_an_unknown_name(
    tmp_path: Path, content: dict[str, Any], slot: str, path: str
) -> None:
    content["hyper_parameters"]["config"][slot] = {"name": path}
    message = refusal(saved(tmp_path, content))
    assert f"cannot be rebuilt: no {slot} named {path!r}." in message
    assert "available: " in message


def test_a_target_in_a_slot_is_an_unknown_option(tmp_path: Path, content: dict[str, Any]) -> None:
    content["hyper_parameters"]["config"]["tokenizer"]["_target_"] = "os.system"
    assert "tokenizer 'quantile' has no option '_target_'" in refusal(saved(tmp_path, content))
    content["hyper_parameters"]["config"]["tokenizer"] = {"_target_": "os.system", "command": "true"}
    assert "tokenizer needs a name" in refusal(saved(tmp_path, content))


def test_a_component_of_a_plugin_asks_for_the_plugin(tmp_path: Path, content: dict[str, Any]) -> None:
    content["hyper_parameters"]["config"]["tokenizer"]["name"] = "log_bins"
    assert "trained with" not in refusal(saved(tmp_path, content))
    content["seqrl"]["plugins"] = ["mine.py"]
    assert "(trained with plugins=['mine.py']; give the same)" in refusal(saved(tmp_path, content))
    content["seqrl"] |= {"plugins": [], "origins": {"tokenizer": "acme-seqrl 0.2"}}
    assert "(trained with tokenizer of acme-seqrl 0.2; install or load the same)" in refusal(saved(tmp_path, content))


@pytest.mark.parametrize("key", ["layout", "observation_size", "tokenizer", "backbone", "window"])
def test_a_config_with_a_hole_is_refused(tmp_path: Path, content: dict[str, Any], key: str) -> None:
    del content["hyper_parameters"]["config"][key]
    assert f"cannot be rebuilt: {key} is not set" in refusal(saved(tmp_path, content))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    content["state_dict"]["model.head.weight"] = torch.zeros(2, 2)
    assert "holds weights that do not fit its own config" in refusal(saved(tmp_path, content))
    del content["state_dict"]
    assert "holds weights that do not fit its own config" in refusal(saved(tmp_path, content))


@pytest.fixture
def runs(tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with three runs in `runs`; `team/b` was saved last, and `c` has no model yet."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a", "team/b", "c")):
        run = tmp_path / "runs" / name
        (run / "model").mkdir(parents=True)
        (run / "config.yaml").write_text("{}")
        if name != "c":
            torch.save({**content, "global_step": number}, run / "model" / "last.ckpt")
            os.utime(run / "model" / "last.ckpt", (1000 + number, 1000 + number))
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("runs/a", 0),
        ("runs/a/model", 0),
        ("runs/a/model/last.ckpt", 0),
        ("latest", 1),
        ("runs/latest", 1),
        ("runs/team/latest", 1),
    ],
)
def test_every_path_of_a_command_works_in_python(runs: Path, path: str, step: int) -> None:
    assert seqrl.load(path).step == step == seqrl.load(Path(path)).step
    assert seqrl.load_critic(path) is None
    assert checkpoint_file(path).name == "last.ckpt"


def test_latest_is_told_and_may_be_a_name(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("latest")
    assert "latest: runs/team/b" in capsys.readouterr().out
    (runs / "a").rename("latest")
    assert load("latest").step == 0  # a folder of that name goes first
    for nothing in ("runs/c/latest", "nowhere/latest"):
        with pytest.raises(CheckpointError, match="so that there is no latest; give a run"):
            load(nothing)
    with pytest.raises(CheckpointError, match=r"give a \.ckpt file or the folder of a run"):
        load("runs/c")
