"""The graph of landmarks of a run: fitted in seconds, after the stages that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from seqrl.checkpoints.loading import landmarks_file
from seqrl.config import RunConfig
from seqrl.console import say
from seqrl.data.episodes import EpisodeStore
from seqrl.data.landmarks import LandmarkGraph, fit_landmarks
from seqrl.errors import CheckpointError, ConfigError
from seqrl.layout import Layout
from seqrl.runs.folder import RunFolder


def check_landmarks(config: Mapping[str, Any]) -> None:
    """Refuse landmarks of a run whose model is told no goals.

    Raises:
        ConfigError: says what to add.
    """
    if config.get("landmarks") is not None and config["layout"].get("goal") is None:
        raise ConfigError(
            "landmarks are goals on the way to others, and the layout has no goal; add layout=tt_goal, or leave out "
            "landmarks"
        )


@rank_zero_only
def map_landmarks(config: Mapping[str, Any], folder: RunFolder, store: EpisodeStore) -> None:
    """Fit the graph that a run asks for, unless the same one is there.

    Raises:
        seqrl.errors.DataError: data in which nothing leads anywhere, or too many landmarks.
    """
    if not lacks_landmarks(config, folder):
        return
    settings, layout = RunConfig.from_saved(config).landmarks, Layout.from_config(config["layout"], **store.sizes)
    assert settings is not None and layout.goal is not None
    graph = fit_landmarks(store, layout.goal.dims, settings, seed=config["seed"])
    graph.save(landmarks_file(folder.path))
    say(f"landmarks: {len(graph.nodes)}, with {len(graph.steps)} edges")


def lacks_landmarks(config: Mapping[str, Any], folder: RunFolder) -> bool:
    """Whether a run asks for a graph that it does not have; a damaged one is made again."""
    settings = RunConfig.from_saved(config).landmarks
    if settings is None:
        return False
    try:
        return LandmarkGraph.read(landmarks_file(folder.path)).settings != vars(settings)
    except CheckpointError:
        return True
