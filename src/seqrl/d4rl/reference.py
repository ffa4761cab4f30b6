"""Reference returns, and the score from 0 (random) to 100 (expert) that they define.

The numbers stand once, in D4RL's catalogue (`seqrl.d4rl.catalogue`). Here is which environments they hold for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from seqrl.d4rl import catalogue
from seqrl.data.summary import DataSummary
from seqrl.errors import ConfigError
from seqrl.formats.minari import MINARI

D4RL = f"D4RL ({catalogue.SOURCE})"
OTHER_DATA = "the training data is"
"""How a note begins that tells of data which published scores are not of."""
Returns = TypeVar("Returns", float, np.ndarray)


@dataclass(frozen=True)
class Reference:
    """What scores of one environment are measured against.

    Attributes:
        env_id: the environment asked for.
        minimum, maximum: mean undiscounted returns of a random and of an expert policy.
        source: where the two numbers come from.
        measured_in: the environment that they were measured in.
        note: how the environment differs from that one; empty where it behaves the same.
    """

    env_id: str
    minimum: float
    maximum: float
    source: str
    measured_in: str
    note: str = ""

    def score(self, returns: Returns) -> Returns:
        """0 for the random policy, 100 for the expert; below and beyond are possible."""
        return 100.0 * (returns - self.minimum) / (self.maximum - self.minimum)


@dataclass(frozen=True)
class Family:
    pattern: str  # of Gymnasium ids; group 1 is the version
    entry: str  # a data set with the references of the task
    measured_in: str
    versions: tuple[int, ...]  # the ones that behave as the environment in which the references were measured
    remark: str = ""  # how the others differ


_ADROIT = "rewards, starts and time limit follow Gymnasium-Robotics"
_MAZE = "goals are drawn anew in every episode and reached within 0.45, not fixed and within 0.5"
_KITCHEN = "robot, starts and time limit are those of Gymnasium-Robotics"
_ANTMAZE = "time step, gear and goals are not those of D4RL's antmaze"
FAMILIES = (  # by what their ids look like; the first that matches counts
    Family(
        r"Hopper-v(\d+)",
        "hopper-medium-v2",
        "Hopper-v2",
        (2, 3, 4),
        "in v5 the last step of a fall earns no bonus for staying up",
    ),
    Family(r"HalfCheetah-v(\d+)", "halfcheetah-medium-v2", "HalfCheetah-v2", (2, 3, 4, 5)),
    Family(r"Walker2d-v(\d+)", "walker2d-medium-v2", "Walker2d-v2", (2, 3, 4), "in v5 the left foot has more friction"),
    Family(r"seqrl/D4rlAnt-v(\d+)", "ant-medium-v2", "Ant-v2", (2,)),
    Family(r"Ant-v(\d+)", "ant-medium-v2", "Ant-v2", (2,), "contact forces are missing (v3, v4) or not zero (v5)"),
    Family(r"seqrl/Maze2d-Umaze-v(\d+)", "maze2d-umaze-v1", "maze2d-umaze-v1", (1,)),
    Family(r"seqrl/Maze2d-Medium-v(\d+)", "maze2d-medium-v1", "maze2d-medium-v1", (1,)),
    Family(r"seqrl/Maze2d-Large-v(\d+)", "maze2d-large-v1", "maze2d-large-v1", (1,)),
    *(
        Family(rf"PointMaze_{maze}-v(\d+)", name, name, (), _MAZE)
        for maze, name in {
            "Open": "maze2d-open-v0",
            "OpenDense": "maze2d-open-dense-v0",
            "UMaze": "maze2d-umaze-v1",
            "UMazeDense": "maze2d-umaze-dense-v1",
            "Medium": "maze2d-medium-v1",
            "MediumDense": "maze2d-medium-dense-v1",
            "Large": "maze2d-large-v1",
            "LargeDense": "maze2d-large-dense-v1",
        }.items()
    ),
    Family(r"AdroitHandDoor-v(\d+)", "door-human-v1", "door-v0", (), _ADROIT),
    Family(r"AdroitHandHammer-v(\d+)", "hammer-human-v1", "hammer-v0", (), _ADROIT),
    Family(r"AdroitHandPen-v(\d+)", "pen-human-v1", "pen-v0", (), _ADROIT),
    Family(r"AdroitHandRelocate-v(\d+)", "relocate-human-v1", "relocate-v0", (), _ADROIT),
    Family(r"AntMaze_\w+-v(\d+)", "antmaze-umaze-v2", "antmaze-*-v2", (), _ANTMAZE),
    Family(r"FrankaKitchen-v(\d+)", "kitchen-complete-v0", "kitchen-*-v0", (), _KITCHEN),
)


def reference(env_id: str) -> Reference | None:
    """The reference returns for a Gymnasium id, or None where there are none.

    D4RL measured them in the v2 MuJoCo tasks; Gymnasium's v4 of Hopper, HalfCheetah and Walker2d behave the same.
    """
    if env_id.startswith(catalogue.PREFIX):
        return _of_package(env_id)
    name, _, _ = env_id.partition("@")  # which parts of the observation are read changes no return
    if name.startswith(MINARI):
        return _of_minari(env_id, name.removeprefix(MINARI))
    for family in FAMILIES:
        match = re.fullmatch(family.pattern, name)
        if match is None:
            continue
        note = ""
        if int(match.group(1)) not in family.versions:
            note = f"the references were measured in {family.measured_in}, not {name}"
            note += f": {family.remark}" if family.remark else ""
        entry = catalogue.find(family.entry)
        return Reference(env_id, entry.reference_min, entry.reference_max, D4RL, family.measured_in, note)
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


def reference_note(env_id: str, dataset: DataSummary) -> str:
    """What must stand beside a score: another environment or other data than the published scores have.

    Args:
        dataset: that was trained on; its ids in D4RL's catalogue and in Minari tell which.

    Returns:
        A sentence without its full stop; empty where the score compares with D4RL's.
    """
    found = reference(env_id)
    if found is None:
        return ""
    notes = [found.note] if found.note else []
    dataset_id, minari_id = dataset.d4rl_id, dataset.minari_id
    if dataset_id is None and minari_id is not None:
        likened = catalogue.find_minari(minari_id)
        than = "D4RL's" if likened is None else f"D4RL's {likened.id}"
        notes.append(f"{OTHER_DATA} Minari's {minari_id}, another recording than {than}")
    elif dataset_id is None:
        notes.append(f"{OTHER_DATA} not D4RL's")
    else:
        newest = catalogue.latest(catalogue.find(dataset_id)).id
        if newest != dataset_id:
            notes.append(f"{OTHER_DATA} {dataset_id}, published scores are mostly for {newest}")
    return "; ".join(notes)


def _of_minari(env_id: str, dataset_id: str) -> Reference | None:
    """Those of the D4RL data set that a Minari data set stands for, for the environment that its metadata describe."""
    entry = catalogue.find_minari(dataset_id)
    if entry is None:
        return None
    note = f"the references were measured in {entry.id}, not in the environment of Minari's {dataset_id}"
    return Reference(env_id, entry.reference_min, entry.reference_max, D4RL, entry.id, note)


def _of_package(env_id: str) -> Reference | None:
    try:
        entry = catalogue.find(env_id.removeprefix(catalogue.PREFIX))
    except ConfigError:
        return None
    return Reference(env_id, entry.reference_min, entry.reference_max, D4RL, entry.id)
