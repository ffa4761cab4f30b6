"""Environments to act in: made by Gymnasium id, stepped together, scored against references.

Importing this package imports no simulator; `make_environments` does. `import seqrl` registers the environments with
Gymnasium, so that `gymnasium.make("seqrl.envs:seqrl/Maze2d-Large-v1")` needs no import before it.
"""

from seqrl.envs.registration import check_env_id, register_environments
from seqrl.envs.vector import Environments, check_returns, check_spaces
from seqrl.envs.vector import make as make_environments

__all__ = [
    "Environments",
    "check_env_id",
    "check_returns",
    "check_spaces",
    "make_environments",
    "register_environments",
]
