"""Episodes and plans kept for analysis: against an environment and a planner whose every number is known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from seqrl.cli import train
from seqrl.evaluation.plan_quality import PlanLog
from seqrl.evaluation.recording import write_plans, write_trajectories
from seqrl.evaluation.rollout import Episodes
from seqrl.formats.npz import read_npz
from seqrl.layout import Layout
from seqrl.sources.arrays import ArraysSource
from seqrl.types import Plan


def episodes() -> Episodes:
    """Three episodes of 4, 0 and 2 steps; observation `10 * episode + t`, action minus that, reward `t / 10`."""
    time, number = np.arange(5), np.arange(3)[:, None]
    observations = np.minimum(10.0 * number + time, 10.0 * number + np.array([[4], [0], [2]]))
    return Episodes(
        observations[..., None].astype(np.float32),
        -observations[:, :4, None],
        np.broadcast_to(time[:4] / 10, (3, 4)).copy(),
        np.array([4, 0, 2]),
        np.array([False, False, True]),
        1.0,
        [1],
    )


def test_trajectories_are_read_as_data(tmp_path: Path) -> None:
    path = write_trajectories(tmp_path, episodes(), "Hopper-v5", seed=3)
    store = ArraysSource(path=str(path)).load()
    assert store.attributes["env_id"] == "Hopper-v5"
    assert store.lengths.tolist() == [4, 2]
    assert store.observations[:, 0].tolist() == [0, 1, 2, 3, 20, 21]
    assert store.actions[:, 0].tolist() == [0, -1, -2, -3, -20, -21]
    assert store.rewards.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0, 0.1])
    assert store.terminated.tolist() == [False, True]
    assert store.truncated.tolist() == [True, False]
    arrays = read_npz(path).arrays
    assert arrays["final_observations"][:, 0].tolist() == [4, 22]
    assert arrays["episode"].tolist() == [0, 0, 0, 0, 2, 2]


def test_plans_keep_what_they_imagined(tmp_path: Path) -> None:
    config = {"fields": {"observation": {}, "action": {}, "reward": {}}, "discount": 0.9}
    layout = Layout.from_config(config, 2, 1)
    log = PlanLog()
    first = torch.arange(2 * 3 * 4, dtype=torch.float32).view(2, 3, 4)
    log(0, np.array([0, 1]), Plan(first[..., 2:3], torch.tensor([5.0, 6.0]), transitions=first))
    log(7, np.array([1]), Plan(first[:1, :2, 2:3], torch.tensor([7.0]), transitions=first[:1, :2] + 100))
    found = np.load(write_plans(tmp_path, log, layout))
    assert found["time"].tolist() == [0, 0, 7]
    assert found["episode"].tolist() == [0, 1, 1]
    assert found["score"].tolist() == [5, 6, 7]
    assert found["horizon"].tolist() == [3, 3, 2]
    assert found["observation"].shape == (3, 3, 2)
    assert found["action"][0, :, 0].tolist() == [2, 6, 10]
    assert found["reward"][2, :2, 0].tolist() == [103, 107]
    assert np.isnan(found["reward"][2, 2])
    assert len(np.load(write_plans(tmp_path, PlanLog(), layout))["time"]) == 0


def test_an_evaluation_keeps_both_where_it_is_asked_to(in_folder_with_data: Path) -> None:
    words = ["data=d4rl", "data.path=hopper-tiny.hdf5", "debug=fast", "training.max_steps=2", "training.loggers=[csv]"]
    rows = [
        "evaluation=none",
        "evaluation.rows.mine={strategy: reward, plan_every: 2, trajectories: true, plans: true}",
    ]
    quiet = ["training.progress_bar=false", "evaluation.settings.progress_bar=false"]
    assert train.run([*words, *rows, *quiet, "evaluation.settings.max_steps=4"]) == 0
    (folder,) = (in_folder_with_data / "runs").glob("run-*/evaluations/mine-*")
    recorded, plans, results = (
        read_npz(folder / f"{name}.npz").arrays for name in ("trajectories", "plans", "episodes")
    )
    ends = recorded["offsets"]
    sums = [recorded["rewards"][a:b].sum() for a, b in itertools.pairwise(ends)]
    assert sums == pytest.approx(results["returns"][:, 0].tolist())
    assert np.diff(ends).tolist() == results["lengths"][:, 0].tolist()
    assert set(plans["time"].tolist()) == {0, 2}
    for time, episode, imagined in zip(plans["time"], plans["episode"], plans["observation"], strict=True):
        seen = recorded["observations"][ends[episode] + time]
        assert np.abs(imagined[0] - seen).max() < 1.0  # the present, as its tokens tell it
