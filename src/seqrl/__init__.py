"""seqrl: offline reinforcement learning as sequence modelling.

The public names stand in `__init__.pyi`. They are loaded when they are first used, so that `import seqrl` stays fast
and imports neither Hydra, Lightning nor a simulator. Once Gymnasium is imported, before or after, it knows the
environments of seqrl: `gymnasium.make("seqrl/Maze2d-Large-v1")`.
"""

from seqrl import processes

if processes.is_command():  # before anything else is imported, which a file of the current folder might stand in for
    processes.leave_current_folder()

import lazy_loader

from seqrl.after_import import call_after_import

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("seqrl")
    return _load(name)


def _register_environments() -> None:
    from seqrl.d4rl.registration import register_ant
    from seqrl.worlds.environments import register_worlds

    register_worlds()
    register_ant()


call_after_import("gymnasium", _register_environments)
