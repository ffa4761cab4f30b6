"""seqrl: offline reinforcement learning as sequence modelling.

The public names stand in `__init__.pyi`. They are loaded when they are first used, so that `import seqrl` stays fast
and imports neither Hydra, Lightning nor a simulator.
"""

from seqrl import processes

if processes.is_command():  # before anything else is imported, which a file of the current folder might stand in for
    processes.leave_current_folder()

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("seqrl")
    return _load(name)
