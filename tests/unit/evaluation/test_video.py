"""Videos come out whatever the machine offers, and show what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest

from seqrl.errors import DataError
from seqrl.evaluation import encoding, video
from seqrl.evaluation.captions import HEIGHT, Captions, add_captions
from seqrl.evaluation.protocol import EpisodeResults
from seqrl.evaluation.rendered_frames import Failure, Take, render_in_child
from seqrl.evaluation.rollout import Episodes
from seqrl.worlds.maze import MAZES

# imageio leaves the pipes of the decoder that these tests read with to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

POSITIONS = np.stack([np.full(6, 3.0), np.linspace(1.0, 3.0, 6)], axis=1)


def frames(path: Path) -> np.ndarray:
    with imageio.get_reader(path) as reader:
        return np.stack([frame[:, :, :3] for frame in reader]).astype(float)


def place_of(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Mean (row, column) of the pixels near a colour."""
    return np.argwhere(np.abs(frame - colour).max(axis=-1) < 60).mean(axis=0)


def test_the_ball_is_drawn_where_it_is(tmp_path: Path) -> None:
    drawn = video.write_maze_video(tmp_path / "new" / "maze.mp4", MAZES["umaze"], POSITIONS, fps=10)
    assert drawn == "maze.mp4, drawn from above"
    film = frames(tmp_path / "new" / "maze.mp4")
    assert film.shape == (6, video.SIZE, video.SIZE, 3)
    cell = video.SIZE / 5
    # In pixels the cell (row, column) is centred at (row + 0.5) cells, and positions lie 0.2 off the centres.
    np.testing.assert_allclose(place_of(film[0], (31, 119, 180)), np.array([3.7, 1.7]) * cell, atol=4)
    np.testing.assert_allclose(place_of(film[0], (214, 39, 40)), np.array([1.7, 1.7]) * cell, atol=6)
    blue = np.argwhere(np.abs(film[-1] - (31, 119, 180)).max(axis=-1) < 60)
    assert blue[:, 1].max() > 3.7 * cell > blue[:, 1].min() + cell  # the trace leads back to the start


def test_goals_may_move(tmp_path: Path) -> None:
    goals = np.repeat([[1.0, 1.0], [3.0, 3.0]], 3, axis=0)
    video.write_maze_video(tmp_path / "maze.mp4", MAZES["umaze"], POSITIONS[:, ::-1], goals=goals, fps=10)
    film = frames(tmp_path / "maze.mp4")
    first, last = place_of(film[0], (214, 39, 40)), place_of(film[-1], (214, 39, 40))
    np.testing.assert_allclose(last - first, 2 * video.SIZE / 5, atol=10)


def test_every_episode_has_a_trace_of_its_own(tmp_path: Path) -> None:
    cut = np.concatenate([POSITIONS, [[np.nan, np.nan]], POSITIONS[:2, ::-1]])
    video.write_maze_video(tmp_path / "maze.mp4", MAZES["umaze"], cut, fps=10)
    film = frames(tmp_path / "maze.mp4")
    before, after = (np.argwhere(np.abs(frame - (31, 119, 180)).max(axis=-1) < 60) for frame in film[[5, 8]])
    assert np.ptp(before, axis=0).max() > 2 * video.SIZE / 5  # the way along two cells
    assert np.ptp(after, axis=0).max() < video.SIZE / 5


