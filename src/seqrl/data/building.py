"""What an `EpisodeStore` is made of: flat arrays cut at their ends, or a list of episodes joined; checked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqrl.console import say
from seqrl.data.checks import DISCRETE, check_choices, check_numbers, read_counts, refuse_discrete
from seqrl.errors import DataError
from seqrl.layout import as_choices

_OF_EPISODES = ("observations", "actions", "rewards", "terminated", "truncated")


def cut_arrays(
    observations: Any,
    actions: Any,
    rewards: Any,
    ends: np.ndarray,
    terminals: np.ndarray,
    segment_ends: np.ndarray | None,
    *,
    extras: Mapping[str, Any],
    attributes: Mapping[str, Any],
    origin: str,
) -> dict[str, Any]:
    """The fields of a store by name; `EpisodeStore.from_arrays` says what is given and refused."""
    observations = _check_steps(observations, "observations", attributes, origin)
    actions = _check_steps(actions, "actions", attributes, origin)
    rewards = check_numbers(rewards, "rewards", 1, origin)
    count = len(observations)
    if count == 0:
        raise DataError(f"{origin} holds no transitions; record at least one episode of two steps")
    extras = {name: np.asarray(array) for name, array in extras.items()}
    named = {"actions": actions, "rewards": rewards, "ends": ends, "terminals": terminals, **extras}
    for name, array in named.items():
        if np.ndim(array) == 0 or len(array) != count:
            raise DataError(
                f"{origin}: {name} has {len(array) if np.ndim(array) else 'no'} rows and observations has {count}; "
                "one row per transition each"
            )
    ends, terminals = np.asarray(ends, bool), np.asarray(terminals, bool)
    if (terminals & ~ends).any():
        raise DataError(f"{origin}: row {int(np.argmax(terminals & ~ends))} is terminal but not the end of an episode")
    stops = np.flatnonzero(ends) + 1
    if len(stops) == 0 or stops[-1] != count:
        stops = np.append(stops, count)
    offsets = np.concatenate([[0], stops]).astype(np.int64)
    last = stops - 1
    segments = offsets
    if segment_ends is not None:
        inner = np.flatnonzero(np.asarray(segment_ends, bool)) + 1
        segments = np.unique(np.concatenate([offsets, inner])).astype(np.int64)
    return {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "offsets": offsets,
        "terminated": terminals[last],
        "truncated": ends[last] & ~terminals[last],
        "segments": segments,
        "attributes": dict(attributes),
        "extras": extras,
    }


def join_episodes(
    episodes: Sequence[Mapping[str, Any]], extras: Sequence[str], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a store by name; `EpisodeStore.from_episodes` says what is given and refused."""
    joined, lengths, terminated, truncated = _concatenate(episodes, ("observations", "actions", "rewards", *extras))
    _tell_unnamed(episodes, extras)
    ends, terminals = np.zeros((2, int(lengths.sum())), bool)
    last = np.cumsum(lengths) - 1
    ends[last], terminals[last] = True, terminated
    fields = cut_arrays(
        joined["observations"],
        joined["actions"],
        joined["rewards"],
        ends,
        terminals,
        None,
        extras={name: joined[name] for name in extras},
        attributes=attributes,
        origin="the list of episodes",
    )
    return {**fields, "truncated": truncated}


def _tell_unnamed(episodes: Sequence[Mapping[str, Any]], extras: Sequence[str]) -> None:
    """Say which keys of episodes nothing asks for: a layout that has them would find that they were never recorded."""
    named = {*_OF_EPISODES, *extras}
    unnamed = list({key: None for episode in episodes for key in episode if key not in named})
    if unnamed:
        what, it = ("a key", "it is") if len(unnamed) == 1 else ("keys", "they are")
        listed = ", ".join(map(repr, unnamed))
        tuple_of_all = ", ".join(map(repr, [*extras, *unnamed]))
        comma = "," if len(extras) + len(unnamed) == 1 else ""
        say(
            f"episodes have {what} {listed} that extras= does not name, so that {it} left out; "
            f"extras=({tuple_of_all}{comma}) keeps all"
        )


