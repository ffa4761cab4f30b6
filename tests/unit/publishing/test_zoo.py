"""The models that come with seqrl: whole, small, measured, and able to act."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.checkpoints.exported import DIGESTS, list_published, zoo_dir
from seqrl.checkpoints.loading import checkpoint_file, load, run_folder
from seqrl.cli import zoo
from seqrl.files import fingerprint_files
from seqrl.publishing.zoo import read_card, read_published

NAMES = list_published()


def test_there_are_some_and_they_are_small() -> None:
    assert {"four-rooms-detour", "maze2d-large-landmarks"} <= set(NAMES)
    assert sum(each.size for each in read_published()) < 4_000_000


@pytest.mark.parametrize("name", NAMES)
def test_each_is_whole_and_says_what_it_earns(name: str) -> None:
    folder = zoo_dir() / name
    lines = (folder / DIGESTS).read_text().splitlines()
    told = {place: digest for digest, _, place in (line.partition("  ") for line in lines)}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(told) == files - {DIGESTS}
    assert all(fingerprint_files(folder / place) == digest for place, digest in told.items())
    (model,) = (each for each in read_published() if each.name == name)
    assert model.rows
    assert "seqrl train experiment=" in read_card(name)
    assert run_folder(checkpoint_file(f"zoo:{name}")) == Path("runs") / f"zoo-{name}"


@pytest.mark.parametrize("name", NAMES)
def test_each_acts(name: str) -> None:
    model = load(f"zoo:{name}").model
    assert all(each.dtype == torch.float32 for each in model.parameters())
    policy = Policy(model, planner={"name": "sample", "temperature": 0.0}, condition={"name": "goal"})
    policy.reset(2, goals=np.array([[1.0, 1.0], [3.0, 3.0]]))
    actions = policy.act(np.ones((2, model.layout.field("observation").size), np.float32))
    assert actions.shape == (2, model.layout.action_size)
    assert np.isfinite(actions).all()


def test_the_command_lists_them_with_words_that_act(capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.run([]) == 0
    told = capsys.readouterr().out
    for name in NAMES:
        assert f"seqrl evaluate checkpoint=zoo:{name} strategy=" in told
    assert zoo.run(["four-rooms-detour"]) == 0
    assert "## Results" in capsys.readouterr().out
