"""The training of a run, stage by stage, resumed where it was left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import numpy as np

from seqrl.archives import is_whole
from seqrl.config import RunConfig
from seqrl.d4rl.reference import normalised_score
from seqrl.data.episodes import EpisodeStore
from seqrl.data.summary import DataSummary
from seqrl.errors import DataError
from seqrl.runs.folder import RunFolder
from seqrl.runs.sharing import check_content
from seqrl.runs.stages import MODEL
from seqrl.sources import load_episodes
from seqrl.training.fit import fit_stage
from seqrl.training.landmarks import lacks_landmarks, map_landmarks
from seqrl.training.machine import keep_threads
from seqrl.training.stages import list_stages, make_stages
from seqrl.training.trainer import quiet_lightning


def train(run: RunConfig, folder: RunFolder, store: EpisodeStore | None = None) -> Path:
    """Train the stages that a run asks for, or what is left of them.

    Args:
        store: the episodes, where they are loaded already.

    Returns:
        The checkpoint of the finished model.

    Raises:
        seqrl.errors.Stopped: Ctrl-C, or a signal of a cluster; `last.ckpt` holds the last whole step.
        seqrl.errors.SeqrlError: bad settings or data.
    """
    quiet_lightning()
    done = find_finished(run, folder)
    if done is not None:
        return done
    keep_threads(folder, run.trainer)
    if store is None:
        store = load_episodes(run.data)
        check_content(folder, run)  # while it was read
    pl.seed_everything(run.seed, verbose=False)
    for stage in make_stages(run, store, summarize_data(store, run.layout.extras), folder):
        fit_stage(stage, folder)
        stage.finish()
    map_landmarks(run, folder, store)
    return folder.checkpoint(MODEL.name)


def find_finished(run: RunConfig, folder: RunFolder) -> Path | None:
    """The model's checkpoint of a run whose stages are all done, or None.

    A stage whose `last.ckpt` is damaged is not done any more, and goes on from an older one.
    """
    stages = [kind.name for kind in list_stages(run)]
    for name in stages:
        last = folder.checkpoint(name)
        if folder.is_done(name) and not is_whole(last):
            folder.set_status(name, "interrupted", folder.status()[name].step, f"{str(last)!r} is damaged")
    whole = all(map(folder.is_done, stages)) and not lacks_landmarks(run, folder)
    return folder.checkpoint(MODEL.name) if whole else None


def summarize_data(store: EpisodeStore, extras: Sequence[str] = ()) -> DataSummary:
    """What results say of the data: name, environment, size, and how well the behaviour did.

    Args:
        extras: names of those that a model is trained on.

    Raises:
        DataError: the data name their environment by something that is no text.
    """
    complete = store.complete()
    chosen = complete if complete.any() else slice(None)
    returns = store.returns()[chosen]
    env_id = store.attributes.get("env_id")
    if not isinstance(env_id, str | None):
        raise DataError(f"the data name the environment {env_id!r}, which is no text; set data.env_id to another")
    unlike = store.attributes.get("return_note")  # such returns are on another scale than an evaluation's
    score = None if env_id is None or unlike else normalised_score(env_id, float(returns.mean()))
    return DataSummary(
        name=store.attributes.get("name", "arrays"),
        d4rl_id=store.attributes.get("d4rl_id"),
        minari_id=store.attributes.get("minari_id"),
        env_id=env_id,
        num_transitions=len(store),
        num_episodes=store.num_episodes,
        behaviour_return_mean=float(returns.mean()),
        behaviour_return_max=float(returns.max()),
        behaviour_episodes=len(returns),
        behaviour_score=score,
        standard_deviations=store.standard_deviations(),
        fingerprint=store.fingerprint(extras),
        behaviour_outcomes=_sum_outcomes(store, extras, chosen),
    )


def _sum_outcomes(store: EpisodeStore, extras: Sequence[str], chosen: np.ndarray | slice) -> dict[str, float]:
    """The mean sum over an episode of each extra of one number, as evaluations measure outcomes; not of texts."""
    sums = {}
    for name in extras:
        if store.sizes["extras"][name] == 1 and store.extras[name].dtype.kind in "fiub":
            numbers = np.asarray(store.extras[name][:], np.float64).reshape(-1)
            sums[name] = np.add.reduceat(numbers, store.offsets[:-1])[chosen]
    return {name: float(each.mean()) for name, each in sums.items() if np.isfinite(each).all()}
