"""Callbacks of a run, early stopping and averaged weights, and gradients of several batches in a step."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch

from seqrl.callbacks import Training, TrainingCallback
from seqrl.callbacks.early_stopping import EarlyStopping
from seqrl.checkpoints.loading import load
from seqrl.checkpoints.reading import read_checkpoint
from seqrl.cli.application import plain
from seqrl.cli.checking import check_training
from seqrl.config import RunConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.paths import config_dir
from seqrl.registry import register_callback
from seqrl.runs.folder import RunFolder, StageStatus
from seqrl.runs.identity import identify
from seqrl.training import run
from seqrl.training.stages import check_stages

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated",
    "ignore:.*does not have many workers",
    "ignore:The `srun` command is available",
    "ignore:Total length of `list` across ranks is zero",
)
WORDS = [
    *("debug=fast", "layout=tt", "training.max_steps=12", "training.checkpoint_every=4", "training.batch_size=4"),
    *("training.validate_every=2", "training.progress_bar=false", "window.length=3", "backbone.dim=8"),
    *("training.log_every=1", "training.loggers=[csv]"),
]
Compose = Callable[..., dict[str, Any]]


def compose_run(*words: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return plain(hydra.compose("train", [*WORDS, *words]))


@pytest.fixture
def compose(tiny_store: EpisodeStore, tmp_path: Path) -> Compose:
    """`compose(words)`: a resolved run of 12 steps on the tiny store, with dropout and six validations."""
    tiny_store.save(tmp_path / "episodes")
    return partial(compose_run, "data=store", f"data.path={tmp_path / 'episodes'}")


def train(config: dict[str, Any], folder: RunFolder) -> Path:
    return run.train(RunConfig.from_dict(config), folder)


def losses(folder: Path, name: str = "train/loss") -> dict[int, str]:
    with (folder / "metrics.csv").open() as file:
        return {int(row["step"]): row["value"] for row in csv.DictReader(file) if row["name"] == name}


def trained(folder: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return load(folder / "model" / name).model.state_dict()


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_early_stopping_is_the_end_of_the_run(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose("training.callbacks=[{name: early_stopping, patience: 2, min_delta: 100}]")
    folder = RunFolder(tmp_path / "run")
    last = train(config, folder)
    assert folder.status()["model"] == StageStatus("done", 6)  # the first validation is the best, two more are not
    assert "early_stopping: val/loss did not get better than" in capsys.readouterr().out
    assert load(last).step == 6
    before = last.stat().st_mtime_ns
    assert train(config, folder) == last  # nothing is left to do
    assert last.stat().st_mtime_ns == before
    assert max(losses(tmp_path / "run")) == 6


@pytest.mark.parametrize(
    ("options", "values", "ends"),
    [
        ({"patience": 2}, [3, 2, 1, 1, 1], 5),
        ({"patience": 2}, [3, 2, 1, 0, -1], None),
        ({"patience": 1, "mode": "max"}, [1, 2, 2], 3),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.9, 2.8], 3),
        ({"patience": 1}, [float("nan")], 1),
    ],
)
def test_patience(options: dict[str, Any], values: list[float], ends: int | None) -> None:
    callback = EarlyStopping(**options)
    training = Training("model", torch.nn.Linear(1, 1), 0, 100)
    found = None
    for number, value in enumerate(values, 1):
        training.metrics = {"val/loss": value}
        callback.on_validation(training)
        if training.end_reason and found is None:
            found = number
    assert found == ends


def test_a_metric_that_nobody_measures_is_told() -> None:
    training = Training("critic", torch.nn.Linear(1, 1), 0, 100, {"val/loss": 1.0})
    with pytest.raises(ConfigError, match=r"'val/los', which no validation of the critic measures. Did you mean"):
        EarlyStopping(metric="val/los").on_validation(training)


def test_averaged_weights_act_and_the_training_goes_on_with_its_own(compose: Compose, tmp_path: Path) -> None:
    """The training itself is that without an average; the average is that of its weights, computed by hand."""
    train(compose("training.keep_last=9", "training.checkpoint_every=1"), RunFolder(tmp_path / "plain"))
    words = ("training.callbacks=[{name: averaged_weights, decay: 0.5}]", "training.checkpoint_every=1")
    train(compose(*words), RunFolder(tmp_path / "averaged"))
    assert losses(tmp_path / "plain") == losses(tmp_path / "averaged")
    assert losses(tmp_path / "plain", "val/loss") != losses(tmp_path / "averaged", "val/loss")
    ours, theirs = trained(tmp_path / "averaged"), trained(tmp_path / "plain")
    assert not same(ours, theirs)
    own = read_checkpoint(tmp_path / "averaged" / "model" / "last.ckpt", "model")["trained_weights"]
    whole = read_checkpoint(tmp_path / "plain" / "model" / "last.ckpt", "model")["state_dict"]
    assert all(torch.equal(weight, whole[name]) for name, weight in own.items())
    steps = [trained(tmp_path / "plain", f"step-{step}.ckpt") for step in range(4, 12)] + [theirs]
    name = next(name for name in own).removeprefix("model.")
    mean = sum(0.5 ** (9 - place) * each[name] for place, each in enumerate(steps, 1)) + 0.0
    assert torch.allclose(ours[name], mean, atol=0.01)  # what lies before these nine steps weighs 1/512


def test_averages_go_on_bit_for_bit(
    compose: Compose, tmp_path: Path, interrupted_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    config = compose("training.callbacks=[averaged_weights]")
    train(config, RunFolder(tmp_path / "whole"))
    with interrupted_at(7), pytest.raises(KeyboardInterrupt):
        train(config, RunFolder(tmp_path / "parts"))
    train(config, RunFolder(tmp_path / "parts"))
    assert same(trained(tmp_path / "whole"), trained(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert losses(tmp_path / "whole", "val/loss") == losses(tmp_path / "parts", "val/loss")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["critic=iql", "training.callbacks=[averaged_weights]"], r"critic_training\.callbacks=\[\]"),
        (["training.callbacks=[averaged_weights]", "trainer.strategy=fsdp"], "fsdp spreads over ranks; use ddp"),
    ],
)
def test_weights_that_cannot_be_averaged_are_refused(compose: Compose, words: list[str], message: str) -> None:
    config, sizes = compose(*words), DataSizes(3, 2, longest_episode=9)
    with pytest.raises(ConfigError, match=message):
        check_stages(RunConfig.from_dict(config), sizes)
    if "critic=iql" in words:
        config["critic_training"]["callbacks"] = []
        check_stages(RunConfig.from_dict(config), sizes)


def test_a_callback_of_ones_own_by_its_name(compose: Compose, tmp_path: Path, clean_plugins: None) -> None:
    seen: list[Any] = []

    @register_callback("remember")
    class Remember(TrainingCallback):
        """Remembers what it sees."""

        def __init__(self, every: int = 1) -> None:
            self.every = every

        def on_start(self, training: Training) -> None:
            seen.append(("start", training.stage, training.step, training.max_steps))

        def on_step(self, training: Training) -> None:
            if training.step % self.every == 0:
                seen.append(training.step)

        def on_validation(self, training: Training) -> None:
            seen.append(sorted(training.metrics)[-1])
            if training.step == 6:
                training.end("remember: enough")

    config = compose("training.callbacks=[{name: remember, every: 2}]")
    folder = RunFolder(tmp_path / "run")
    train(config, folder)
    assert seen[:3] == [("start", "model", 0, 12), 2, "val/value_loss"]
    assert folder.status()["model"] == StageStatus("done", 6)
    with pytest.raises(ConfigError, match=r"no callback named 'os\.system'"):
        RunConfig.from_dict({**config, "training": {**config["training"], "callbacks": ["os.system"]}})
    twice = {**config, "training": {**config["training"], "callbacks": ["remember", {"name": "remember"}]}}
    with pytest.raises(ConfigError, match="names 'remember' twice"):
        check_training(RunConfig.from_dict(twice))


def test_callbacks_are_part_of_a_run_and_loggers_are_not() -> None:
    plain_run = compose_run("data=maze2d")
    before = copy.deepcopy(plain_run)
    before["training"].pop("callbacks")  # as older versions wrote it
    for section in ("tokenizer_training", "critic_training"):
        before[section].pop("callbacks")
    names = {
        "plain": identify(RunConfig.from_dict(plain_run)).digest,
        "before": identify(RunConfig.from_saved(before)).digest,
        "loggers": identify(
            RunConfig.from_dict(compose_run("training.loggers=[csv,{name: wandb, mode: offline}]"))
        ).digest,
        "callbacks": identify(RunConfig.from_dict(compose_run("training.callbacks=[early_stopping]"))).digest,
        "the same": identify(RunConfig.from_dict(compose_run("training.callbacks=[{name: early_stopping}]"))).digest,
        "others": identify(
            RunConfig.from_dict(compose_run("training.callbacks=[{name: early_stopping, patience: 9}]"))
        ).digest,
    }
    assert names["plain"] == names["before"] == names["loggers"]
    assert names["callbacks"] == names["the same"]
    assert len(set(names.values())) == 3


@pytest.mark.parametrize("every", [2, 3])
def test_a_step_may_have_several_batches(compose: Compose, tmp_path: Path, every: int) -> None:
    """Steps, validations, logs and checkpoints are counted in steps, as without."""
    train(compose("training.keep_last=9"), RunFolder(tmp_path / "plain"))
    words = (f"trainer.accumulate_grad_batches={every}", "training.keep_last=9")
    folder = RunFolder(tmp_path / "run")
    train(compose(*words), folder)
    assert folder.status()["model"] == StageStatus("done", 12)
    for name in ("train/loss", "val/loss", "train/gradient_norm"):
        assert list(losses(tmp_path / "run", name)) == list(losses(tmp_path / "plain", name))
    kept = [sorted(path.name for path in (tmp_path / run / "model").glob("*.ckpt")) for run in ("plain", "run")]
    assert kept[0] == kept[1]
    batches = read_checkpoint(tmp_path / "run" / "model" / "last.ckpt", "model")["loops"]
    total = batches["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
    assert total == 12 * every


def test_accumulated_training_goes_on_bit_for_bit(
    compose: Compose, tmp_path: Path, interrupted_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    config = compose("trainer.accumulate_grad_batches=2")
    train(config, RunFolder(tmp_path / "whole"))
    with interrupted_at(7), pytest.raises(KeyboardInterrupt):
        train(config, RunFolder(tmp_path / "parts"))
    state = json.loads((tmp_path / "parts" / "status.json").read_text())["model"]
    assert state == {"state": "interrupted", "step": 7}
    train(config, RunFolder(tmp_path / "parts"))
    assert same(trained(tmp_path / "whole"), trained(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
