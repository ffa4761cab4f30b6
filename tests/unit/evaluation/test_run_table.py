"""The table in a run's folder holds every evaluation that lies there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrl.data.summary import DataSummary
from seqrl.evaluation.archive import Evaluation, write_evaluation
from seqrl.evaluation.rows import ResultsRow
from seqrl.evaluation.run_table import update_run_table

DATA = DataSummary("tiny", num_transitions=10, num_episodes=2)
Add = Callable[..., None]


@pytest.fixture
def add(tmp_path: Path, make_row: Callable[..., ResultsRow]) -> Add:
    """`add(folder, label, **row)`: one more finished evaluation of the run."""

    def write(name: str, label: str, **row: Any) -> None:
        folder = tmp_path / "evaluations" / name
        folder.mkdir(parents=True)
        returns = np.full((2, 1), float(len(list(folder.parent.iterdir()))))
        write_evaluation(Evaluation(folder, make_row(strategy=label, **row), {"returns": returns}, []))

    return write


def rows(run: Path) -> list[list[str]]:
    lines = [line for line in (run / "results.md").read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:-1]]


def test_later_evaluations_stand_in_the_table(tmp_path: Path, add: Add) -> None:
    add("goal-1", "goal")
    add("zero-2", "zero")
    update_run_table(tmp_path, DATA, "goal")
    assert [row[0] for row in rows(tmp_path)] == ["goal", "zero"]
    add("alone-3", "alone")
    update_run_table(tmp_path, DATA, None)  # seqrl evaluate knows no baseline
    assert [row[0] for row in rows(tmp_path)] == ["goal", "zero", "alone"]
    content = json.loads((tmp_path / "results.json").read_text())
    assert [(each["baseline"], each["other"]) for each in content["comparisons"]] == [
        ("goal", "zero"),
        ("goal", "alone"),
    ]
    assert [each["strategy"] for each in content["rows"]] == ["goal", "zero", "alone"]


def test_labels_that_occur_again_are_told_apart(tmp_path: Path, add: Add) -> None:
    add("goal-1ab9", "goal")
    add("goal-77c0", "goal", planner={"name": "sample", "temperature": 1, "cache": "exact"})
    update_run_table(tmp_path, DATA, "goal")
    assert [row[:2] for row in rows(tmp_path)] == [
        ["goal", "sample T0, cache exact"],
        ["goal (77c0)", "sample T1, cache exact"],
    ]
    assert "goal - goal (77c0): " in (tmp_path / "results.md").read_text()


def test_rows_of_a_model_in_the_midst_of_its_training_say_so(tmp_path: Path, add: Add) -> None:
    add("a-1", "a", training_steps=100)
    add("b-2", "b", training_steps=200, planner={"name": "zero"}, cache=None)
    update_run_table(tmp_path, DATA, None)
    assert [row[1] for row in rows(tmp_path)] == [
        "sample T0, cache exact, training_steps 100",
        "zero, training_steps 200",
    ]


def test_a_damaged_evaluation_is_told_and_the_others_stay(
    tmp_path: Path, add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("a-1", "a")
    add("b-2", "b")
    (tmp_path / "evaluations" / "b-2" / "episodes.npz").write_bytes(b"no")
    update_run_table(tmp_path, DATA, None)
    assert [row[0] for row in rows(tmp_path)] == ["a"]
    assert "b-2" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("[")  # of a damaged table no baseline is known
    assert update_run_table(tmp_path, DATA, None) == [tmp_path / "results.md", tmp_path / "results.json"]


def test_without_evaluations_there_is_no_table(tmp_path: Path) -> None:
    assert update_run_table(tmp_path, DATA, None) == []
    assert not (tmp_path / "results.md").exists()
