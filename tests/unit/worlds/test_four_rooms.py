"""Four rooms: walls that hold, doors that let through, walks that arrive, and the environment around them."""

from __future__ import annotations

import itertools
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqrl.envs import make_environments, register_environments
from seqrl.errors import ConfigError, DataError
from seqrl.registry import DATA
from seqrl.sources.four_rooms import FourRoomsSource
from seqrl.worlds import four_rooms
from seqrl.worlds.four_rooms import FOUR_ROOMS, GAP, MAX_STEP, move, record, room_of, waypoints

CELLS = FOUR_ROOMS.free_cells()
INSIDE = st.floats(-0.5 + GAP, 0.5 - GAP)
places = st.builds(lambda cell, x, y: np.add(cell, (x, y)), st.sampled_from(CELLS), INSIDE, INSIDE)
pushes = st.builds(
    lambda angle, length: length * np.array([np.cos(angle), np.sin(angle)]),
    st.one_of(st.floats(-4, 4), st.sampled_from([0.0, np.pi / 4, np.pi / 2, np.pi, -np.pi / 2])),
    st.one_of(st.floats(0, MAX_STEP), st.just(MAX_STEP)),
)


def in_a_wall(points: np.ndarray) -> np.ndarray:
    """(n,) bool, by the characters of the map."""
    rows = np.array([list(row) for row in FOUR_ROOMS.rows])
    cells = np.floor(points + 0.5).astype(int)
    return rows[cells[:, 0], cells[:, 1]] == "#"


def straight(a: np.ndarray, b: np.ndarray, count: int = 60) -> np.ndarray:
    return a + np.linspace(0.0, 1.0, count)[:, None] * (b - a)


@given(places, st.lists(pushes, min_size=1, max_size=30))
@example(np.array([1.0, 0.5 + GAP - 2e-16]), [np.array([0.25, 0.0])])  # a rounding error past the face
@example(np.array([1.0, 0.5 + GAP - 2e-16]), [np.array([0.25, 1e-9])])
def test_no_walk_enters_a_wall_goes_through_one_or_goes_too_far(start: np.ndarray, walk: list[np.ndarray]) -> None:
    position = start
    for push in walk:
        after = move(position, push)
        assert np.linalg.norm(after - position) <= np.linalg.norm(push) + 1e-12
        assert (np.abs(after - position) <= np.abs(push) + 1e-12).all()  # a wall only takes away
        assert not in_a_wall(straight(position, after)).any()  # steps are shorter than walls are thick, and no corner
        position = after


@given(places, pushes)
def test_where_nothing_is_in_the_way_a_push_is_carried_out(start: np.ndarray, push: np.ndarray) -> None:
    margin = 2 * GAP * np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]])
    if not in_a_wall((straight(start, start + push)[:, None] + margin).reshape(-1, 2)).any():
        np.testing.assert_allclose(move(start, push), start + push, atol=1e-12)


def creep(start: np.ndarray, push: np.ndarray, axes: tuple[int, int], count: int = 1000) -> np.ndarray:
    """The same walk in many small steps, an axis at a time; an axis that was stopped once is not tried again."""
    position, small, free = start.copy(), push / count, [True, True]
    for _ in range(count):
        for axis in axes:
            tried = position.copy()
            tried[axis] += small[axis]
            free[axis] = free[axis] and not in_a_wall(tried[None])[0]
            position = tried if free[axis] else position
    return position


@settings(max_examples=20)
@given(places, st.floats(-4, 4), st.floats(0.3, 10.0))
def test_a_push_equals_many_small_ones(start: np.ndarray, angle: float, length: float) -> None:
    push = length * np.array([np.cos(angle), np.sin(angle)])
    slow, other = creep(start, push, (0, 1)), creep(start, push, (1, 0))
    if np.abs(slow - other).max() < 0.02:  # else a corner was grazed, and either is right
        np.testing.assert_allclose(move(start, push), slow, atol=0.02)


