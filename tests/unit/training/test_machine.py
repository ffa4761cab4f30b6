"""A run keeps its number of threads, and says what else its numbers depend on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seqrl.config import TrainerConfig
from seqrl.runs.folder import RunFolder
from seqrl.training.machine import describe_machine, keep_threads


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    keep_threads(RunFolder(Path("/tmp")), TrainerConfig())  # what torch has by itself is asked once
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def begun(folder: Path, stage: str = "model", **note: Any) -> RunFolder:
    """A run with a checkpoint that says something of itself."""
    path = folder / stage / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"seqrl": {"format": 2, "plugins": [], **note}, "hyper_parameters": {"config": {}}}, path)
    run = RunFolder(folder)
    run.set_status(stage, "interrupted", 3)
    return run


def test_a_run_that_goes_on_has_the_threads_that_it_began_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    run = begun(tmp_path, machine={**describe_machine(TrainerConfig()), "threads": 3})
    keep_threads(run, TrainerConfig())
    assert torch.get_num_threads() == 3
    assert "goes on with the 3 threads that it began with" in capsys.readouterr().out
    keep_threads(run, TrainerConfig(num_threads=2))
    assert torch.get_num_threads() == 2
    assert "began with threads 3, now 2: it will not end bit for bit" in capsys.readouterr().out
    keep_threads(run, TrainerConfig(num_threads=3))
    assert torch.get_num_threads() == 3
    assert capsys.readouterr().out == ""
    keep_threads(RunFolder(tmp_path / "new"), TrainerConfig())
    assert torch.get_num_threads() == 1, "one run leaves the next in a sweep what torch has by itself"


def test_the_newest_stage_counts(tmp_path: Path) -> None:
    begun(tmp_path, machine={"threads": 3})
    keep_threads(begun(tmp_path, "critic", machine={"threads": 2}), TrainerConfig())
    assert torch.get_num_threads() == 2
    (tmp_path / "critic" / "last.ckpt").write_bytes(b"damaged")
    keep_threads(RunFolder(tmp_path), TrainerConfig())
    assert torch.get_num_threads() == 3


def test_another_torch_and_other_instructions_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    machine = {**describe_machine(TrainerConfig()), "instructions": "ABACUS"}
    keep_threads(begun(tmp_path, machine=machine, versions={"torch": "0.3"}), TrainerConfig())
    told = capsys.readouterr().out
    assert "torch 0.3, now" in told
    assert "instructions ABACUS, now" in told


@pytest.mark.parametrize("machine", [None, 3, {"threads": "9"}, {"threads": 0}, {"threads": 10**9}, {}])
def test_a_checkpoint_that_says_nothing_or_nonsense_changes_nothing(
    tmp_path: Path, machine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    note = {} if machine is None else {"machine": machine}
    keep_threads(begun(tmp_path, **note), TrainerConfig())
    assert torch.get_num_threads() == 1
    assert capsys.readouterr().out == ""
