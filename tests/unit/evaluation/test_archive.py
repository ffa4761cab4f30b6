"""Evaluations on disk: read back whole, and what is damaged is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrl.config import EvaluationConfig
from seqrl.errors import ConfigError, DataError
from seqrl.evaluation.archive import (
    Evaluation,
    ImaginedPath,
    forget_evaluation,
    is_finished,
    list_evaluations,
    place_evaluation,
    read_evaluation,
    read_plan_quality,
    read_row,
    write_evaluation,
    write_plan_quality,
)
from seqrl.evaluation.plan_results import Agreement, Calibration, PlanQuality, StepErrors
from seqrl.evaluation.rows import ResultsRow


@pytest.fixture
def evaluation(tmp_path: Path, make_row: Callable[..., ResultsRow]) -> Evaluation:
    folder = tmp_path / "evaluations" / "goal-1"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    results = {"returns": rng.normal(size=(3, 1)), "counted": np.ones((3, 1), bool)}
    plans = [ImaginedPath(t, np.arange(3 - t), rng.normal(size=(3 - t, 2, 4)).astype(np.float32)) for t in range(2)]
    return Evaluation(folder, make_row(toward_goals=True), results, plans)


def test_what_was_written_is_read_back(evaluation: Evaluation, tmp_path: Path) -> None:
    assert not is_finished(evaluation.folder)
    assert list_evaluations(tmp_path) == []
    write_evaluation(evaluation)
    assert is_finished(evaluation.folder)
    assert list_evaluations(tmp_path) == [evaluation.folder]
    again = read_evaluation(evaluation.folder)
    assert (again.folder, again.row) == (evaluation.folder, evaluation.row)
    assert read_row(evaluation.folder) == evaluation.row
    assert set(again.results) == set(evaluation.results)
    for name, array in evaluation.results.items():
        np.testing.assert_array_equal(again.results[name], array, strict=True)
    for ours, theirs in zip(again.plans, evaluation.plans, strict=True):
        assert ours.time == theirs.time
        np.testing.assert_array_equal(ours.environments, theirs.environments)
        np.testing.assert_array_equal(ours.observations, theirs.observations)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", b"[{"),
        ("results.json", b"[]"),
        ("results.json", b"\xff"),
        ("results.json", b'[{"strategy": "goal"}]'),
        ("episodes.npz", b""),
        ("episodes.npz", b"PK\x03\x04 and no more"),
        ("episodes.npz", b"no archive"),
        ("episodes.npz", None),
        ("results.json", None),
    ],
)
def test_a_damaged_file_is_named(evaluation: Evaluation, name: str, content: bytes | None) -> None:
    write_evaluation(evaluation)
    file = evaluation.folder / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}' is no readable evaluation .*remove its folder and evaluate again"):
        read_evaluation(evaluation.folder)


def test_a_cut_archive_is_named(evaluation: Evaluation) -> None:
    write_evaluation(evaluation)
    file = evaluation.folder / "episodes.npz"
    whole = file.read_bytes()
    for size in range(0, len(whole), 97):
        file.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"episodes\.npz' is no readable"):
            read_evaluation(evaluation.folder)
    file.write_bytes(whole[:60] + bytes(len(whole) - 260) + whole[-200:])
    with pytest.raises(DataError, match=r"episodes\.npz' is no readable"):
        read_evaluation(evaluation.folder)


def test_plan_quality_says_whose_it_is(evaluation: Evaluation) -> None:
    assert read_plan_quality(evaluation.folder) is None
    agreement = Agreement(2, 1.5, 1.0, 0.5, [0.25, 0.75], None, [[1.0, 0.5], [2.0, 1.5]])
    errors = [StepErrors(1, 4, 0.5, None, 0.25, None), StepErrors(2, 3, 0.75, 0.125, 0.5, 1.0)]
    quality = PlanQuality(3, 0.99, None, "data", Calibration(agreement, None), {"evaluation": errors, "open_loop": []})
    write_plan_quality(evaluation, quality)
    assert read_plan_quality(evaluation.folder) == quality
    written = json.loads((evaluation.folder / "diagnostics.json").read_text())
    about = {"strategy": "imitation", "dataset": "tiny", "env_id": "Hopper-v5", "plan_every": 1, "num_episodes": 10}
    assert about.items() <= written.items()
    for damaged in ("{", "[]", "3", json.dumps({**written, "calibration": {"horizon": 3}}), json.dumps(about)):
        (evaluation.folder / "diagnostics.json").write_text(damaged)
        with pytest.raises(DataError, match=r"diagnostics\.json' is no readable"):
            read_plan_quality(evaluation.folder)


def test_a_folder_is_named_after_settings_and_checkpoint() -> None:
    config = EvaluationConfig(
        {"name": "sample"}, {"name": "goal"}, {"name": "likelihood"}, strategy_name="goal", shuffle_goals=True
    )
    place = place_evaluation(config, "0f", Path("run"))
    assert place.parent == Path("run/evaluations")
    assert place.name.startswith("goal_shuffled_goals-")
    assert place_evaluation(replace(config, checkpoint="b", progress_bar=False), "0f", Path("run")) == place
    others = [replace(config, seed=1), replace(config, diagnostics=True), replace(config, label="mine")]
    names = {place_evaluation(each, "0f", Path("run")) for each in others}
    assert len(names | {place, place_evaluation(config, "1f", Path("run"))}) == 5
    assert place_evaluation(replace(config, output="here"), "0f", Path("run")) == Path("here")


def test_names_of_folders_hold() -> None:
    """The hash is of the settings as they were composed before they had types."""
    composed: dict[str, Any] = {
        "env_id": None,
        "num_episodes": 2,
        "max_steps": 15,
        "seed": 0,
        "plan_every": 1,
        "device": "auto",
        "precision": "float32",
        "video": False,
        "goals": [[1, 1], [3, 1.5]],
        "start_cells": None,
        "min_cells": 2,
        "shuffle_goals": False,
        "strategy_name": "goal",
        "label": "goal",
        "plugins": [],
        "planner": {"name": "sample", "temperature": 0.5},
        "condition": {"name": "goal", "guidance": 2},
        "score": {"name": "likelihood"},
    }
    digest = sha256(json.dumps([composed, "0f", 3], sort_keys=True).encode()).hexdigest()[:8]
    config = EvaluationConfig.from_dict({**composed, "output": None, "checkpoint": "none", "diagnostics": False})
    assert place_evaluation(config, "0f", Path("run")).name == f"goal-{digest}"


class Killed:
    """Results that end the process while they are written."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise KeyboardInterrupt


