"""D4RL's HDF5 files, read as they lie on disk; the package `d4rl` is not needed."""

from __future__ import annotations

from pathlib import Path

from seqrl.data.episodes import EpisodeStore
from seqrl.data.hdf5 import check_episode_rule, episodes_of, read_recording
from seqrl.data.sources import DataSource
from seqrl.errors import ConfigError
from seqrl.registry import register_data

ENVIRONMENTS = {
    "hopper": "Hopper-v4",
    "halfcheetah": "HalfCheetah-v4",
    "walker2d": "Walker2d-v4",
    "door": "AdroitHandDoor-v1",
    "maze2d-umaze": "seqrl/Maze2d-Umaze-v1",
    "maze2d-medium": "seqrl/Maze2d-Medium-v1",
    "maze2d-large": "seqrl/Maze2d-Large-v1",
}
"""What D4RL's tasks are called in Gymnasium, by the beginning of the data set's name; `-v4` is what D4RL recorded."""


@register_data("d4rl")
class D4rlSource(DataSource):
    """An HDF5 file in D4RL's layout: flat `observations actions rewards terminals` and, mostly, `timeouts`.

    An episode ends at every terminal or timeout; a row that is both is terminal; rows after the last end are one more,
    cut episode. Behaviour segments end there too, and where the recorded goal (`infos/goal`, maze2d) changes.

    Args:
        path: the file.
        dataset_name: name of the data set in tables; the file's stem by default.
        env_id: Gymnasium id to evaluate in; by default the file's attribute `env_id`, else guessed from the name.
        max_transitions: keep whole episodes from the start, up to this many rows (quick runs).
        episodes: `timeouts`; `terminals` for a file without timeouts whose episodes all end terminally; or
            `time_limit` for one stream without resets (maze2d), where a timeout only means that
            the next goal began: episodes are then consecutive pieces of `time_limit` steps.
        time_limit: steps of such a piece, 2 or more.

    Reference: Fu et al. 2020, https://arxiv.org/abs/2004.07219
    """

    def __init__(
        self,
        path: str,
        *,
        dataset_name: str | None = None,
        env_id: str | None = None,
        max_transitions: int | None = None,
        episodes: str = "timeouts",
        time_limit: int = 300,
    ) -> None:
        check_episode_rule(episodes, time_limit)
        if max_transitions is not None and max_transitions < 2:
            raise ConfigError(f"data.max_transitions={max_transitions} is too few; give 2 or more, or null for all")
        self.path = Path(path).expanduser()
        self.name = dataset_name or self.path.stem
        self.env_id = env_id
        self.max_transitions = max_transitions
        self.episodes = episodes
        self.time_limit = time_limit

    def load(self) -> EpisodeStore:
        recording = read_recording(self.path)
        attributes = {
            **recording.attributes,
            "name": self.name,
            "env_id": self.env_id or recording.attributes.get("env_id") or guess_env_id(self.path.stem),
            "source": "d4rl",
            "path": self.path.name,
            "episodes": self.episodes,
        }
        return episodes_of(
            recording,
            episodes=self.episodes,
            time_limit=self.time_limit,
            max_transitions=self.max_transitions,
            attributes=attributes,
        )


def guess_env_id(stem: str) -> str | None:
    """The Gymnasium id that a data set's name speaks of (`hopper-medium-v2` -> `Hopper-v4`), or None."""
    name = stem.lower().replace("_", "-")
    matches = [env_id for prefix, env_id in ENVIRONMENTS.items() if name == prefix or name.startswith(f"{prefix}-")]
    return matches[0] if matches else None
