"""A file whose content the system does not give may be whole: nobody is told to remove it, nothing replaces it."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.archives import is_whole
from seqrl.checkpoints.loading import find_checkpoint
from seqrl.checkpoints.reading import DamagedError, find_newest, read_checkpoint
from seqrl.data.array_folder import check_unchanged, read_arrays, write_arrays
from seqrl.data.landmarks import LandmarkGraph
from seqrl.errors import CheckpointError, ConfigError, DataError, SeqrlError, is_damage, sentence
from seqrl.evaluation.archive import read_evaluation, read_plan_quality, read_row
from seqrl.evaluation.jobs import read_job
from seqrl.evaluation.rows import ResultsRow
from seqrl.formats.minari_metadata import read_metadata
from seqrl.importing.reading import read_tensors
from seqrl.runs.folder import read_config, read_status
from seqrl.runs.metrics import read_metrics
from seqrl.training.checkpoint_io import resumable
from seqrl.training.studies import open_study

MEMORY = Path("/proc/self/mem")  # a file by its kind, whose first byte nobody can read: Input/output error
ADVICE = ("delete", "remove", "move it away", "from the start", "again and", "train again", "evaluate again", "anew",
          "fetch", "damaged")  # fmt: skip

needs_memory = pytest.mark.skipif(not MEMORY.exists(), reason="no /proc/self/mem")

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "status": ("status.json", lambda file: read_status(file.parent)),
    "configuration": ("config.yaml", read_config),
    "metrics": ("metrics.csv", read_metrics),
    "row": ("results.json", lambda file: read_row(file.parent)),
    "plan quality": ("diagnostics.json", lambda file: read_plan_quality(file.parent)),
    "digests": ("SHA256SUMS", lambda file: read_checkpoint(file.parent / "model.safetensors", "model")),
    "Minari": ("data/metadata.json", lambda file: read_metadata(file.parents[1], "a/b-v0")),
}


@needs_memory
@pytest.mark.parametrize("what", READERS)
def test_a_disk_that_fails_is_told_and_nothing_is_advised(
    tmp_path: Path, what: str, make_row: Callable[..., ResultsRow]
) -> None:
    name, read = READERS[what]
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    (tmp_path / "results.json").write_text(json.dumps([make_row().to_json()]))
    for other in ("model.safetensors", "config.json"):
        (tmp_path / other).write_text("{}")
    file.unlink(missing_ok=True)
    file.symlink_to(MEMORY)
    with pytest.raises(SeqrlError, match=rf"{file.name}' cannot be read \(.*Input/output error.*\)") as caught:
        read(file)
    assert not [words for words in ADVICE if words in str(caught.value)]
    assert file.is_symlink()


ARCHIVES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "episodes": ("episodes.npz", lambda file: read_evaluation(file.parent)),
    "landmarks": ("graph.npz", LandmarkGraph.read),
    "last": ("last.ckpt", lambda file: resumable(file.parent, "model")),
    "run": ("model/last.ckpt", lambda file: find_checkpoint(file.parents[1])),
    "checkpoint": ("last.ckpt", lambda file: read_checkpoint(file, "model")),
    "weights": ("weights.bin", read_tensors),
    "whole": ("last.ckpt", is_whole),
}


@contextmanager
def no_more_files() -> Iterator[None]:
    """Nothing can be opened meanwhile: Too many open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("what", ARCHIVES)
def test_an_archive_that_cannot_be_opened_is_not_called_damaged(
    tmp_path: Path, what: str, make_row: Callable[..., ResultsRow]
) -> None:
    name, read = ARCHIVES[what]
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    (tmp_path / "results.json").write_text(json.dumps([make_row().to_json()]))
    file.write_bytes(b"nothing of the kind")
    with suppress(SeqrlError):  # which imports what is needed
        assert read(file) is False
    with no_more_files(), pytest.raises((SeqrlError, OSError), match="Too many open files") as caught:
        read(file)
    assert not [words for words in ADVICE if words in sentence(caught.value)]


@needs_memory
def test_a_record_of_a_job_that_cannot_be_read_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to(MEMORY)
    job = read_job(tmp_path / "a.json")
    assert job.state == "unreadable"
    assert "cannot be read (Input/output error)" in str(job.error)
    assert "delete" not in str(job.error)


