"""OGBench's published data sets, by their names, from the files that its package downloads."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError, DataError
from seqrl.formats.cutting import cut_episodes
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.npz import read_npz
from seqrl.paths import find_path
from seqrl.registry import register_data
from seqrl.sources import DataSource, make_store
from seqrl.worlds.environments import pointmaze_id
from seqrl.worlds.ogbench import POINTMAZES, find_pointmaze

FOLDER = "~/.ogbench/data"
"""Where the package keeps its downloads."""

_NAME = re.compile(r"([a-z0-9-]+)-(navigate|stitch|explore|play|noisy)(-singletask(?:-task[1-5])?)?-v0", re.ASCII)
_PICTURES = ("visual-", "powderworld-")


@register_data("ogbench")
class OgbenchSource(DataSource):
    """A data set of OGBench, such as `antmaze-large-navigate-v0`: the file `<id>.npz` in a folder, nothing is fetched.

    Trajectories follow each other without true ends, and have no rewards but in the single-task variants
    (`cube-single-play-singletask-task2-v0`), whose files the package writes with rewards and masks; see
    `seqrl.formats.cutting.cut_episodes`. Simulator states (`qpos`, `qvel`) come along as extras. The environment of a
    pointmaze is the one that comes with seqrl; the others need the package `ogbench`.

    Args:
        id: name of the data set; add `-val` for what OGBench holds out.
        folder: where the file lies; None for the folder of the package, `~/.ogbench/data`.
        env_id: Gymnasium id to evaluate in; that of the data set by default.
        max_transitions: keep whole episodes from the start, up to this many rows (quick runs).

    Raises:
        ConfigError: a name that OGBench does not have, or a data set of images.

    Reference: Park et al. 2025, https://arxiv.org/abs/2410.20092, and `ogbench/utils.py` of its package.
    """

    def __init__(
        self,
        id: str,
        *,
        folder: str | None = None,
        env_id: str | None = None,
        max_transitions: Annotated[int, Ge(2)] | None = None,
    ) -> None:
        found = _NAME.fullmatch(id.removesuffix("-val"))
        if found is None:
            raise ConfigError(
                f"data.id={id!r} is no name of OGBench's; give one as antmaze-large-navigate-v0, or read any file by "
                "data=arrays data.path=..."
            )
        if id.startswith(_PICTURES):
            raise ConfigError(
                f"data.id={id!r} holds images, and seqrl learns from vectors; use the data set of states, or encode "
                "the images to vectors and read them by data=arrays"
            )
        self.id = id
        self.path = find_path(folder or FOLDER) / f"{id}.npz"
        self.env_id = env_id or _env_id_of(found[1], found[3] or "")
        self.max_transitions = max_transitions

    def local_files(self) -> list[Path]:
        return [self.path]

    def read(self) -> FlatEpisodes:
        if not self.path.exists():
            raise DataError(
                f"{str(self.path)!r} is not there; fetch it by ogbench.download_datasets([{self.id!r}]) of the package "
                "ogbench, or say by data.folder=... where it is"
            )
        flat = cut_episodes(read_npz(self.path)).first(self.max_transitions)
        attributes: dict[str, Any] = {"name": self.id, "env_id": self.env_id, "source": "ogbench"}
        return dataclasses.replace(flat, attributes={**flat.attributes, **attributes})

    def load(self) -> EpisodeStore:
        return make_store(self.read())


def _env_id_of(world: str, task: str) -> str:
    """The id of an environment of the package, or of ours where it is the same."""
    kind, _, size = world.partition("-")
    if kind == "pointmaze" and size in POINTMAZES and not task:
        return pointmaze_id(find_pointmaze(size))
    return f"{world}{task}-v0"
