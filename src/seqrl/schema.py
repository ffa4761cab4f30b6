"""One reading of annotations: what a setting may be, as a check with our sentences, in words and as JSON schema.

A constructor's annotations (`beam_width: Annotated[int, Ge(1)] = 128`) and the fields of the dataclasses in
`seqrl.config` are the only places that say which settings there are. Pydantic checks them strictly: no text stands for
a number and no bool for a whole one; whole numbers stand for others, and lists for tuples, because yaml has no tuples.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Len, Lt, MinLen

from seqrl.errors import ConfigError, PluginError, did_you_mean, show_value

if TYPE_CHECKING:  # takes a fifth of a second to import, which `seqrl --help` must not wait for
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator


@dataclass(frozen=True)
class Option:
    """One keyword of a component's constructor, as a user may set it.

    Attributes:
        default: `inspect.Parameter.empty` where the option must be given.
        annotation: `Any` where the constructor has none.
    """

    name: str
    default: Any
    annotation: Any = Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def __str__(self) -> str:
        return self.name if self.required else f"{self.name}={show_value(self.default)}"


def options_of(cls: type, leave_out: Iterable[str] = ()) -> list[Option]:
    """The keywords of a constructor, less those to leave out.

    Raises:
        PluginError: an annotation names what its module does not have.
    """
    parameters = inspect.signature(cls).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in leave_out]
    return [Option(p.name, p.default, _resolve(cls, p)) for p in named]


def _resolve(cls: type, parameter: inspect.Parameter) -> Any:
    """A parameter's annotation, alone: a name that only type checkers see may stand beside it."""
    if parameter.annotation is parameter.empty:
        return Any
    function = inspect.unwrap(cls.__init__)  # type: ignore[misc]  # of a class, not an instance
    alone = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = get_type_hints(alone, getattr(function, "__globals__", {}), vars(cls), include_extras=True)
    except Exception as error:  # whatever evaluating a text can raise
        raise PluginError(
            f"{cls.__module__}.{cls.__qualname__}: the annotation {parameter.annotation!r} of option "
            f"{parameter.name!r} cannot be resolved ({error}); define or import what it names at the top of the module"
        ) from error
    return hints[parameter.name]


def check_value(path: str, value: Any, annotation: Any) -> Any:
    """The value as its annotation wants it (a tuple of a list, a dataclass of a mapping).

    Args:
        path: what a user writes to set it, such as `planner.beam_width`; empty for a whole configuration.

    Raises:
        ConfigError: says what was given, what is allowed and what to do, in one sentence.
    """
    from pydantic import ValidationError

    try:
        return _validator(annotation).validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        unknown = [each for each in found if each["type"] == "unexpected_keyword_argument"]  # why another is missing
        raise ConfigError(_explain(path, value, annotation, [*unknown, *found][0])) from None


def check_keys(what: str, given: Iterable[str], known: Mapping[str, Any], noun: str) -> None:
    """Refuse keys that are not known, with a hint.

    Raises:
        ConfigError: names the first of them.
    """
    for key in given:
        if key not in known:
            listed = ", ".join(str(each) for each in known.values())
            raise ConfigError(
                f"{what} has no {noun} {key!r}.{did_you_mean(str(key), known)} {noun.capitalize()}s: {listed or 'none'}"
            )


def json_schema(annotation: Any) -> dict[str, Any]:
    """The JSON schema of a value, for editors."""
    schema = _adapter(annotation).json_schema()
    for section in (schema, *schema.get("$defs", {}).values()):
        if "properties" in section:
            section["additionalProperties"] = False
    return schema


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    """Pydantic's reading of an annotation.

    Raises:
        PluginError: it has none.
    """
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    config = None if dataclasses.is_dataclass(annotation) else ConfigDict(arbitrary_types_allowed=True)
    try:
        return TypeAdapter(annotation, config=config)
    except PydanticUserError as error:
        raise PluginError(f"the annotation {annotation} cannot be checked: {error.message.splitlines()[0]}") from error


@cache
def _validator(annotation: Any) -> SchemaValidator:
    from pydantic_core import SchemaValidator

    return SchemaValidator(_tighten(_adapter(annotation).core_schema))


