"""Training: resumed equals uninterrupted, ranks share one order, and the pieces work in a trainer of one's own."""

from __future__ import annotations

import csv
import errno
import functools
import json
import os
import re
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping

from seqrl.acting.policy import Policy
from seqrl.checkpoints.loading import load
from seqrl.checkpoints.reading import checkpoint_step
from seqrl.cli.application import plain
from seqrl.config import RunConfig, TrainerConfig, WindowConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import CheckpointError, ConfigError, DivergedError, Stopped, UnfinishedError
from seqrl.layout import Layout
from seqrl.objectives import Outcome
from seqrl.paths import config_dir
from seqrl.runs.folder import RunFolder, StageStatus
from seqrl.runs.stages import KINDS, MODEL
from seqrl.training import run
from seqrl.training.callbacks import ClipGradient
from seqrl.training.checkpoint_io import AtomicCheckpointIO, resumable
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.loggers import CsvMetrics
from seqrl.training.module import SequenceModule
from seqrl.training.trainer import build_trainer
from seqrl.types import Batch


def train(config: dict[str, Any], folder: RunFolder) -> Path:
    return run.train(RunConfig.from_dict(config), folder)


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated",
    "ignore:.*does not have many workers",
    "ignore:The `srun` command is available",
    "ignore:Total length of `list` across ranks is zero",
)


@pytest.fixture
def config(tmp_path: Path, tiny_store: EpisodeStore) -> dict[str, Any]:
    """A resolved run of 12 steps on the tiny store, with dropout, goals and validation."""
    import hydra

    tiny_store.save(tmp_path / "episodes")
    words = ["debug=fast", "data=store", f"data.path={tmp_path / 'episodes'}",
             "layout=tt_goal", "training.max_steps=12", "training.checkpoint_every=5",
             "training.batch_size=4", "training.validate_every=4", "training.progress_bar=false", "window.length=3",
             "backbone.dim=8", "training.log_every=1", "training.loggers=[csv]"]  # fmt: skip
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return plain(hydra.compose("train", words))


def losses(folder: Path) -> dict[int, str]:
    with (folder / "metrics.csv").open() as file:
        return {int(r["step"]): r["value"] for r in csv.DictReader(file) if r["name"] == "train/loss"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "model" / "last.ckpt").model.state_dict()


def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    config: dict[str, Any], tmp_path: Path, interrupted_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    train(config, RunFolder(tmp_path / "whole"))

    with interrupted_at(7), pytest.raises(KeyboardInterrupt):
        train(config, RunFolder(tmp_path / "parts"))
    assert json.loads((tmp_path / "parts" / "status.json").read_text())["model"] == {"state": "interrupted", "step": 7}
    train(config, RunFolder(tmp_path / "parts"))

    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert sorted(losses(tmp_path / "whole")) == list(range(1, 13))


