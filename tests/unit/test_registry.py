"""Registries: what can be built, and how everything else is refused."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from seqrl import plugins
from seqrl.errors import ConfigError, PluginError, UnknownComponentError
from seqrl.registry import TOKENIZER, Registry, registries, registry_of


class Thing:
    """A component with one option of each kind."""

    def __init__(self, size: int, *, width: int, depth: int = 2) -> None:
        self.size, self.width, self.depth = size, width, depth


class OtherThing:
    """Takes neither options nor what is known at run time."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry("tokenizer", "seqrl.tokenizers", runtime=("size",))
    found.register("thing")(Thing)
    with plugins.set_aside(installed=False):
        yield found


def test_a_component_is_built_from_its_name_options_and_run_time_facts(registry: Registry) -> None:
    config = {"name": "thing", "width": 5}
    thing = registry.build(config, size=3, discount=0.5)  # what the constructor does not take is left out
    assert (thing.size, thing.width, thing.depth) == (3, 5, 2)
    assert config == {"name": "thing", "width": 5}
    registry.register("other")(OtherThing)
    assert isinstance(registry.build({"name": "other"}, size=3), OtherThing)


def test_an_unknown_name_is_answered_with_what_there_is(registry: Registry) -> None:
    with pytest.raises(UnknownComponentError) as caught:
        registry.build({"name": "thong"}, size=1)
    assert str(caught.value).splitlines() == [
        "no tokenizer named 'thong'. Did you mean 'thing'?",
        f"  available: continuous, kmeans, quantile, uniform, vq (seqrl); thing ({__name__})",
    ]
    with pytest.raises(UnknownComponentError, match=r"no tokenizer named 'zzz'\.\n"):
        registry.get("zzz")


@pytest.mark.parametrize("name", ["os.system", "seqrl.tokenizers.uniform.UniformTokenizer", "report", "__init__", ""])
def test_nothing_but_a_registered_name_is_built(name: str) -> None:
    with pytest.raises(UnknownComponentError):
        TOKENIZER.build({"name": name}, size=1)


@pytest.mark.parametrize("config", [{}, {"name": None}, {"name": 3}, {"_target_": "os.system", "command": "true"}])
def test_a_name_is_needed(registry: Registry, config: dict[str, Any]) -> None:
    listed = "continuous, kmeans, quantile, thing, uniform, vq"
    with pytest.raises(ConfigError, match=rf"tokenizer needs a name; available: {listed}"):
        registry.build(config, size=1)