def _tighten(schema: Any) -> Any:
    """Pydantic's own description of a type, strict where a value stands and lax where a container does.

    Pydantic's strict mode as a whole would refuse lists for tuples and mappings for dataclasses.
    """
    if isinstance(schema, list | tuple):
        return type(schema)(_tighten(each) for each in schema)
    if not isinstance(schema, dict):
        return schema
    tight = {key: each if key in ("default", "metadata") else _tighten(each) for key, each in schema.items()}
    if tight.get("type") in ("int", "float", "bool", "str"):
        tight["strict"] = True
    if tight.get("type") == "float":
        tight.setdefault("allow_inf_nan", False)
    if tight.get("type") == "dataclass-args":
        tight["extra_behavior"] = "forbid"
    return tight


def _explain(path: str, given: Any, annotation: Any, error: Mapping[str, Any]) -> str:
    """Our sentence for one of pydantic's errors: of the setting as a whole, not of an element of its list."""
    path, value, annotation, rest = _find(path, given, annotation, error["loc"])
    if error["type"] in ("unexpected_keyword_argument", "missing") and rest:
        fields = _fields(_strip(annotation))
        if fields is not None and error["type"] == "missing":
            return f"{_join(path, rest[0])} is not set; give {describe(fields[rest[0]].annotation)}"
        if fields is not None:
            return _unknown_key(path, str(rest[0]), list(fields))
    if rest and rest[-1] == "[key]":
        keys = _strip(get_args(_strip(annotation))[0])
        return _unknown_key(path, str(rest[0]), get_args(keys))
    shown = f"{path}={show_value(value)}"
    literals = _literals(annotation)
    if literals and isinstance(value, str):
        return f"{shown} is unknown.{did_you_mean(value, literals)} Choices: {describe(annotation)}"
    if isinstance(value, list | tuple) and any(
        kind in _LISTS or get_origin(kind) in _LISTS for kind, _ in _alternatives(annotation)
    ):
        return f"{shown} does not fit; give {describe(annotation)}"
    if error["type"] == "string_too_short":
        return f"{shown} is empty; give {describe(annotation)}"
    if error["type"] in ("greater_than", "greater_than_equal"):
        return f"{shown} is too small; give {describe(annotation)}"
    if error["type"] in ("less_than", "less_than_equal"):
        return f"{shown} is too large; give {describe(annotation)}"
    wanted, allowed = _no(annotation), describe(annotation)
    return f"{shown} is {wanted}; give {allowed.replace(wanted.replace('no ', 'a ', 1), 'one')}"


def _unknown_key(path: str, key: str, known: Sequence[str]) -> str:
    hint = did_you_mean(key, known).replace("'", f"'{path}." if path else "'", 1)
    return (
        f"there is no setting {_join(path, key)!r}.{hint} Settings{f' in {path!r}' if path else ''}: {', '.join(known)}"
    )


def _find(path: str, value: Any, annotation: Any, location: Sequence[Any]) -> tuple[str, Any, Any, Sequence[Any]]:
    """Follow an error's location as far as it leads through sections: (path, value, annotation, what is left)."""
    for number, key in enumerate(location):
        inner = _strip(annotation)
        fields = _fields(inner)
        if fields is not None and key in fields:
            below = fields[key].annotation
        elif get_origin(inner) in _MAPPINGS and location[-1] != "[key]" and len(get_args(inner)) == 2:
            below = get_args(inner)[1]
        else:
            return path, value, annotation, location[number:]
        if not isinstance(value, Mapping) or key not in value:
            return path, value, annotation, location[number:]
        path, value, annotation = _join(path, key), value[key], below
    return path, value, annotation, ()