class StopAt(pl.Callback):
    """Stands for whatever ends a training of its own accord."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.step


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
@pytest.mark.parametrize("ended", ["callback", "early stopping", "max_time"])
def test_a_training_that_ends_early_is_not_done_and_goes_on_later(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    train(config, RunFolder(tmp_path / "whole"))
    folder = RunFolder(tmp_path / "parts")
    with monkeypatch.context() as patch:
        if ended == "max_time":
            config["trainer"] |= {"max_time": "00:00:00:00"}
        else:
            stop = StopAt(7) if ended == "callback" else EarlyStopping("val/loss", stopping_threshold=1e9)
            build = functools.partial(build_trainer)
            patch.setattr(
                "seqrl.training.trainer.build_trainer",
                lambda options, **fixed: build(options, **{**fixed, "callbacks": [stop, *fixed["callbacks"]]}),
            )
        with pytest.raises(
            UnfinishedError, match=r"ended the training after \d+ of 12 steps; the same command goes on"
        ):
            train(config, folder)
    status = folder.status()["model"]
    assert status.state == "interrupted"
    assert status.step == checkpoint_step(tmp_path / "parts" / "model" / "last.ckpt") < 12
    assert status.reason is not None
    assert "of 12 steps" in status.reason
    config["trainer"]["max_time"] = None
    train(config, folder)
    assert folder.status()["model"] == StageStatus("done", 12)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_two_ranks_see_the_batch_of_one(tiny_store: EpisodeStore, tiny_layout: Layout) -> None:
    data = EpisodeDataModule(tiny_store, tiny_layout, window=WindowConfig(3), batch_size=6, validation_fraction=0.0)
    data.encode(lambda values: values.long().clamp(0, 9), 10)
    loader = data.train_dataloader()
    one = loader.cut(5, 0, 1)
    for rank in (0, 1):
        part = loader.cut(5, rank, 2)
        assert torch.equal(part.tokens, one.tokens[rank::2])
        assert torch.equal(part.mask, one.mask[rank::2])


def test_a_batch_that_ranks_cannot_share_is_refused(tiny_store: EpisodeStore, tiny_layout: Layout) -> None:
    data = EpisodeDataModule(tiny_store, tiny_layout, window=WindowConfig(3), batch_size=5, validation_fraction=0.0)
    data.encode(lambda values: values.long().clamp(0, 9), 10)

    class TwoRanks:
        world_size, global_rank = 2, 0

    with pytest.raises(ConfigError, match="batch_size=5 cannot be shared by 2 ranks"):
        data.train_dataloader().follow(TwoRanks())  # type: ignore[arg-type]


def test_the_pieces_work_in_a_trainer_of_ones_own(
    config: dict[str, Any], tiny_store: EpisodeStore, tmp_path: Path
) -> None:
    sizes = {"observation_size": tiny_store.observations.shape[1], "action_size": tiny_store.actions.shape[1]}
    module = SequenceModule({**config, **sizes, "layout": {**config["layout"], "goal": None}})
    layout = module.model.layout
    data = EpisodeDataModule(tiny_store, layout, window=WindowConfig(3), batch_size=4, validation_fraction=0.0)
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
    assert content["seqrl"]["format"] == 2
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


@pytest.mark.parametrize("accelerator", ["tpu", "mps"])  # a package is missing; this is no Mac
def test_options_that_the_trainer_refuses_are_told(accelerator: Any) -> None:
    with pytest.raises(ConfigError, match="refused by Lightning"):
        build_trainer(TrainerConfig(accelerator=accelerator), max_steps=1)


def test_validation_is_the_same_whenever_it_runs(config: dict[str, Any], tmp_path: Path) -> None:
    """With a learning rate of nothing, every validation gives the same numbers: windows and goals are fixed."""
    frozen = {**config, "optimizer": {**config["optimizer"], "learning_rate": 1e-30}}  # below what float32 adds
    train(frozen, RunFolder(tmp_path / "run"))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["name"].startswith("val/")]
    assert {int(r["step"]) for r in rows} == {4, 8, 12}
    for name in {r["name"] for r in rows}:
        assert len({r["value"] for r in rows if r["name"] == name}) == 1


class _Poisoned:
    """An objective whose outcome is spoilt from some step on."""

    def __init__(self, spoil: Callable[[Outcome], Outcome], step: int, module: SequenceModule) -> None:
        self.objective, self.spoil, self.step, self.module = module._objective, spoil, step, module

    def __call__(self, model: Any, batch: Batch) -> Outcome:
        outcome = self.objective(model, batch)
        return self.spoil(outcome) if self.module.global_step + 1 >= self.step else outcome


def _infinite_reward(outcome: Outcome) -> Outcome:
    reward = replace(outcome.fields["reward"], loss=torch.tensor(torch.inf))
    return Outcome(outcome.total + torch.inf, outcome.count, {**outcome.fields, "reward": reward})


def _steep(outcome: Outcome) -> Outcome:
    """The same loss, with a gradient that has no size."""
    total = outcome.total + 0.0  # a node of its own
    total.register_hook(lambda gradient: gradient * torch.nan)
    return replace(outcome, total=total)


@pytest.mark.parametrize("look_every", [1, 5])
@pytest.mark.parametrize(
    ("spoil", "words"), [(_infinite_reward, "the loss of reward is not finite"), (_steep, "the gradient is not finite")]
)
def test_a_loss_that_is_not_finite_ends_training_and_leaves_the_batch(
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    look_every: int,
    spoil: Callable[[Outcome], Outcome],
    words: str,
) -> None:
    """At once, or, as on a GPU, at the next look, which names the first bad step all the same."""
    seen: list[torch.Tensor] = []
    prepare, step = SequenceModule.on_train_start, SequenceModule.training_step

    def poison(self: SequenceModule) -> None:
        self._objective = _Poisoned(spoil, 7, self)  # type: ignore[assignment]
        prepare(self)

    def remember(self: SequenceModule, batch: Batch, index: int) -> torch.Tensor:
        seen.append(batch.tokens)
        return step(self, batch, index)

    monkeypatch.setattr(SequenceModule, "on_train_start", poison)
    monkeypatch.setattr(SequenceModule, "training_step", remember)
    if look_every > 1:
        monkeypatch.setattr("seqrl.training.health._looks_at_once", lambda trainer, loss: False)
    config["training"] |= {"log_every": look_every, "checkpoint_every": 5, "validate_every": 100}
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(DivergedError, match=rf"{words}.* at step 7; the batch is in '.*bad_batch-7.pt'"):
        train(config, folder)
    status = folder.status()["model"]
    assert (status.state, status.step) == ("failed", 5)
    assert status.reason is not None
    assert words in status.reason
    kept = torch.load(tmp_path / "run" / "model" / "bad_batch-7.pt", weights_only=True)
    assert torch.equal(kept["batch"]["tokens"], seen[6])
    left = load(tmp_path / "run" / "model" / "last.ckpt")
    assert left.step == 5
    assert all(weight.isfinite().all() for weight in left.model.parameters())


def test_the_gradient_is_clipped_as_lightning_does_and_its_norm_logged(config: dict[str, Any], tmp_path: Path) -> None:
    config["optimizer"] |= {"clip_norm": 0.5}
    train(config, RunFolder(tmp_path / "run"))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        norms = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "train/gradient_norm"]
    assert len(norms) == 12
    assert min(norms) > 0.5  # before clipping
    model = torch.nn.Linear(3, 2)
    clip, optimizer = ClipGradient(0.5), torch.optim.SGD(model.parameters())
    model(torch.ones(4, 3)).square().sum().backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in wanted]).norm()
    clip.on_before_optimizer_step(None, None, optimizer)  # type: ignore[arg-type]
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient * min(1.0, 0.5 / float(norm)), rtol=1e-5)
    assert clip.pop_mean() == pytest.approx(float(norm))


def test_the_last_k_checkpoints_are_kept(config: dict[str, Any], tmp_path: Path) -> None:
    config["training"] |= {"keep_last": 3, "checkpoint_every": 2}
    train(config, RunFolder(tmp_path / "run"))
    steps = {path.name: checkpoint_step(path) for path in (tmp_path / "run" / "model").glob("*.ckpt")}
    assert steps.pop("best.ckpt") in (4, 8, 12)
    assert steps == {"last.ckpt": 12, "step-10.ckpt": 10, "step-8.ckpt": 8}


def test_the_last_checkpoints_are_told_by_their_step_and_not_by_the_time_of_their_files(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["training"] |= {"keep_last": 3, "checkpoint_every": 2, "max_steps": 8}
    folder = RunFolder(tmp_path / "run")
    train(config, folder)
    stage = tmp_path / "run" / "model"
    for seconds, name in enumerate(("step-6.ckpt", "step-4.ckpt")):  # as where a run was copied
        os.utime(stage / name, (2e9 + seconds, 2e9 + seconds))
    (stage / "step-30.ckpt").write_bytes(b"of a run that went back")
    config["training"] |= {"max_steps": 10}
    folder.set_status("model", "interrupted", 8)
    train(config, folder)
    steps = {path.name: checkpoint_step(path) for path in stage.glob("*.ckpt") if path.name != "best.ckpt"}
    assert steps == {"last.ckpt": 10, "step-8.ckpt": 8, "step-6.ckpt": 6}


def test_what_was_logged_is_on_disk_before_its_checkpoint(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    write = AtomicCheckpointIO.save_checkpoint

    def save_checkpoint(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, **options: Any) -> None:
        told.append(path.name)
        write(self, checkpoint, path, **options)

    monkeypatch.setattr(CsvMetrics, "save", lambda self: told.append("metrics"))
    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save_checkpoint)
    train(config, RunFolder(tmp_path / "run"))
    saved = [place for place, name in enumerate(told) if name.endswith(".ckpt")]
    assert {told[place] for place in saved} == {"last.ckpt", "best.ckpt"}
    assert {told[place - 1] for place in saved} == {"metrics"}


def test_a_resumed_run_remembers_its_best_validation(config: dict[str, Any], tmp_path: Path) -> None:
    """With a learning rate of nothing none is better than the first one, whose checkpoint stays."""
    frozen = {**config, "optimizer": {**config["optimizer"], "learning_rate": 1e-30}}  # below what float32 adds
    frozen["training"] |= {"max_steps": 4}
    best = train(frozen, RunFolder(tmp_path / "run")).with_name("best.ckpt")
    frozen["training"] |= {"max_steps": 12}
    RunFolder(tmp_path / "run").set_status("model", "interrupted", 4)
    train(frozen, RunFolder(tmp_path / "run"))
    assert load(best).step == 4


def flip_weight(path: Path) -> None:
    """Turn one bit of the first weight over."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (member,) = (each for each in archive.infolist() if each.filename.endswith("data/3"))
        place = data.index(archive.read(member), member.header_offset)
    data[place + 3] ^= 64
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == member.filename


