"""Which code of plugins decides what a stage or an evaluation computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seqrl import plugins
from seqrl.registry import all_registries


def hash_plugins(settings: Mapping[str, Any], specs: Sequence[str]) -> list[str]:
    """The hashes of the source of the plugins that a stage or an evaluation depends on.

    They define a component that its settings name. A plugin of the command counts as well if it defines no component
    at all: nobody knows what it is for.
    """
    names = set(names_in(settings))
    modules, defining = set(), set()
    for registry in all_registries():
        chosen = settings.get(registry.slot)
        if isinstance(chosen, Mapping) and chosen.get("name") not in (None, *registry.builtin_names()):
            registry.named_by(chosen)  # loads installed plugins, if need be
        for name in set(registry.names()) - set(registry.builtin_names()):
            module = registry.get(name).__module__
            defining.add(module)
            if name in names:
                modules.add(module)
    found = {plugins.source(module) for module in modules}
    for spec in specs:
        module = plugins.module_name(spec)
        if not any(each == module or each.startswith(f"{module}.") for each in defining):
            found.add(plugins.source(module))
    return sorted(found)


def names_in(tree: Any) -> Iterator[str]:
    """Every `name` in a tree of settings."""
    if isinstance(tree, Mapping):
        if isinstance(tree.get("name"), str):
            yield tree["name"]
        for value in tree.values():
            yield from names_in(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from names_in(value)
