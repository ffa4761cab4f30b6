"""Several sources as one data set, such as medium + expert of one environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.formats.minari import MINARI
from seqrl.registry import DATA, register_data
from seqrl.sources import DataSource

_BY_SUFFIX = {".hdf5": "d4rl", ".h5": "d4rl", ".npz": "arrays"}


@register_data("mix")
class MixSource(DataSource):
    """The episodes of all parts, one part after the other; they are read in place, not copied together.

    Every episode counts once: give a part twice to double its weight. `data.mix=[a,b]` is short for
    `data=mix data.parts=[a,b]`.

    Args:
        parts: sources with their options, `{name: d4rl, id: hopper-medium-v2, max_transitions: 1000}`, or in short a
            text: the path of a D4RL HDF5 file, of an NPZ file (as `data=arrays`) or of a folder that
            `EpisodeStore.save` wrote, `minari:ID`, or an id of D4RL.
        dataset_name: name of the data set in tables; the parts' names joined by `+` by default.
        env_id: Gymnasium id to evaluate in; by default that of the parts, where they agree.
    """

    def __init__(
        self,
        parts: list[str | Mapping[str, Any]],
        *,
        dataset_name: str | None = None,
        env_id: str | None = None,
    ) -> None:
        if isinstance(parts, str | Mapping) or not parts:
            raise ConfigError(f"data.parts={parts!r} is no list of sources; write data.mix=[FIRST,SECOND]")
        self.parts: list[DataSource] = [DATA.build(part_config(part)) for part in parts]
        self.name = dataset_name
        self.env_id = env_id

    def load(self) -> EpisodeStore:
        stores = [part.load() for part in self.parts]
        attributes: dict[str, Any] = {"source": "mix", "parts": [store.attributes.get("name") for store in stores]}
        if self.name:
            attributes["name"] = self.name
        if self.env_id:
            attributes["env_id"] = self.env_id
        return EpisodeStore.mix(stores, attributes=attributes)


def part_config(part: Any) -> dict[str, Any]:
    """The config of a source that one entry of `parts` stands for.

    Raises:
        ConfigError: it is neither a text nor a config with a name.
    """
    if isinstance(part, Mapping):
        return dict(part)
    if not isinstance(part, str) or not part:
        raise ConfigError(f"data.parts holds {part!r}; give an id, a path, or a source such as {{name: d4rl, path: a}}")
    if part.startswith(MINARI):
        return {"name": "minari", "id": part.removeprefix(MINARI)}
    path = Path(part).expanduser()
    if path.is_dir():
        return {"name": "store", "path": part}
    name = _BY_SUFFIX.get(path.suffix.lower())
    return {"name": "d4rl", "id": part} if name is None else {"name": name, "path": part}
