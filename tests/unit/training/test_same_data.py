"""A checkpoint tells whether it was trained on the data that are there now."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.checkpoints.loading import load
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.runs.folder import RunFolder
from seqrl.runs.stages import MODEL
from seqrl.training.run import summarize_data
from seqrl.training.same_data import check_data, check_trained, saw


def store(reward: float = 1.0, *, swap: bool = False) -> EpisodeStore:
    """Six steps; swapped, the same numbers in another order, of which no mean and no deviation tells."""
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(6, 2)), rng.normal(size=(6, 1))
    order = [1, 0, 2, 3, 4, 5] if swap else slice(None)
    ends = np.arange(6) % 3 == 2
    return EpisodeStore.from_arrays(observations, actions[order], np.full(6, reward), ends, np.zeros(6, bool))


def checkpoint(folder: Path, dataset: dict[str, Any]) -> Path:
    path = folder / "model" / "last.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    note = {"format": 2, "plugins": [], "versions": {}}
    torch.save({"seqrl": note, "stage": "model", "hyper_parameters": {"config": {"dataset": dataset}}}, path)
    return path


def test_a_summary_of_the_data_holds_their_fingerprint() -> None:
    assert summarize_data(store()).fingerprint == store().fingerprint()
    assert summarize_data(store()).fingerprint != summarize_data(store(swap=True)).fingerprint


@pytest.mark.parametrize("other", [store(2.0), store(swap=True), store().subset([0])])
def test_other_data_are_refused_by_the_checkpoint(tmp_path: Path, other: EpisodeStore) -> None:
    path = checkpoint(tmp_path, asdict(summarize_data(store())))
    folder = RunFolder(tmp_path)
    folder.set_status("model", "interrupted", 1)
    check_trained(folder, summarize_data(store()))
    assert saw(path, MODEL, summarize_data(store()))
    with pytest.raises(ConfigError, match=r"last.ckpt' was trained on other data than 'arrays' holds now; put back"):
        check_trained(folder, summarize_data(other))
    assert not saw(path, MODEL, summarize_data(other))


def test_an_older_checkpoint_is_told_by_what_was_measured(tmp_path: Path) -> None:
    before = asdict(replace(summarize_data(store()), fingerprint=None))
    path = checkpoint(tmp_path, before)
    rounded = {**before, "behaviour_return_mean": before["behaviour_return_mean"] * (1 + 1e-7)}
    for dataset in (before, rounded, {key: before[key] for key in ("name", "num_episodes")}, {}):
        check_data(path, {"hyper_parameters": {"config": {"dataset": dataset}}}, summarize_data(store()))
    assert saw(path, MODEL, summarize_data(store()))
    assert not saw(path, MODEL, summarize_data(store(2.0)))
    assert not saw(path, MODEL, summarize_data(store().subset([0])))


def test_what_cannot_be_read_saw_nothing(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, {})
    path.write_bytes(path.read_bytes()[:100])
    assert not saw(path, MODEL, summarize_data(store()))
    assert not saw(tmp_path / "nothing.ckpt", MODEL, summarize_data(store()))


def test_a_checkpoint_of_format_1_has_no_fingerprint_and_loads() -> None:
    fixtures = Path(__file__).parents[2] / "fixtures" / "format1"
    found = sorted(fixtures.glob("*/model/*.ckpt"))
    assert found
    for path in found:
        assert "fingerprint" not in load(path).config["dataset"]