@pytest.mark.parametrize(
    ("damage", "state"),
    [(b"", "running"), (b"PK\x03\x04 the beginning", "interrupted"), (None, "running"), (None, "done")],
)
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes | None, state: str
) -> None:
    config["training"] |= {"keep_last": 2, "checkpoint_every": 3, "validate_every": 5}
    train(config, RunFolder(tmp_path / "whole"))
    folder = RunFolder(tmp_path / "parts")
    train(config, folder)
    last = tmp_path / "parts" / "model" / "last.ckpt"
    flip_weight(last) if damage is None else last.write_bytes(damage)
    folder.set_status("model", state, 12)
    capsys.readouterr()
    train(config, folder)
    told = capsys.readouterr().out
    assert "last.ckpt' is damaged" in told
    assert re.search("training goes on from (best|step-9).ckpt, which is of step (9|10)", told)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for path in (tmp_path / "parts" / "model").iterdir():
        assert load(path).step in (5, 9, 10, 12)  # none is a second name of the damaged one
    (tmp_path / "parts" / "model" / "best.ckpt").unlink()
    last.unlink()
    assert resumable(last.parent, "model")[0] in set(last.parent.glob("step-*.ckpt"))


def test_a_damaged_checkpoint_of_the_last_step_is_replaced(config: dict[str, Any], tmp_path: Path) -> None:
    """`best.ckpt` is of the last step too: nothing is left to train, and `last.ckpt` is there again all the same."""
    folder = RunFolder(tmp_path / "run")
    last = train(config, folder)
    whole = weights(tmp_path / "run")
    assert load(last.with_name("best.ckpt")).step == 12
    last.write_bytes(b"")
    folder.set_status("model", "running", 12)
    train(config, folder)
    assert all(torch.equal(weight, whole[name]) for name, weight in weights(tmp_path / "run").items())


