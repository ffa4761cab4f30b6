"""The stage `critic`: which transitions it sees, resumed equals uninterrupted, and its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.checkpoints.loading import critic_file, load, load_critic
from seqrl.cli.application import plain
from seqrl.config import RunConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import CheckpointError, ConfigError, DivergedError, Stopped
from seqrl.evaluation.unfinished import tell_unfinished
from seqrl.layout import Layout
from seqrl.paths import config_dir
from seqrl.runs.folder import RunFolder
from seqrl.sources.maze2d import Maze2dSource
from seqrl.training import run
from seqrl.training.critic_module import TransitionDataModule, TransitionRows


def train(config: dict[str, Any], folder: RunFolder) -> Path:
    return run.train(RunConfig.from_dict(config), folder)


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated",
    "ignore:.*does not have many workers",
    "ignore:The `srun` command is available",
    "ignore:Total length of `list` across ranks is zero",
)


@pytest.mark.parametrize(("stride", "n_step"), [(1, 1), (2, 1), (4, 1), (1, 2), (1, 3), (2, 2)])
def test_transitions_end_at_true_ends_and_not_at_time_limits(
    tiny_store: EpisodeStore, stride: int, n_step: int
) -> None:
    layout = Layout.from_config({"fields": {"observation": {}, "action": {}}, "discount": 0.5, "stride": stride}, 3, 2)
    rows, stride = TransitionRows(tiny_store, layout, np.arange(5), n_step), stride * n_step
    expected = []
    for start, stop, ends in zip(tiny_store.offsets, tiny_store.offsets[1:], tiny_store.terminated, strict=False):
        for row in range(start, stop):
            if row + stride >= stop and not ends:
                continue  # the state that follows was not recorded
            reward = sum(0.5**k * tiny_store.rewards[row + k] for k in range(min(stride, stop - row)))
            expected.append((row, reward, None if row + stride >= stop else row + stride))
    assert len(rows) == len(expected)
    found = rows.take(np.arange(len(rows)))
    assert found.observations[:, 0].tolist() == [row for row, _, _ in expected], "the first dimension counts the rows"
    assert found.rewards.tolist() == pytest.approx([reward for _, reward, _ in expected])
    assert found.terminated.tolist() == [following is None for _, _, following in expected]
    following = [row for _, _, row in expected if row is not None]
    assert found.next_observations[~found.terminated][:, 0].tolist() == following
    assert np.array_equal(found.actions, tiny_store.actions[[row for row, _, _ in expected]])


def test_two_ranks_see_the_batch_of_one(tiny_store: EpisodeStore, tiny_layout: Layout) -> None:
    data = TransitionDataModule(tiny_store, tiny_layout, batch_size=6, validation_fraction=0.0, seed=1)
    loader = data.train_dataloader()
    one = loader.cut(5, 0, 1)
    for rank in (0, 1):
        part = loader.cut(5, rank, 2)
        assert torch.equal(part.observations, one.observations[rank::2])
        assert torch.equal(part.rewards, one.rewards[rank::2])


def test_held_out_episodes_are_those_of_the_model(tiny_store: EpisodeStore, tiny_layout: Layout) -> None:
    data = TransitionDataModule(tiny_store, tiny_layout, batch_size=4, validation_fraction=0.4, seed=1)
    train_rows = set(data.train_transitions.take(np.arange(len(data.train_transitions))).observations[:, 0].tolist())
    held_out = data.validation_transitions.take(np.arange(len(data.validation_transitions))).observations[:, 0]
    assert len(held_out)
    assert not train_rows & set(held_out.tolist())
    observations, actions = data.statistics()
    assert set(observations[:, 0].tolist()) >= train_rows
    assert not set(observations[:, 0].tolist()) & set(held_out.tolist())
    assert actions.shape == (len(observations), 2)


def test_data_without_a_whole_transition_are_refused(tiny_layout: Layout) -> None:
    episodes = [{"observations": np.zeros((1, 3)), "actions": np.zeros((1, 2)), "rewards": np.zeros(1), "terminated": False}]  # fmt: skip  # noqa: E501
    with pytest.raises(ConfigError, match="no episode holds a transition with its next observation"):
        TransitionDataModule(EpisodeStore.from_episodes(episodes), tiny_layout)


@pytest.fixture
def config(tmp_path: Path, tiny_store: EpisodeStore) -> dict[str, Any]:
    """A resolved run of 3 steps of a model and 12 of a critic."""
    import hydra

    tiny_store.save(tmp_path / "episodes")
    words = ["debug=fast", "data=store", f"data.path={tmp_path / 'episodes'}",
             "critic=iql", "critic.dim=16", "layout.termination_penalty=null", "training.max_steps=3",
             "critic_training.max_steps=12", "critic_training.batch_size=4", "training.checkpoint_every=5",
             "training.validate_every=4", "training.progress_bar=false", "window.length=3", "backbone.dim=8",
             "training.log_every=1", "training.loggers=[csv]"]  # fmt: skip
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return plain(hydra.compose("train", words))


def test_a_resumed_critic_equals_an_uninterrupted_one_bit_for_bit(
    config: dict[str, Any], tmp_path: Path, interrupted_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    train(config, RunFolder(tmp_path / "whole"))

    with interrupted_at(7), pytest.raises(Stopped):
        train(config, RunFolder(tmp_path / "parts"))
    status = json.loads((tmp_path / "parts" / "status.json").read_text())
    assert (status["model"]["state"], status["critic"]["state"]) == ("done", "interrupted")
    train(config, RunFolder(tmp_path / "parts"))

    whole, parts = load_critic(tmp_path / "whole"), load_critic(tmp_path / "parts")
    assert whole is not None
    assert parts is not None
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))
    rows = [(tmp_path / run / "metrics.csv").read_text().splitlines() for run in ("whole", "parts")]
    losses = [[row for row in each if ",critic/train/q_loss," in row] for each in rows]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12


def test_an_evaluation_is_told_of_a_critic_that_is_half_trained(
    config: dict[str, Any],
    tmp_path: Path,
    interrupted_at: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with interrupted_at(7), pytest.raises(Stopped):
        train(config, RunFolder(tmp_path))
    for told in ("critic/last.ckpt is of step 7 of 12: these are results of a critic in the midst of training", ""):
        capsys.readouterr()
        last = tmp_path / "model" / "last.ckpt"
        tell_unfinished(load(last), last, critic_file(last))
        out = " ".join(capsys.readouterr().out.split())
        assert out.endswith(told)
        assert ("midst" in out) == bool(told)
        train(config, RunFolder(tmp_path))


def test_the_critic_is_found_beside_its_model_and_holds_plain_values(config: dict[str, Any], tmp_path: Path) -> None:
    last = train(config, RunFolder(tmp_path / "run"))
    for path in (tmp_path / "run", last, tmp_path / "run" / "critic" / "last.ckpt"):
        assert critic_file(path) == tmp_path / "run" / "critic" / "last.ckpt"
    content = torch.load(tmp_path / "run" / "critic" / "last.ckpt", weights_only=True)
    assert content["seqrl"]["origins"] == {}
    critic = load_critic(last)
    assert critic is not None
    policy = Policy(load(last).model, planner={"name": "actor"}, critic=critic)
    policy.reset(2)
    observations = np.random.default_rng(0).normal(size=(2, 3))
    with torch.no_grad():
        expected = critic.act(torch.from_numpy(observations))
    assert np.allclose(policy.act(observations), expected), "looked at without rounding to bins"


def test_a_run_without_a_critic_has_none(config: dict[str, Any], tmp_path: Path) -> None:
    last = train({**config, "critic": None}, RunFolder(tmp_path / "run"))
    assert load_critic(last) is None
    assert not (tmp_path / "run" / "critic").exists()
    (tmp_path / "run" / "critic").mkdir()
    (tmp_path / "run" / "critic" / "last.ckpt").write_bytes(last.read_bytes())
    with pytest.raises(CheckpointError, match="is of the stage 'model'"):
        load_critic(last)


def test_bad_settings_are_refused_before_the_model_is_trained(config: dict[str, Any], tmp_path: Path) -> None:
    bad = {**config, "critic": {**config["critic"], "expectile": 2.0}}
    with pytest.raises(ConfigError, match=r"critic.expectile=2.0 is too large"):
        train(bad, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run" / "model").exists()


def test_no_episode_visits_both_regions(tmp_path: Path) -> None:
    """And no row is lost: the same recording, cut at other places, with what lies between seen from both sides."""
    options: dict[str, Any] = {"num_transitions": 20_000, "cache_dir": str(tmp_path)}
    recording = Maze2dSource(**options).load()
    cells = [tuple(cell) for cell in np.rint(recording.observations[:, :2] + 0.2).astype(int).tolist()]
    touching = [[(3, 1), (3, 2), (3, 3)], [(2, 3), (1, 3), (1, 2), (1, 1)]]
    for ends in ([[(3, 1), (3, 2)], [(1, 1), (1, 2)]], touching):
        store = Maze2dSource(**options, apart=[[list(cell) for cell in end] for end in ends]).load()
        assert np.array_equal(store.observations, recording.observations)
        assert set(recording.offsets) < set(store.offsets)
        assert set(store.offsets) <= set(store.segments)
        seen = [set(cells[a:b]) for a, b in zip(store.offsets, store.offsets[1:], strict=False)]
        assert not any(visited & set(ends[0]) and visited & set(ends[1]) for visited in seen)
        whole = np.isin(store.offsets[:-1], recording.offsets) & np.isin(store.offsets[1:], recording.offsets)
        assert not store.complete()[~whole].any()
        if ends is not touching:
            assert all((3, 3) in set().union(*(v for v in seen if v & set(end))) for end in ends)


@pytest.mark.parametrize(
    ("apart", "message"),
    [
        ([[[3, 1]]], "is no pair of lists of cells"),
        ([[[2, 1]], [[1, 1]]], r"data.apart names cell \[2, 1\]; free cells are"),
        ([[[3, 1], [1, 1]], [[1, 1]]], "that share none"),
    ],
)
def test_regions_that_make_no_sense_are_refused(apart: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Maze2dSource(apart=apart)


def test_a_critic_that_diverges_names_its_own_learning_rate(config: dict[str, Any], tmp_path: Path) -> None:
    config["critic_training"]["learning_rate"] = 1e30
    with pytest.raises(DivergedError, match=r"not finite.* at step \d+; .*try a lower critic_training\.learning_rate"):
        train(config, RunFolder(tmp_path / "critic"))
    config["optimizer"]["learning_rate"] = 1e30
    with pytest.raises(DivergedError, match=r"try a lower optimizer\.learning_rate"):
        train(config, RunFolder(tmp_path / "model"))
