"""One registry per slot: names to classes, and nothing else can be built.

A component's config is `{"name": "uniform", "num_bins": 100}`: a registered *name*, never an import path, so that a
config or a checkpoint can only build what was registered. Built-in components live in one file each,
`seqrl/<folder>/<name>.py`, and are imported when their name is first asked for.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le, Len

from seqrl import plugins
from seqrl.errors import OWN_FILE, ConfigError, PluginError, UnknownComponentError, did_you_mean
from seqrl.schema import Option, check_keys, check_value, options_of

T = TypeVar("T")
_RESERVED = {
    "name": "the key that chooses components",
    "defaults": "the key under which yaml files list what they begin with",
}
_SHARED = "which a config may set for every component of the slot"


class Registry:
    """The components of one slot.

    Args:
        slot: singular name, also the Hydra group (`tokenizer`).
        package: where the built-in components lie (`seqrl.tokenizers`), one module per name.
        runtime: constructor arguments that are only known when a run is put together (such as the number of
            scalars per transition); they are no options, so that no config can set them.
        shared: options that a config may set for every component of the slot, and that are none of its business: they
            are checked with the others, and no constructor sees them.
        reserved: other words that the section takes for itself, and what for; no option may be called so.
    """

    def __init__(
        self,
        slot: str,
        package: str,
        runtime: tuple[str, ...] = (),
        shared: tuple[Option, ...] = (),
        reserved: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.slot = slot
        self.package = package
        self.runtime = runtime
        self.shared = shared
        self.reserved = {**_RESERVED, **dict.fromkeys((each.name for each in shared), _SHARED), **reserved}
        self._entries: dict[str, type] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that files a component under `name`.

        Raises:
            PluginError: the name is no word, belongs to another class (re-importing the same class is fine) or to a
                built-in, or the class has an option whose name the slot's section takes for itself, such as `name`.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name):
            raise PluginError(
                f"@register_{self.slot}({name!r}): give the component a name of letters, digits and underscores, as in "
                f'@register_{self.slot}("mine")'
            )

        def decorate(cls: type[T]) -> type[T]:
            if name in self.builtin_names() and cls.__module__ != f"{self.package}.{name}":
                raise PluginError(
                    f"{self.slot} {name!r} is built into seqrl and cannot be replaced by "
                    f"{cls.__module__}.{cls.__qualname__}; register it under another name"
                )
            taken = self._entries.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise PluginError(
                    f"two {self.slot} components are named {name!r}: {taken.__module__}.{taken.__qualname__} and "
                    f"{cls.__module__}.{cls.__qualname__}; rename one of them"
                )
            for option in inspect.signature(cls).parameters:
                if option in self.reserved:
                    raise PluginError(
                        f"{self.slot} {name!r} has an option {option!r}, {self.reserved[option]}, so that it would "
                        "never be set; rename it"
                    )
            self._entries[name] = cls
            return cls

        return decorate

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """For tests of plugins: forgets at the end what was registered meanwhile and is not built in."""
        before = set(self._entries)
        try:
            yield
        finally:
            for name in set(self._entries) - before - set(self.builtin_names()):
                del self._entries[name]

    def builtin_names(self) -> list[str]:
        """Found without importing the package, which needs torch."""
        return list(_component_names(self.package))

    def names(self) -> list[str]:
        """Every name that can be asked for, without importing the built-in ones."""
        return sorted({*self.builtin_names(), *self._entries})

    def get(self, name: str) -> type:
        """The class behind a name.

        Raises:
            UnknownComponentError: lists what is available and which plugins failed to load.
        """
        if name not in self._entries and name in self.builtin_names():
            importlib.import_module(f"{self.package}.{name}")
        if name not in self._entries:
            plugins.load_entry_points()
        if name not in self._entries:
            raise UnknownComponentError(self._unknown(name))
        return self._entries[name]

    def name_of(self, component: object) -> str:
        """The name of what was built, for messages; that of its class if it was never registered."""
        return next((name for name, cls in self._entries.items() if type(component) is cls), type(component).__name__)

    def named_by(self, config: Mapping[str, Any]) -> type:
        """The class that a component's config names.

        Raises:
            ConfigError: no name, or an unknown one.
        """
        name = config.get("name")
        if not isinstance(name, str):
            raise ConfigError(f"{self.slot} needs a name; available: {', '.join(self.names())}")
        return self.get(name)

    def check(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The options that `config` gives a component, as its constructor wants them; nothing is made.

        Args:
            config: `{"name": ..., **options}`.

        Raises:
            ConfigError: no name, an unknown option, a required option that is missing, or a value that its annotation
                does not allow.
        """
        self.named_by(config)
        given = dict(config)
        name = given.pop("name")
        known = {option.name: option for option in [*self.options(name), *self.shared]}
        check_keys(f"{self.slot} {name!r}", given, known, "option")
        missing = [key for key, option in known.items() if option.required and given.get(key) is None]
        if missing:
            raise ConfigError(f"{self.slot} {name!r} needs {', '.join(missing)}; set {self.slot}.{missing[0]}=...")
        return {key: check_value(f"{self.slot}.{key}", value, known[key].annotation) for key, value in given.items()}

    def build(self, config: Mapping[str, Any], **runtime: Any) -> Any:
        """Make the component that `config` names.

        Args:
            config: `{"name": ..., **options}`.
            runtime: the arguments of `self.runtime` that this component takes; the others are left out.

        Raises:
            ConfigError: see `check`.
        """
        shared = {option.name for option in self.shared}
        options = {key: value for key, value in self.check(config).items() if key not in shared}
        cls = self.named_by(config)
        accepted = inspect.signature(cls).parameters
        return cls(**options, **{key: value for key, value in runtime.items() if key in accepted})

    def shared_value(self, config: Mapping[str, Any], option: str) -> Any:
        """What a component's config says of an option that is `shared`; else its default."""
        return config.get(option, next(each.default for each in self.shared if each.name == option))

    def options(self, name: str) -> list[Option]:
        """What a user may set, read off the constructor's annotations; less what is `shared`."""
        return options_of(self.get(name), leave_out=self.runtime)

    def _unknown(self, name: str) -> str:
        close = did_you_mean(name, self.names())
        lines = [f"no {self.slot} named {name!r}.{close}"]
        origins: dict[str, list[str]] = {"seqrl": self.builtin_names()}
        for other in sorted(set(self._entries) - set(self.builtin_names())):
            origins.setdefault(plugins.origin(self._entries[other]), []).append(other)
        lines.append("  available: " + "; ".join(f"{', '.join(names)} ({where})" for where, names in origins.items()))
        lines += [] if close else [f"  {OWN_FILE}"]
        for plugin, reason in plugins.failures().items():
            lines.append(f"  plugin {plugin!r} failed to import: {reason}")
        return "\n".join(lines)


