"""Runs share the stages that they have in common, and go on only with what they began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seqrl.config import RunConfig
from seqrl.errors import ConfigError
from seqrl.runs import identity as runs_identity
from seqrl.runs.folder import RunFolder, StageStatus
from seqrl.runs.identity import RunIdentity
from seqrl.runs.sharing import begin, check_content, note_files, share_stages

CONFIG: dict[str, Any] = {
    "seed": 0,
    "data": {"name": "arrays", "path": "x.npz"},
    "tokenizer": {"name": "uniform"},
    "critic": {"name": "iql", "expectile": 0.7},
    "training": {"max_steps": 5},
    "critic_training": {"max_steps": 5},
    "plugins": [],
}
OTHER_CRITIC = {**CONFIG, "critic": {"name": "iql", "expectile": 0.9}}


def identify(config: dict[str, Any]) -> RunIdentity:
    return runs_identity.identify(RunConfig.from_saved(config))


@pytest.fixture(autouse=True)
def _in_folder_with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.npz").write_text("one")


def trained(name: str, config: dict[str, Any]) -> RunFolder:
    folder = RunFolder(Path("runs") / name)
    begin(folder, identify(config))
    for stage in ("model", "critic"):
        (folder.path / stage).mkdir()
        (folder.path / stage / "last.ckpt").write_text(f"{name} {stage}")
        folder.set_status(stage, "done", 5)
    (folder.path / "metrics.csv").write_text("step,name,value\n5,val/loss,1\n5,critic/val/loss,2\n")
    return folder


def start(folder: RunFolder, config: dict[str, Any]) -> None:
    """What a command does before it trains; checkpoints that are there saw the data that are there."""
    begin(folder, identify(config))
    share_stages(folder, identify(config), lambda path, kind: path.exists())


def content(folder: RunFolder) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in sorted(folder.path.glob("*/last.ckpt"))}


def test_another_critic_takes_over_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    first = trained("first", CONFIG)
    second = RunFolder(Path("runs/second"))
    start(second, OTHER_CRITIC)
    assert content(second) == {"model": "first model"}
    assert second.status() == {"model": StageStatus("done", 5)}
    assert (second.path / "metrics.csv").read_text() == "step,name,value\n5,val/loss,1\n"
    assert capsys.readouterr().out == "the model is trained already: taken over from runs/first\n"
    (second.path / "critic").mkdir()
    (second.path / "critic" / "last.ckpt").write_text("second critic")
    assert content(first) == {"model": "first model", "critic": "first critic"}, "nothing is lost"


def test_the_same_under_another_name_takes_over_everything_and_outlives_the_first() -> None:
    first, second = trained("first", CONFIG), RunFolder(Path("runs/second"))
    start(second, CONFIG)
    for path in sorted(first.path.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert content(second) == {"model": "first model", "critic": "first critic"}
    rows = (second.path / "metrics.csv").read_text().splitlines()
    assert sorted(rows[1:]) == ["5,critic/val/loss,2", "5,val/loss,1"]


@pytest.mark.parametrize("damage", ["interrupted", "status", "checkpoint", "identity", "settings"])
def test_what_is_not_finished_or_not_the_same_is_trained(damage: str) -> None:
    first = trained("first", CONFIG)
    if damage == "interrupted":
        first.set_status("model", "interrupted", 3)
        first.set_status("critic", "interrupted", 3)
    elif damage == "status":
        (first.path / "status.json").unlink()
    elif damage == "checkpoint":
        for stage in ("model", "critic"):
            (first.path / stage / "last.ckpt").unlink()
    elif damage == "identity":
        (first.path / "identity.json").write_text("{")
    second = RunFolder(Path("runs/second"))
    start(second, {**CONFIG, "seed": 1} if damage == "settings" else CONFIG)
    assert content(second) == {}
    assert second.status() == {}


def test_a_stage_that_was_begun_stays_what_it_is() -> None:
    trained("first", CONFIG)
    second = RunFolder(Path("runs/second"))
    second.set_status("model", "interrupted", 3)
    start(second, OTHER_CRITIC)
    assert content(second) == {}
    assert second.status() == {"model": StageStatus("interrupted", 3)}


def test_other_data_make_another_run_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    first = trained("first", CONFIG)
    check_content(first, RunConfig.from_saved(CONFIG))
    Path("x.npz").write_text("two")
    with pytest.raises(ConfigError, match=r"the content of 'x.npz' has changed since the run 'runs/first' began; "):
        check_content(first, RunConfig.from_saved(CONFIG))
    second = RunFolder(Path("runs/second"))
    start(second, CONFIG)
    assert content(second) == {}
    said = capsys.readouterr().out
    assert said == "the content of 'x.npz' is not what runs/first was trained with: this is a run of its own\n"


def test_a_run_that_nobody_identified_goes_on() -> None:
    check_content(RunFolder(Path("runs/old")), RunConfig.from_saved(CONFIG))


def test_a_stage_that_saw_other_data_is_not_shared(capsys: pytest.CaptureFixture[str]) -> None:
    trained("first", CONFIG)
    second = RunFolder(Path("runs/second"))
    begin(second, identify(CONFIG))
    share_stages(second, identify(CONFIG), lambda path, kind: kind.name == "critic")
    assert content(second) == {"critic": "first critic"}


def test_a_run_is_certain_of_its_data_while_its_files_are_what_they_were(tmp_path: Path) -> None:
    """Of data that an id names, whose files are no part of what the run is called."""
    mine = RunIdentity(identify(CONFIG).stages, (("a.hdf5", "one"), ("b.hdf5", None)))
    folder = trained("first", CONFIG)
    for files, certain in {
        (("a.hdf5", "one"), ("b.hdf5", None)): True,
        (("a.hdf5", "one"), ("b.hdf5", "fetched")): True,
        (("elsewhere/a.hdf5", "one"), ("b.hdf5", None)): True,
        (("a.hdf5", None), ("b.hdf5", None)): True,  # gone: nothing contradicts
        (("a.hdf5", "two"), ("b.hdf5", None)): False,
    }.items():
        note_files(folder, mine)
        now = RunIdentity(mine.stages, files)
        assert begin(folder, now) == certain
        if not certain:
            assert now.changed_files(mine) == ["a.hdf5"]
    (folder.path / "identity.json").unlink()
    assert not begin(folder, mine), "of a run of before nobody knows"
