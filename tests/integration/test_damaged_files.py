"""One damaged small file is named, with what to do, and stops neither `status` nor the other jobs of a sweep."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.checkpoints.exported import read_exported
from seqrl.cli import status as status_command
from seqrl.cli import train as train_command
from seqrl.data.array_folder import check_unchanged, read_arrays
from seqrl.errors import ConfigError, DataError, SeqrlError
from seqrl.evaluation.archive import read_evaluation, read_row
from seqrl.evaluation.jobs import Job, list_jobs, locate_record, read_job, write_job
from seqrl.evaluation.rows import ResultsRow
from seqrl.files import fingerprint_bytes
from seqrl.formats.minari_metadata import read_metadata
from seqrl.publishing.card import find_command
from seqrl.runs.folder import RunFolder, read_config, read_status
from seqrl.runs.identity import RunIdentity
from seqrl.runs.metrics import read_metrics
from seqrl.runs.provenance import read_words
from seqrl.training.studies import open_study

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated",
    "ignore:.*does not have many workers",
    "ignore:.*your dataloader is not resumable",
    "ignore:The `srun` command is available",
)

DAMAGES: dict[str, bytes | None] = {
    "empty": b"",
    "truncated": b'{"model": {"sta',
    "not UTF-8": b"\xff\xfe\x00model",
    "list": b"[1, 2]",
    "text": b'"done"',
    "null": b"null",
    "number": b"NaN",
    "entry": b'{"model": [], "overrides": 3, "state": []}',
    "nan": b'{"model": {"state": "done", "step": NaN}, "overrides": ["a=1"], "state": "done", "number": NaN}',
    "deep": b"[" * 5_000,
    "aliases": b"{a0: &a0 [x]"
    + b"".join(b", a%d: &a%d [*a%d, *a%d]" % (n, n, n - 1, n - 1) for n in range(1, 60))
    + b"}",
    "circle": b"a: &a [*a]",
    "folder": None,
    "pipe": None,
    "device": None,
    "unreadable": b"",
}


def damage(path: Path, how: str) -> None:
    """Put something into the place of a file that is not what belongs there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/full")  # zeros without end
    elif how == "unreadable":
        path.symlink_to(path.name)  # a circle, which root cannot read either
    else:
        path.write_bytes(DAMAGES[how] or b"")


@pytest.mark.parametrize("how", DAMAGES)
def test_status_and_configuration_name_their_file(tmp_path: Path, how: str) -> None:
    damage(tmp_path / "status.json", how)
    with pytest.raises(
        ConfigError, match=r"status\.json' is damaged; delete it, and the run goes on from its checkpoints \(.+\)"
    ):
        read_status(tmp_path)
    if how in ("entry", "nan", "truncated", "number", "text"):
        return  # which are yaml, or an error of another form
    damage(tmp_path / "config.yaml", how)
    with pytest.raises(ConfigError, match=r"config\.yaml' is damaged; the same command writes it anew \(.+\)"):
        read_config(tmp_path / "config.yaml")


