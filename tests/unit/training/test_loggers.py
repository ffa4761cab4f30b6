"""Loggers: the CSV of metrics, written and resumed; TensorBoard's settings, pictures and videos; results of runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from seqrl.config import RunConfig
from seqrl.errors import ConfigError
from seqrl.evaluation.archive import Evaluation
from seqrl.evaluation.publishing import publish_results
from seqrl.evaluation.rows import ResultsRow
from seqrl.loggers import LoggedRun, Logger, check_loggers
from seqrl.loggers.csv import CsvLogger
from seqrl.loggers.tensorboard import TensorBoardLogger
from seqrl.registry import register_logger
from seqrl.runs.stages import CRITIC
from seqrl.training.loggers import loggers


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the metrics of steps 10, 20 and 30."""
    logger = CsvLogger(LoggedRun(tmp_path))
    for step in (10, 20, 30):
        logger.log_metrics({"train/loss": 1 / step}, step)
    return tmp_path / "metrics.csv"


def test_one_row_per_number_whatever_is_logged_when(tmp_path: Path) -> None:
    logger = CsvLogger(LoggedRun(tmp_path))
    logger.log_metrics({"train/loss": 0.123456789012, "train/learning_rate": 6e-4}, 1)
    logger.log_metrics({"val/loss": torch.tensor(2.0)}, 2)  # a name that was not there before
    assert read(tmp_path / "metrics.csv") == [
        ["step", "name", "value"],
        ["1", "train/loss", "0.12345679"],
        ["1", "train/learning_rate", "0.0006"],
        ["2", "val/loss", "2"],
    ]


def test_a_resumed_run_keeps_its_past_and_drops_what_was_lost(path: Path) -> None:
    logger = CsvLogger(LoggedRun(path.parent, resumed_step=20))
    assert len(read(path)) == 4  # nothing is touched before something is logged
    logger.log_metrics({"train/loss": 5.0}, 25)
    logger.log_metrics({"train/loss": 6.0}, 30)
    assert [row[0] for row in read(path)] == ["step", "10", "20", "25", "30"]
    assert [row[2] for row in read(path)] == ["value", "0.1", "0.05", "5", "6"]
    assert b"\r" not in path.read_bytes()


def test_a_run_from_the_start_drops_everything(path: Path) -> None:
    CsvLogger(LoggedRun(path.parent)).log_metrics({"train/loss": 5.0}, 1)
    assert read(path) == [["step", "name", "value"], ["1", "train/loss", "5"]]


@pytest.mark.parametrize("torn", ["\r\n", "1", "12,train/l", "\r\n\r\n15,train/loss"])
def test_a_row_that_a_killed_process_left_unfinished_is_dropped(path: Path, torn: str) -> None:
    with path.open("a", newline="") as file:
        file.write(torn)
    CsvLogger(LoggedRun(path.parent, resumed_step=20)).log_metrics({"train/loss": 5.0}, 25)
    assert [row[0] for row in read(path)] == ["step", "10", "20", "25"]
    assert {len(row) for row in read(path)} == {3}


def test_loggers_are_made_by_name(tmp_path: Path) -> None:
    assert loggers(tmp_path, names=[], resumed_step=0) == []
    assert [logger.name for logger in loggers(tmp_path, names=["tensorboard", "csv"], resumed_step=0)] == [
        "tensorboard",
        "csv",
    ]
    assert list(tmp_path.iterdir()) == []
    (logger,) = loggers(tmp_path, names=[{"name": "csv"}], resumed_step=7)
    logger.log_metrics({"a": 1.0}, 1)
    assert (tmp_path / "metrics.csv").is_file()
    assert len(loggers(tmp_path, names="csv", resumed_step=0)) == 1
    assert loggers(tmp_path, names=None, resumed_step=0) == []


@pytest.mark.parametrize("name", ["wandbb", "builtins.open", "lightning.pytorch.loggers.CSVLogger"])
def test_a_logger_of_another_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"no logger named .*\n  available: csv, mlflow, tensorboard, wandb"):
        loggers(tmp_path, names=["csv", name], resumed_step=0)
    with pytest.raises(ConfigError, match=r"training\.loggers names 'csv' twice"):
        check_loggers(["csv", {"name": "csv"}])


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_whose_package_is_missing_says_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrl.loggers.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"the package {name} is not installed; pip install 'seqrl\[{name}\]'"):
        check_loggers(["csv", name])


def test_a_stage_has_its_prefix_and_settings_come_once(tmp_path: Path) -> None:
    (logger,) = loggers(tmp_path, names=["csv"], stage=CRITIC, resumed_step=0)
    logger.log_metrics({"val/loss": 2.0}, 3)
    assert read(tmp_path / "metrics.csv")[1] == ["3", "critic/val/loss", "2"]
    (board,) = loggers(tmp_path, names=["tensorboard"], stage=CRITIC, resumed_step=0, config=RunConfig().to_dict())
    board.log_metrics({"val/loss": 2.0}, 3)
    board.finalize("success")
    found = EventAccumulator(str(tmp_path / "tensorboard" / "critic")).Reload()
    assert found.Tags()["scalars"] == ["val/loss"]


