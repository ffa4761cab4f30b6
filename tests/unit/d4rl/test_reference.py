"""Normalised scores against numbers worked out by hand and published ones."""

from __future__ import annotations

import numpy as np
import pytest

from seqrl.d4rl import catalogue
from seqrl.d4rl.reference import FAMILIES, normalised_score, reference, reference_note
from seqrl.data.summary import DataSummary


@pytest.mark.parametrize(
    ("env_id", "minimum", "maximum"),
    [
        ("Hopper-v4", -20.272305, 3234.3),
        ("HalfCheetah-v4", -280.178953, 12135.0),
        ("Walker2d-v4", 1.629008, 4592.3),
        ("Ant-v4", -325.6, 3879.7),
        ("seqrl/Maze2d-Umaze-v1", 23.85, 161.86),
        ("seqrl/Maze2d-Medium-v1", 13.13, 277.39),
        ("seqrl/Maze2d-Large-v1", 6.7, 273.99),
        ("AdroitHandDoor-v1", -56.512833, 2880.5693087298737),
        ("AdroitHandPen-v1", 96.262799, 3076.8331017826877),
        ("seqrl/D4rlAnt-v2", -325.6, 3879.7),
        ("d4rl/maze2d-open-v0", 0.01, 20.66),
        ("d4rl/antmaze-large-play-v2", 0.0, 1.0),
        ("AntMaze_UMaze-v4", 0.0, 1.0),
        ("PointMaze_UMaze-v3@observation+desired_goal", 23.85, 161.86),
        ("PointMaze_LargeDense-v3@observation", 30.569041, 303.4857382709002),
        ("FrankaKitchen-v1@observation", 0.0, 4.0),
        ("minari:D4RL/kitchen/partial-v2@observation+desired_goal.microwave", 0.0, 4.0),
        ("minari:D4RL/hammer/cloned-v2", -274.856578, 12794.134825156867),
        ("minari:mujoco/hopper/simple-v0", -20.272305, 3234.3),
    ],
)
def test_the_references_stand_at_0_and_100(env_id: str, minimum: float, maximum: float) -> None:
    assert normalised_score(env_id, minimum) == pytest.approx(0.0, abs=1e-12)
    assert normalised_score(env_id, maximum) == pytest.approx(100.0, rel=1e-12)


def test_scores_are_percent_and_go_beyond_both_ends() -> None:
    score = normalised_score("Hopper-v4", np.array([1542.3, 3443.7, -100.0]))
    assert score is not None
    np.testing.assert_allclose(score[:2], [48.0, 106.4], atol=0.05)
    assert score[2] < 0


def test_unknown_environments_have_no_score() -> None:
    assert normalised_score("CartPole-v1", 200.0) is None
    assert reference("NotHopper-v4") is None
    assert reference("Hopper-v4-extra") is None
    assert reference("d4rl/hopper-v9") is None
    assert reference("minari:mujoco/swimmer/expert-v0") is None
    assert reference("minari:mine/hopper/expert-v0") is None


@pytest.mark.parametrize(
    "env_id",
    ["Hopper-v2", "Hopper-v4", "Walker2d-v4", "HalfCheetah-v5", "seqrl/Maze2d-Large-v1", "d4rl/antmaze-umaze-v2"],
)
def test_matching_versions_carry_no_note(env_id: str) -> None:
    found = reference(env_id)
    assert found is not None
    assert (found.env_id, found.note) == (env_id, "")
    assert "D4RL" in found.source


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v5", "Ant-v4", "AdroitHandDoor-v1", "AntMaze_Large-v5"])
def test_other_versions_say_how_they_differ(env_id: str) -> None:
    found = reference(env_id)
    assert found is not None
    assert env_id in found.note
    assert ":" in found.note


def test_the_environment_of_every_data_set_has_its_references() -> None:
    """The table of environments and the catalogue must not disagree, whichever of them is edited."""
    for entry in catalogue.entries():
        if entry.env_id is not None:
            found = reference(entry.env_id)
            assert found is not None, entry.id
            assert (found.minimum, found.maximum) == (entry.reference_min, entry.reference_max), entry.id
    for family in FAMILIES:
        catalogue.find(family.entry)


@pytest.mark.parametrize(
    ("minari_id", "d4rl_id"),
    [
        ("D4RL/door/human-v2", "door-human-v1"),
        ("D4RL/pen/cloned-v2", "pen-cloned-v1"),
        ("D4RL/pointmaze/umaze-v2", "maze2d-umaze-v1"),
        ("D4RL/pointmaze/large-dense-v2", "maze2d-large-dense-v1"),
        ("D4RL/antmaze/medium-play-v1", "antmaze-medium-play-v2"),
        ("D4RL/kitchen/mixed-v2", "kitchen-mixed-v0"),
        ("mujoco/walker2d/expert-v0", "walker2d-expert-v2"),
        ("mujoco/halfcheetah/simple-v0", "halfcheetah-medium-v2"),
        ("mujoco/humanoid/expert-v0", None),
        ("atari/breakout/expert-v0", None),
        ("hopper-medium-v2", None),
    ],
)
def test_minari_names_stand_for_names_of_d4rl(minari_id: str, d4rl_id: str | None) -> None:
    """And a score that is measured by those references says that neither data nor environment are D4RL's."""
    found = catalogue.find_minari(minari_id)
    assert (None if found is None else found.id) == d4rl_id
    if d4rl_id is not None:
        env_id = f"minari:{minari_id}"
        known = reference(env_id)
        assert known is not None
        assert d4rl_id in known.note
        note = reference_note(env_id, DataSummary("x", minari_id=minari_id))
        assert f"the training data is Minari's {minari_id}, another recording than D4RL's {d4rl_id}" in note


def test_scores_are_labelled_by_environment_and_by_data() -> None:
    assert reference_note("Hopper-v4", DataSummary("x", d4rl_id="hopper-medium-v2")) == ""
    assert reference_note("CartPole-v1", DataSummary("x")) == ""  # no score, so nothing to label
    assert "Hopper-v5" in reference_note("Hopper-v5", DataSummary("x", d4rl_id="hopper-medium-v2"))
    assert "hopper-medium-v2" in reference_note("Hopper-v4", DataSummary("x", d4rl_id="hopper-medium-v0"))
    assert reference_note("Hopper-v4", DataSummary("x")) == "the training data is not D4RL's"
    both = reference_note("Walker2d-v5", DataSummary("x"))
    assert "friction" in both
    assert both.endswith("not D4RL's")