@pytest.mark.parametrize("key", ["widht", "_target_", "size"])
def test_an_unknown_option_is_answered_with_the_accepted_ones(registry: Registry, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.build({"name": "thing", "width": 1, key: 1}, size=1)
    hint = " Did you mean 'width'?" if key == "widht" else ""
    assert str(caught.value) == f"tokenizer 'thing' has no option {key!r}.{hint} Options: width, depth=2"


@pytest.mark.parametrize("config", [{"name": "thing"}, {"name": "thing", "width": None}])
def test_a_required_option_is_asked_for(registry: Registry, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer 'thing' needs width; set tokenizer\.width=\.\.\."):
        registry.build(config, size=1)


def test_a_name_that_is_taken_is_refused_and_the_first_class_stays(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"two tokenizer components are named 'thing': .*\.Thing and .*\.OtherThing"):
        registry.register("thing")(OtherThing)
    assert registry.get("thing") is Thing
    registry.register("thing")(Thing)  # the same class again is fine


@pytest.mark.parametrize("name", ["uniform", "quantile"])
def test_a_built_in_cannot_be_replaced_even_before_it_is_loaded(registry: Registry, name: str) -> None:
    with pytest.raises(PluginError, match=rf"tokenizer '{name}' is built into seqrl and cannot be replaced by .*Other"):
        registry.register(name)(OtherThing)


def test_every_built_in_name_has_a_class_that_its_own_file_defines() -> None:
    for registry in registries():
        assert registry.builtin_names()
        for name in registry.builtin_names():
            assert registry.get(name).__module__ == f"{registry.package}.{name}"
        assert set(registry.builtin_names()) <= set(registry.names())


def test_options_are_read_off_the_constructor(registry: Registry) -> None:
    assert [str(option) for option in registry.options("thing")] == ["width", "depth=2"]
    assert [option.required for option in registry.options("thing")] == [True, False]


class _Entry(importlib.metadata.EntryPoint):
    """An entry point that needs no installed package."""

    loads = 0

    def load(self) -> Any:
        type(self).loads += 1
        if self.value == "broken":
            raise ModuleNotFoundError("No module named 'foo'")
        return TOKENIZER.register("from_a_package")(OtherThing)


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch, clean_plugins: None) -> None:
    def find(group: str) -> list[_Entry]:
        assert group == "seqrl.plugins"
        good = [_Entry("good", "good", group)] * 2  # editable installs list an entry twice
        return [_Entry("other-pkg", "broken", group), *good]

    monkeypatch.setattr(_Entry, "loads", 0)
    monkeypatch.setattr(plugins, "entry_points", find)


@pytest.mark.usefixtures("entry_points")
def test_installed_plugins_are_loaded_when_a_name_is_missing_and_only_once() -> None:
    TOKENIZER.get("uniform")
    assert _Entry.loads == 0
    assert TOKENIZER.get("from_a_package") is OtherThing
    assert _Entry.loads == 2
    with pytest.raises(UnknownComponentError):
        TOKENIZER.get("unknown")
    assert _Entry.loads == 2


@pytest.mark.usefixtures("entry_points")
def test_an_installed_plugin_that_fails_is_listed_where_a_name_is_missing() -> None:
    with pytest.raises(UnknownComponentError) as caught:
        TOKENIZER.build({"name": "unifrom"}, size=1)
    assert str(caught.value).splitlines() == [
        "no tokenizer named 'unifrom'. Did you mean 'uniform'?",
        f"  available: continuous, kmeans, quantile, uniform, vq (seqrl); from_a_package ({__name__})",
        "  plugin 'other-pkg' failed to import: ModuleNotFoundError: No module named 'foo'",
    ]


@pytest.mark.parametrize("name", ["a=b", "two words", "", "9lives", Thing])
def test_a_name_must_be_a_word_that_the_command_line_can_spell(registry: Registry, name: Any) -> None:
    with pytest.raises(PluginError, match="letters, digits and underscores"):
        registry.register(name)


def test_an_option_called_name_is_refused(registry: Registry) -> None:
    class Named:
        def __init__(self, name: str = "x") -> None: ...

    with pytest.raises(PluginError, match="has an option 'name'"):
        registry.register("named")(Named)


@pytest.mark.usefixtures("clean_plugins")
@pytest.mark.parametrize(
    ("slot", "option"),
    [
        *(("score", "weight"), ("data", "top_fraction"), ("data", "categories"), ("data", "mix")),
        *(("optimizer", "clip_norm"), ("backbone", "name"), ("callback", "name"), ("wrapper", "defaults")),
    ],
)
def test_an_option_whose_name_a_section_takes_for_itself_is_refused(slot: str, option: str) -> None:
    parameter = inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=1)
    cls = type("Mine", (), {"__signature__": inspect.Signature([parameter])})
    with pytest.raises(PluginError, match=f"{slot} 'mine' has an option '{option}', .*never be set; rename it"):
        registry_of(slot).register("mine")(cls)
    assert "mine" not in registry_of(slot).names()


@pytest.mark.usefixtures("clean_plugins")
def test_what_one_section_takes_another_may_use() -> None:
    class Weighted:
        def __init__(self, *, weight: float = 1.0, top_fraction: float = 1.0) -> None: ...

    registry_of("backbone").register("weighted")(Weighted)
    assert "weighted" in registry_of("backbone").names()


@pytest.mark.parametrize("option", [{"width": "3"}, {"width": True}, {"width": 3, "depth": 2.5}])
def test_an_option_of_the_wrong_type_is_refused(registry: Registry, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is no whole number; give one"):
        registry.build({"name": "thing", **option}, size=1)
