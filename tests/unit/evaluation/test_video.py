"""Videos come out whatever the machine offers, and show what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest

from seqrl.errors import DataError
from seqrl.evaluation import video
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
    monkeypatch.setattr(video, "_can_encode", lambda: False)
    drawn = video.write_maze_video(tmp_path / "maze.mp4", MAZES["umaze"], POSITIONS, fps=10)
    assert drawn.startswith("maze.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["maze.gif"]
    assert len(frames(tmp_path / "maze.gif")) == 6


def test_mazes_are_drawn_from_above_by_their_id(tmp_path: Path) -> None:
    drawn = video.write_rollout_video(tmp_path / "maze.mp4", "seqrl/Maze2d-Medium-v1", POSITIONS)
    assert drawn == "maze.mp4, drawn from above"


def test_a_stick_figure_appears_where_no_opengl_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def fail(*arguments: Any) -> None:
        tried.append(arguments[-1])

    monkeypatch.setattr(video, "_render_in_child", fail)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    qpos = np.zeros((3, 6))
    qpos[:, 1] = 1.25
    qpos[2, 2] = np.pi / 2  # pitched: the standing leg lies down
    drawn = video.write_rollout_video(tmp_path / "hopper.mp4", "Hopper-v4", qpos)
    assert drawn.startswith("hopper.mp4, drawn as a stick figure")
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
    assert video._render_in_child(tmp_path / "a.mp4", "Hopper-v4", np.zeros((1, 6)), 10, "no-such-backend") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_rendering_happens_in_a_process_of_its_own(tmp_path: Path) -> None:
    if video._render_in_child(tmp_path / "hopper.mp4", "Hopper-v4", np.zeros((2, 6)), 10, "egl") is None:
        pytest.skip("no EGL on this machine")
    assert frames(tmp_path / "hopper.mp4").shape == (2, video.SIZE, video.SIZE, 3)


@pytest.mark.parametrize("qpos", [np.zeros((0, 6)), np.zeros((3, 5)), np.zeros(6)])
def test_frames_that_do_not_fit_are_refused(tmp_path: Path, qpos: np.ndarray) -> None:
    with pytest.raises(DataError, match="a video of Hopper-v4 needs"):
        video.write_rollout_video(tmp_path / "hopper.mp4", "Hopper-v4", qpos)


def test_environments_without_mujoco_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no MuJoCo environment"):
        video.write_rollout_video(tmp_path / "p.mp4", "Pendulum-v1", np.zeros((2, 1)))