@lru_cache
def _component_names(package: str) -> tuple[str, ...]:
    """The modules of a package, sorted; those whose names begin with an underscore are no components."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return tuple(sorted(path.stem for path in Path(spec.origin).parent.glob("*.py") if path.stem[0] != "_"))


Counts = Annotated[int, Ge(2)] | Annotated[tuple[Annotated[int, Ge(1)], ...], Len(1)]
"""How many choices there are: of one number in a row, or of each of several."""

DATA = Registry(
    "data",
    "seqrl.sources",
    shared=(
        Option("top_fraction", None, Annotated[float, Gt(0), Le(1)] | None),
        Option("categories", None, Mapping[str, Counts | None] | None),
    ),
    reserved={"mix": "the word for several sources (data.mix=[a, b])"},
)
TOKENIZER = Registry("tokenizer", "seqrl.tokenizers", runtime=("size", "layout", "window", "model_backbone"))
BACKBONE = Registry("backbone", "seqrl.backbones", runtime=("max_length",))
OBJECTIVE = Registry("objective", "seqrl.objectives")
CRITIC = Registry("critic", "seqrl.critics", runtime=("observation_size", "action_size", "discount"))
OPTIMIZER = Registry(
    "optimizer", "seqrl.optimizers", shared=(Option("clip_norm", 1.0, Annotated[float, Gt(0)] | None),)
)
SCHEDULER = Registry("scheduler", "seqrl.schedulers", runtime=("max_steps", "steps_per_epoch", "targets_per_epoch"))
PLANNER = Registry("planner", "seqrl.planners", runtime=("critic",))
CONDITION = Registry("condition", "seqrl.conditions")
SCORE = Registry(
    "score",
    "seqrl.scores",
    runtime=("discount", "critic"),
    reserved={"weight": "the weight of a term in score=sum"},
)

LOGGER = Registry("logger", "seqrl.loggers", runtime=("run",))
CALLBACK = Registry("callback", "seqrl.callbacks")
WRAPPER = Registry("wrapper", "seqrl.wrappers", runtime=("env",))


@dataclass(frozen=True)
class Slot:
    """Marks a setting as the config of a component: `Annotated[Mapping[str, Any], Slot("backbone")]`.

    A text stands for a name without options.
    """

    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core.core_schema import no_info_after_validator_function

        def check(config: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
            registry_of(self.name).check({"name": config} if isinstance(config, str) else config)
            return config

        return no_info_after_validator_function(check, handler(source))


def registry_of(slot: str) -> Registry:
    """The registry of a slot.

    Raises:
        ConfigError: there is no such slot; lists those there are.
    """
    slots = {registry.slot: registry for registry in all_registries()}
    if slot not in slots:
        raise ConfigError(f"no slot named {slot!r}.{did_you_mean(slot, slots)} Slots: {', '.join(slots)}")
    return slots[slot]


def all_registries() -> Iterator[Registry]:
    """Every slot: those that take one component, then those of which a run names any number."""
    yield from registries()
    yield from (LOGGER, CALLBACK, WRAPPER)


def registries() -> Iterator[Registry]:
    """The slots that take one component each, in the order in which data flows through them."""
    yield from (DATA, TOKENIZER, BACKBONE, OBJECTIVE, CRITIC, OPTIMIZER, SCHEDULER, PLANNER, CONDITION, SCORE)


register_data = DATA.register
register_tokenizer = TOKENIZER.register
register_backbone = BACKBONE.register
register_objective = OBJECTIVE.register
register_critic = CRITIC.register
register_optimizer = OPTIMIZER.register
register_scheduler = SCHEDULER.register
register_planner = PLANNER.register
register_condition = CONDITION.register
register_score = SCORE.register
register_logger = LOGGER.register
register_callback = CALLBACK.register
register_wrapper = WRAPPER.register