@needs_memory
def test_episodes_on_a_disk_that_fails_need_not_be_saved_again(tmp_path: Path) -> None:
    write_arrays(tmp_path / "store", {"rewards": np.zeros(3)}, {})
    (tmp_path / "store" / "rewards.npy").unlink()
    (tmp_path / "store" / "rewards.npy").symlink_to(MEMORY)
    for read in (read_arrays, check_unchanged):
        with pytest.raises(DataError, match=r"cannot be read \(.*Input/output error.*\)") as caught:
            read(tmp_path / "store")
        assert "again and" not in str(caught.value)
        assert "save" not in str(caught.value)


def test_a_study_that_another_program_holds_or_wrote_is_no_damaged_one(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    open_study(tmp_path / "study.journal")
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 4711, "worker_id": "of a later version"}\n')
    with pytest.raises(ConfigError, match=r"study\.journal' cannot be read") as caught:
        open_study(tmp_path / "study.journal")
    assert "move it away" not in str(caught.value)


@pytest.mark.parametrize("how", ["later format", "other program", "list", "other stage", "code"])
def test_a_checkpoint_that_is_whole_is_never_to_be_deleted(tmp_path: Path, how: str) -> None:
    states: dict[str, Any] = {"optimizer_states": [{"param_groups": []}], "lr_schedulers": [], "loops": {}}
    content: Any = {
        "seqrl": {"format": 2, "model": "tokens"}, "hyper_parameters": {"config": {}}, "state_dict": {},
        "global_step": 3, "callbacks": {}, **states,
    }  # fmt: skip
    torch.save({**content, "global_step": 2}, tmp_path / "step-2.ckpt")
    changed: dict[str, Any] = {
        "later format": {**content, "seqrl": {"format": 4711}},
        "other program": {"epoch": 3},
        "list": [1, 2],
        "other stage": {**content, "stage": "critic"},
        "code": {**content, "extra": Path("x")},
    }
    torch.save(changed[how], tmp_path / "last.ckpt")
    for _ in range(2):  # with an older one beside it, which must not take its place, and alone
        with pytest.raises(CheckpointError) as caught:
            resumable(tmp_path, "model")
        assert "last.ckpt" in str(caught.value)
        assert not [words for words in ("delete", "from the start", "train again") if words in str(caught.value)]
        (tmp_path / "step-2.ckpt").unlink(missing_ok=True)
    (tmp_path / "last.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:-1])
    with pytest.raises(DamagedError, match=r"is damaged .*; delete .* to train this stage from the start"):
        resumable(tmp_path, "model")


def test_an_older_checkpoint_stands_for_a_damaged_one_and_for_no_other(tmp_path: Path) -> None:
    content = {"seqrl": {"format": 2, "model": None}, "hyper_parameters": {"config": {}}, "global_step": 2}
    torch.save(content, tmp_path / "step-2.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"damaged")
    found = find_newest(tmp_path, "model")
    assert found is not None
    assert found.step == 2
    torch.save({**content, "seqrl": {"format": 4711}}, tmp_path / "best.ckpt")  # nothing goes on from it
    assert find_newest(tmp_path, "model") is not None
    shutil.copy(tmp_path / "best.ckpt", tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="format 4711"):
        find_newest(tmp_path, "model")
    with pytest.raises(CheckpointError, match="format 4711"):
        find_checkpoint(tmp_path)
    (tmp_path / "last.ckpt").unlink()
    (tmp_path / "last.ckpt").mkdir()
    found = find_newest(tmp_path, "model")
    assert found is not None
    assert "is no file" in found.faults[0]
    shutil.rmtree(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("error", "damage"),
    [
        (ValueError("it is empty"), True),
        (KeyError("row"), True),
        (RecursionError(), True),
        (RuntimeError("PytorchStreamReader failed"), True),
        *[(OSError(number, os.strerror(number)), True) for number in (errno.EISDIR, errno.ELOOP, errno.ENOENT)],
        *[
            (OSError(number, os.strerror(number)), False)
            for number in (
                errno.EACCES,
                errno.EPERM,
                errno.EIO,
                errno.ESTALE,
                errno.EMFILE,
                errno.ENOMEM,
                errno.ETIMEDOUT,
            )
        ],
        (OSError("h5py says this"), False),
        (MemoryError(), False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), False),
        (ModuleNotFoundError("No module named 'x'"), False),
    ],
)
def test_what_proves_damage(error: Exception, damage: bool) -> None:
    assert is_damage(error) is damage
    wrapped = DataError("it cannot be read")
    wrapped.__cause__ = error
    assert is_damage(wrapped) is damage
