"""Minari's data sets, read through the `minari` library."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from seqrl.data.episodes import EpisodeStore
from seqrl.formats.cutting import cut_episodes
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.minari import check_id, choose_keys, find_dataset, import_minari, locate_data, open_dataset
from seqrl.formats.minari_environment import find_env_id
from seqrl.formats.minari_reading import Moment, measure_spaces, read_minari
from seqrl.registry import register_data
from seqrl.sources import DataSource, make_store


@register_data("minari")
class MinariSource(DataSource):
    """A data set of Minari, found in `$MINARI_DATASETS_PATH` (`~/.minari/datasets`) or downloaded there.

    Row t holds the observation before action t. What Minari keeps beyond that, the observation after the last action,
    is the end of its episode and starts no transition: training drops it, conversion keeps it.

    Args:
        id: such as `D4RL/pointmaze/umaze-v2`.
        observation_keys: which parts of dict observations make up an observation, in this order; parts of parts are
            written `desired_goal.microwave`. By default `observation`, then `desired_goal` (goal environments).
        download: fetch a data set that is not found locally.
        dataset_name: name of the data set in tables; the id by default.
        env_id: Gymnasium id to evaluate in; by default the environment that Minari recovers, with the same keys.
        max_transitions: keep whole episodes from the start, up to this many rows (quick runs).
        extras: infos to keep beside the steps, of the end of a step or of its beginning: `{cost: after, task: before}`.
    """

    def __init__(
        self,
        id: str,
        *,
        observation_keys: Sequence[str] | None = None,
        download: bool = True,
        dataset_name: str | None = None,
        env_id: str | None = None,
        max_transitions: Annotated[int, Ge(2)] | None = None,
        extras: Mapping[str, Moment] | None = None,
    ) -> None:
        self.id = id
        self.observation_keys = observation_keys
        self.download = download
        self.name = dataset_name or id
        self.env_id = env_id
        self.max_transitions = max_transitions
        self.extras = extras

    def local_files(self) -> list[Path]:
        return [locate_data(self.id)]

    def check(self) -> dict[str, Any]:
        """Spaces and environment of a data set that lies here, and of any whether its id is one."""
        import_minari()
        check_id(self.id)
        known = super().check()
        if not locate_data(self.id).exists():
            if not self.download:
                find_dataset(self.id, download=False)
            return known
        dataset, metadata = open_dataset(self.id, download=False)
        keys = choose_keys(dataset.observation_space, self.observation_keys, self.id)
        sizes = measure_spaces(dataset, keys, self.id)
        env_id = self.env_id or self._recorded(metadata, keys)
        return {**sizes, **({"env_id": env_id} if env_id else {})}

    def _recorded(self, metadata: Mapping[str, Any], keys: Sequence[str]) -> str | None:
        """The environment that the metadata name."""
        ours = metadata.get("seqrl_env_id")  # as `seqrl data` wrote it
        return ours if isinstance(ours, str) else find_env_id(metadata, self.id, keys)

    def load(self) -> EpisodeStore:
        return make_store(self.read())

    def read(self) -> FlatEpisodes:
        dataset, metadata = open_dataset(self.id, download=self.download)
        keys = choose_keys(dataset.observation_space, self.observation_keys, self.id)
        recording = read_minari(dataset, keys, self.id, self.max_transitions, self.extras)
        flat = cut_episodes(recording)
        attributes: dict[str, Any] = {
            **{key: metadata[key] for key in ("algorithm_name", "ref_min_score", "ref_max_score") if key in metadata},
            "name": self.name,
            "env_id": self.env_id or self._recorded(metadata, keys),
            "source": "minari",
            "minari_id": self.id,
            **({"observation_keys": list(keys)} if keys else {}),
            **flat.attributes,
        }
        return dataclasses.replace(flat, layout="minari", attributes=attributes).first(self.max_transitions)