@pytest.mark.parametrize(
    ("start", "push", "end"),
    [
        ((1.0, 1.0), (0.2, 0.1), (1.2, 1.1)),  # nothing is in the way
        ((1.0, 5.4), (0.0, 0.2), (1.0, 5.5 - GAP)),  # straight into a wall
        ((1.0, 5.4), (0.1, 0.2), (1.1, 5.5 - GAP)),  # the rest slides
        ((0.6, 0.6), (-0.2, -0.2), (0.5 + GAP, 0.5 + GAP)),  # a corner takes both
        ((3.0, 5.4), (0.0, 0.2), (3.0, 5.6)),  # a door
        ((3.0, 5.0), (0.0, 9.0), (3.0, 11.5 - GAP)),  # through it to the far wall, however long the push
        ((1.0, 4.0), (0.0, 100.0), (1.0, 5.5 - GAP)),  # and never through a wall
        ((2.4, 5.4), (0.0, 0.2), (2.4, 5.5 - GAP)),  # beside the door
        ((2.6, 6.0), (-0.2, 0.0), (2.5 + GAP, 6.0)),  # in the door: its posts
        ((6.4, 11.0), (0.3, 0.0), (6.5 - GAP, 11.0)),  # the right half's wall lies a row lower
    ],
)
def test_moves_against_hand_computed_ones(
    start: tuple[float, float], push: tuple[float, float], end: tuple[float, float]
) -> None:
    np.testing.assert_allclose(move(np.array(start), np.array(push)), end, atol=1e-12)