def list_settings(section: type, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a dataclass and of the sections in it, those that may be null as well."""
    for option in options_of(section):
        key, below = _join(prefix, option.name), section_of(option.annotation)
        yield key
        if below is not None:
            yield from list_settings(below, key)


def flatten_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings by dotted key; one without keys is a value."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = _join(prefix, str(name))
        found |= flatten_tree(value, key) if isinstance(value, Mapping) and value else {key: value}
    return found


def section_of(annotation: Any) -> type | None:
    """The dataclass that an annotation allows, perhaps beside null; None where it allows something else."""
    kind = _strip(annotation)
    return kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None


def _fields(annotation: Any) -> dict[str, Option] | None:
    """The fields of a dataclass; None of anything else."""
    if not (isinstance(annotation, type) and dataclasses.is_dataclass(annotation)):
        return None
    return {option.name: option for option in options_of(annotation)}


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


_MAPPINGS = (dict, Mapping)
_LISTS = (list, tuple, Sequence)
_NOUNS = {int: "whole number", float: "number", str: "text", type(None): "null"}


def _alternatives(annotation: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """(type, its `Annotated` metadata) of each member of a union."""
    metadata: tuple[Any, ...] = ()
    while hasattr(annotation, "__metadata__"):
        metadata, annotation = (*annotation.__metadata__, *metadata), annotation.__origin__
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from ((kind, (*own, *metadata)) for kind, own in _alternatives(member))
    else:
        yield annotation, metadata


def _strip(annotation: Any) -> Any:
    """The one type of `Annotated[X, ...] | None`; a union of several as it is."""
    members = [kind for kind, _ in _alternatives(annotation) if kind is not type(None)]
    return members[0] if len(members) == 1 else annotation


def is_mapping(annotation: Any) -> bool:
    """Whether a value is a tree whose keys the user chooses."""
    inner = _strip(annotation)
    return (get_origin(inner) or inner) in _MAPPINGS


def _literals(annotation: Any) -> tuple[str, ...]:
    """The words of an annotation that has nothing but words (and perhaps None)."""
    found: list[str] = []
    for kind, _ in _alternatives(annotation):
        if get_origin(kind) is Literal:
            found += [word for word in get_args(kind) if isinstance(word, str)]
        elif kind is not type(None):
            return ()
    return tuple(found)


def _no(annotation: Any) -> str:
    """What a refused value is not."""
    if _strip(annotation) is bool:
        return "neither true nor false"
    nouns = [_noun(kind) for kind, _ in _alternatives(annotation) if kind is not type(None)]
    return f"no {_listed(nouns)}"


def _noun(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "choice"
    if kind is bool:
        return "true or false"
    if kind in _LISTS or origin in _LISTS:
        return "list"
    if kind in _MAPPINGS or origin in _MAPPINGS or _fields(kind) is not None:
        return "set of options"
    if hasattr(kind, "__metadata__"):
        return _noun(arguments[0])
    return _NOUNS.get(kind) or str(getattr(kind, "__name__", kind))


def describe(annotation: Any) -> str:
    """What is allowed, as it follows the word `give`: `1 or more, or null`."""
    words = [_allowed(kind, metadata) for kind, metadata in _alternatives(annotation) if kind is not type(None)]
    text = _listed(words)
    optional = any(kind is type(None) for kind, _ in _alternatives(annotation))
    return f"{text}, or null" if optional else text


def _allowed(kind: Any, metadata: Sequence[Any]) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is bool:
        return "true or false"
    if origin is Literal:
        return _listed([str(word).lower() if isinstance(word, bool) else str(word) for word in arguments])
    if kind in (int, float):
        return _range(metadata) or f"a {_NOUNS[kind]}"
    if kind in _LISTS or origin in _LISTS:
        return _list(arguments, metadata)
    fields = _fields(kind)
    if fields is not None:
        return f"{{{', '.join(f'{name}: ...' for name in fields)}}}"
    if kind is Any:
        return "anything"
    return f"a {_noun(kind)}"


def _list(arguments: Sequence[Any], metadata: Sequence[Any]) -> str:
    elements = [each for each in arguments if each is not Ellipsis]
    if len(elements) > 1:
        return f"a list of {len(elements)}: {', '.join(describe(each) for each in elements)}"
    least = [each.min_length for each in metadata if isinstance(each, MinLen | Len) and each.min_length]
    return (
        "a list"
        + (f" of {least[0]} or more" if least else "")
        + (f", each {describe(elements[0])}" if elements else "")
    )


def _range(metadata: Sequence[Any]) -> str:
    """The bounds of a number, in words; empty without any."""
    bounds = {type(bound): bound for bound in _bounds(metadata)}
    if Ge in bounds and Le in bounds:
        return f"a number from {bounds[Ge].ge} to {bounds[Le].le}"
    words = [
        words.format(getattr(bounds[kind], kind.__name__.lower()))
        for kind, words in {Ge: "{} or more", Gt: "more than {}", Le: "at most {}", Lt: "less than {}"}.items()
        if kind in bounds
    ]
    return " and ".join(words)


def _bounds(metadata: Sequence[Any]) -> Iterator[Any]:
    for each in metadata:
        if isinstance(each, Interval):
            yield from each
        else:
            yield each


def _listed(words: Sequence[str]) -> str:
    unique = list(dict.fromkeys(words))
    return unique[0] if len(unique) == 1 else f"{', '.join(unique[:-1])} or {unique[-1]}"