def test_a_gif_takes_the_place_of_a_missing_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "can_encode", lambda: False)
    drawn = video.write_maze_video(tmp_path / "maze.mp4", MAZES["umaze"], POSITIONS, fps=10)
    assert drawn.startswith("maze.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["maze.gif"]
    assert len(frames(tmp_path / "maze.gif")) == 6


def test_mazes_are_drawn_from_above_by_their_id(tmp_path: Path) -> None:
    drawn = video.write_rollout_video(tmp_path / "maze.mp4", "seqrl/Maze2d-Medium-v1", POSITIONS)
    assert drawn == "maze.mp4, drawn from above"


def test_a_stick_figure_appears_where_no_opengl_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def fail(path: Path, take: Take, fps: int, backend: str | None) -> Failure:
        tried.append(backend)
        return Failure("no such library")

    monkeypatch.setattr(video, "render_in_child", fail)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    qpos = np.zeros((3, 6))
    qpos[:, 1] = 1.25
    qpos[2, 2] = np.pi / 2  # pitched: the standing leg lies down
    drawn = video.write_rollout_video(tmp_path / "hopper.mp4", "Hopper-v4", qpos)
    assert drawn.startswith(
        "hopper.mp4, drawn as a stick figure, since no OpenGL works here (egl: no such library; osm"
    )
    assert "install libegl1 and libgl1-mesa-dri for MUJOCO_GL=egl or libosmesa6" in drawn
    assert tried == ["egl", "osmesa"]
    blue = [np.argwhere(np.abs(frame - (31, 119, 180)).max(axis=-1) < 60) for frame in frames(tmp_path / "hopper.mp4")]
    heights, widths = [np.ptp(b[:, 0]) for b in blue], [np.ptp(b[:, 1]) for b in blue]
    # Standing, a hopper reaches from 0.1 m to 1.45 m, its foot is 0.39 m long, and the picture shows 3 m.
    assert heights[0] == pytest.approx(1.35 / 3 * video.SIZE, abs=8)
    assert widths[0] == pytest.approx(0.39 / 3 * video.SIZE, abs=8)
    assert (widths[2], heights[2]) == pytest.approx((heights[0], widths[0]), abs=4)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    video.write_rollout_video(tmp_path / "hopper.mp4", "Hopper-v4", qpos)
    assert tried[2:] == ["glfw"]  # what the user chose is the only attempt


def test_a_failing_opengl_does_not_reach_this_process(tmp_path: Path) -> None:
    found = render_in_child(tmp_path / "a.mp4", Take("Hopper-v4", [0], np.zeros((1, 6))), 10, "no-such-backend")
    assert isinstance(found, Failure)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_mujoco_is_rendered_by_gymnasium_in_a_process_of_its_own(tmp_path: Path) -> None:
    captions = Captions("goal", [0, 4], [0.0, 3.5])
    found = render_in_child(
        tmp_path / "hopper.mp4", Take("Hopper-v4", [0, 4], np.zeros((2, 6)), captions=captions), 10, "egl"
    )
    if isinstance(found, Failure):
        pytest.skip(f"no EGL on this machine: {found.reason}")
    assert frames(tmp_path / "hopper.mp4").shape == (2, video.SIZE + HEIGHT, video.SIZE, 3)


BULB = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Bulb(gymnasium.Env):
    # A lamp as bright as the sum of all actions and its start; earns 2 a step.

    metadata = {"render_modes": ["rgb_array"]}
    observation_space, action_space = Box(0, 255, (1,)), Box(0, 9, (1,))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.light = float(self.np_random.integers(50))
        return np.float32([self.light]), {}

    def step(self, action):
        self.light += float(action[0])
        return np.float32([self.light]), 2.0, False, False, {}

    def render(self):
        return np.full((33, 65, 3), int(self.light), np.uint8)


class Dark(Bulb):
    metadata = {"render_modes": ["human"]}


gymnasium.register("Bulb-v0", Bulb, max_episode_steps=10)
gymnasium.register("Dark-v0", Dark, max_episode_steps=10)
"""


def outcome_of(length: int, seed: int) -> EpisodeResults:
    """Ten steps of the lamp, of which `length` were made; each adds 9."""
    shape = (1, 10, 1)
    episodes = Episodes(
        np.zeros((1, 11, 1), np.float32), np.full(shape, 9.0), np.full((1, 10), 2.0), np.array([length]),
        np.array([False]), 0.0, [], seed=seed,
    )  # fmt: skip
    return EpisodeResults(episodes, {})


def test_any_environment_with_pictures_is_filmed_as_it_was_acted_in(tmp_path: Path) -> None:
    plugin = tmp_path / "bulb.py"
    plugin.write_text(BULB)
    film = video.film_episodes(
        tmp_path / "a.mp4", "Bulb-v0", outcome_of(9, 5), strategy="my row", plugins=(str(plugin),)
    )
    assert film == f"{tmp_path / 'a.mp4'}, rendered by Gymnasium"
    shown = frames(tmp_path / "a.mp4")
    assert shown.shape[1] == 32 + HEIGHT, "the picture, of an even number of rows, and its caption"
    start = np.random.Generator(np.random.PCG64(np.random.SeedSequence(5))).integers(50)
    np.testing.assert_allclose(shown[:, 2:28, 4:60].mean((1, 2, 3)), start + 9 * np.array([0, 4, 8, 9]), atol=3)
    assert shown[:, 34:].min() < 90, "letters"


@pytest.mark.parametrize(
    ("env_id", "why"), [("Dark-v0", "Dark-v0 offers no render_mode='rgb_array'"), ("Gone-v0", "Gone-v0")]
)
def test_why_there_is_no_film_is_told(tmp_path: Path, env_id: str, why: str) -> None:
    plugin = tmp_path / "bulb.py"
    plugin.write_text(BULB)
    film = video.film_episodes(tmp_path / "a.mp4", env_id, outcome_of(3, 0), plugins=(str(plugin),))
    assert film.startswith("none: ")
    assert why in film
    assert list(tmp_path.glob("*.mp4")) == []


def test_captions_say_step_return_and_strategy() -> None:
    captions = Captions.of_episode("beam H=1", np.array([1.0, 0.5, 0.25]), [0, 2, 3])
    assert [captions.lines(frame) for frame in range(3)] == [
        ("beam H=1", "step 0   return 0"), ("beam H=1", "step 2   return 1.5"), ("beam H=1", "step 3   return 1.75"),
    ]  # fmt: skip
    blank = [np.full((16, 64, 3), 200, np.uint8)] * 3
    shown = list(add_captions(blank, captions))
    assert [frame.shape for frame in shown] == [(16 + HEIGHT, 64, 3)] * 3
    assert all((frame[:16] == 200).all() for frame in shown), "nothing is covered"
    assert not (shown[0] == shown[1]).all()
    wide = Captions("日本 " * 40, [0], [0.0])
    assert next(add_captions(blank, wide)).shape == shown[0].shape, "a label of any length fits"


def test_ways_to_goals_are_told_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Captions] = []
    monkeypatch.setattr(video, "write_maze_video", lambda *_, captions, **__: told.append(captions) or "x")
    rewards = np.array([[0.0] * 6, [0.0, 1, 1, 0, 0, 0], [1.0] * 6, [0.0] * 6])  # two starts with two goals each
    lengths, actions = np.array([6, 3, 6, 6]), np.zeros((4, 6, 2))
    episodes = Episodes(np.zeros((4, 7, 4), np.float32), actions, rewards, lengths, np.zeros(4, bool), 0.0, [])
    results = {
        "paths": np.zeros((2, 2, 7, 2)),
        "goals": np.array([[1.0, 1], [3, 3]]),
        "counted": np.array([[True, True], [False, True]]),
    }
    video.film_episodes(tmp_path / "a.mp4", "seqrl/Maze2d-Umaze-v1", EpisodeResults(episodes, results), strategy="goal")
    (captions,) = told
    assert list(captions.steps) == [0, 4, 6, 6, 0, 3, 3, 3]
    assert list(captions.returns) == [0, 0, 0, 0, 0, 2, 2, 2]


@pytest.mark.parametrize("qpos", [np.zeros((0, 6)), np.zeros((3, 5)), np.zeros(6)])
def test_frames_that_do_not_fit_are_refused(tmp_path: Path, qpos: np.ndarray) -> None:
    with pytest.raises(DataError, match="a video of Hopper-v4 needs"):
        video.write_rollout_video(tmp_path / "hopper.mp4", "Hopper-v4", qpos)


def test_environments_without_mujoco_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no MuJoCo environment"):
        video.write_rollout_video(tmp_path / "p.mp4", "Pendulum-v1", np.zeros((2, 1)))
