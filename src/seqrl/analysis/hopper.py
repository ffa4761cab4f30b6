"""Where the joints of Hopper are, from what is observed of it: to draw rollouts as the paper draws its humanoid."""

from __future__ import annotations

import numpy as np

_LENGTHS = (0.45, 0.5)  # of thigh and leg
_TORSO, _HEEL, _TOE = 0.2, -0.13, 0.26  # half of the torso; the ends of the foot from the ankle
STEP = 0.008
"""Seconds between two observations."""


def locate_joints(observations: np.ndarray, x: np.ndarray | float = 0.0) -> np.ndarray:
    """The points of the figure: top and bottom of the torso, knee, ankle, heel and toe.

    Args:
        observations: (..., 11) height, the angles of torso, thigh, leg and foot, and six velocities.
        x: (...) of the torso's centre, which is not observed.

    Returns:
        (..., 6, 2) x and z.

    Reference: hopper.xml of Gymnasium's Hopper-v4.
    """
    z, torso = observations[..., 0], observations[..., 1]
    centre = np.stack([np.broadcast_to(x, z.shape), z], -1)
    up = _turned(torso, 0.0, 1.0)
    hip = centre - _TORSO * up
    points = [centre + _TORSO * up, hip]
    angle = torso
    for joint, length in zip((2, 3), _LENGTHS, strict=True):
        angle = angle - observations[..., joint]
        points.append(points[-1] - length * _turned(angle, 0.0, 1.0))
    forward = _turned(angle - observations[..., 4], 1.0, 0.0)
    points += [points[-1] + _HEEL * forward, points[-1] + _TOE * forward]
    return np.stack(points, -2)


def advance(observations: np.ndarray) -> np.ndarray:
    """(..., H) how far the torso has come at each of (..., H, 11) observations, by its velocity; 0 at the first."""
    speed = observations[..., 5]
    return (np.cumsum(speed, -1) - speed[..., :1]) * STEP


def _turned(angle: np.ndarray, x: float, z: float) -> np.ndarray:
    """(..., 2) the vector (x, z), turned by (...) angles around the axis that points away from the viewer."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([cosine * x + sine * z, cosine * z - sine * x], -1)
