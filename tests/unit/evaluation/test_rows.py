"""Results rows as JSON: what is written is read back, rows of older versions too, and damage is told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from seqrl.errors import DataError
from seqrl.evaluation.rows import Component, ResultsRow

MakeRow = Callable[..., ResultsRow]


@pytest.mark.parametrize("toward_goals", [False, True])
def test_a_row_is_read_back_as_it_was_written(make_row: MakeRow, toward_goals: bool) -> None:
    row = make_row(toward_goals=toward_goals, return_ci95=None, starts={"goals": [[1, 1.5]], "max_steps": 7})
    text = json.dumps(row.to_json())
    again = ResultsRow.from_json(json.loads(text))
    assert again == row
    assert json.dumps(again.to_json()) == text
    assert ("success_rate" in row.to_json()) == toward_goals
    assert "goals" not in row.to_json()


def test_options_of_plugins_are_kept_as_they_are(make_row: MakeRow) -> None:
    planner = {"name": "mine", "depth": [1, {"a": None}], "cache": "own", "time_budget_ms": 5}
    row = make_row(planner=planner, time_budget_ms=5)
    assert row.planner == Component("mine", {"depth": [1, {"a": None}], "cache": "own", "time_budget_ms": 5})
    assert row.to_json()["planner"] == planner
    assert type(row.to_json()["time_budget_ms"]) is int


def test_a_rate_of_nothing_is_nan(make_row: MakeRow) -> None:
    row = make_row(toward_goals=True, success_rate=math.nan)
    assert row.goals is not None
    assert math.isnan(row.goals.success_rate)
    assert "NaN" in json.dumps(row.to_json())


def test_numbers_are_floats_and_the_ends_of_intervals(make_row: MakeRow) -> None:
    row = make_row(score_mean=None, score_ci95=None)
    numbers = row.numbers()
    assert numbers["return_mean"] == 3.14159
    assert (numbers["return_ci95_low"], numbers["return_ci95_high"]) == (1.0, 5.26)
    assert numbers["score_mean"] is None
    assert not {"score_ci95_low", "success_rate", "num_episodes", "strategy"} & set(numbers)


def test_rows_of_format_2_are_read(make_row: MakeRow) -> None:
    """They named condition and score without options, and said nothing of the model or the training."""
    old = make_row().to_json()
    old["condition"], old["score_name"] = "goal", old.pop("score")["name"]
    for key in ("model", "discrete_actions", "precision", "shuffle_goals", "min_cells", "training"):
        del old[key]
    row = ResultsRow.from_json(old)
    assert (row.condition, row.score) == (Component("goal", {}), Component("likelihood", {}))
    assert (row.model, row.training, row.precision) == (None, None, "float32")
    assert row.return_mean == old["return_mean"]


def test_keys_that_are_no_part_of_a_row_are_left_out(make_row: MakeRow) -> None:
    assert ResultsRow.from_json({**make_row().to_json(), "kernels": None}) == make_row()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training_seed": "one"}, "training_seed: input should be a valid integer"),
        ({"planner": "beam"}, "planner: input should be an object"),
        ({"planner": {"width": 3}}, "planner.name: field required"),
        ({"starts": {"seed": 0}}, "starts.env_id: field required"),
        ({"success_rate": 1.0}, "goals.success_ci95: field required"),
        ({"return_mean": None}, "return_mean: input should be a valid number"),
    ],
)
def test_what_is_no_row_is_told(make_row: MakeRow, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        ResultsRow.from_json({**make_row().to_json(), **changes})
    with pytest.raises(DataError, match="is an object, and list was given"):
        ResultsRow.from_json([])  # type: ignore[arg-type]
