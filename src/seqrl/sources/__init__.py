"""Where episodes come from (slot `data`), and which source the short name of a data set stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqrl.console import say
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError, DataError
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.minari import MINARI
from seqrl.formats.recording import read_start
from seqrl.paths import find_path
from seqrl.registry import DATA


def make_store(flat: FlatEpisodes) -> EpisodeStore:
    """The episodes to train on; what reading them had to assume is said.

    Raises:
        DataError: as `FlatEpisodes.store`.
    """
    store = flat.store()
    for remark in flat.remarks:
        say(f"{flat.origin}: {remark}")
    return store


class DataSource(ABC):
    """A place that episodes can be read from; constructor arguments are the options of `data=...`."""

    @abstractmethod
    def load(self) -> EpisodeStore:
        """Read (or make) the episodes.

        Raises:
            seqrl.errors.DataError: they are missing or damaged, in one sentence that says what to do.
        """

    def local_files(self) -> list[Path]:
        """The files and folders that the episodes are read from, whether they are there yet or not.

        A run tells by their content whether its data are still what it saw; none where the episodes are made.
        """
        return []

    def check(self) -> dict[str, Any]:
        """Refuse what can be told without reading episodes, and say what can not; nothing is fetched.

        Returns:
            What is known of them already: `env_id`, and sizes as in `EpisodeStore.sizes`.

        Raises:
            seqrl.errors.SeqrlError: as `load`.
        """
        for path in self.local_files():
            if not path.exists():
                say(f"{str(path)!r} is not there, so that nothing can be told of what it will hold")
            elif not path.is_dir():
                read_start(path)
        env_id = getattr(self, "env_id", None)
        return {"env_id": env_id} if env_id else {}

    def read(self) -> FlatEpisodes:
        """The same episodes as they were recorded, for inspection and conversion: with what a store has no place for.

        What `load` refuses for its numbers or ends is returned here, if it can be cut into episodes at all.
        """
        store = self.load()
        return FlatEpisodes.of(store, str(store.attributes.get("name", "arrays")))


def load_episodes(data: Mapping[str, Any]) -> EpisodeStore:
    """The episodes of the section `data` of a run.

    Of every source, `data.top_fraction` takes the best of them, see `EpisodeStore.best`, and `data.categories` says
    which extras are choices, and how many there are. A plugin's data that have no name are called as their source.

    Raises:
        DataError: see `DataSource.load`; or an extra is not there.
    """
    source = dict(data)
    top_fraction, categories = (source.pop(key, None) for key in ("top_fraction", "categories"))
    store: EpisodeStore = DATA.build(source).load()
    if "name" not in store.attributes and source["name"] not in DATA.builtin_names():
        store = store.described(name=source["name"])
    for name, count in (categories or {}).items():
        if name not in store.extras:
            recorded = ", ".join(sorted(store.extras)) or "none"
            raise DataError(
                f"data.categories.{name}={count} is of an array that the data record beside their steps, and they "
                f"record {recorded}; leave it out"
            )
    if categories:
        counts = {f"num_{name}": list(n) if isinstance(n, tuple) else n for name, n in categories.items()}
        store = store.described(**counts)
    return store if top_fraction is None else store.best(top_fraction)


def find_source(name: str) -> DataSource:
    """The source that a short name stands for; see `source_config`.

    Raises:
        ConfigError: nothing has that name.
    """
    source: DataSource = DATA.build(source_config(name))
    return source


def source_config(name: Any) -> dict[str, Any]:
    """The config of a source by its short name; a config stays as it is.

    Args:
        name: path of an NPZ file (`data=arrays`), of an HDF5 file (`data=d4rl`) or of a folder that
            `EpisodeStore.save` wrote (`data=store`), `minari:ID`, or an id of D4RL.

    Raises:
        ConfigError: it is neither a text nor a config with a name.
    """
    if isinstance(name, Mapping):
        return dict(name)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"data.parts holds {name!r}; give an id, a path, or a source such as {{name: d4rl, path: a}}")
    if name.startswith(MINARI):
        return {"name": "minari", "id": name.removeprefix(MINARI)}
    path = find_path(name)
    if path.is_dir():
        return {"name": "store", "path": name}
    if path.suffix.lower() == ".npz":
        return {"name": "arrays", "path": name}
    is_path = path.exists() or path.suffix or path.name != name
    return {"name": "d4rl", "path" if is_path else "id": name}
