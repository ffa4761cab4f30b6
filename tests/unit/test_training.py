"""Training: resumed equals uninterrupted, ranks share one order, and the pieces work in a trainer of one's own."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml

from seqrl.checkpoint import load
from seqrl.cli.application import plain
from seqrl.data.episodes import EpisodeStore
from seqrl.data.sampler import StepOrder
from seqrl.data.windows import WindowSettings
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.paths import config_dir
from seqrl.policy import Policy
from seqrl.runs import RunFolder
from seqrl.training.callbacks import StopAtInterrupt
from seqrl.training.datamodule import EpisodeDataModule, _TrainingBatches
from seqrl.training.module import SequenceModule
from seqrl.training.stages import build_trainer, train

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated",
    "ignore:.*does not have many workers",
    "ignore:Total length of `list` across ranks is zero",
)


@pytest.fixture
def config(tmp_path: Path, tiny_store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A resolved run of 12 steps on the tiny store, with dropout, goals and validation."""
    import hydra

    from seqrl.registry import DATA

    words = ["debug=fast", "layout=tt_goal", "training.max_steps=12", "training.checkpoint_every=5",
             "training.batch_size=4", "training.validate_every=4", "training.progress_bar=false", "window.length=3",
             "backbone.dim=8", "training.log_every=1", "training.loggers=[csv]"]  # fmt: skip
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        composed = plain(hydra.compose("train", words))

    class Source:
        def load(self) -> EpisodeStore:
            return tiny_store

    monkeypatch.setattr(DATA, "build", lambda config: Source())
    return composed


def losses(folder: Path) -> dict[int, str]:
    with (folder / "metrics.csv").open() as file:
        return {int(r["step"]): r["value"] for r in csv.DictReader(file) if r["name"] == "train/loss"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "model" / "last.ckpt").model.state_dict()


def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config, RunFolder(tmp_path / "whole"))

    class InterruptAtSeven(StopAtInterrupt):
        def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
            self.interrupted = trainer.global_step == 7
            super().on_train_batch_end(trainer, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("seqrl.training.stages.StopAtInterrupt", InterruptAtSeven)
        with pytest.raises(KeyboardInterrupt):
            train(config, RunFolder(tmp_path / "parts"))
    assert json.loads((tmp_path / "parts" / "status.json").read_text())["model"] == {"state": "interrupted", "step": 7}
    train(config, RunFolder(tmp_path / "parts"))

    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert sorted(losses(tmp_path / "whole")) == list(range(1, 13))


def test_two_ranks_see_the_batch_of_one(tiny_store: EpisodeStore, tiny_layout: Layout) -> None:
    data = EpisodeDataModule(tiny_store, tiny_layout, window=WindowSettings(3), batch_size=6, validation_fraction=0.0)
    data.encode(lambda values: values.long().clamp(0, 9), 10)
    order = StepOrder(len(data.train_windows), 6, seed=1)
    (one,) = [_TrainingBatches(data.train_windows, order, 0, 1)[5]]
    parts = [_TrainingBatches(data.train_windows, order, rank, 2)[5] for rank in (0, 1)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.tokens, one.tokens[rank::2])
        assert torch.equal(part.mask, one.mask[rank::2])


def test_a_batch_that_ranks_cannot_share_is_refused(tiny_store: EpisodeStore, tiny_layout: Layout) -> None:
    data = EpisodeDataModule(tiny_store, tiny_layout, window=WindowSettings(3), batch_size=5, validation_fraction=0.0)
    data.encode(lambda values: values.long().clamp(0, 9), 10)

    class TwoRanks:
        world_size, global_rank, global_step, max_steps = 2, 0, 0, 1

    data.trainer = TwoRanks()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="batch_size=5 cannot be shared by 2 ranks"):
        data.train_dataloader()


def test_the_pieces_work_in_a_trainer_of_ones_own(
    config: dict[str, Any], tiny_store: EpisodeStore, tmp_path: Path
) -> None:
    sizes = {"observation_size": tiny_store.observations.shape[1], "action_size": tiny_store.actions.shape[1]}
    module = SequenceModule({**config, **sizes, "layout": {**config["layout"], "goal": None}})
    layout = module.model.layout
    data = EpisodeDataModule(tiny_store, layout, window=WindowSettings(3), batch_size=4, validation_fraction=0.0)
    module.fit_tokenizer(data.training_values())
    data.encode(module.model.tokenizer.encode, module.model.tokenizer.vocab_size)
    trainer = pl.Trainer(max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    policy = Policy(load(tmp_path / "mine.ckpt").model, planner={"name": "sample"})
    policy.reset(2)
    assert policy.act(np.zeros((2, sizes["observation_size"]))).shape == (2, sizes["action_size"])
    assert SequenceModule.load_from_checkpoint(tmp_path / "mine.ckpt", weights_only=True).model.context == 3


def test_a_checkpoint_holds_plain_values_only(config: dict[str, Any], tmp_path: Path) -> None:
    path = train(config, RunFolder(tmp_path / "run"))
    content = torch.load(path, weights_only=True)
    assert content["seqrl"]["format"] == 1
    assert content["hyper_parameters"]["config"]["dataset"]["num_episodes"] == 5
    yaml.safe_dump(content["hyper_parameters"])  # refuses anything that is no plain value


def test_a_full_disk_leaves_the_old_checkpoint(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up in the middle of the second checkpoint, after some bytes were written."""
    save, calls = torch.save, []

    def full_at_the_second(content: Any, file: Any) -> None:
        calls.append(content["global_step"])
        if len(calls) > 1:
            file.write(b"PK\x03\x04 the beginning")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr("seqrl.training.checkpoint_io.torch.save", full_at_the_second)
    with pytest.raises(OSError, match=r"No space left on device.*\.ckpt"):
        train(config, RunFolder(tmp_path / "run"))
    (kept,) = (tmp_path / "run" / "model").iterdir()
    assert load(kept).step == calls[0]


def test_options_that_the_trainer_refuses_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refused by Lightning"):
        build_trainer({"accelerator": "cpu", "devices": 1, "precison": "bf16"}, max_steps=1)


def test_validation_is_the_same_whenever_it_runs(config: dict[str, Any], tmp_path: Path) -> None:
    """With a learning rate of nothing, every validation gives the same numbers: windows and goals are fixed."""
    frozen = {**config, "optimizer": {**config["optimizer"], "learning_rate": 0.0}}
    train(frozen, RunFolder(tmp_path / "run"))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["name"].startswith("val/")]
    assert {int(r["step"]) for r in rows} == {4, 8, 12}
    for name in {r["name"] for r in rows}:
        assert len({r["value"] for r in rows if r["name"] == name}) == 1
