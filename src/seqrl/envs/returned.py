"""What an environment returns, as numbers: told in a sentence where it is none, with the environment and the step."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.errors import ConfigError, SeqrlError

LARGEST = float(np.finfo(np.float32).max)  # models compute in single precision


@dataclass(frozen=True)
class Moment:
    """Where and when an environment returned something, for messages.

    Attributes:
        env_id: of the environment.
        when: such as `in step 3`.
    """

    env_id: str
    when: str


@contextmanager
def telling(where: Moment) -> Iterator[None]:
    """Tell what an environment's own code raises in a sentence, with the line that raised it.

    Raises:
        ConfigError: in place of whatever is no error of ours.
    """
    try:
        yield
    except SeqrlError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{where.env_id} fails {where.when} ({explain(error)}); "
            "mend the environment, whose reset returns two things and whose step five, as Gymnasium's do"
        ) from error


def explain(error: Exception) -> str:
    """An error of somebody else's code, with the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    reason = _shorten(" ".join(f"{type(error).__name__}: {error}".split()))
    return f"{reason}; {Path(last.filename).name}, line {last.lineno}"


def read_reset(returned: Any, where: Moment) -> tuple[Any, dict[str, Any]]:
    """Observation and info of a `reset`.

    Raises:
        ConfigError: it returned something else than Gymnasium's two.
    """
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], Mapping):
        raise ConfigError(
            f"{where.env_id} returns {_kind(returned)} of reset; Gymnasium's returns an observation and a dict"
        )
    return returned[0], dict(returned[1])


def read_step(returned: Any, where: Moment) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """Observation, reward, terminated, truncated and info of a `step`. It may be terminated and truncated at once.

    Raises:
        ConfigError: it returned something else than Gymnasium's five, or a reward or flag that is none.
    """
    if not isinstance(returned, tuple) or len(returned) != 5:
        raise ConfigError(
            f"{where.env_id} returns {_kind(returned)} {where.when}; Gymnasium's step returns observation, reward, "
            "terminated, truncated and a dict"
        )
    observation, reward, terminated, truncated, info = returned
    flags = _flag(terminated, "terminated", where), _flag(truncated, "truncated", where)
    return observation, _reward(reward, where), *flags, dict(info or {})


def read_observation(observation: Any, size: int, first: np.ndarray | None, where: Moment) -> np.ndarray:
    """(O,) float32 of one observation; NaN and infinity are refused, and what single precision makes infinite.

    Args:
        size: O.
        first: (O,) what the first value of each number of a discrete observation is called; None for others.

    Raises:
        ConfigError: other numbers than the space has, or no finite ones.
    """
    try:
        array = np.asarray(observation)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiub" or array.size != size:
        raise ConfigError(
            f"{where.env_id} gives the observation {_short(observation)}; its space has {size} numbers ({where.when})"
        )
    flat = array.reshape(-1)
    with np.errstate(over="ignore"):
        numbers: np.ndarray = (flat if first is None else flat - first).astype(np.float32)
    finite = np.isfinite(numbers)
    if not finite.all():
        place = int(np.argmin(finite))
        raise ConfigError(
            f"{where.env_id} gives {flat[place]} in dimension {place} of the observation {where.when}; observations "
            "are finite numbers below 3.4e38, so mend the environment"
        )
    return numbers


def _reward(reward: Any, where: Moment) -> float:
    """A reward, which may be an array of one number, as computed from an action (1,)."""
    array = np.asarray(reward)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise ConfigError(f"{where.env_id} gives the reward {_short(reward)}; a reward is one number ({where.when})")
    number = float(array.reshape(()))
    if not abs(number) <= LARGEST:  # NaN as well
        raise ConfigError(
            f"{where.env_id} gives the reward {number} {where.when}; rewards are finite numbers below 3.4e38, so mend "
            "the environment"
        )
    return number


def _flag(flag: Any, name: str, where: Moment) -> bool:
    array = np.asarray(flag)
    if array.size != 1 or array.dtype.kind not in "biu":
        raise ConfigError(f"{where.env_id} gives {name}={_short(flag)}; it is true or false ({where.when})")
    return bool(array.reshape(()))


def _kind(value: Any) -> str:
    return f"{len(value)} things" if isinstance(value, tuple) else f"a {type(value).__name__}"


def _short(value: Any) -> str:
    return _shorten(" ".join(repr(value).split()))


def _shorten(text: str) -> str:
    return text if len(text) <= 240 else f"{text[:240]}..."
