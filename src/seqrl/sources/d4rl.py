"""D4RL's data sets by id, and files in their HDF5 layout; the package `d4rl` is not needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from seqrl.d4rl import catalogue
from seqrl.d4rl.catalogue import Entry
from seqrl.d4rl.conventions import CONVENTIONS, advise, choose_rule, rows_without_timeouts
from seqrl.d4rl.download import check_sha256, verify
from seqrl.d4rl.fetch import fetch
from seqrl.data.cache import read_or_build
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.formats.cutting import TRAINING_KEYS, cut_episodes, layout_of
from seqrl.formats.ends import EPISODE_RULES, EpisodeRule, has_timeouts
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.reading import read_recording
from seqrl.formats.recording import Recording
from seqrl.paths import find_path
from seqrl.registry import register_data
from seqrl.sources import DataSource, make_store


@register_data("d4rl")
class D4rlSource(DataSource):
    """A data set of D4RL by its id, downloaded once, or a file of one's own in the same layout.

    The layout is flat HDF5: `observations actions rewards terminals` and, mostly, `timeouts`, one row per transition.
    How rows become episodes differs from family to family; the guide data_d4rl.md says how
    and why.
    Behaviour segments end with the episodes, and where the recorded goal (`infos/goal`, maze2d) changes.

    Args:
        path: a file of one's own; the alternative to `id`.
        id: D4RL's name of the data set, `hopper-medium-v2`; the file is kept in `$SEQRL_DATA/d4rl`, by default
            `~/.cache/seqrl/d4rl`, or read where the package `d4rl` already keeps it.
        url: another address for the download.
        sha256: what the file must have, 64 hexadecimal digits.
        reader: `package` reads through `d4rl` itself, where it is installed, and gives the same arrays.
        dataset_name: name of the data set in tables; the id or the file's stem by default.
        env_id: Gymnasium id to evaluate in; by default the file's attribute `env_id`, else the catalogue's for the id
            or for what the file's name resembles.
        max_transitions: keep whole episodes from the start, up to this many rows (quick runs).
        episodes: `auto` is the family's own rule; `timeouts`, `terminals`, `time_limit`, `recordings` or `stream`
            (`seqrl.formats.cutting.cut_episodes` describes them) for others.
        time_limit: rows of an episode under `time_limit` and `stream`; by default the task's limit.

    Reference: Fu et al. 2020, https://arxiv.org/abs/2004.07219
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        id: str | None = None,
        url: str | None = None,
        sha256: str | None = None,
        reader: Literal["seqrl", "package"] = "seqrl",
        dataset_name: str | None = None,
        env_id: str | None = None,
        max_transitions: Annotated[int, Ge(2)] | None = None,
        episodes: EpisodeRule | Literal["auto"] = "auto",
        time_limit: Annotated[int, Ge(2)] | None = None,
    ) -> None:
        if (path is None) == (id is None):
            given = "neither is" if path is None else "both are"
            raise ConfigError(
                f"data=d4rl reads data.id=hopper-medium-v2 (any id of `seqrl data list`) or data.path=FILE, and "
                f"{given} given; give one of them"
            )
        check_sha256(sha256)
        if reader == "package" and id is None:
            raise ConfigError("data.reader=package reads D4RL's own data sets; give data.id instead of data.path")
        self.entry = None if id is None else catalogue.find(id)
        self.path = None if path is None else find_path(path)
        self.url = url
        self.sha256 = sha256
        self.reader = reader
        self.dataset_name = dataset_name
        self.env_id = env_id
        self.max_transitions = max_transitions
        self.episodes = episodes
        self.time_limit = time_limit

    def local_files(self) -> list[Path]:
        path = self.entry.path if self.entry else self.path
        return [] if path is None else [path]

    def load(self) -> EpisodeStore:
        path = self._fetched()
        like = self.entry or catalogue.resembling(path.name)
        if path.is_file():
            store = read_or_build(path, self._options(like), lambda: make_store(self._cut(like, TRAINING_KEYS)))
        else:  # reading tells why
            store = make_store(self._cut(like, TRAINING_KEYS))
        return store.described(**self._described(path, like, store.attributes))

    def read(self) -> FlatEpisodes:
        path = self._fetched()
        like = self.entry or catalogue.resembling(path.name)
        flat = self._cut(like, None)
        attributes = {**flat.attributes, **self._described(path, like, flat.attributes)}
        origin = self.entry.id if self.entry else path.name
        return dataclasses.replace(flat, origin=origin, attributes=attributes)

    def file(self) -> Path:
        """The file, fetched where it is not there yet, and still the one that was fetched."""
        path = self._fetched()
        if path.is_file():
            verify(path, self.sha256)
        return path

    def _fetched(self) -> Path:
        if self.entry is None:
            assert self.path is not None
            return self.path
        return fetch(self.entry, self.url, self.sha256)

    def _options(self, like: Entry | None) -> object:
        """What decides, beside the file, how its episodes are cut."""
        convention = CONVENTIONS[like.family] if like else None
        return self.reader, self.episodes, self.time_limit, self.max_transitions, self.sha256, like, convention

    def _described(self, path: Path, like: Entry | None, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """What is said of the episodes beside what the file itself says."""
        return {
            "name": self.dataset_name or (self.entry.id if self.entry else path.stem),
            "env_id": self.env_id or recorded.get("env_id") or (like.env_id if like else None),
            "source": "d4rl",
            "d4rl_id": self.entry.id if self.entry else None,
            "path": path.name,
        }

    def _cut(self, like: Entry | None, keys: Collection[str] | None) -> FlatEpisodes:
        """The episodes of the file, of all its arrays or of those that training needs."""
        recording = self._read(self.file(), keys)
        rule = self._rule(recording, like)
        limit = self._limit(like) if rule in ("time_limit", "stream") else None
        flat = cut_episodes(recording, rule, limit).first(self.max_transitions)
        remarks, refused = flat.remarks, flat.refused
        if rule in EPISODE_RULES[1:] and self.episodes == "auto":
            remarks += (f"its flags are read by episodes={rule}, as those of D4RL's files with such a name",)
        if refused and like and self.episodes == "auto":
            refused = f"{recording.origin} has no timeouts, so that its resets cannot be told; {advise(like)}"
        elif len(flat.ends) and np.diff(flat.offsets).max() < 2:
            refused = f"{recording.origin} holds only episodes of one step, where no training window can start; check "
            refused += "its terminals and timeouts"
        return dataclasses.replace(
            flat,
            extras=flat.extras if keys is None else {},
            attributes={
                **flat.attributes,
                "episodes": rule or ("timeouts" if flat.layout == "flags" else flat.layout),
                "return_note": CONVENTIONS[like.family].return_note if like and rule == "recordings" else "",
            },
            remarks=remarks,
            refused=refused,
        )

    def _read(self, path: Path, keys: Collection[str] | None) -> Recording:
        if self.reader == "seqrl":
            return read_recording(path, keys)
        from seqrl.d4rl.package import read

        assert self.entry is not None
        return read(self.entry, path)

    def _rule(self, recording: Recording, like: Entry | None) -> str | None:
        """How flags are read; None where the keys decide."""
        if self.episodes != "auto":
            return self.episodes
        if like is None or layout_of(recording) != "flags":
            return None
        return choose_rule(like, timeouts=has_timeouts(recording))

    def _limit(self, like: Entry | None) -> int:
        if self.time_limit is not None:
            return self.time_limit
        if like is None:
            raise ConfigError(f"data.episodes={self.episodes} needs the length of the episodes; set data.time_limit")
        return rows_without_timeouts(like)