def test_only_checkpoints_that_are_understood_are_resumed_from(config: dict[str, Any], tmp_path: Path) -> None:
    last = train(config, RunFolder(tmp_path / "run"))
    assert resumable(last.parent, "model") == (last, 12)
    content = torch.load(last, weights_only=True)
    for change, words in (
        ({"stage": "critic"}, "is of the stage 'critic' of a run; give one of the folder 'model'"),
        ({"seqrl": {**content["seqrl"], "format": 9}}, "has checkpoint format 9; this seqrl reads formats 1 and 2"),
        ({"seqrl": {**content["seqrl"], "sharded": True}}, "says sharded of itself, which this seqrl does not know"),
        ({"seqrl": None}, "was not written by seqrl"),
    ):
        (tmp_path / "changed").mkdir(exist_ok=True)
        torch.save({**content, **change}, tmp_path / "changed" / "last.ckpt")
        with pytest.raises(CheckpointError, match=words):
            resumable(tmp_path / "changed", "model")
        with pytest.raises(CheckpointError, match=words):
            load(tmp_path / "changed" / "last.ckpt")
    assert resumable(tmp_path / "nowhere", "model") == (None, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_stop_after_the_step_and_go_back_to_their_owners(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    asked: list[int] = []
    step = SequenceModule.training_step

    def signalled(self: SequenceModule, batch: Batch, index: int) -> torch.Tensor:
        if self.global_step == 6:
            signal.raise_signal(number)
        return step(self, batch, index)

    monkeypatch.setattr(SequenceModule, "training_step", signalled)
    before = signal.signal(number, lambda number, frame: asked.append(number))
    try:
        with pytest.raises(Stopped) as stop:
            train(config, RunFolder(tmp_path / "run"))
        signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert stop.value.number == number
    assert asked == [number]  # while it trained, nobody but the training was told
    assert RunFolder(tmp_path / "run").status()["model"] == StageStatus("interrupted", 7)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert {int(r["step"]) for r in csv.DictReader(file) if r["name"] == "val/loss"} == {4}  # none for stopping


def test_a_signal_before_the_first_step_keeps_its_number(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: SequenceModule) -> None:
        raise Stopped(signal.SIGUSR1)  # as `seqrl.cli.cluster.stop_at_signals` does

    monkeypatch.setattr(SequenceModule, "on_fit_start", stop)
    with pytest.raises(Stopped) as stopped:
        train(config, RunFolder(tmp_path / "run"))
    assert stopped.value.number == signal.SIGUSR1
    assert RunFolder(tmp_path / "run").status()["model"] == StageStatus("interrupted", 0)


def test_stages_share_metrics_and_keep_their_checkpoints_apart(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_store: EpisodeStore
) -> None:
    """One stage resumed leaves the rows of the others alone, and its checkpoint is not taken for another's."""
    path = tmp_path / "metrics.csv"
    for stage in KINDS:
        logger = CsvMetrics(path, stage=stage)
        for at in (1, 2, 3):
            logger.log_metrics({"train/loss": at}, at)
    CsvMetrics(path, stage=MODEL, resumed_step=1).log_metrics({"train/loss": 7.0}, 2)
    with path.open() as file:
        rows = [(row["name"], int(row["step"]), float(row["value"])) for row in csv.DictReader(file)]
    assert [row for row in rows if row[0] == "train/loss"] == [("train/loss", 1, 1.0), ("train/loss", 2, 7.0)]
    for stage in ("tokenizer", "critic"):
        assert [row[1] for row in rows if row[0] == f"{stage}/train/loss"] == [1, 2, 3]


def test_the_bar_counts_the_steps_of_a_resumed_stage(
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted_at: Callable[[int], AbstractContextManager[None]],
) -> None:
    shown: list[tuple[Any, ...]] = []

    @contextmanager
    def show(what: str, total: int, *, done: int) -> Iterator[Callable[..., None]]:
        shown.append((what, total, done))
        yield lambda amount, note: shown.append((amount, "loss" in note))
        shown.append(("closed",))

    monkeypatch.setattr("seqrl.training.callbacks.show_progress", show)
    config["training"] |= {"progress_bar": True, "log_every": 5}
    with interrupted_at(7), pytest.raises(Stopped):
        train(config, RunFolder(tmp_path / "run"))
    train(config, RunFolder(tmp_path / "run"))
    first, second = ("training: model", 12, 0), ("training: model", 12, 7)
    assert shown == [
        *(first, (1, True), (4, True), ("closed",)),
        *(second, (3, True), (2, True), ("closed",)),
    ]


@pytest.mark.parametrize("bar", [True, False])
def test_a_log_has_a_line_every_so_many_steps(
    config: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    interrupted_at: Callable[[int], AbstractContextManager[None]],
    bar: bool,
) -> None:
    config["training"] |= {"progress_bar": bar, "log_every": 5}
    with interrupted_at(7), pytest.raises(Stopped):
        train(config, RunFolder(tmp_path / "run"))
    first = capsys.readouterr().out
    train(config, RunFolder(tmp_path / "run"))
    second = capsys.readouterr().out
    steps = [re.findall(r"^model: step (\d+) of 12, .*loss [\d.]+", text, re.MULTILINE) for text in (first, second)]
    assert steps == ([["1", "5"], ["10", "12"]] if bar else [[], []])
    assert "continues" not in first
    assert "continues at step 7 of 12\n" in second
    assert not bar or re.search(r"step 5 of 12, .*, 0:00:\d\d left\n", first)
