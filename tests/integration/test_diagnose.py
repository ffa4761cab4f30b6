"""`seqrl diagnose` as a user types it: on a maze with a critic, and on a set of Hopper's sizes without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqrl.cli import diagnose, train

FAST = [
    "debug=fast",
    "training.progress_bar=false",
    "training.loggers=[csv]",
    "evaluation=none",
    "training.max_steps=3",
]
SHORT = ["--episodes", "2", "--max-steps", "2", "--horizon", "2", "--beam-width", "2", "--value-transitions", "2"]


def run_of(tmp_path: Path, *words: str) -> Path:
    assert train.run([*words, *FAST]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    return run


@pytest.mark.slow
def test_a_maze_is_diagnosed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_of(tmp_path, "critic=iql", "critic_training.max_steps=3", "layout.termination_penalty=null")
    capsys.readouterr()
    assert diagnose.run([str(run), *SHORT, "--start-cell", "3,1"]) == 0
    found = json.loads((run / "diagnosis.json").read_text())
    assert capsys.readouterr().out.splitlines()[-1] == found["verdict"]["sentence"]
    assert len(found["rungs"]) == 12
    assert [each["name"] for each in found["beside"]] == ["greedy imitation", "critic's policy", "own search"]
    assert all(len(each["returns"]) == 2 == len(each["success"]) for each in found["rungs"])
    assert found["learnt_value"] == "V of the critic"
    assert found["env_id"] == "seqrl/Maze2d-Umaze-v1"
    ranking = found["ranking"]
    assert (ranking["states"], ranking["candidates"]) == (4, 4)  # two steps of two episodes
    assert -1 <= ranking["correlation"] <= 1
    assert ranking["kept"] <= ranking["best"] + 1e-9
    assert diagnose.run([str(run), *SHORT, "--search", "rollouts", "--outside-cost", "10"]) == 2
    assert "--outside-cost 10 is of rollouts of a critic's policy" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_rollouts_near_the_policy_are_diagnosed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    chunk = [
        "layout=tt_difference",
        "tokenizer=uniform",
        "layout.stride=2",
        "layout.chunk=2",
        "layout.termination_penalty=null",
    ]
    run = run_of(tmp_path, "critic=iql", "critic_training.max_steps=3", *chunk)
    words = ["--search", "rollouts", "--actor-noise", "0.3", "--plan-every", "4", "--outside-cost", "10", "--short"]
    assert diagnose.run([str(run), *SHORT, *words, "--start-cell", "3,1"]) == 0
    found = json.loads((run / "diagnosis.json").read_text())
    assert (found["settings"]["actor_noise"], found["settings"]["plan_every"]) == (0.3, 4)
    assert found["settings"]["outside_cost"] == 10.0
    assert f"Of {found['errors']['transitions']} first transitions" in " ".join(capsys.readouterr().out.split())
    assert 0 < found["errors"]["median"] <= found["errors"]["percentile_99"] <= found["errors"]["largest"]
    assert len(found["rungs"]) == 9
    assert diagnose.run([str(run), *SHORT, "--plan-every", "5"]) == 2
    assert "plan_every=5 is outside [1, 4]" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_locomotion_set_is_diagnosed(in_folder_with_data: Path) -> None:
    run = run_of(in_folder_with_data, "data=d4rl", "data.path=hopper-tiny.hdf5")
    assert diagnose.run([str(run), *SHORT, "--short", "--output", "found/it.json"]) == 0
    found = json.loads(Path("found/it.json").read_text())
    assert len(found["rungs"]) == 9
    assert found["rungs"][0]["success"] is None
    assert "greedy imitation" in found["true_value"]
    assert not (run / "diagnosis.json").exists()
    assert diagnose.run([str(run), *SHORT, "--actor-noise", "0.3"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no checkpoint at 'nowhere'"),
        (["nowhere", "--episodes", "0"], "--episodes 0 is too small"),
        (["nowhere", "--value-transitions", "-3"], "--value-transitions -3 is too small"),
        (["nowhere", "--tail-mass", "1"], "outside [0, 1)"),
        (["nowhere", "--plan-every", "0"], "--plan-every 0 is too small"),
        (["nowhere", "--actor-noise", "-0.5"], "--actor-noise -0.5 is below 0"),
        (["nowhere", "--outside-cost", "-1", "--search", "rollouts"], "--outside-cost -1 is no cost"),
        (["nowhere", "--outside-cost", "10"], "--outside-cost 10 counts in rollouts alone"),
        (["nowhere", "--seed", "-1"], "--seed -1 is no seed"),
        (["nowhere", "--start-cell", "3"], "is no cell; give a row and a column"),
        (["nowhere", "--start-cell", "3,x"], "is no cell; give a row and a column"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert diagnose.run(words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
