"""What a command may name beyond our own yaml files: components of plugins, and the `conf/` folders they ship."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqrl.errors import UnknownComponentError
from seqrl.plugins import ENTRY_POINT_GROUP, load_plugins
from seqrl.registry import Registry, registries


class PluginFolders(SearchPathPlugin):
    """Lets Hydra look into the `conf/` folders of installed plugins, after ours: none of our files can be replaced."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for name, folder in config_folders():
            search_path.append(provider=f"plugin {name}", path=f"file://{folder}")


def open_surface(arguments: Sequence[str]) -> None:
    """Load the plugins that a command names and show Hydra the folders of installed ones, before it composes.

    Raises:
        PluginError: a file that does not exist, or code that fails while it is imported.
    """
    Plugins.instance().register(PluginFolders)
    load_plugins(plugins_in(arguments))


def plugins_in(arguments: Sequence[str]) -> list[str]:
    """The files and modules of `plugins=[...]` among the arguments of a command; all of them where it is swept."""
    found: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+") != "plugins" or not value:
            continue
        try:
            override = OverridesParser.create().parse_override(f"plugins={value}")
        except HydraException:
            continue  # Hydra parses it again and says what is wrong
        parsed = override.value()
        for choice in parsed.list if isinstance(parsed, ChoiceSweep) else [parsed]:
            specs = choice if isinstance(choice, list) else [choice]  # what is no text is refused with the settings
            found += [text for spec in specs if isinstance(text := getattr(spec, "text", spec), str)]
    return found


def config_folders() -> Iterator[tuple[str, Path]]:
    """(entry point, folder) of every installed plugin with a `conf/` beside its code, which is not imported."""
    seen: set[Path] = set()
    for entry in sorted(set(entry_points(group=ENTRY_POINT_GROUP))):  # editable installs list an entry twice
        try:
            package, *below = entry.module.split(".")
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError, AttributeError):  # a broken installation: heard of when its code is asked for
            continue
        for location in (spec.submodule_search_locations or ()) if spec else ():
            inner = Path(location).joinpath(*below)
            for folder in (inner / "conf", Path(location) / "conf"):
                if folder.is_dir() and folder not in seen:
                    seen.add(folder)
                    yield entry.name, folder


def node(registry: Registry, name: str) -> dict[str, Any]:
    """`{"name": ..., option: default}`; required options are `???`, and defaults that no yaml can hold are left out."""
    config: dict[str, Any] = {"name": name}
    for option in registry.options(name):
        value = MISSING if option.required else option.default
        try:
            OmegaConf.create({option.name: value})
        except OmegaConfBaseException:
            continue
        config[option.name] = value
    return config


def provide(error: MissingConfigException) -> bool:
    """Give a component that no yaml provides a config node made from its constructor.

    It is looked for among what the command's plugins registered, the built-in components, then installed plugins. Only
    a name that Hydra missed gets a node: beside a yaml of the same name, Hydra would take the node for its schema.

    Returns:
        Whether composing again makes sense.
    """
    group, name = missing(error)
    registry = next((registry for registry in registries() if registry.slot == group), None)
    if registry is None or f"{name}.yaml" in ConfigStore.instance().repo.get(group, ()):
        return False
    try:
        registry.get(name)
    except UnknownComponentError:
        return False
    ConfigStore.instance().store(group=group, name=name, node=node(registry, name), provider="signature")
    return True


def missing(error: MissingConfigException) -> tuple[str, str]:
    """(group, name) of the configuration that Hydra did not find."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    return group, name


def component_names(group: str) -> list[str]:
    """Everything that is registered for a group; empty where the group is no slot."""
    return next((registry.names() for registry in registries() if registry.slot == group), [])
