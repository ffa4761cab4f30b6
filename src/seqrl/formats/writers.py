"""Recorded episodes to HDF5 (D4RL's layout), NPZ and Minari; whole or not at all, over nothing unless asked to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.data.checks import DISCRETE
from seqrl.errors import ConfigError, DataError
from seqrl.files import write_file, write_folder
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.hdf5 import write_hdf5
from seqrl.formats.minari import MINARI, check_id, library
from seqrl.formats.npz import write_npz
from seqrl.formats.recording import plain_attributes

HDF5_SUFFIXES = (".hdf5", ".h5")
_ELSEWHERE = "give a place with room that you may write to"
FORMATS = ".hdf5 or .h5 (D4RL's layout), .npz, or minari:ID"


def check_target(target: str, *, overwrite: bool) -> None:
    """Refuse a target of unknown format, one that exists or one that cannot be written, before the work.

    Raises:
        ConfigError: naming the formats, or the switch that replaces what exists.
        DataError: its folder takes no new files.
    """
    if target.startswith(MINARI):
        library()
        check_id(target.removeprefix(MINARI))
    elif Path(target).suffix not in (*HDF5_SUFFIXES, ".npz"):
        raise ConfigError(f"{target!r} has no known format; give a name that ends in {FORMATS}")
    if not overwrite and place(target).exists():
        raise ConfigError(f"{target!r} exists already; choose another name, or --overwrite it")
    folder = next(each for each in place(target).absolute().parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        why = f"{str(folder)!r} takes no new files" if folder.is_dir() else f"{str(folder)!r} is a file"
        raise DataError(f"{target!r} cannot be written ({why}); {_ELSEWHERE}")


def write(flat: FlatEpisodes, target: str, *, overwrite: bool = False) -> list[str]:
    """Write episodes.

    Args:
        target: its suffix, or `minari:`, says the format.

    Returns:
        What the format could not keep, a sentence each.

    Raises:
        ConfigError: as `check_target`.
        DataError: episodes that no store could be made of, or a place that cannot be written to.
    """
    check_target(target, overwrite=overwrite)
    flat.store()  # what is written can be read
    path = place(target)
    notes: list[str] = []
    if target.startswith(MINARI):
        notes = [] if flat.final_observations is not None else [_REPEATED]
        put(path, lambda new: _write_minari(flat, target.removeprefix(MINARI), new), folder=True, overwrite=overwrite)
        _name_spaces(target.removeprefix(MINARI))
    elif path.suffix == ".npz":
        put(path, lambda new: write_npz(new, _arrays_by_offsets(flat), flat.attributes), overwrite=overwrite)
    else:
        last = flat.offsets[1:-1] - 1  # of all episodes but the last
        cut = int((~flat.terminals[last] & ~flat.timeouts[last]).sum())
        notes = [f"{cut} episodes that were cut count as timeouts: D4RL's layout has no other word"] if cut else []
        put(path, lambda new: write_hdf5(new, _arrays_by_flags(flat), flat.attributes), overwrite=overwrite)
    return notes


_REPEATED = "the observations after the last actions are not known: Minari's copies repeat the last observation there"


def copy(source: Path, target: str, *, overwrite: bool = False) -> None:
    """Copy a file, whole or not at all.

    Raises:
        ConfigError, DataError: as `write`.
    """
    check_target(target, overwrite=overwrite)
    put(place(target), lambda new: shutil.copyfile(source, new), overwrite=overwrite)


def place(target: str) -> Path:
    """The file, or the folder of a Minari data set, that a target names."""
    if not target.startswith(MINARI):
        return Path(target).expanduser()
    library()
    from minari.storage.datasets_root_dir import get_dataset_path

    return Path(get_dataset_path(target.removeprefix(MINARI)))


def put(
    path: Path, make: Callable[[Path], Any], *, overwrite: bool, folder: bool = False, advice: str = _ELSEWHERE
) -> None:
    """Fill an empty file or folder beside its place, then put it there in one step.

    A file that is there is replaced, and a folder with `overwrite` only.

    Args:
        make: fills what lies at the path it is given.

    Raises:
        DataError: it cannot be written, which is followed by the advice; nothing is left of it.
    """
    try:
        if folder:
            with write_folder(path, overwrite=overwrite) as new:
                make(new)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_file(path) as file:
                make(Path(file.name))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise DataError(f"{str(path)!r} cannot be written ({why}); {advice}") from error


def _arrays_by_flags(flat: FlatEpisodes) -> dict[str, np.ndarray]:
    """D4RL's layout. Every end but a true one is a timeout; a cut episode can be left open only at the very end."""
    timeouts = flat.ends & ~flat.terminals
    timeouts[-1] &= flat.timeouts[-1]
    return {**_steps(flat), "terminals": flat.terminals, "timeouts": timeouts, **_further(flat)}


