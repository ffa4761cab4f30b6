"""Where episodes come from (slot `data`)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from seqrl.data.episodes import EpisodeStore
from seqrl.formats.flat import FlatEpisodes


class DataSource(ABC):
    """A place that episodes can be read from; constructor arguments are the options of `data=...`."""

    @abstractmethod
    def load(self) -> EpisodeStore:
        """Read (or make) the episodes.

        Raises:
            seqrl.errors.DataError: they are missing or damaged, in one sentence that says what to do.
        """

    def read(self) -> FlatEpisodes:
        """The episodes as they were recorded, for inspection and conversion; by default what `load` makes of them."""
        store = self.load()
        return FlatEpisodes.of(store, str(store.attributes.get("name", "arrays")))
