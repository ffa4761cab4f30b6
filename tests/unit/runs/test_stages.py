"""What is known of a run's stages without their models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from seqrl.config import RunConfig
from seqrl.runs.folder import RunFolder
from seqrl.runs.stages import CRITIC, KINDS, MODEL, TOKENIZER, StageKind


@pytest.mark.parametrize(
    ("metric", "owner"),
    [("train/loss", MODEL), ("critic/val/loss", CRITIC), ("tokenizer/train/loss", TOKENIZER), ("critical/x", MODEL)],
)
def test_every_metric_is_of_one_stage(metric: str, owner: StageKind) -> None:
    assert [kind for kind in KINDS if kind.owns(metric)] == [owner]


def test_the_configuration_tells_of_model_and_critic() -> None:
    run = RunConfig(tokenizer={"name": "vq"})
    assert [kind for kind in KINDS if kind.is_asked(run)] == [MODEL]
    assert [kind for kind in KINDS if kind.is_asked(replace(run, critic={"name": "iql"}))] == [MODEL, CRITIC]


def test_a_stage_is_done_where_its_status_and_its_checkpoint_say_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert not folder.is_done("model")
    folder.set_status("model", "done", 3)
    assert not folder.is_done("model")
    folder.checkpoint("model").parent.mkdir()
    folder.checkpoint("model").touch()
    assert folder.is_done("model")
    assert not folder.is_done("critic")
    folder.set_status("model", "running", 2)
    assert not folder.is_done("model")
    assert json.loads((tmp_path / "run" / "status.json").read_text()) == {"model": {"state": "running", "step": 2}}
