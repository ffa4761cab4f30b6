"""The graph of landmarks of a run: fitted in seconds, after the stages that are trained."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only

from seqrl.checkpoints.loading import landmarks_file
from seqrl.config import RunConfig
from seqrl.console import say
from seqrl.data.episodes import EpisodeStore
from seqrl.data.landmarks import LandmarkGraph, fit_landmarks
from seqrl.errors import CheckpointError, ConfigError
from seqrl.runs.folder import RunFolder


def check_landmarks(run: RunConfig) -> None:
    """Refuse landmarks of a run whose model is told no goals.

    Raises:
        ConfigError: says what to add.
    """
    if run.landmarks is not None and run.layout.goal is None:
        raise ConfigError(
            "landmarks are goals on the way to others, and the layout has no goal; add layout=tt_goal, or leave out "
            "landmarks"
        )


@rank_zero_only
def map_landmarks(run: RunConfig, folder: RunFolder, store: EpisodeStore) -> None:
    """Fit the graph that a run asks for, unless the same one is there.

    Raises:
        seqrl.errors.DataError: data in which nothing leads anywhere, or too many landmarks.
    """
    if not lacks_landmarks(run, folder):
        return
    assert run.landmarks is not None and run.layout.goal is not None
    graph = fit_landmarks(store, run.layout.goal.dims, run.landmarks, seed=run.seed)
    graph.save(landmarks_file(folder.path))
    say(f"landmarks: {len(graph.nodes)}, with {len(graph.steps)} edges")


def lacks_landmarks(run: RunConfig, folder: RunFolder) -> bool:
    """Whether a run asks for a graph that it does not have; a damaged one is made again."""
    if run.landmarks is None:
        return False
    try:
        return LandmarkGraph.read(landmarks_file(folder.path)).settings != vars(run.landmarks)
    except CheckpointError:
        return True
