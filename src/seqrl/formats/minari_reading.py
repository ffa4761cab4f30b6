"""Reading a data set of Minari as one recording: its episodes one after the other, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from seqrl.data.checks import DISCRETE, is_picture
from seqrl.errors import DataError, explain_unread, is_damage
from seqrl.formats.hdf5_reasons import explain_failure
from seqrl.formats.minari import part_of
from seqrl.formats.recording import Recording, first_line
from seqrl.formats.spaces import count_choices, first_choices, is_served

Moment = Literal["before", "after"]


def read_minari(
    dataset: Any,
    keys: Sequence[str],
    origin: str,
    max_transitions: int | None,
    extras: Mapping[str, Moment] | None = None,
) -> Recording:
    """Read the episodes; reading stops where enough rows are there.

    Args:
        dataset: a `minari.MinariDataset`.
        keys: the parts of dict observations that make up an observation; none for observations of one part.
        extras: infos to keep: those of a step's beginning (`before` its action) or of its end (`after`).
        origin: how to call it in messages.

    Returns:
        The keys `observations actions rewards offsets terminated truncated`, `final_observations` where every episode
        has one, `infos/qpos` and `infos/qvel` where all have them,
        and the extras as `infos/NAME`. Values of discrete spaces are counted from 0,
        and attributes say how many there are.

    Raises:
        DataError: no transitions, a damaged episode, pictures, or actions that are neither vectors nor single choices.
    """
    spaces = {"observations": dataset.observation_space, "actions": dataset.action_space}
    _refuse_other_actions(spaces["actions"], origin)
    _refuse_pictures(spaces, keys, origin)
    read: list[dict[str, np.ndarray]] = []
    rows = 0
    for number, episode in enumerate(_episodes(_undecoded(dataset), origin)):
        where = f"episode {number} of {origin}"
        arrays = _arrays_of(episode, keys, where) | _extras_of(episode.infos or {}, episode, extras or {}, where)
        if len(arrays["rewards"]):
            read.append(arrays)
            rows += len(arrays["rewards"])
        if max_transitions is not None and rows >= max_transitions:
            break
    if not rows:
        raise DataError(f"{origin} holds no transitions; record at least one episode of two steps")
    kept = [key for key in read[0] if all(key in arrays for arrays in read)]
    joined = {key: np.concatenate([arrays[key] for arrays in read]) for key in kept}
    if len(joined["final_observations"]) < len(read):
        del joined["final_observations"]
    joined["offsets"] = np.cumsum([0, *(len(arrays["rewards"]) for arrays in read)])
    return Recording(origin, *_count_from_zero(joined, spaces))


def _arrays_of(episode: Any, keys: Sequence[str], origin: str) -> dict[str, np.ndarray]:
    """One episode of T steps; `final_observations` has one row or, where the last one was not recorded, none."""
    seen, acted, earned = _observations(episode.observations, keys), np.asarray(episode.actions), episode.rewards
    steps = len(earned)
    ended = np.asarray(episode.terminations, bool), np.asarray(episode.truncations, bool)
    if len(acted) != steps or len(seen) not in (steps, steps + 1) or {len(each) for each in ended} != {steps}:
        raise DataError(
            f"{origin} has {len(seen)} observations, {len(acted)} actions and {steps} rewards; one of each for every "
            "step, and one observation more, are needed"
        )
    return {
        "observations": seen[:steps],
        "final_observations": seen[steps:],
        "actions": acted.reshape(steps, -1),
        "rewards": np.asarray(earned),
        "terminated": ended[0][-1:],
        "truncated": ended[1][-1:],
        **{f"infos/{key}": array[:steps] for key, array in _states(episode.infos or {}, steps).items()},
    }


def _extras_of(
    infos: Mapping[str, Any], episode: Any, extras: Mapping[str, Moment], origin: str
) -> dict[str, np.ndarray]:
    """The infos to keep, a row for each step; the first info of an episode is that of its reset.

    Raises:
        DataError: one that was not recorded, or not for every step.
    """
    found, steps = {}, len(episode.rewards)
    for name, moment in extras.items():
        if name not in infos:
            listed = ", ".join(sorted(infos)) or "none"
            raise DataError(f"{origin} has no info {name!r}, which data.extras asks for; its infos: {listed}")
        array = np.asarray(infos[name])
        if array.dtype.kind not in "fiub" or array.ndim == 0 or len(array) != steps + 1:
            raise DataError(
                f"{origin}: info {name!r} has shape {array.shape} and type {array.dtype}; {steps + 1} rows of numbers "
                "are needed, one at the start and one for each step"
            )
        found[f"infos/{name}"] = array[1:] if moment == "after" else array[:-1]
    return found


def _refuse_other_actions(space: Any, origin: str) -> None:
    if not is_served(space):
        raise DataError(
            f"{origin} has actions of kind {space}; only vectors and choices (Discrete, MultiDiscrete, MultiBinary) "
            "can be used"
        )


def measure_spaces(dataset: Any, keys: Sequence[str], origin: str) -> dict[str, Any]:
    """What `EpisodeStore.sizes` will say of a data set, by its spaces.

    Raises:
        DataError: actions or observations that cannot be used.
    """
    seen, acted = dataset.observation_space, dataset.action_space
    _refuse_other_actions(acted, origin)
    parts = {"observation": [part_of(seen, key) for key in keys] or [seen], "action": [acted]}
    sizes = {f"{name}_size": sum(int(np.prod(each.shape)) for each in spaces) for name, spaces in parts.items()}
    counts = {name: count_choices(spaces[0]) for name, spaces in parts.items()}
    return {**sizes, "categories": {name: each for name, each in counts.items() if each is not None}}


def _count_from_zero(
    arrays: dict[str, np.ndarray], spaces: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The values of discrete spaces counted from 0, and the attributes that say how many there are.

    Whole numbers of boxes are amounts and no choices, which real numbers tell.
    """
    changed, attributes = dict(arrays), {}
    for name, space in spaces.items():
        choices = count_choices(space)
        if choices is not None:
            attributes[DISCRETE[name]] = list(choices) if isinstance(choices, tuple) else choices
        for key in (name, f"final_{name}"):
            if key not in arrays:
                continue
            if choices is not None:
                rows = arrays[key]
                changed[key] = (rows if rows.ndim == 1 else rows.reshape(len(rows), -1)) - first_choices(space)
            elif arrays[key].dtype.kind in "iub":
                changed[key] = arrays[key].astype(np.float64)
    return changed, attributes


