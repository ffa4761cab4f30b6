"""Something to do as soon as another package is imported, and not before: that package may never be needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def call_after_import(package: str, call: Callable[[], None]) -> None:
    """Call at once where the package is imported already, else right after its import.

    Args:
        package: a top-level one.
    """
    loaded = sys.modules.get(package)
    if loaded is None or getattr(loaded.__spec__, "_initializing", False):
        sys.meta_path.insert(0, _Watch(package, call))
    else:
        call()


class _Watch(MetaPathFinder):
    """Finds one package as Python's own finder does, once, and calls after its code has run."""

    def __init__(self, package: str, call: Callable[[], None]) -> None:
        self.package, self.call = package, call

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        loader = None if spec is None else spec.loader
        if loader is None:
            return None
        run = loader.exec_module

        def run_and_call(module: ModuleType) -> None:
            run(module)
            sys.meta_path.remove(self)
            self.call()

        loader.exec_module = run_and_call  # type: ignore[method-assign]
        return spec