def test_doors_are_the_only_ways_between_rooms() -> None:
    closed = set(CELLS) - set(four_rooms.DOORS)
    rooms = []
    while closed:
        room, edge = set(), [min(closed)]
        while edge:
            cell = edge.pop()
            if cell in closed:
                closed.remove(cell)
                room.add(cell)
                edge += [(cell[0] + i, cell[1] + j) for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        rooms.append(room)
    assert sorted(map(len, rooms)) == [20, 25, 25, 30]
    for room in rooms:
        assert len({room_of(np.array(cell, float)) for cell in room}) == 1
    for number, (row, column) in enumerate(four_rooms.DOORS):
        beside = {room_of(np.array([row + i, column + j], float)) for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        assert beside == {number, (number + 1) % 4}


@given(places, places)
def test_waypoints_lead_to_the_goal_by_the_shorter_way(start: np.ndarray, goal: np.ndarray) -> None:
    way = waypoints(start, goal)
    doors = {0: 0, 1: 1, 2: 2, 3: 1}[(room_of(goal) - room_of(start)) % 4]
    assert len(way) == 2 * doors + 1
    np.testing.assert_array_equal(way[-1], goal)
    for before, behind in zip(way[:-1:2], way[1:-1:2], strict=True):
        assert not in_a_wall(straight(before, behind)).any()
    # Every leg stays inside a room or a door: its ends lie in the same room, or it is a door's own.
    for a, b in itertools.pairwise([start, *way][:: 2 if doors == 0 else 1]):
        assert room_of(a) == room_of(b) or not in_a_wall(straight(a, b)).any()


def test_walks_arrive_and_what_is_recorded_is_what_happened() -> None:
    data = record(4000, seed=0, action_noise=0.05)
    ends = np.flatnonzero(data["timeouts"])
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    assert len(ends) > 80
    assert lengths.max() < FOUR_ROOMS.max_episode_steps  # none was given up
    positions = data["observations"].astype(float)
    goals = data["infos/goal"].astype(float)
    assert np.linalg.norm(positions[ends] - goals[ends], axis=1).max() < 0.25 + MAX_STEP + 0.01
    assert (np.linalg.norm(data["actions"], axis=1) <= MAX_STEP + 1e-6).all()
    assert not in_a_wall(positions).any()
    for row in np.flatnonzero(~data["timeouts"])[:1000]:
        if row + 1 < len(positions):
            np.testing.assert_allclose(
                move(positions[row], data["actions"][row].astype(float)), positions[row + 1], atol=1e-5
            )
            assert (goals[row] == goals[row + 1]).all()
    near = np.linalg.norm(positions[1:] - FOUR_ROOMS.target, axis=1)
    kept = ~data["timeouts"][:-1] & (np.abs(near - 0.5) > 1e-4)
    np.testing.assert_array_equal(data["rewards"][:-1][kept], (near <= 0.5)[kept])
    rooms = np.array([[room_of(positions[a]), room_of(goals[a])] for a in starts])
    assert len({tuple(pair) for pair in rooms}) == 16  # every room to every room


def test_recordings_are_a_function_of_their_arguments() -> None:
    first, again, other = (record(300, seed=seed, action_noise=0.05) for seed in (1, 1, 2))
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert not np.array_equal(first["observations"], other["observations"])
    longer = record(400, seed=1, action_noise=0.05)
    np.testing.assert_array_equal(first["observations"], longer["observations"][:300])


def test_the_source_makes_one_truncated_episode_a_goal_and_keeps_its_file(tmp_path: Path) -> None:
    source = FourRoomsSource(num_transitions=500, cache_dir=str(tmp_path))
    store = source.load()
    assert (len(store), store.observations.shape[1], store.actions.shape[1]) == (500, 2, 2)
    assert store.attributes["env_id"] == "seqrl/FourRooms-v0"
    assert not store.terminated.any()
    np.testing.assert_array_equal(store.segments, store.offsets)
    assert [path.name for path in tmp_path.iterdir()] == ["four_rooms-500-noise0.05-seed0-format1.hdf5"]
    source.path.write_bytes(b"nonsense")
    with pytest.raises(DataError):  # the file is read back, not made anew
        source.load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_transitions": 1}, "num_transitions=1 is too small; give a number from 2"),
        ({"seed": -1}, "seed=-1 is too small; give 0 or more"),
        ({"action_noise": float("nan")}, "action_noise=nan is no number"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DATA.check({"name": "four_rooms", **options})


def test_gymnasium_finds_nothing_to_complain_of() -> None:
    register_environments()
    check_env(gymnasium.make("seqrl/FourRooms-v0", disable_env_checker=True).unwrapped, skip_render_check=False)


def test_episodes_start_where_seeds_and_options_say() -> None:
    envs = make_environments("seqrl/FourRooms-v0", 3)
    first, _ = envs.reset([4, 4, 5])
    assert (first[0] == first[1]).all()
    assert (first[0] != first[2]).any()
    assert envs.max_episode_steps == 150
    exact, infos = envs.reset(
        [4, 4, 4], options=[{"state": [1.0, 2.0]}, None, {"state": [3.0, 6.0], "target": [1.0, 1.0]}]
    )
    np.testing.assert_allclose(exact[[0, 2]], [[1.0, 2.0], [3.0, 6.0]])
    np.testing.assert_array_equal(exact[1], first[0])
    assert [info["target"].tolist() for info in infos] == [[9.0, 9.0], [9.0, 9.0], [1.0, 1.0]]
    with pytest.raises(ValueError, match="must be 2 finite numbers outside the walls"):
        envs.reset([0, 0, 0], options=[{"state": [0.0, 0.0]}] * 3)


def test_steps_are_shortened_and_rewards_come_at_the_target() -> None:
    env = gymnasium.make("seqrl/FourRooms-v0", disable_env_checker=True).unwrapped
    env.reset(seed=0, options={"state": [9.0, 8.3]})
    after, reward, terminated, truncated, info = env.step(np.array([0.0, 0.1], np.float32))
    np.testing.assert_allclose(after, [9.0, 8.4], atol=1e-7)
    assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
    after, reward, terminated, *_ = env.step(np.array([0.25, 0.25], np.float32))
    np.testing.assert_allclose(after, np.array([9.0, 8.4]) + 0.25 * np.sqrt([0.5, 0.5]), atol=1e-7)
    assert (reward, terminated) == (1.0, False)


def test_noise_is_drawn_from_the_seed_and_stays_within_the_bound() -> None:
    env = gymnasium.make("seqrl/FourRooms-v0", disable_env_checker=True, noise=0.1).unwrapped
    walks = []
    for seed in (1, 1, 2):
        places = [env.reset(seed=seed, options={"state": [3.0, 3.0]})[0]]
        places += [env.step(np.array([0.2, 0.0]))[0] for _ in range(8)]
        walks.append(np.array(places))
    np.testing.assert_array_equal(walks[0], walks[1])
    assert (walks[0][1:] != walks[2][1:]).all()
    assert np.linalg.norm(np.diff(walks[2], axis=0), axis=1).max() <= MAX_STEP + 1e-12
    with pytest.raises(ValueError, match=r"noise=-1\.0 is no standard deviation"):
        gymnasium.make("seqrl/FourRooms-v0", noise=-1.0)


def test_what_is_rendered_shows_walls_target_and_walker() -> None:
    env = gymnasium.make("seqrl/FourRooms-v0", disable_env_checker=True, render_mode="rgb_array").unwrapped
    env.reset(seed=0, options={"state": [1.0, 2.0]})
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    middles = picture[12::24, 12::24]  # of the cells
    assert middles.shape == (13, 13, 3)
    assert middles[1, 2].tolist() == [31, 119, 180]
    assert middles[9, 9].tolist() == [214, 39, 40]
    assert middles[0, 0].tolist() == [130, 130, 130]
    assert middles[5, 5].tolist() == [255, 255, 255]
