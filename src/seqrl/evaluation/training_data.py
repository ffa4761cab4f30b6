"""The episodes that a checkpoint was trained on, for what must look at them again."""

from __future__ import annotations

from seqrl.checkpoints.loaded import Loaded
from seqrl.data.episodes import EpisodeStore
from seqrl.data.summary import DataSummary, same_episodes
from seqrl.errors import ConfigError
from seqrl.evaluation.hints import telling_plugins
from seqrl.sources import load_episodes


def load_training_data(loaded: Loaded, why: str) -> EpisodeStore:
    """The episodes that a model was trained on.

    Args:
        why: what needs them, as a message begins.

    Raises:
        ConfigError: nobody knows where they came from, or those that are there now are others.
        DataError: they are not there any more.
    """
    if loaded.source is None:
        raise ConfigError(f"{why}, and its checkpoint does not say where its data came from; give one of a run")
    with telling_plugins(loaded.config):
        store = load_episodes(loaded.source)
    layout = loaded.model.layout
    extras = [field.name for field in (*layout.contexts, *layout.outcomes) if field.name in store.extras]
    now = DataSummary(
        "", num_transitions=len(store), num_episodes=store.num_episodes, fingerprint=store.fingerprint(extras)
    )
    if not same_episodes(loaded.dataset, now):
        raise ConfigError(f"{why}, and the model was trained on other data than are there now; put back those of then")
    return store
