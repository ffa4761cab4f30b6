"""Episodes by whatever name a person has for them: a file, a saved store, a D4RL id or a Minari id."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from seqrl.d4rl import catalogue
from seqrl.data.episodes import EpisodeStore
from seqrl.formats.files import read_file
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.minari import MINARI
from seqrl.registry import DATA
from seqrl.sources import DataSource


def open_episodes(name: str, *, lenient: bool = False) -> FlatEpisodes:
    """Read the episodes that a name stands for.

    Args:
        name: path of an HDF5 or NPZ file or of a saved store's folder, `minari:ID`, or the id of a D4RL data set, which
            is downloaded where it is not cached.
        lenient: read an HDF5 file without timeouts, for a look at it.

    Raises:
        ConfigError: nothing has that name.
        DataError: it cannot be read.
    """
    if name.startswith(MINARI):
        source: DataSource = DATA.build({"name": "minari", "id": name.removeprefix(MINARI)})
        return source.read()
    path = Path(name).expanduser()
    if path.is_dir():
        return FlatEpisodes.of(EpisodeStore.open(path), path.name)
    if path.exists() or path.suffix or path.name != name:
        return _with_conventions(read_file(path, lenient=lenient), path.name)
    file = DATA.build({"name": "d4rl", "id": name}).file()
    return dataclasses.replace(_with_conventions(read_file(file, lenient=lenient), file.name), origin=name)


def _with_conventions(flat: FlatEpisodes, file_name: str) -> FlatEpisodes:
    """What D4RL's catalogue knows of a file with such a name."""
    like = catalogue.resembling(file_name)
    if like is None or flat.layout != "flags":
        return flat
    remarks = flat.remarks
    rule = catalogue.CONVENTIONS[like.family].rule
    if rule != "timeouts":
        remarks += (f"its flags are shown as they lie; data=d4rl reads such files by episodes={rule}",)
    attributes = {"env_id": like.env_id, **flat.attributes}
    return dataclasses.replace(flat, attributes=attributes, remarks=remarks)
