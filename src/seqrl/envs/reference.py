"""Reference returns, and the score from 0 (random) to 100 (expert) that they define."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

D4RL = "D4RL d4rl/infos.py"
Returns = TypeVar("Returns", float, np.ndarray)


@dataclass(frozen=True)
class Reference:
    """What scores of one environment are measured against.

    Attributes:
        env_id: the environment asked for.
        minimum, maximum: mean undiscounted returns of a random and of an expert policy.
        source: where the two numbers come from.
        note: how the environment differs from the one they were measured in; empty where it is the same.
    """

    env_id: str
    minimum: float
    maximum: float
    source: str
    note: str = ""

    def score(self, returns: Returns) -> Returns:
        """0 for the random policy, 100 for the expert; below and beyond are possible."""
        return 100.0 * (returns - self.minimum) / (self.maximum - self.minimum)


@dataclass(frozen=True)
class _Family:
    pattern: str  # of Gymnasium ids; group 1 is the version
    minimum: float
    maximum: float
    versions: tuple[int, ...]  # the ones that behave as the environment in which the references were measured
    remark: str = ""  # how the others differ


_FAMILIES = (
    _Family(
        r"Hopper-v(\d+)", -20.272305, 3234.3, (2, 3, 4), "in v5 the last step of a fall earns no bonus for staying up"
    ),
    _Family(r"HalfCheetah-v(\d+)", -280.178953, 12135.0, (2, 3, 4, 5)),
    _Family(r"Walker2d-v(\d+)", 1.629008, 4592.3, (2, 3, 4), "in v5 the left foot has more friction"),
    _Family(r"Ant-v(\d+)", -325.6, 3879.7, (2,), "contact forces are missing (v3, v4) or not zero (v5)"),
    _Family(r"seqrl/Maze2d-Umaze-v(\d+)", 23.85, 161.86, (1,)),
    _Family(r"seqrl/Maze2d-Medium-v(\d+)", 13.13, 277.39, (1,)),
    _Family(r"seqrl/Maze2d-Large-v(\d+)", 6.7, 273.99, (1,)),
    _Family(r"AdroitHandDoor-v(\d+)", -56.512833, 2880.5693, (0,), "rewards and starts follow Gymnasium-Robotics"),
    _Family(r"AntMaze_\w+-v(\d+)", 0.0, 1.0, (0,), "time step, gear and goals are not those of D4RL's antmaze"),
)


def reference(env_id: str) -> Reference | None:
    """The reference returns for a Gymnasium id, or None where there are none.

    D4RL measured them in the v2 MuJoCo tasks; Gymnasium's v4 of Hopper, HalfCheetah and Walker2d behave the same.
    """
    for family in _FAMILIES:
        match = re.fullmatch(family.pattern, env_id)
        if match is None:
            continue
        note = ""
        if int(match.group(1)) not in family.versions:
            note = f"the references were measured in another version than {env_id}"
            note += f": {family.remark}" if family.remark else ""
        return Reference(env_id, family.minimum, family.maximum, D4RL, note)
    return None


def normalised_score(env_id: str, returns: Returns) -> Returns | None:
    """D4RL's normalised score, as papers print it: 0 random, 100 expert.

    Args:
        returns: undiscounted return of an episode, or an array of them.

    Returns:
        The same shape, or None where no reference is known.
    """
    found = reference(env_id)
    return None if found is None else found.score(returns)
