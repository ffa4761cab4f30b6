"""What the flags of D4RL's files mean, which differs from family to family.

The guide docs/guides/data_d4rl.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqrl.d4rl.catalogue import Entry, latest


@dataclass(frozen=True)
class Convention:
    """How the files of a family are cut into episodes (`seqrl.formats.cutting.cut_episodes` has the rules).

    Attributes:
        rule: for files with timeouts.
        without_timeouts: for files without; None where their resets cannot be told.
        return_note: why the returns of such episodes do not compare with an evaluation's; empty where they do.
    """

    rule: str
    without_timeouts: str | None
    return_note: str = ""


CONVENTIONS = {
    "locomotion": Convention("timeouts", "time_limit"),
    "maze2d": Convention("stream", "stream"),
    "antmaze": Convention("recordings", None, "a recording goes on, and earns, past the goal that ends an evaluation"),
    "adroit": Convention("timeouts", None),
    "kitchen": Convention(
        "recordings", "recordings", "every step earns the number of tasks done, an evaluation each task once"
    ),
    "bullet": Convention("timeouts", "time_limit"),
    "minigrid": Convention("timeouts", "time_limit"),
    "flow": Convention("timeouts", "time_limit"),
    "carla": Convention("timeouts", "time_limit"),
}


def rows_without_timeouts(entry: Entry) -> int:
    """Rows of a full episode in a file without timeouts: the task's limit, one less in the v0 locomotion files.

    Those never recorded the last step: https://github.com/Farama-Foundation/D4RL/issues/40 sees no reset at rows 9000
    and 10000, and TensorFlow Datasets counts 1,002 episodes in the 1,000,000 rows of halfcheetah-medium-v0, since it
    has timeouts.
    """
    return entry.max_episode_steps - (entry.family == "locomotion" and entry.version == 0)


def choose_rule(entry: Entry, *, timeouts: bool) -> str | None:
    """The rule by which a file of a data set, or one that resembles it, is cut; None where resets cannot be told.

    Args:
        timeouts: whether the file has any.
    """
    convention = CONVENTIONS[entry.family]
    return convention.rule if timeouts else convention.without_timeouts


def advise(entry: Entry) -> str:
    """What to do with a file that has no rule, the end of a sentence."""
    return f"take data.id={latest(entry).id}, or set data.episodes to the rule that fits the file"
