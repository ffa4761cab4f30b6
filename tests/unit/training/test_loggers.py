"""The CSV of metrics, written and resumed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from seqrl.errors import ConfigError
from seqrl.training.loggers import CsvMetrics, loggers


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the metrics of steps 10, 20 and 30."""
    logger = CsvMetrics(tmp_path / "metrics.csv")
    for step in (10, 20, 30):
        logger.log_metrics({"train/loss": 1 / step}, step)
    return tmp_path / "metrics.csv"


def test_one_row_per_number_whatever_is_logged_when(tmp_path: Path) -> None:
    logger = CsvMetrics(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 0.123456789012, "train/learning_rate": 6e-4}, 1)
    logger.log_metrics({"val/loss": torch.tensor(2.0)}, 2)  # a name that was not there before
    assert read(tmp_path / "metrics.csv") == [
        ["step", "name", "value"],
        ["1", "train/loss", "0.12345679"],
        ["1", "train/learning_rate", "0.0006"],
        ["2", "val/loss", "2"],
    ]


def test_a_resumed_run_keeps_its_past_and_drops_what_was_lost(path: Path) -> None:
    logger = CsvMetrics(path, resumed_step=20)
    assert len(read(path)) == 4  # nothing is touched before something is logged
    logger.log_metrics({"train/loss": 5.0}, 25)
    logger.log_metrics({"train/loss": 6.0}, 30)
    assert [row[0] for row in read(path)] == ["step", "10", "20", "25", "30"]
    assert [row[2] for row in read(path)] == ["value", "0.1", "0.05", "5", "6"]
    assert b"\r" not in path.read_bytes()


def test_a_run_from_the_start_drops_everything(path: Path) -> None:
    CsvMetrics(path).log_metrics({"train/loss": 5.0}, 1)
    assert read(path) == [["step", "name", "value"], ["1", "train/loss", "5"]]


@pytest.mark.parametrize("torn", ["\r\n", "1", "12,train/l", "\r\n\r\n15,train/loss"])
def test_a_row_that_a_killed_process_left_unfinished_is_dropped(path: Path, torn: str) -> None:
    with path.open("a", newline="") as file:
        file.write(torn)
    CsvMetrics(path, resumed_step=20).log_metrics({"train/loss": 5.0}, 25)
    assert [row[0] for row in read(path)] == ["step", "10", "20", "25"]
    assert {len(row) for row in read(path)} == {3}


def test_loggers_are_made_by_name(tmp_path: Path) -> None:
    assert loggers(tmp_path, names=[], resumed_step=0) == []
    assert [type(logger).__name__ for logger in loggers(tmp_path, names=["tensorboard", "csv"], resumed_step=0)] == [
        "CsvMetrics",
        "TensorBoardLogger",
    ]
    (logger,) = loggers(tmp_path, names=["csv"], resumed_step=7)
    logger.log_metrics({"a": 1.0}, 1)
    assert (tmp_path / "metrics.csv").is_file()
    assert len(loggers(tmp_path, names="csv", resumed_step=0)) == 1
    assert loggers(tmp_path, names=None, resumed_step=0) == []


def test_a_logger_of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.loggers has 'wandb'; give a list of csv and tensorboard, or"):
        loggers(tmp_path, names=["csv", "wandb"], resumed_step=0)