def _refuse_pictures(spaces: Mapping[str, Any], keys: Sequence[str], origin: str) -> None:
    """Refuse chosen parts that are images, kept as JPEG or not."""
    chosen = [part_of(spaces["observations"], key) for key in keys] or [spaces["observations"]]
    for space in [*chosen, spaces["actions"]]:
        if space.shape is not None and is_picture(space.shape, space.dtype):
            raise DataError(f"{origin} has pictures of shape {space.shape}; only vectors can be used, so choose others")


def _undecoded(dataset: Any) -> Any:
    """The storage of a data set that leaves pictures as the bytes that they are.

    Decoding tries every kind of picture that Pillow knows, and for PostScript it runs another program.
    """
    storage = dataset.storage
    return type(storage)(storage.data_path, dataset.observation_space, dataset.action_space, jpeg_encoding=False)


def _episodes(storage: Any, origin: str) -> Iterator[Any]:
    """The episodes, with what goes wrong while they are read told in a sentence."""
    from minari import EpisodeData

    try:
        for episode in storage.get_episodes(range(storage.total_episodes)):
            yield EpisodeData(**episode)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AssertionError, MemoryError) as error:
        raise DataError(_why(error, storage, origin)) from error


def _why(error: Exception, storage: Any, origin: str) -> str:
    """Why episodes cannot be read, and what helps; a file that is in use or unreadable here is no damaged one."""
    if storage.FORMAT == "hdf5" and isinstance(error, OSError | MemoryError):
        return f"{origin}: {explain_failure(error, storage.data_path / 'main_data.hdf5')}"
    if not is_damage(error):
        return explain_unread(storage.data_path, error)
    reason = f"{type(error).__name__}: {first_line(error)}"
    return f"the Minari data set {origin} is damaged ({reason}); take a copy of it, or fetch it again"


def _observations(observations: Any, keys: Sequence[str]) -> np.ndarray:
    """(T or T + 1, O): the parts side by side."""
    parts = [np.asarray(part_of(observations, key)) for key in keys] or [np.asarray(observations)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _states(infos: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """MuJoCo's positions and velocities before each action, where they were recorded."""
    found = {key: np.asarray(infos[key]) for key in ("qpos", "qvel") if key in infos}
    return {key: array for key, array in found.items() if array.ndim and len(array) in (steps, steps + 1)}
