"""Writing episodes as a data set of Minari."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.data.checks import DISCRETE, read_counts
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.hdf5_writing import Disk, open_disk
from seqrl.formats.minari import import_minari
from seqrl.formats.recording import plain_attributes

STATES = ("infos/qpos", "infos/qvel")
"""Extras that Minari's copies keep."""


def write_minari(flat: FlatEpisodes, dataset_id: str, folder: Path) -> None:
    """Write through the library's storage, which needs no JAX, other than its collector."""
    minari = import_minari()
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
    infos = {key.removeprefix("infos/"): array for key, array in flat.extras.items() if key in STATES}

    def episodes(disk: Disk) -> Iterator[Any]:
        for episode, (start, stop) in enumerate(pairwise(flat.offsets)):
            disk.check()
            rows = slice(start, stop)
            final = observations[stop - 1] if finals is None else finals[episode]
            yield EpisodeBuffer(
                observations=np.concatenate([observations[rows], final[None]]),
                actions=actions[rows],
                rewards=np.asarray(flat.rewards[rows], np.float64),
                terminations=flat.terminals[rows],
                truncations=flat.timeouts[rows],
                infos={key: array[rows] for key, array in infos.items()} or None,
            )

    with open_disk(folder / "data" / "main_data.hdf5") as disk:
        storage._file_path = disk  # as h5py takes it in place of a path, or a full disk would end the process
        storage.update_episodes(episodes(disk))


def _env_spec(flat: FlatEpisodes) -> Any:
    """What Minari recovers the environment from; None where the id is not one of Gymnasium's own."""
    import gymnasium

    spec = gymnasium.registry.get(str(flat.attributes.get("env_id")))
    try:
        return spec if spec is not None and spec.to_json() else None
    except (TypeError, ValueError):  # registered with a class or a function instead of its place
        return None


def _as_minari(flat: FlatEpisodes, name: str) -> np.ndarray:
    """(N, ...) numbers, or (N,) int64 of what is declared as discrete, (N, n) of several choices."""
    array = np.asarray(getattr(flat, name))
    counts = read_counts(flat.attributes.get(DISCRETE[name.removeprefix("final_")]))
    if counts is None:
        return array
    return (array.reshape(-1) if len(counts) == 1 else array).astype(np.int64)


def _space(flat: FlatEpisodes, name: str, array: np.ndarray) -> Any:
    """As declared; of actions [-1, 1] where they lie in it, which is what nearly all environments take."""
    from gymnasium.spaces import Box, Discrete, MultiDiscrete

    counts = read_counts(flat.attributes.get(DISCRETE[name]))
    if counts is not None:
        return Discrete(counts[0]) if len(counts) == 1 else MultiDiscrete(list(counts))
    bound = 1.0 if name == "actions" and np.abs(array).max() <= 1.0 else np.inf
    return Box(-bound, bound, array.shape[1:], array.dtype.type)


def announce_namespace(dataset_id: str) -> None:
    """Minari lists data sets of a namespace only where the namespace was announced."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = parse_dataset_id(dataset_id)[0]
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)
