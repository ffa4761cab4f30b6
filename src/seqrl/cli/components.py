"""What every slot offers, in words: names, origins, options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from seqrl import plugins
from seqrl.registry import Registry


@dataclass(frozen=True)
class Description:
    """A component as a user sees it.

    Attributes:
        origin: `seqrl`, a package with its version, a file or a module.
        summary: first line of the docstring; empty without one.
        options: each `name=default`, or the bare name of one that must be given.
    """

    name: str
    origin: str
    summary: str
    options: tuple[str, ...]


def describe(registry: Registry) -> list[Description]:
    """All components of a slot, the built-in ones first."""
    built_in = registry.builtin_names()
    return [_describe(registry, name) for name in [*built_in, *sorted(set(registry.names()) - set(built_in))]]


def _describe(registry: Registry, name: str) -> Description:
    cls = registry.get(name)
    docstring = (inspect.getdoc(cls) or "") if cls.__doc__ else ""
    options = tuple(str(option) for option in registry.options(name))
    return Description(name, plugins.origin(cls), docstring.partition("\n")[0], options)
