"""Your own episodes, from an NPZ or HDF5 file of plain arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from seqrl.data.cache import read_or_build
from seqrl.data.episodes import EpisodeStore
from seqrl.formats.cutting import cut_episodes
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.reading import read_recording
from seqrl.paths import find_path
from seqrl.registry import Counts, register_data
from seqrl.sources import DataSource, make_store

CACHED_BYTES = 2**26
"""Files of this size and more are kept in the cache folder as mapped arrays: every rank would hold them in memory."""


@register_data("arrays")
class ArraysSource(DataSource):
    """An NPZ or HDF5 file of flat arrays: episodes by `offsets`, by `terminals` and `timeouts`, or as in OGBench.

    The keys decide which of the layouts it is, see `seqrl.formats.cutting.cut_episodes`. The episodes of large
    files are read once and then mapped from `$SEQRL_DATA/episodes`.

    Args:
        path: the file.
        dataset_name: name of the data set in tables; what the file says, or its stem, by default.
        env_id: Gymnasium id to evaluate in; what the file says by default. Training needs none.
        num_actions, num_observations: how many values discrete actions or observations have, or a list of how many
            each of several has; what the file says by default, and None for real numbers.
        max_transitions: keep whole episodes from the start, up to this many rows (quick runs).

    Reference: OGBench's layout is that of Park et al. 2025, https://arxiv.org/abs/2410.20092, `ogbench/utils.py`.
    """

    def __init__(
        self,
        path: str,
        *,
        dataset_name: str | None = None,
        env_id: str | None = None,
        num_actions: Counts | None = None,
        num_observations: Counts | None = None,
        max_transitions: Annotated[int, Ge(2)] | None = None,
    ) -> None:
        self.path = find_path(path)
        self.name = dataset_name
        self.env_id = env_id
        given = {"num_actions": num_actions, "num_observations": num_observations}
        self.discrete = {key: list(each) if isinstance(each, tuple) else each for key, each in given.items()}
        self.max_transitions = max_transitions

    def local_files(self) -> list[Path]:
        return [self.path]

    def read(self) -> FlatEpisodes:
        """The episodes with what a store has no place for; NaN is not refused."""
        flat = cut_episodes(read_recording(self.path)).first(self.max_transitions)
        attributes = {
            **flat.attributes,
            "name": self.name or flat.attributes.get("name") or self.path.stem,
            "env_id": self.env_id or flat.attributes.get("env_id"),
            "source": "arrays",
            **{key: count for key, count in self.discrete.items() if count is not None},
        }
        return dataclasses.replace(flat, attributes=attributes).in_columns()

    def load(self) -> EpisodeStore:
        if not self.path.is_file() or self.path.stat().st_size < CACHED_BYTES:
            return make_store(self.read())
        options = self.name, self.env_id, self.discrete, self.max_transitions, self.path.stem
        return read_or_build(self.path, options, lambda: make_store(self.read()))
