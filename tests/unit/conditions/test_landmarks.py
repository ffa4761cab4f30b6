"""Which goals a model is told on the way to one that is far away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.conditions import Guide
from seqrl.conditions.landmarks import LandmarkCondition, LandmarkGuide
from seqrl.data.landmarks import LandmarkGraph
from seqrl.errors import ConfigError
from seqrl.models.token import TokenModel
from seqrl.testing import samples

# A ring of ten places, one apart, that is walked in one direction at two steps an edge; from place 2 to place 7 leads
# a shorter way by a place in the middle, at five steps an edge.
RING = 10
ANGLES = 2 * np.pi * np.arange(RING) / RING
PLACES = np.concatenate([3.0 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1), [[0.0, 0.0]]]).astype(np.float32)
EDGES = sorted([(n, (n + k) % RING, 2.0 * k) for n in range(RING) for k in (1, 2)] + [(2, 10, 4.0), (10, 7, 4.0)])


def graph() -> LandmarkGraph:
    sources, targets, steps = zip(*EDGES, strict=True)
    return LandmarkGraph(PLACES, np.array(sources), np.array(targets), np.array(steps, np.float32))


def guide(goal: int, **options: float) -> LandmarkGuide:
    settings = {"nearest": 3, "farthest": 4, "radius": 0.1, "patience": 2.0, **options}
    condition = LandmarkCondition(**settings)  # type: ignore[arg-type]
    return LandmarkGuide(condition, graph(), [0, 1], torch.tensor(PLACES[[goal]]) + 0.01)


def told(guide: Guide, place: int) -> int:
    """The place that is told at a place; -1 for the goal itself."""
    answer: Tensor = guide.choose(torch.tensor(np.concatenate([PLACES[[place]], [[9.0]]], 1)))
    distances = np.linalg.norm(PLACES - answer.numpy(), axis=1)
    return int(distances.argmin()) if distances.min() == 0 else -1


def test_the_way_goes_on_from_landmark_to_landmark_and_ends_at_the_goal() -> None:
    way = guide(8)
    assert told(way, 0) == 2
    assert told(way, 1) == 2  # held until it is reached
    assert told(way, 2) == 10  # 4 + 4 + 2 steps, along the ring 12
    assert told(way, 10) == 7
    assert told(way, 7) == -1
    assert way.given_up == 0


def test_ways_are_directed() -> None:
    way = guide(0)
    assert told(way, 1) == 3  # all the way round, since nobody walked back
    assert told(way, 8) == -1


def test_a_landmark_that_is_not_reached_in_time_is_given_up_for_another_way() -> None:
    way = guide(8)
    assert told(way, 2) == 10
    for _ in range(8):  # twice the four steps that the data took
        assert told(way, 2) == 10
    assert told(way, 2) == 4  # 2 * 4 + 4 + 2 steps by the middle, 12 along the ring
    assert way.given_up == 1


def test_where_no_landmark_is_far_enough_or_no_way_known_the_nearest_ones_and_the_goal_are_told() -> None:
    assert told(guide(8, nearest=4), 2) in (4, 10)
    assert told(guide(4, nearest=4, farthest=4), 10) == 7
    assert told(guide(10), 10) == -1
    lone = LandmarkGraph(PLACES[:2], np.array([0]), np.array([1]), np.array([30.0], np.float32))
    way = LandmarkGuide(LandmarkCondition(), lone, [0, 1], torch.tensor(PLACES[[0]]))
    assert told(way, 1) == 0  # the goal stands on a place


def test_episodes_of_a_batch_go_their_own_ways() -> None:
    condition = LandmarkCondition(nearest=3, farthest=4, radius=0.1)
    both = LandmarkGuide(condition, graph(), [0, 1], torch.tensor(PLACES[[8, 5]]))
    answer = both.choose(torch.tensor(PLACES[[0, 2]])).numpy()
    np.testing.assert_array_equal(answer, PLACES[[2, 4]])


def goal_model() -> TokenModel:
    return samples.model(samples.layout(goal=True))


def test_a_policy_tells_the_model_where_the_guide_leads() -> None:
    """The same actions as a policy that is told that goal by hand."""
    model = goal_model()
    model.landmarks = graph()
    led = Policy(model, planner={"name": "sample"}, condition={"name": "landmarks", "nearest": 3, "farthest": 4})
    by_hand = Policy(model, planner={"name": "sample"}, condition={"name": "goal", "guidance": 3.0})
    far = Policy(model, planner={"name": "sample"}, condition={"name": "goal", "guidance": 3.0})
    for policy, goal in ((led, 8), (by_hand, 2), (far, 8)):
        policy.reset(4, goals=PLACES[[goal] * 4])
    observations = np.concatenate([PLACES[[0] * 4], np.full((4, 1), 0.1)], 1).astype(np.float32)
    actions = led.act(observations)
    np.testing.assert_array_equal(actions, by_hand.act(observations))
    assert (actions != far.act(observations)).any()


def test_runs_without_landmarks_are_refused_before_they_are_trained() -> None:
    model = goal_model()
    strategy = Strategy.build(model.layout, planner={"name": "sample"}, condition={"name": "landmarks"})
    with pytest.raises(ConfigError, match=r"train with 'landmarks=\{spacing: 0.3\}'"):
        strategy.check(model)
    model.landmarks = LandmarkGraph.promise()
    strategy.check(model)
    with pytest.raises(ConfigError, match=r"nearest=9 is above condition\.farthest=4"):
        LandmarkCondition(nearest=9, farthest=4)


def test_a_goal_beside_places_that_nobody_came_to_stands_for_the_nearest_one_that_was_reached() -> None:
    """Where an episode began, no edge leads: Dijkstra would find no way to it."""
    places = np.concatenate([PLACES, [[-3.0, -0.5]]]).astype(np.float32)  # near place 5, and left at once
    edges = sorted([*EDGES, (11, 5, 1.0)])
    sources, targets, steps = zip(*edges, strict=True)
    lonely = LandmarkGraph(places, np.array(sources), np.array(targets), np.array(steps, np.float32))
    assert int(lonely.find_nearest(places[11])) == 11
    assert int(lonely.find_nearest_reached(places[11])) == 5
    assert lonely.find_nearest_reached(PLACES).tolist() == lonely.find_nearest(PLACES).tolist()
    condition = LandmarkCondition(nearest=3, farthest=4, radius=0.1)
    way = LandmarkGuide(condition, lonely, [0, 1], torch.tensor(places[[11]]))
    assert told(way, 0) == 2
    assert told(way, 2) == 4
    assert told(way, 4) == -1


def test_random_landmarks_are_near_ones_whatever_they_lead_to() -> None:
    condition = LandmarkCondition(nearest=3, farthest=4, radius=0.1, choice="random")
    goals = torch.tensor(PLACES[[8] * 60])
    answers = LandmarkGuide(condition, graph(), [0, 1], goals).choose(torch.tensor(PLACES[[2] * 60])).numpy()
    again = LandmarkGuide(condition, graph(), [0, 1], goals).choose(torch.tensor(PLACES[[2] * 60])).numpy()
    np.testing.assert_array_equal(answers, again)
    chosen = [int(np.linalg.norm(PLACES - each, axis=1).argmin()) for each in answers]
    assert set(chosen) == {4, 10}  # four steps away both; the shortest way goes by 10
    assert 15 < chosen.count(4) < 45


def chosen_by(seed: int, keys: list[int]) -> np.ndarray:
    """(B, 2) first random landmarks of episodes with these keys."""
    condition = LandmarkCondition(nearest=3, farthest=4, radius=0.1, choice="random")
    guide = LandmarkGuide(condition, graph(), [0, 1], torch.tensor(PLACES[[8] * len(keys)]))
    guide.seed_draws(seed, torch.tensor(keys))
    return guide.choose(torch.tensor(PLACES[[2] * len(keys)])).numpy()


def test_random_landmarks_are_of_the_seed_and_the_key() -> None:
    keys = list(range(40))
    one = chosen_by(0, keys)
    assert (one != chosen_by(1, keys)).any(), "the seed decides"
    assert (one != chosen_by(0, [key + 100 for key in keys])).any(), "the key decides"
    np.testing.assert_array_equal(one[::-1], chosen_by(0, keys[::-1]))  # and not the row
    np.testing.assert_array_equal(one[7:9], chosen_by(0, [7, 8]))
    assert len(np.unique(chosen_by(3, [5] * 20), axis=0)) == 1, "equal keys get equal draws"
    assert chosen_by(0, [-1]).shape == (1, 2)
