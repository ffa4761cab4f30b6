"""Several sources as one data set, such as medium + expert of one environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len

from seqrl.data.episodes import EpisodeStore
from seqrl.registry import DATA, Slot, register_data
from seqrl.sources import DataSource, source_config


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
        parts: Annotated[Sequence[str | Annotated[Mapping[str, Any], Slot("data")]], Len(1)],
        *,
        dataset_name: str | None = None,
        env_id: str | None = None,
    ) -> None:
        self.parts: list[DataSource] = [DATA.build(source_config(part)) for part in parts]
        self.name = dataset_name
        self.env_id = env_id

    def local_files(self) -> list[Path]:
        return [path for part in self.parts for path in part.local_files()]

    def check(self) -> dict[str, Any]:
        known = [part.check() for part in self.parts]
        same = known[0] if all(each == known[0] for each in known) else {}
        return {**same, **({"env_id": self.env_id} if self.env_id else {})}

    def load(self) -> EpisodeStore:
        stores = [part.load() for part in self.parts]
        attributes: dict[str, Any] = {"source": "mix", "parts": [store.attributes.get("name") for store in stores]}
        if self.name:
            attributes["name"] = self.name
        if self.env_id:
            attributes["env_id"] = self.env_id
        return EpisodeStore.mix(stores, attributes=attributes)
