"""The episodes that a checkpoint was trained on, for what must look at them again."""

from __future__ import annotations

from seqrl.checkpoints.loaded import Loaded
from seqrl.data.episodes import EpisodeStore
from seqrl.data.summary import DataSummary, same_episodes
from seqrl.errors import ConfigError, UnknownComponentError, show_value
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
    try:
        store = load_episodes(loaded.source)
    except UnknownComponentError as error:
        given = list(loaded.config.get("plugins") or [])
        hint = f"\n  the model was trained with plugins={show_value(given)}; give the same" if given else ""
        raise UnknownComponentError(f"{error}{hint}") from error
    layout = loaded.model.layout
    extras = [field.name for field in (*layout.contexts, *layout.outcomes) if field.name in store.extras]
    now = DataSummary(
        "", num_transitions=len(store), num_episodes=store.num_episodes, fingerprint=store.fingerprint(extras)
    )
    if not same_episodes(loaded.dataset, now):
        raise ConfigError(f"{why}, and the model was trained on other data than are there now; put back those of then")
    return store
