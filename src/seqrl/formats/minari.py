"""What reading, writing and acting share about Minari's data sets: finding them, and choosing among observations."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from seqrl.errors import ConfigError, DataError, did_you_mean
from seqrl.paths import named_dir

MINARI = "minari:"  # before an id, where paths and other ids may stand as well
INSTALL = "pip install 'seqrl[minari]'"
FOLDER = "MINARI_DATASETS_PATH"  # the variable that names where data sets lie


def open_dataset(dataset_id: str, *, download: bool) -> Any:
    """The `minari.MinariDataset` of an id.

    Raises:
        ConfigError: the library is not installed, or the id is none.
        DataError: there is no such data set, or it cannot be downloaded or read.
    """
    minari = import_minari()
    check_id(dataset_id)
    from minari.storage.datasets_root_dir import get_dataset_path

    place = get_dataset_path(dataset_id)
    here = (place / "data").exists()
    if not here and not download:
        known = sorted(_local())
        raise DataError(
            f"the Minari data set {dataset_id!r} is not in {str(get_dataset_path())!r}."
            f"{did_you_mean(dataset_id, known)} Run `minari download {dataset_id}`, or set data.download=true"
        )
    try:
        return minari.load_dataset(dataset_id, download=download)
    except Exception as error:  # the library and the clients below it have no common error
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if here and isinstance(error, OSError | KeyError | json.JSONDecodeError):
            raise DataError(
                f"the Minari data set {dataset_id!r} in {str(place)!r} is damaged ({reason}); take a copy of it, or "
                "fetch it again"
            ) from error
        if here:
            raise DataError(
                f"the Minari data set {dataset_id!r} is in {str(place)!r}, but minari cannot load it "
                f"({type(error).__name__}: {reason}); install the package or version that it names"
            ) from error
        raise DataError(
            f"the Minari data set {dataset_id!r} is not in {str(get_dataset_path())!r} and cannot be downloaded "
            f"({type(error).__name__}: {reason}).{did_you_mean(dataset_id, _local())} Where there is a network, "
            f"`minari download {dataset_id}` fetches it; copy its folder to {str(place)!r}"
        ) from error


def import_minari() -> Any:
    """The module `minari`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import minari
    except ImportError as error:
        raise ConfigError(f"Minari's data sets need the package minari ({error}); run {INSTALL}") from error
    if folder := named_dir(FOLDER):  # of which minari takes `~` for a name
        os.environ[FOLDER] = str(folder)
    return minari


def check_id(dataset_id: str) -> None:
    """Refuse what cannot be an id of a data set.

    Raises:
        ConfigError: saying what ids look like.
    """
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:  # without a version it takes int() of None
        raise ConfigError(
            f"{dataset_id!r} is no Minari id; give namespace/name-v0, where the namespace may be left out"
        ) from error


def _local() -> list[str]:
    import minari

    try:
        return [str(name) for name in minari.list_local_datasets()]
    except Exception:  # one damaged folder spoils the listing, which only helps with typing errors
        return []


def choose_keys(space: Any, wanted: Sequence[str] | None, origin: str) -> tuple[str, ...]:
    """The parts of a dict observation that make up an observation, in order; empty for observations of one part.

    Args:
        space: of observations.
        wanted: names of parts; None for `observation`, then `desired_goal`.

    Raises:
        ConfigError: unknown parts, or no goal environment and no choice.
        DataError: parts that are no numbers.
    """
    from gymnasium.spaces import Box, Dict, Discrete

    if not isinstance(space, Dict):
        if wanted:
            raise ConfigError(f"{origin} has observations of one part, and {list(wanted)} were chosen; choose none")
        if not isinstance(space, Box | Discrete):
            raise DataError(
                f"{origin} has observations of kind {space}; only vectors, dicts of them and single discrete "
                "observations can be used"
            )
        return ()
    parts = leaves(space)
    listed = ", ".join(parts)
    if wanted is None:
        if not {"observation", "desired_goal"} <= set(parts):
            raise ConfigError(
                f"{origin} has observations of several parts; choose with data.observation_keys=[...] among {listed}"
            )
        wanted = ("observation", "desired_goal")
    for key in wanted:
        if key not in parts:
            raise ConfigError(f"{origin} has no observation part {key!r}.{did_you_mean(key, parts)} Parts: {listed}")
        if not isinstance(parts[key], Box):
            raise DataError(f"{origin}: the observation part {key!r} is {parts[key]}; only vectors can be used")
    if not wanted:
        raise ConfigError(f"data.observation_keys is empty; choose among {listed}")
    return tuple(wanted)


def leaves(space: Any, prefix: str = "") -> dict[str, Any]:
    """The parts of a `gymnasium.spaces.Dict` by name, parts of parts with a dot."""
    from gymnasium.spaces import Dict

    found: dict[str, Any] = {}
    for key, part in space.spaces.items():
        if isinstance(part, Dict):
            found |= leaves(part, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = part
    return found


def part_of(observation: Any, key: str) -> Any:
    """The part of a dict observation, or of a batch of them, that a name of `leaves` stands for."""
    for word in key.split("."):
        observation = observation[word]
    return observation