def test_a_kill_leaves_no_row_with_the_episodes_of_another(evaluation: Evaluation) -> None:
    """A folder that the user chose is written anew: its row goes before anything else is written."""
    write_evaluation(evaluation)
    (evaluation.folder / "diagnostics.json").write_text("{}")
    forget_evaluation(evaluation.folder)
    assert not is_finished(evaluation.folder)
    assert not (evaluation.folder / "diagnostics.json").exists()
    write_evaluation(evaluation)
    results: dict[str, Any] = {**evaluation.results, "returns": Killed()}
    with pytest.raises(KeyboardInterrupt):
        write_evaluation(replace(evaluation, results=results))
    assert not is_finished(evaluation.folder)


@pytest.mark.parametrize(("output", "refused"), [("run", True), ("run/evaluations", True), ("run/mine", False)])
def test_no_evaluation_is_written_over_a_run(tmp_path: Path, output: str, refused: bool) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 0")
    parts = {"planner": {"name": "sample"}, "condition": {"name": "none"}, "score": {"name": "likelihood"}}
    config = EvaluationConfig.from_dict({**parts, "output": str(tmp_path / output)})
    with pytest.raises(ConfigError, match="is a folder of a run") if refused else nullcontext():
        assert place_evaluation(config, "0f", tmp_path / "run") == tmp_path / output
