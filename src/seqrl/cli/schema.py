"""`seqrl schema`: what may be set, as JSON schema; and the yaml files of components, from their constructors."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from seqrl.cli.telling import tell_errors
from seqrl.config import ResultsConfig, RunConfig, TrainerConfig
from seqrl.console import say
from seqrl.files import write_text
from seqrl.paths import config_dir
from seqrl.registry import Registry, registries
from seqrl.schema import Option, json_schema

FOLDER = "schema"  # below the configuration folder
_PARTIAL = {"experiment": "partial", "method": "partial", "debug": "partial", "trainer": "trainer"}
_PARTIAL |= {"evaluation": "evaluation"}  # groups whose files hold settings of several components, or of a section


@tell_errors()
def run(arguments: list[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("seqrl schema", description="JSON schema of the configuration of a run.")
    parser.add_argument("--write", action="store_true", help="write the schemas and yaml files below conf/")
    options = parser.parse_args(arguments)
    if not options.write:
        say(json.dumps(run_schema(), indent=2))
        return
    for path in write_files(config_dir()):
        say(f"written: {path}")


def run_schema() -> dict[str, Any]:
    """The schema of a whole run, every slot with the components that are registered for it."""
    schema = json_schema(RunConfig)
    for registry in registries():
        if registry.slot in schema["properties"]:
            schema["properties"][registry.slot] = slot_schema(registry)
    schema["properties"]["critic"] = {"anyOf": [schema["properties"]["critic"], {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def slot_schema(registry: Registry) -> dict[str, Any]:
    """What the config of any component of a slot may be."""
    return {"oneOf": [component_schema(registry, name) for name in registry.names()]}


def partial_schema() -> dict[str, Any]:
    """What a file that stands over others may hold (an experiment, a method): any of the settings, none of them needed.

    Of a component it gives the options of all that its slot has.
    """
    schema = run_schema()
    for registry in registries():
        if registry.slot in schema["properties"]:
            schema["properties"][registry.slot] = _any_component(registry)
    schema["properties"]["defaults"] = {"type": "array"}
    return _without_required(schema)


def section_schema(section: type) -> dict[str, Any]:
    """What the file of a section that is no component may hold (`trainer`, `evaluation`)."""
    schema = json_schema(section)
    schema["properties"]["defaults"] = {"type": "array"}
    return _without_required(schema)


def _any_component(registry: Registry) -> dict[str, Any]:
    options: dict[str, list[Any]] = {"name": [{"enum": registry.names()}]}
    for name in registry.names():
        for option in [*registry.options(name), *registry.shared]:
            found = options.setdefault(option.name, [])
            if (allowed := json_schema(option.annotation)) not in found:
                found.append(allowed)
    properties = {name: found[0] if len(found) == 1 else {"anyOf": found} for name, found in options.items()}
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _without_required(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_required(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_required(each) for key, each in schema.items() if key != "required"}


def component_schema(registry: Registry, name: str) -> dict[str, Any]:
    """What `{"name": name, **options}` may be."""
    options = [*registry.options(name), *registry.shared]
    return {
        "type": "object",
        "properties": {"name": {"const": name}, **{option.name: _option_schema(option) for option in options}},
        "required": ["name", *(option.name for option in options if option.required)],
        "additionalProperties": False,
    }


def write_files(folder: Path) -> Iterator[Path]:
    """Bring the schemas and the yaml files of components up to date; yields those that changed."""
    schemas = {
        "run": run_schema(),
        "partial": partial_schema(),
        "trainer": section_schema(TrainerConfig),
        "evaluation": section_schema(ResultsConfig),
    }
    texts = {folder / FOLDER / f"{name}.json": json.dumps(each, indent=2) + "\n" for name, each in schemas.items()}
    for group, schema in _PARTIAL.items():
        for path in sorted((folder / group).glob("*.yaml")):
            texts[path] = _name_schema(path.read_text(encoding="utf-8"), schema)
    for registry in registries():
        texts[folder / FOLDER / f"{registry.slot}.json"] = json.dumps(slot_schema(registry), indent=2) + "\n"
        for name in registry.builtin_names():
            path = folder / registry.slot / f"{name}.yaml"
            texts[path] = component_yaml(registry, name, path.read_text(encoding="utf-8") if path.exists() else "")
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            write_text(path, text)
            yield path


def component_yaml(registry: Registry, name: str, text: str) -> str:
    """The yaml file of a component: every option with its constructor's default, comments as they were.

    Args:
        text: of the file so far.
    """
    lines = _name_schema(text, registry.slot).splitlines()
    present = yaml.safe_load(text) or {}
    for option in [Option("name", name), *registry.options(name), *_written(registry)]:
        value = "???" if option.required else option.default
        if option.name in present and present[option.name] == _plain(value):
            continue
        line = f"{option.name}: {_dump(value)}"
        places = [number for number, each in enumerate(lines) if re.match(rf"{option.name}:", each)]
        if places:
            comment = re.search(r"\s+#.*", lines[places[0]])
            lines[places[0]] = line + (comment.group() if comment else "")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _name_schema(text: str, schema: str) -> str:
    """The text of a yaml file that names its schema to editors: first of all, or after a package, as Hydra wants."""
    lines = [line for line in text.splitlines() if not line.startswith("# yaml-language-server")]
    place = 1 if lines and lines[0].startswith("# @package") else 0
    lines.insert(place, f"# yaml-language-server: $schema=../{FOLDER}/{schema}.json")
    return "\n".join(lines) + "\n"


def _written(registry: Registry) -> tuple[Option, ...]:
    """The shared options that yaml files hold; `data.top_fraction` is added by the command that sets it."""
    return () if registry.slot == "data" else registry.shared


def _option_schema(option: Option) -> dict[str, Any]:
    schema = json_schema(option.annotation)
    return schema if option.required else {**schema, "default": _plain(option.default)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _dump(value: Any) -> str:
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
