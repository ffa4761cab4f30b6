"""What results say of the data that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class DataSummary:
    """Name, size and behaviour of a data set; a checkpoint keeps it under `dataset` in its configuration.

    Attributes:
        name: of the data.
        d4rl_id: in D4RL's catalogue, or None.
        env_id: Gymnasium id of the environment it was recorded in, or None.
        num_transitions, num_episodes: sizes; 0 where nothing is known of the data.
        behaviour_return_mean, behaviour_return_max: undiscounted return of an episode in the data, or None.
        behaviour_score: the mean between 0 (random) and 100 (expert), or None.
        standard_deviations: of each field's scalars, or None.
        fingerprint: of the episodes' content, see `EpisodeStore.fingerprint`, or None.
    """

    name: str
    d4rl_id: str | None = None
    env_id: str | None = None
    num_transitions: int = 0
    num_episodes: int = 0
    behaviour_return_mean: float | None = None
    behaviour_return_max: float | None = None
    behaviour_score: float | None = None
    standard_deviations: dict[str, list[float]] | None = None
    fingerprint: str | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DataSummary:
        """Of a checkpoint's configuration; what an older one does not say is None."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in config["dataset"].items() if key in known})
