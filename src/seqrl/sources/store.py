"""A folder that `EpisodeStore.save` wrote: mapped into memory, not read."""

from __future__ import annotations

from pathlib import Path

from seqrl.data.episodes import EpisodeStore
from seqrl.formats.flat import FlatEpisodes
from seqrl.paths import find_path
from seqrl.registry import register_data
from seqrl.sources import DataSource


@register_data("store")
class StoreSource(DataSource):
    """Episodes that were saved from Python: opened whatever their size, which may be beyond memory.

    They are hashed when they are opened for the first time, and at once from then on.

    Args:
        path: the folder.
        dataset_name: name of the data set in tables; what was saved, or the folder's name, by default.
        env_id: Gymnasium id to evaluate in; what was saved by default.
    """

    def __init__(self, path: str, *, dataset_name: str | None = None, env_id: str | None = None) -> None:
        self.path = find_path(path)
        self.name = dataset_name
        self.env_id = env_id

    def local_files(self) -> list[Path]:
        return [self.path]

    def load(self) -> EpisodeStore:
        store = EpisodeStore.open(self.path, by_content=True)
        saved = store.attributes
        name, env_id = self.name or saved.get("name") or self.path.name, self.env_id or saved.get("env_id")
        return store.described(name=name, env_id=env_id)

    def read(self) -> FlatEpisodes:
        return FlatEpisodes.of(self.load(), self.path.name)