def boundaries_of(lengths: np.ndarray) -> np.ndarray:
    """(n + 1,) int64: where stretches of (n,) lengths begin that lie one after the other, and where the last ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def find_mismatch(fields: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray]) -> str | None:
    """What does not fit together of the fields of a store, or None.

    Args:
        fields: `observations actions rewards offsets terminated truncated segments`.
    """
    rows, episodes = len(fields["rewards"]), len(fields["offsets"]) - 1
    dims = {"observations": 2, "actions": 2, "rewards": 1}
    named = [(name, fields[name], dims[name]) for name in dims]
    named += [(f"extras {name!r}", array, array.ndim) for name, array in extras.items()]
    for name, array, wanted in named:
        if array.ndim != wanted or array.shape[:1] != (rows,):
            return f"{name} has shape {array.shape} beside {rows} rewards"
    for name in ("offsets", "segments"):
        bounds = fields[name]
        if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != rows or (np.diff(bounds) < 1).any():
            return f"{name} does not rise from 0 to {rows}"
    if fields["terminated"].shape != (episodes,) or fields["truncated"].shape != (episodes,):
        return f"terminated and truncated do not have {episodes} episodes"
    return None


def measure_sizes(
    fields: Mapping[str, Any], extras: Mapping[str, Any], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """What a layout needs to know of a store: `observation_size`, `action_size`, `categories`, and `extras` if any are.

    Args:
        fields: `observations` and `actions`.
    """
    discrete = {name.removesuffix("s"): key for name, key in DISCRETE.items()}
    discrete |= {name: f"num_{name}" for name in extras if name not in discrete}
    counts = {name: read_counts(attributes[key]) for name, key in discrete.items() if attributes.get(key) is not None}
    widths = {name: int(np.prod(array.shape[1:])) for name, array in extras.items()}
    return {
        "observation_size": fields["observations"].shape[1],
        "action_size": fields["actions"].shape[1],
        "categories": {name: as_choices(each) for name, each in counts.items() if each},
        **({"extras": widths} if widths else {}),
    }


def _check_steps(array: Any, name: str, attributes: Mapping[str, Any], origin: str) -> np.ndarray:
    """(N, O) observations or (N, A) actions, checked: of real numbers, or as the attributes declare."""
    count = attributes.get(DISCRETE[name])
    if count is not None:
        return check_choices(array, name, count, origin)
    refuse_discrete(np.asarray(array), name, origin)
    return check_numbers(array, name, 2, origin)


def _concatenate(
    episodes: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """The arrays of episodes one after the other.

    Args:
        names: keys of every episode with a row per step.

    Returns:
        (N, ...) arrays by name, (E,) int64 lengths, (E,) bool terminated, (E,) bool truncated.

    Raises:
        DataError: no episode, or one that lacks something or does not fit together, by its number.
    """
    if isinstance(episodes, Mapping):
        raise DataError("a single episode was given; give a list of episodes")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    ends = []
    for number, episode in enumerate(episodes):
        missing = {*names, "terminated"} - set(episode)
        if missing:
            raise DataError(f"episode {number} lacks {', '.join(sorted(missing))}")
        arrays = {name: _array(episode[name], name, number) for name in names}
        rows = {name: len(array) for name, array in arrays.items()}
        if len(set(rows.values())) > 1 or not rows[names[0]]:
            found = ", ".join(f"{count} {name}" for name, count in rows.items())
            raise DataError(f"episode {number} has {found}; give one of each for every step, and one step at least")
        for name, array in arrays.items():
            parts[name].append(array)
        ended = _flag(episode["terminated"], "terminated", number)
        limited = _flag(episode.get("truncated", True), "truncated", number) and not ended  # both at once: terminal
        ends.append((rows[names[0]], ended, limited))
    if not ends:
        raise DataError("the list of episodes is empty; give at least one episode")
    for name, each in parts.items():
        shapes = {array.shape[1:] for array in each}
        if len(shapes) > 1:
            raise DataError(
                f"the list of episodes: {name} has rows of different shapes, {sorted(shapes)}; make them one"
            )
    lengths, terminated, truncated = (np.array(column) for column in zip(*ends, strict=True))
    return {name: np.concatenate(each) for name, each in parts.items()}, lengths, terminated, truncated


def _array(value: Any, name: str, number: int) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"episode {number}: {name} cannot be made an array; give rows of one length") from error
    if array.ndim == 0:
        raise DataError(f"episode {number}: {name} is {value!r}; give one row for every step")
    return array


def _flag(value: Any, name: str, number: int) -> bool:
    flag = np.asarray(value)
    if flag.size != 1:
        raise DataError(
            f"episode {number}: {name} has shape {flag.shape}; give one bool that says how the episode ended"
        )
    return bool(flag.reshape(()))
