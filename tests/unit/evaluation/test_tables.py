"""Tables of results as text, and which results are read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from seqrl.checkpoints.loaded import Loaded
from seqrl.config import EvaluationConfig
from seqrl.data.summary import DataSummary
from seqrl.errors import ConfigError, DataError
from seqrl.evaluation.baseline import RowDifference
from seqrl.evaluation.evaluate import _far_target, evaluate
from seqrl.evaluation.rows import ResultsRow
from seqrl.evaluation.tables import print_table, write_tables
from seqrl.evaluation.telling_apart import describe_decoding
from seqrl.evaluation.wording import abbreviate

DATASET = DataSummary("tiny", num_transitions=1234, num_episodes=56, behaviour_return_mean=7.25, behaviour_score=12.34)
BEAM = {"name": "beam", "beam_width": 8, "horizon": 5, "n_expand": 2, "cache": "none"}
MakeRow = Callable[..., ResultsRow]


@pytest.fixture
def goal_row(make_row: MakeRow) -> MakeRow:
    """`goal_row(**changes)`: of a beam search toward a goal."""
    return partial(make_row, toward_goals=True, strategy="goal", planner=BEAM, cache="none", plan_every=4)


def table(tmp_path: Path, rows: list[ResultsRow], **changes: Any) -> list[list[str]]:
    """The cells of results.md, header first."""
    write_tables(tmp_path, rows, [], replace(DATASET, **changes))
    lines = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(line) for line in cells} == {len(cells[0])}  # or Markdown shows no table
    return [cells[0], *cells[2:]]


def test_a_row_shows_numbers_with_their_intervals(tmp_path: Path, make_row: MakeRow) -> None:
    header, first, behaviour = table(tmp_path, [make_row()])
    assert dict(zip(header, first, strict=True)) == {
        "strategy": "imitation",
        "planner": "sample T0, cache exact",
        "return": "3.1 [1.0, 5.3]",
        "score": "50.1 [40.0, 60.0]",
        "n": "10",
        "ms/action": "1.23",
    }
    found = dict(zip(header, behaviour, strict=True))
    assert (found["return"], found["score"], found["n"]) == ("7.2", "12.3", "56")


def test_outcomes_have_their_intervals_and_those_of_the_data(tmp_path: Path, make_row: MakeRow) -> None:
    costly = make_row(outcomes={"cost": 12.3456, "energy": 0.5}, outcome_intervals={"cost": [10.0, 14.75]})
    header, first, second, behaviour = table(tmp_path, [costly, make_row()], behaviour_outcomes={"cost": 3.21987})
    names = [header.index(name) for name in ("cost", "energy")]
    assert [first[at] for at in names] == ["12.35 [10, 14.8]", "0.5"]
    assert [second[at] for at in names] == ["-", "-"]
    assert [behaviour[at] for at in names] == ["3.22", ""]
    assert costly.numbers()["cost_ci95_high"] == 14.75
    assert ResultsRow.from_json(costly.to_json()) == costly
    assert "outcome_intervals" not in make_row().to_json()


def test_success_that_environments_tell_has_no_radius(tmp_path: Path, goal_row: MakeRow) -> None:
    told = goal_row(told=True, radius=None)
    write_tables(tmp_path, [told], [], DATASET)
    text = (tmp_path / "results.md").read_text()
    assert "episodes in which the environment told success" in text
    assert "came within" not in text
    write_tables(tmp_path, [told, goal_row()], [], DATASET)
    assert "came within" in (tmp_path / "results.md").read_text()


def test_goals_have_columns_of_their_own(tmp_path: Path, goal_row: MakeRow) -> None:
    header, first, behaviour = table(tmp_path, [goal_row()])
    found = dict(zip(header, first, strict=True))
    assert found["planner"] == "beam W8 H5 E2, every 4, cache none"
    assert found["success %"] == "87.5 [80.0, 95.0]"
    assert found["to 1,3.5"] == "75"
    assert (found["steps"], found["at goal"]) == ("42", "62 %")
    assert behaviour[2:6] == [""] * 4


def test_every_goal_has_its_own_column(tmp_path: Path, goal_row: MakeRow) -> None:
    shares = [
        [{"goal": goal, "starts": 8, "success_rate": rate} for goal, rate in each]
        for each in (
            [([1.0, 1.0], 75.0)],
            [([3.0, 3.0], 33.0), ([5.0, 5.0], 20.0)],
            [],
        )
    ]
    header, *body, _ = table(tmp_path, [goal_row(success_by_goal=each) for each in shares])
    columns = [[line[header.index(f"to {goal}")] for goal in ("1,1", "3,3", "5,5")] for line in body]
    assert columns == [["75", "-", "-"], ["-", "33", "20"], ["-", "-", "-"]]


def test_a_row_that_reached_nothing_shows_dashes(tmp_path: Path, goal_row: MakeRow) -> None:
    lost = goal_row(steps_to_goal_median=None, time_at_goal=None)
    header, first, _ = table(tmp_path, [lost])
    assert [first[header.index(name)] for name in ("steps", "at goal")] == ["-", "-"]


@pytest.mark.parametrize("order", [1, -1])
def test_rows_with_and_without_goals_share_a_table(
    tmp_path: Path, order: int, make_row: MakeRow, goal_row: MakeRow
) -> None:
    rows = [make_row(), goal_row()][::order]
    header, *body, _ = table(tmp_path, rows)
    (plain,) = (line for line in body if line[0] == "imitation")
    assert plain[header.index("success %") : header.index("return")] == ["-"] * 4
    assert plain[header.index("return")] == "3.1 [1.0, 5.3]"


def test_without_a_reference_there_is_no_score_column(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row(score_mean=None, score_ci95=None)]
    assert "score" not in table(tmp_path, rows, behaviour_score=None)[0]
    header, first, second, behaviour = table(tmp_path, [*rows, make_row()], behaviour_score=None)
    assert [line[header.index("score")] for line in (first, second, behaviour)] == ["-", "50.1 [40.0, 60.0]", ""]


def test_the_title_says_what_the_numbers_hold_for(tmp_path: Path, make_row: MakeRow) -> None:
    write_tables(tmp_path, [make_row(score_note="from v2")], [], DATASET)
    title = (tmp_path / "results.md").read_text().splitlines()[0]
    for word in ("tiny (1234 transitions)", "Hopper-v5", "mujoco 3.3.0", "training seed 3", "500 steps"):
        assert word in title
    assert "evaluation seed 0; cpu, float32, threads 2" in title
    assert title.endswith("; scores: from v2")


def test_the_title_names_everything_in_which_rows_differ(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row(), make_row(seed=1, starts={"max_steps": 100}, score_note="from v2"), make_row(env_id="Hopper-v4")]
    write_tables(tmp_path, rows, [], DATASET)
    title = (tmp_path / "results.md").read_text().splitlines()[0]
    assert "Hopper-v5, Hopper-v4, mujoco 3.3.0;" in title
    assert "evaluation seed 0, 1, cut after 100 steps or at their own limit;" in title
    assert title.endswith("; scores: from v2")


def test_a_time_budget_stands_beside_what_it_left_of_the_plans(tmp_path: Path, make_row: MakeRow) -> None:
    planner = {"name": "beam", "beam_width": 8, "horizon": 15, "n_expand": 2, "cache": "window", "time_budget_ms": 50}
    hurried = make_row(planner=planner, cache="window", time_budget_ms=50, horizon_mean=3.248)
    (_, first, _) = table(tmp_path, [hurried])
    assert first[1] == "beam W8 H15 E2, 50 ms (H 3.2 of 15), cache window"
    assert "they depend on the machine" in (tmp_path / "results.md").read_text()
    table(tmp_path, [make_row()])
    assert "machine" not in (tmp_path / "results.md").read_text()


def test_guidance_is_told(tmp_path: Path, goal_row: MakeRow) -> None:
    (_, *lines) = table(tmp_path, [goal_row(condition={"name": "goal", "guidance": 3.0}), goal_row()])
    assert [line[1] for line in lines][:2] == [
        "beam W8 H5 E2, every 4, guidance 3, cache none",
        "beam W8 H5 E2, every 4, cache none",
    ]


def test_a_planner_of_a_plugin_may_have_any_settings(tmp_path: Path, make_row: MakeRow) -> None:
    planner = {"name": "mine", "temperature": None, "horizon": "long", "time_budget_ms": 50}
    (_, first, _) = table(tmp_path, [make_row(planner=planner, cache=None, time_budget_ms=50, horizon_mean=2.0)])
    assert first[1] == "mine Hlong no temperature, 50 ms (H 2.0 of long)"
    planner = {"name": "mine", "time_budget_ms": 50}
    (_, first, _) = table(tmp_path, [make_row(planner=planner, cache=None, time_budget_ms=50, horizon_mean=2.0)])
    assert first[1] == "mine, 50 ms (H 2.0)"


@pytest.mark.parametrize(
    ("setting", "value", "short"),
    [("beam_width", "64", "W64"), ("plan_every", "4", "every 4"), ("time_budget_ms", "20", "20 ms"),
     ("time_budget_ms", "null", "no time_budget_ms"), ("cdf_act", "0.6", "cdf_act 0.6")],
)  # fmt: skip
def test_settings_have_short_names(setting: str, value: str, short: str) -> None:
    assert abbreviate(setting, value) == short


def test_comparisons_are_sentences_in_the_units_of_what_is_compared(tmp_path: Path, make_row: MakeRow) -> None:
    comparisons = [
        RowDifference("goal", "null", "success", 0.25, [-0.05, 0.5]),
        RowDifference("goal", "zero", "returns", -2.0, [-3.0, -1.0]),
        RowDifference("goal", "zero", "outcome_cost", 0.01234, [0.01, 0.015]),
    ]
    paths = write_tables(tmp_path, [make_row()], comparisons, DATASET)
    assert paths == [tmp_path / "results.md", tmp_path / "results.json"]
    text = (tmp_path / "results.md").read_text()
    assert "- goal - null: +25.0 points of success, 95 % interval over paired starts [-5.0, +50.0]" in text
    assert "- goal - zero: -2.0 of return, 95 % interval over paired starts [-3.0, -1.0]" in text
    assert "- goal - zero: +0.0123 of cost, 95 % interval over paired starts [+0.01, +0.015]" in text
    content = json.loads((tmp_path / "results.json").read_text())
    assert content == {
        "dataset": asdict(DATASET),
        "rows": [make_row().to_json()],
        "comparisons": [asdict(each) for each in comparisons],
    }


def test_the_terminal_shows_what_the_file_shows(capsys: pytest.CaptureFixture[str], goal_row: MakeRow) -> None:
    comparisons = [RowDifference("a[b]", "null", "success", 0.25, [-0.05, 0.5])]
    unknown = goal_row(strategy="beam[wide]", success_rate=float("nan"), success_ci95=None)
    print_table([goal_row(), unknown], comparisons, DATASET)
    shown = capsys.readouterr().out
    for text in ("87.5 [80.0, 95.0]", "beam W8 H5 E2, every 4", "behaviour of the data", "tiny (1234 transitions)"):
        assert text in shown
    # Square brackets are text here, not markup.
    for text in ("beam[wide]", "nan ", "a[b] - null: +25.0 points"):
        assert text in shown


def test_only_the_same_evaluation_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("what another checkpoint did")
    loaded = Loaded(None, {"dataset": {"name": "tiny", "env_id": None}}, {}, 0)  # type: ignore[arg-type]
    config = EvaluationConfig({"name": "sample"}, {"name": "none"}, {"name": "likelihood"}, output=str(tmp_path))
    with pytest.raises(ConfigError, match="the data 'tiny' names no environment; set env_id="):
        evaluate(config, loaded, tmp_path)  # it is run, or would be
    with pytest.raises(DataError, match=r"results\.json' is no readable evaluation \(.*\); remove its folder"):
        evaluate(replace(config, output=None), loaded, tmp_path)  # it is read


@pytest.mark.parametrize(
    ("target", "best", "said"),
    [(3600, 3560, False), (12000, 5600, True), (5700, 5600, False), (None, 5600, False), (12000, None, False)],
)
def test_a_desired_return_far_above_the_data_is_told(target: float | None, best: float | None, said: bool) -> None:
    note = _far_target(
        target,
        replace(DATASET, behaviour_return_mean=1500.0 if best == 3560 else 5400.0, behaviour_return_max=best),
    )
    assert (note is not None) == said
    if note is not None:
        assert "condition.target=12000" in note
        assert "best episode earned 5600 and whose mean 5400" in note


@pytest.mark.parametrize(
    ("first", "second", "cells"),
    [
        ({}, {}, ["beam W8 H5 E2, cache none"] * 2),
        ({"score": {"name": "reward"}}, {"score": {"name": "critic", "use": "q"}}, ["score reward", "score critic"]),
        ({"score": {"name": "critic", "use": "q"}}, {"score": {"name": "critic", "use": "v"}}, ["use q", "use v"]),
        ({"planner": {**BEAM, "context": 5}}, {"planner": {**BEAM, "context": None}}, ["context 5", "no context"]),
        ({"planner": {**BEAM, "shots": 3, "greedy": True}}, {"planner": {**BEAM, "shots": 4, "greedy": False}}, None),
        ({"condition": {"name": "none"}}, {"condition": {"name": "goal"}}, ["condition none", "condition goal"]),
        ({"precision": "float32"}, {"precision": "bfloat16"}, ["float32", "bfloat16"]),
        (
            {"score": {"name": "sum", "terms": {"near": {"name": "a", "at": [[1, 2.5]]}, "far": {"name": "b"}}}},
            {"score": {"name": "sum", "terms": {"near": {"name": "a", "at": []}, "far": {"name": "b"}}}},
            ["none, score a + b, terms.near.at [[1,2.5]]", "none, score a + b, terms.near.at []"],
        ),
        (
            {"condition": {"name": "far", "target": 1}},
            {"condition": {"name": "far", "target": 2}},
            ["target 1", "target 2"],
        ),
    ],
)
def test_rows_show_what_tells_them_apart(
    make_row: MakeRow, first: dict[str, Any], second: dict[str, Any], cells: list[str] | None
) -> None:
    rows = [make_row(**{"planner": BEAM, "cache": "none", **own}) for own in (first, second)]
    found = describe_decoding(rows)
    if cells is None:
        cells = ["shots 3, greedy true", "shots 4, greedy false"]
    for cell, words in zip(found, cells, strict=True):
        assert cell.endswith(words)
    assert (found[0] == found[1]) == (first == second)
    (alone,) = describe_decoding(rows[:1])  # there is nothing to tell apart
    assert alone == "beam W8 H5 E2, cache none" + (", score a + b" if "terms" in first.get("score", {}) else "")


def sum_of(**terms: Any) -> dict[str, Any]:
    return {"name": "sum", "terms": terms}


@pytest.mark.parametrize(
    ("score", "names", "spelled"),
    [
        ({"name": "reward"}, None, None),
        (sum_of(), None, None),
        (sum_of(likely={"name": "likelihood"}), "likelihood", "likelihood"),
        (
            sum_of(a={"name": "target", "dim": 2, "value": 0.5}, b={"name": "likelihood", "weight": 0.2}, c=None),
            "target + 0.2 likelihood",
            "target (dim 2, value 0.5) + 0.2 likelihood",
        ),
        (
            sum_of(**{str(dim): {"name": "target", "dim": dim} for dim in range(3)}, b={"name": "limit", "weight": -1}),
            "target x3 + -1 limit",
            "target (dim 0) + target (dim 1) + target (dim 2) + -1 limit",
        ),
    ],
)
def test_the_terms_of_a_score_are_told(
    tmp_path: Path, make_row: MakeRow, score: dict[str, Any], names: str | None, spelled: str | None
) -> None:
    _, first, _ = table(tmp_path, [make_row(score=score)])
    assert first[1] == "sample T0, cache exact" + (f", score {names}" if names else "")
    text = (tmp_path / "results.md").read_text()
    assert (f"- score of imitation: {spelled}" in text) == (spelled is not None)
    assert ("score of" in text) == (spelled is not None)


def test_rows_of_one_score_share_a_line(tmp_path: Path, make_row: MakeRow) -> None:
    scores = [sum_of(a={"name": "target", "value": value}) for value in (1, 2, 1)]
    table(tmp_path, [make_row(strategy=str(place), score=score) for place, score in enumerate(scores)])
    lines = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("- score")]
    assert lines == ["- score of 0, 2: target (value 1)", "- score of 1: target (value 2)"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shuffle_goals": True}, ["shuffle_goals false", "shuffle_goals true"]),
        ({"starts": {"max_steps": 100}}, ["no max_steps", "max_steps 100"]),
        ({"seed": 1}, ["seed 0", "seed 1"]),
        ({"env_id": "Hopper-v4"}, ["env_id Hopper-v5", "env_id Hopper-v4"]),
    ],
)
def test_rows_that_were_decoded_alike_show_in_what_they_differ(
    tmp_path: Path, make_row: MakeRow, changes: dict[str, Any], words: list[str]
) -> None:
    _, *body, _ = table(tmp_path, [make_row(), make_row(strategy="other", **changes)])
    assert [line[1] for line in body] == [f"sample T0, cache exact, {each}" for each in words]


@pytest.mark.parametrize("changes", [{"starts": {"max_steps": 100}}, {"end_at_goal": True}])
def test_the_behaviour_is_marked_where_rows_are_cut(tmp_path: Path, make_row: MakeRow, changes: dict[str, Any]) -> None:
    for row, mark in ((make_row(), ""), (make_row(**changes), ", whole episodes")):
        assert table(tmp_path, [row])[-1][0] == f"behaviour of the data{mark}"
        assert ("are whole" in (tmp_path / "results.md").read_text()) == bool(mark)


@pytest.mark.parametrize(("told", "shown"), [(None, "56"), (12, "12")])
def test_the_behaviour_counts_the_episodes_that_its_mean_is_of(
    tmp_path: Path, make_row: MakeRow, told: int | None, shown: str
) -> None:
    header, *_, behaviour = table(tmp_path, [make_row()], behaviour_episodes=told)
    assert behaviour[header.index("n")] == shown


def test_a_label_may_hold_what_divides_cells(tmp_path: Path, make_row: MakeRow) -> None:
    write_tables(tmp_path, [make_row(strategy="a | b")], [], DATASET)
    assert "| a \\| b |" in (tmp_path / "results.md").read_text()


def test_the_behaviour_has_the_outcomes_of_its_rows(tmp_path: Path, make_row: MakeRow) -> None:
    told = {"cost": 2.5, "goal_reached": 0.75, "unasked": 3.0}
    rows = [make_row(outcomes={"cost": 12.0, "goal_reached": 1.0, "new": 1.0})]
    header, first, behaviour = table(tmp_path, rows, behaviour_outcomes=told)
    place = header.index("cost")
    assert header[place : place + 3] == ["cost", "goal_reached", "new"]
    assert first[place : place + 3] == ["12", "1", "1"]
    assert behaviour[place : place + 3] == ["2.5", "0.75", ""]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a+a+a+a+a", "a x5"), ("a+b+a", "a x2 + b"), ("a+b", "a+b"), ("hopper-medium-v2", "hopper-medium-v2")],
)
def test_repeated_data_are_counted(tmp_path: Path, make_row: MakeRow, name: str, shown: str) -> None:
    table(tmp_path, [make_row()], name=name)
    assert (tmp_path / "results.md").read_text().startswith(f"{shown} (1234 transitions)")


def test_titles_name_mujoco_where_it_simulates(tmp_path: Path, make_row: MakeRow) -> None:
    without = {"seqrl": "1.0", "torch": "2.6.0", "gymnasium": "1.1.0"}
    for rows, told in (
        ([make_row()], True),
        ([make_row(versions=without)], False),
        ([make_row(env_id="seqrl/FourRooms-v0")], False),  # rows of before named it always
        ([make_row(versions=without), make_row()], True),
    ):
        table(tmp_path, rows)
        assert ("mujoco" in (tmp_path / "results.md").read_text()) == told
