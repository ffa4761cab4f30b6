"""The figure that is drawn of Hopper's observations is the one that MuJoCo simulates."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from seqrl.analysis.hopper import STEP, advance, locate_joints

pytestmark = pytest.mark.filterwarnings("ignore:.*Hopper-v4 is out of date")


@pytest.fixture
def hopper() -> Any:
    env = gym.make("Hopper-v4").unwrapped
    yield env
    env.close()


def simulated(env: Any) -> np.ndarray:
    """(6, 2) top of the torso, hip, knee, ankle, heel, toe: anchors of joints, and ends of capsules."""
    model, data = env.model, env.data
    joints = [data.joint(name).xanchor for name in ("thigh_joint", "leg_joint", "foot_joint")]
    foot, torso = (ends(model, data, name) for name in ("foot_geom", "torso_geom"))
    top = max(torso, key=lambda point: np.linalg.norm(point - joints[0]))
    heel, toe = sorted(foot, key=lambda point: np.linalg.norm(point - joints[2]))
    return np.stack([top, *joints, heel, toe])[:, [0, 2]]


def ends(model: mujoco.MjModel, data: mujoco.MjData, name: str) -> list[np.ndarray]:
    geom = data.geom(name)
    axis = geom.xmat.reshape(3, 3)[:, 2] * model.geom(name).size[1]
    return [geom.xpos - axis, geom.xpos + axis]


@pytest.mark.parametrize("seed", range(4))
def test_joints_are_where_mujoco_has_them(hopper: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    position = np.array([rng.normal(), 1.25 + rng.normal() * 0.1, *rng.uniform(-1.0, 0.6, size=4)])
    hopper.set_state(position, np.zeros(6))
    observation = np.concatenate([position[1:], np.zeros(6)])
    np.testing.assert_allclose(locate_joints(observation, position[0]), simulated(hopper), atol=1e-6)
    many = locate_joints(np.stack([observation] * 3), np.full(3, position[0]))
    np.testing.assert_allclose(many, np.stack([simulated(hopper)] * 3), atol=1e-6)


def test_the_way_is_that_of_the_torso(hopper: Any) -> None:
    assert pytest.approx(hopper.dt) == STEP
    hopper.reset(seed=0)
    hopper.set_state(hopper.data.qpos, np.array([1.5, 0.0, 0.0, 0.0, 0.0, 0.0]))
    places, observations = [], []
    for _ in range(25):
        places.append(hopper.data.qpos[0])
        observations.append(hopper._get_obs())
        hopper.step(np.zeros(3))
    way = np.array(places) - places[0]
    assert abs(advance(np.stack(observations)) - way).max() < 0.1 * way[-1]