def test_a_later_version_is_read_as_far_as_it_is_known(tmp_path: Path, make_row: Callable[..., ResultsRow]) -> None:
    entry = {"state": "resting", "step": 3, "cause": {"of": "later"}, "reason": 5}
    (tmp_path / "status.json").write_text(json.dumps({"model": entry, "world": {"state": "done", "step": 1}}))
    status = read_status(tmp_path)
    assert {stage: (each.state, each.step, each.reason) for stage, each in status.items()} == {
        "model": ("resting", 3, None),
        "world": ("done", 1, None),
    }
    record = locate_record(tmp_path, ["seed=1"])
    record.parent.mkdir()
    job = Job(["seed=1"], "done", "runs/a", {"val/loss": 0.5}, [make_row()], ("val/loss", 0.5), number=4)
    write_job(record, job)
    assert read_job(record) == job
    content = json.loads(record.read_text())
    content["rows"][0]["later"] = 1
    record.write_text(json.dumps({**content, "later": {"a": []}, "notes": None}))
    assert read_job(record) == job
    (tmp_path / "results.json").write_text(json.dumps([{**make_row().to_json(), "later": 1}]))
    assert read_row(tmp_path) == make_row()


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_record_is_one_job_that_did_not_finish(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        place = locate_record(tmp_path, [f"seed={number}"])
        place.parent.mkdir(exist_ok=True)
        write_job(place, Job([f"seed={number}"], "done", number=number))
    damage(place, how)
    whole, damaged = list_jobs(tmp_path)
    assert (whole.overrides, whole.state) == (["seed=0"], "done")
    assert damaged.state == "unreadable"
    assert place.name in str(damaged.error)
    assert "delete it, and the same sweep runs the job again" in str(damaged.error)
    assert status_command.run([str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "1 done, 1 unreadable" in told
    assert place.name in told


@pytest.mark.parametrize("how", [*DAMAGES, "missing"])
def test_a_damaged_table_of_metrics_costs_its_own_rows(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.csv"
    if how == "missing":
        assert read_metrics(path) == []
    elif how in ("folder", "pipe", "unreadable"):
        damage(path, how)
        with pytest.raises(ConfigError, match=r"metrics\.csv' cannot be read \(.+\); move it away"):
            read_metrics(path)
    else:
        damaged = DAMAGES[how] or b""
        path.write_bytes(b"step,name,value\n1,val/loss,2\n" + damaged + b"\n\0,\0\n3,val/loss,1.5\n4,val/lo")
        assert [each.step for each in read_metrics(path)] == [1, 3]
        assert f"metrics.csv' has {2 if damaged else 1} damaged row" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["status.json", "config.yaml", "metrics.csv"])
@pytest.mark.parametrize("how", DAMAGES)
def test_the_table_of_runs_goes_on_with_the_others(
    tmp_path: Path, file: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "team/two", "three"):
        folder = RunFolder(tmp_path / name)
        folder.write_config({"training": {"max_steps": 5}})
        folder.set_status("model", "done", 5)
    damage(tmp_path / "one" / file, how)
    assert status_command.run([str(tmp_path), "--json"]) == 0
    rows = {Path(each["run"]).name: each for each in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {"one", "two", "three"}
    assert rows["two"]["state"] == rows["three"]["state"] == "done"
    if rows["one"]["state"] == "unreadable":
        assert file in rows["one"]["reason"]
    else:  # a mapping without a word of the training, or a table without a row
        assert file != "status.json"
    assert status_command.run([str(tmp_path)]) == 0


def test_results_of_another_form_are_named(tmp_path: Path, make_row: Callable[..., ResultsRow]) -> None:
    whole: dict[str, Any] = {"returns": np.zeros((3, 1))}
    for arrays in (
        {},
        {"returns": np.zeros(3)},
        {"returns": np.array([["a"]])},
        {**whole, "plan_0_observations": np.zeros((1, 2, 3))},
        {**whole, "counted": np.array(["yes"])},
    ):
        (tmp_path / "results.json").write_text(json.dumps([make_row().to_json()]))
        np.savez(tmp_path / "episodes.npz", **arrays)
        with pytest.raises(DataError, match=r"episodes\.npz' is no readable evaluation .*remove its folder"):
            read_evaluation(tmp_path)
    np.savez_compressed(tmp_path / "episodes.npz", returns=np.zeros((2**26, 1)))  # 512 MB in half a megabyte
    with pytest.raises(DataError, match=r"episodes\.npz' is no readable evaluation .*declares arrays"):
        read_evaluation(tmp_path)
    for how in DAMAGES:
        damage(tmp_path / "results.json", how)
        with pytest.raises(DataError, match=r"results\.json' is no readable evaluation .*remove its folder"):
            read_row(tmp_path)


def test_the_torn_last_line_of_a_study_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    journal = tmp_path / "study.journal"
    study = open_study(journal)
    study.tell(study.ask(), 0.5)
    whole = journal.read_bytes()
    for rest in (b'{"op_code":', b"\xff", whole.splitlines()[-1]):
        journal.write_bytes(whole + rest)
        study = open_study(journal)
        assert "the last line of" in capsys.readouterr().out
        assert [trial.value for trial in study.trials] == [0.5]
        assert all(map(json.loads, journal.read_bytes().splitlines()))
    study.tell(study.ask(), 0.25)
    assert [trial.value for trial in open_study(journal).trials] == [0.5, 0.25]
    journal.write_bytes(b"")
    assert open_study(journal).trials == []


@pytest.mark.parametrize("how", [each for each in DAMAGES if each not in ("empty", "truncated", "unreadable")])
def test_a_damaged_study_is_named(tmp_path: Path, how: str) -> None:
    pytest.importorskip("optuna")
    journal = tmp_path / "study.journal"
    if how in ("folder", "pipe"):
        damage(journal, how)
    else:
        open_study(journal)
        damaged = DAMAGES[how] or b""
        journal.write_bytes(damaged + b"\n" + journal.read_bytes())
    with pytest.raises(ConfigError, match=r"study\.journal' is damaged \(.+\); move it away, and the same search"):
        open_study(journal)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`train(*words)`: exit status, and all that a short training printed."""
    monkeypatch.chdir(tmp_path)
    actions = np.random.default_rng(1).uniform(-1, 1, size=(60, 1))
    offsets = np.arange(0, 61, 20)
    np.savez("mine.npz", observations=np.zeros((60, 3)), actions=actions, rewards=np.zeros(60), offsets=offsets)
    words = ["debug=fast", "data=arrays", "data.path=mine.npz", "evaluation=none", "training.progress_bar=false",
             "training.max_steps=2", "training.batch_size=2", "backbone.dim=8"]  # fmt: skip

    def run(*more: str) -> tuple[int, str]:
        status = train_command.run([*words, *more])
        return status, "".join(capsys.readouterr())

    return run


def test_a_training_names_the_damaged_file_and_goes_on_without_it(train: Callable[..., Any]) -> None:
    assert train()[0] == 0
    (folder,) = Path("runs").iterdir()
    for file in ("config.yaml", "identity.json", "provenance.yaml"):
        damage(folder / file, "not UTF-8")
        assert train()[0] == 0, file
    damage(folder / "status.json", "truncated")
    status, told = train()
    assert (status, "Traceback" in told) == (2, False)
    assert "status.json' is damaged" in told
    (folder / "status.json").unlink()  # as the sentence says
    assert train()[0] == 0
    assert RunFolder(folder).status()["model"].state == "done"


def test_without_an_optimizer_no_training_goes_on(train: Callable[..., Any]) -> None:
    assert train()[0] == 0
    (folder,) = Path("runs").iterdir()
    last = folder / "model" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    for path in folder.glob("model/*.ckpt"):
        path.unlink()
    torch.save({**content, "optimizer_states": [], "global_step": 1}, last)
    RunFolder(folder).set_status("model", "interrupted", 1)
    status, told = train()
    assert (status, "Traceback" in told) == (2, False)
    assert "last.ckpt' lacks optimizer_states" in told
    assert "delete" in told
    content["seqrl"]["later"] = 3
    torch.save(content, last)
    status, told = train()
    assert (status, "Traceback" in told) == (2, False)
    assert "says later of itself, which this seqrl does not know" in told


def test_a_sweep_runs_the_job_of_a_damaged_record_again(train: Callable[..., Any]) -> None:
    sweep = ("seed=0,1", "-m")
    assert train(*sweep)[0] == 0
    (folder,) = (each for each in Path("runs").iterdir() if (each / "jobs").is_dir())
    first, second = sorted((folder / "jobs").glob("*.json"))
    damage(first, "truncated")
    second.write_text(json.dumps({**json.loads(second.read_text()), "later": [1]}))
    status, told = train(*sweep)
    assert status == 0, told
    assert "1 of 2 jobs are finished or run elsewhere" in told
    assert "Traceback" not in told
    damaged = min(Path("runs").glob("*/status.json"))
    damage(damaged, "empty")
    first.unlink()
    second.unlink()
    status, told = train(*sweep)
    assert (status, "Traceback" in told) == (1, False)
    assert "status.json' is damaged" in told
    assert "1 of 2 jobs did not finish" in told


@pytest.mark.parametrize("how", DAMAGES)
def test_files_that_came_with_a_folder_are_told_in_a_sentence(tmp_path: Path, how: str) -> None:
    """Saved episodes, exported models, Minari's data sets, runs: whoever made the folder, nobody waits at a pipe."""
    readers: list[tuple[str, Callable[[Path], Any]]] = [
        ("store.json", lambda file: read_arrays(file.parent)),
        ("store.json", lambda file: check_unchanged(file.parent)),
        ("config.json", lambda file: read_exported(file.with_name("model.safetensors"))),
        ("model.safetensors", read_exported),
        ("data/metadata.json", lambda file: read_metadata(file.parents[1], "mine/task-v0")),
        ("identity.json", RunIdentity.read),
        ("config.json", lambda file: find_command(file.parent)),
        ("provenance.yaml", lambda file: (find_command(file.parent), read_words(file.parent))),
    ]
    for number, (name, read) in enumerate(readers):
        folder = tmp_path / str(number)
        (folder / name).parent.mkdir(parents=True)
        (folder / "SHA256SUMS").write_text(f"{fingerprint_bytes([b'{}'])}  config.json\n")
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").touch()
        damage(folder / name, how)
        try:
            found = read(folder / name)
        except SeqrlError as error:
            assert "\n" not in str(error), name  # noqa: PT017 (some readers make nothing of it, others say so)
        else:
            assert found in (None, (None, None)), name
