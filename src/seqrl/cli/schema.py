"""`seqrl schema`: what may be set, as JSON schema; and the yaml files of components, from their constructors."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from seqrl.config import RunConfig
from seqrl.console import say, say_error
from seqrl.errors import SeqrlError
from seqrl.files import write_text
from seqrl.paths import config_dir
from seqrl.registry import Registry, registries
from seqrl.schema import Option, json_schema

FOLDER = "schema"  # below the configuration folder


def run(arguments: list[str]) -> int:
    """Run the command; returns 0, or 2 for an error of the user."""
    parser = argparse.ArgumentParser("seqrl schema", description="JSON schema of the configuration of a run.")
    parser.add_argument("--write", action="store_true", help="write the schemas and yaml files below conf/")
    options = parser.parse_args(arguments)
    try:
        if not options.write:
            say(json.dumps(run_schema(), indent=2))
            return 0
        for path in write_files(config_dir()):
            say(f"written: {path}")
    except (SeqrlError, OSError) as error:
        say_error(f"{type(error).__name__}: {error}")
        return 2
    return 0


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
    texts = {folder / FOLDER / "run.json": json.dumps(run_schema(), indent=2) + "\n"}
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
    lines = [line for line in text.splitlines() if not line.startswith("# yaml-language-server")]
    lines = [f"# yaml-language-server: $schema=../{FOLDER}/{registry.slot}.json", *lines]
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