def _arrays_by_offsets(flat: FlatEpisodes) -> dict[str, np.ndarray]:
    offsets = flat.offsets
    last = offsets[1:] - 1
    ends = {"offsets": offsets, "terminated": flat.terminals[last], "truncated": flat.timeouts[last]}
    return {**_steps(flat), **ends, **_further(flat)}


def _steps(flat: FlatEpisodes) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(flat, name)) for name in ("observations", "actions", "rewards")}


_RESERVED = {"observations", "actions", "rewards", "terminals", "timeouts", "offsets", "terminated", "truncated"}


def _further(flat: FlatEpisodes) -> dict[str, np.ndarray]:
    """Extras, and what not every recording has."""
    extras = {key: array for key, array in flat.extras.items() if key not in _RESERVED}
    found = {"final_observations": flat.final_observations, "segment_ends": flat.segment_ends}
    return extras | {key: array for key, array in found.items() if array is not None}


def _write_minari(flat: FlatEpisodes, dataset_id: str, folder: Path) -> None:
    """Write through the library's storage, which needs no JAX, other than its collector."""
    minari = library()
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    observations, actions = (_as_minari(flat, name) for name in DISCRETE)
    finals = None if flat.final_observations is None else _as_minari(flat, "final_observations")
    storage = MinariStorage.new(
        folder / "data",
        observation_space=_space(flat, "observations", observations),
        action_space=_space(flat, "actions", actions),
        env_spec=_env_spec(flat),
        data_format="hdf5",
    )
    kept = plain_attributes(flat.attributes)
    storage.update_metadata(
        {
            "dataset_id": dataset_id,
            "minari_version": minari.__version__,
            **({"algorithm_name": str(kept["policy"])} if "policy" in kept else {}),
            **({"seqrl_env_id": str(kept["env_id"])} if "env_id" in kept else {}),
        }
    )
    infos = {key.removeprefix("infos/"): array for key, array in flat.extras.items() if key in _STATES}
    offsets = flat.offsets
    for episode, (start, stop) in enumerate(pairwise(offsets)):
        rows = slice(start, stop)
        final = observations[stop - 1] if finals is None else finals[episode]
        storage.update_episodes(
            [
                EpisodeBuffer(
                    observations=np.concatenate([observations[rows], final[None]]),
                    actions=actions[rows],
                    rewards=np.asarray(flat.rewards[rows], np.float64),
                    terminations=flat.terminals[rows],
                    truncations=flat.timeouts[rows],
                    infos={key: array[rows] for key, array in infos.items()} or None,
                )
            ]
        )


_STATES = ("infos/qpos", "infos/qvel")


def _env_spec(flat: FlatEpisodes) -> Any:
    """What Minari recovers the environment from; None where the id is not one of Gymnasium's own."""
    import gymnasium

    return gymnasium.registry.get(str(flat.attributes.get("env_id")))


def _as_minari(flat: FlatEpisodes, name: str) -> np.ndarray:
    """(N, ...) numbers, or (N,) int64 of what is declared as discrete."""
    array = np.asarray(getattr(flat, name))
    if flat.attributes.get(DISCRETE[name.removeprefix("final_")]) is None:
        return array
    return array.reshape(-1).astype(np.int64)


def _space(flat: FlatEpisodes, name: str, array: np.ndarray) -> Any:
    """As declared; of actions [-1, 1] where they lie in it, which is what nearly all environments take."""
    from gymnasium.spaces import Box, Discrete

    count = flat.attributes.get(DISCRETE[name])
    if count is not None:
        return Discrete(int(count))
    bound = 1.0 if name == "actions" and np.abs(array).max() <= 1.0 else np.inf
    return Box(-bound, bound, array.shape[1:], array.dtype.type)


def _name_spaces(dataset_id: str) -> None:
    """Minari lists data sets of a namespace only where the namespace was announced."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = parse_dataset_id(dataset_id)[0]
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)