def test_tensorboard_knows_the_settings_by_which_runs_compare(tmp_path: Path) -> None:
    """As its HPARAMS page reads them: every setting by its key, and all scalars are metrics."""
    config = {**RunConfig().to_dict(), "backbone": {"name": "gpt", "dim": 128}}
    (logger,) = loggers(tmp_path, names=["tensorboard"], resumed_step=0, config=config)
    logger.log_metrics({"val/loss": 2.0}, 3)
    logger.finalize("success")
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert not list((tmp_path / "tensorboard").glob("*/events*"))  # one run, not one for its settings
    content = HParamsPluginData.FromString(found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    told = content.session_start_info.hparams
    assert told["backbone"].string_value == "gpt"
    assert told["backbone.dim"].number_value == 128
    assert told["window.terminate_truncated"].number_value == 1
    assert told["seed"].number_value == 0
    assert not {"runs_dir", "training.log_every", "training.loggers", "trainer.devices"} & set(told)


def test_tensorboard_shows_rows_pictures_and_videos(tmp_path: Path) -> None:
    frames = [np.full((32, 48, 3), 40 * number, np.uint8) for number in range(6)]
    imageio.imwrite(tmp_path / "paths.png", frames[1])
    imageio.mimsave(tmp_path / "rollout.mp4", frames, fps=5, macro_block_size=16)
    logger = TensorBoardLogger(LoggedRun(tmp_path))
    logger.log_row("goal, 5 a plan", {"return_mean": 1.5}, 70)
    logger.log_picture("paths", tmp_path / "paths.png", 70)
    logger.log_video("eval/goal/rollout", tmp_path / "rollout.mp4", 70)
    logger.close()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(found.Tags()["images"]) == {"paths", "eval/goal/rollout"}
    (scalar,) = found.Scalars("eval/goal, 5 a plan/return_mean")
    assert (scalar.step, scalar.value) == (70, 1.5)
    (video,) = found.Images("eval/goal/rollout")
    with Image.open(io.BytesIO(video.encoded_image_string)) as film:
        assert (film.format, film.size, film.n_frames) == ("GIF", (48, 32), 6)


@pytest.fixture
def evaluated(tmp_path: Path, make_row: Callable[..., ResultsRow]) -> Callable[[str], Evaluation]:
    def make(label: str) -> Evaluation:
        return Evaluation(tmp_path / "evaluations" / f"{label}-1", make_row(strategy=label), {}, [])

    return make


def test_results_reach_every_logger_once(tmp_path: Path, evaluated: Callable[[str], Evaluation]) -> None:
    both = [evaluated("reward"), evaluated("goal")]
    publish_results(["csv"], tmp_path, both[:1], [])
    for _ in range(2):
        publish_results(["csv", "tensorboard"], tmp_path, both, [tmp_path / "nothing.png"])
    rows = [row for row in read(tmp_path / "evaluations.csv") if row[1].endswith("/return_mean")]
    assert rows == [["500", "eval/reward/return_mean", "3.14159"], ["500", "eval/goal/return_mean", "3.14159"]]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [len(board.Scalars(f"eval/{label}/return_mean")) for label in ("reward", "goal")] == [1, 1]


def test_a_logger_that_fails_loses_no_results(
    tmp_path: Path, evaluated: Callable[[str], Evaluation], capsys: pytest.CaptureFixture[str], clean_plugins: None
) -> None:
    @register_logger("away")
    class Away(Logger):
        """A server that cannot be reached."""

        def __init__(self, run: LoggedRun) -> None:
            self.run = run

        def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
            raise ConnectionError("no route")

    publish_results(["away", "csv"], tmp_path, [evaluated("reward")], [])
    assert "did not reach training.loggers=away (ConnectionError: no route); the same" in capsys.readouterr().err
    assert (tmp_path / "evaluations.csv").exists()
    assert json.loads((tmp_path / "logged.json").read_text()) == {"csv": ["reward-1"]}


def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the optional package wandb is not installed")
    for resumed in (0, 2):
        choices = [{"name": "wandb", "mode": "offline"}]
        (logger,) = loggers(tmp_path, names=choices, resumed_step=resumed, config=RunConfig().to_dict())
        logger.log_metrics({"val/loss": 1.0}, resumed + 1)
        logger.finalize("success")
    folders = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert folders
    assert {name.rpartition("-")[2] for name in folders} == {(tmp_path / "wandb_id.txt").read_text()}


def test_mlflow_offline(tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow", reason="the optional package mlflow is not installed").MlflowClient
    run = tmp_path / "run"
    run.mkdir()
    for resumed in (0, 2):
        (logger,) = loggers(run, names=["mlflow"], resumed_step=resumed, config=RunConfig().to_dict())
        logger.log_metrics({"val/loss": float(resumed)}, resumed + 1)
        logger.finalize("success")
    kept = client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    history = kept.get_metric_history((run / "mlflow_id.txt").read_text(), "val/loss")
    assert [(each.step, each.value) for each in history] == [(1, 0.0), (3, 2.0)]
    assert kept.get_run((run / "mlflow_id.txt").read_text()).data.params["window.length"] == "10"
