"""Which row it is, how long all take, and what is left of an interrupted evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seqrl.config import EvaluationConfig
from seqrl.evaluation.row_progress import RowProgress

PARTS: dict[str, Any] = {"planner": {"name": "zero"}, "condition": {"name": "none"}, "score": {"name": "likelihood"}}


def rows(tmp_path: Path, *labels: str, finished: int = 0, **settings: Any) -> tuple[list[EvaluationConfig], list[Path]]:
    """Settings and folders of rows, of which the first ones are finished."""
    found = [EvaluationConfig(label=label, **PARTS, **settings) for label in labels]
    places = [tmp_path / label for label in labels]
    for place in places[:finished]:
        place.mkdir()
        (place / "results.json").write_text("[]")
    return found, places


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


def run(progress: RowProgress, clock: list[float], seconds: float) -> None:
    for _ in progress:
        clock[0] += seconds


def test_rows_are_counted_and_the_rest_is_estimated(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    run(RowProgress(*rows(tmp_path, "zero", "goal", "reward"), clock=lambda: clock[0]), clock, 90)
    assert capsys.readouterr().out.splitlines() == [
        "row 1 of 3: zero",
        "row 2 of 3: goal, 0:03:00 left for all",
        "row 3 of 3: reward, 0:01:30 left for all",
    ]


def test_rows_that_are_finished_take_no_time(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    run(RowProgress(*rows(tmp_path, "a", "b", "c", "d", finished=2), clock=lambda: clock[0]), clock, 10)
    assert capsys.readouterr().out.splitlines() == ["row 3 of 4: c", "row 4 of 4: d, 0:00:10 left for all"]


@pytest.mark.parametrize(("labels", "settings"), [(["a"], {}), (["a", "b"], {"progress_bar": False})])
def test_one_row_and_quiet_rows_are_not_told(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str], labels: list[str], settings: dict[str, Any]
) -> None:
    run(RowProgress(*rows(tmp_path, *labels, **settings), clock=lambda: clock[0]), clock, 10)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("labels", "interrupted", "told"),
    [
        (
            ["zero", "goal", "reward"],
            1,
            "1 of 3 rows are finished and kept; the same command evaluates what is left: goal, reward",
        ),
        (
            ["zero", "goal", "reward"],
            2,
            "2 of 3 rows are finished and kept; the same command evaluates what is left: reward",
        ),
        (["zero"], 0, "nothing is kept of zero; the same command evaluates it from its start"),
    ],
)
def test_what_is_left_of_an_interrupted_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: list[str], interrupted: int, told: str
) -> None:
    progress = RowProgress(*rows(tmp_path, *labels))
    for number, _ in enumerate(progress):
        if number == interrupted:
            break
    capsys.readouterr()
    progress.tell_left()
    assert capsys.readouterr().out.startswith(told)
