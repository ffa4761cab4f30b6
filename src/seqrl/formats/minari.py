"""What reading, writing and acting share about Minari's data sets: finding them, and choosing among observations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrl.errors import ConfigError, DataError, did_you_mean
from seqrl.formats.minari_arrays import check_arrays
from seqrl.formats.minari_metadata import read_metadata
from seqrl.formats.recording import first_line
from seqrl.formats.spaces import is_served
from seqrl.paths import home_dir, named_dir

MINARI = "minari:"  # before an id, where paths and other ids may stand as well
INSTALL = "pip install 'seqrl[minari]'"
FOLDER = "MINARI_DATASETS_PATH"  # the variable that names where data sets lie


def locate_data(dataset_id: str) -> Path:
    """The folder of the files of a data set, there or not, found as Minari finds it and without importing it."""
    root = named_dir(FOLDER) or home_dir() / ".minari" / "datasets"
    return root / dataset_id / "data"


def open_dataset(dataset_id: str, *, download: bool) -> tuple[Any, dict[str, Any]]:
    """The `minari.MinariDataset` of an id, and its metadata; those are checked before the library sees them.

    Raises:
        ConfigError: the library is not installed, or the id is none.
        DataError: there is no such data set, it cannot be downloaded or read, or its metadata could run code.
    """
    place = find_dataset(dataset_id, download=download)
    metadata = read_metadata(place, dataset_id)
    check_arrays(place, metadata, dataset_id)
    try:
        return import_minari().load_dataset(dataset_id), metadata
    except Exception as error:  # the library and those below it have no common error
        raise DataError(
            f"the Minari data set {dataset_id!r} is in {str(place)!r}, but {_why(error, metadata)}; it is not damaged, "
            "so keep it"
        ) from error


def find_dataset(dataset_id: str, *, download: bool) -> Path:
    """The folder of a data set, which is fetched if it is missing and may be.

    Raises:
        ConfigError: the library is not installed, or the id is none.
        DataError: there is no such data set, or it cannot be downloaded.
    """
    minari = import_minari()
    check_id(dataset_id)
    from minari.storage.datasets_root_dir import get_dataset_path

    place = Path(get_dataset_path(dataset_id))
    if (place / "data").exists():
        return place
    if not download:
        raise DataError(
            f"the Minari data set {dataset_id!r} is not in {str(get_dataset_path())!r}."
            f"{did_you_mean(dataset_id, _local())} Run `minari download {dataset_id}`, or set data.download=true"
        )
    try:
        minari.download_dataset(dataset_id)  # files alone: nothing in them is loaded
    except Exception as error:
        raise DataError(
            f"the Minari data set {dataset_id!r} is not in {str(get_dataset_path())!r} and cannot be downloaded "
            f"({type(error).__name__}: {first_line(error)}).{did_you_mean(dataset_id, _local())} Where there is a "
            f"network, `minari download {dataset_id}` fetches it; copy its folder to {str(place)!r}"
        ) from error
    return place


def _why(error: Exception, metadata: Mapping[str, Any]) -> str:
    """Why the library does not load what lies there whole, and what helps."""
    reason = f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, PermissionError):
        return f"it may not be read ({reason}); check its permissions"
    if isinstance(error, KeyError) and error.args == (metadata["data_format"],):
        version = import_minari().__version__
        return f"minari {version} does not know its format {metadata['data_format']!r}; install a version that does"
    return f"minari cannot load it ({reason}); install the package or version that it names"


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
    from gymnasium.spaces import Box, Dict

    if not isinstance(space, Dict):
        if wanted:
            raise ConfigError(f"{origin} has observations of one part, and {list(wanted)} were chosen; choose none")
        if not is_served(space):
            raise DataError(
                f"{origin} has observations of kind {space}; only vectors, dicts of them and choices (Discrete, "
                "MultiDiscrete, MultiBinary) can be used"
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
