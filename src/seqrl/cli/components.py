"""What every slot offers, in words: names, origins, options. Built-in components are read, not imported."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
    """All components of a slot, the built-in ones first.

    Built-in files are parsed instead of imported: importing one means importing torch, which takes seconds.
    """
    files = registry.builtin_files()
    built_in = [_from_source(registry, name, path) or _from_class(registry, name) for name, path in files.items()]
    return built_in + [_from_class(registry, name) for name in registry.names() if name not in files]


def _from_class(registry: Registry, name: str) -> Description:
    cls = registry.get(name)
    options = tuple(str(option) for option in registry.options(name))
    return Description(name, plugins.origin(cls), _first_line(inspect.getdoc(cls) if cls.__doc__ else None), options)


def _from_source(registry: Registry, name: str, path: Path) -> Description | None:
    """The description of a built-in component from its file, or None where the file alone does not tell."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.decorator_list:
            functions = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            if not functions and ast.unparse(node.bases[-1]) not in _PLAIN_BASES:
                return None
            options = tuple(
                o for f in functions for o in _options(f.args) if o.partition("=")[0] not in registry.runtime
            )
            return Description(name, "seqrl", _first_line(ast.get_docstring(node)), options)
    return None


_PLAIN_BASES = ("DataSource", "Tokenizer", "Backbone", "Objective", "Planner", "Condition", "Score", "Critic")
"""The abstract class of each slot; none of them takes options."""


def _options(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args][1:]  # without self
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for argument, default in [
        *zip(positional, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]:
        yield argument.arg if default is None else f"{argument.arg}={_value(default)}"


def _value(default: ast.expr) -> str:
    try:
        return repr(ast.literal_eval(default))
    except ValueError:  # an expression, which is told as it is written
        return ast.unparse(default)


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]
