"""What Hydra's errors mean, in one sentence that says what is accepted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from seqrl.cli.surface import component_names, missing
from seqrl.cli.words import explain_word, show_quoted
from seqrl.config import EvaluationConfig, RunConfig
from seqrl.errors import OWN_FILE, ConfigError, did_you_mean
from seqrl.layout_config import close_field
from seqrl.paths import config_dir
from seqrl.plugins import failures
from seqrl.registry import registries, registry_of
from seqrl.schema import list_settings

_FIELD = "layout.fields."
_EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}  # of launchers


def explain_oddity(error: Exception, arguments: Iterable[str]) -> ConfigError:
    """What is wrong where Hydra fails while it composes: groups that were given no names, or defaults that are none."""
    no_name = re.compile(r"[+~]*([a-z_/]+)=(null|-?[0-9.]+|true|false|\{.*\}|\[.*\])")
    found = [(match[1], a) for a in arguments if (match := no_name.fullmatch(a))]
    given = [a for key, a in found if (config_dir() / key).is_dir()] or [a for _, a in found]
    if str(error).startswith("Invalid defaults list"):
        return ConfigError(f"{error}; give a list of group: name")
    what = f"{given[0]} chooses no option" if given else f"a group was set to what is no name ({error})"
    return ConfigError(f"{what}; give the name of one, see --help")


def translate(error: Exception, config_name: str, arguments: Sequence[str]) -> ConfigError:
    """What a composition error means, in one sentence that names what is accepted."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        return _unknown_option(*missing(error), error.options)
    if isinstance(error, OverrideParseException):
        return ConfigError(explain_word(str(error.override), text.splitlines()[0]))
    for pattern, explain in _MEANINGS:
        if match := re.search(pattern, text, re.DOTALL):
            return explain(match, config_name, arguments)
    return ConfigError(" ".join(text.split()))


def _explain_key(match: re.Match[str], config_name: str, arguments: Sequence[str]) -> ConfigError:
    inner = re.search(r"Key '([^']+)' is not in struct\s+full_key: ([^\s]+)", match.string)
    key = inner[2] if inner and inner[2].endswith(inner[1]) else match[1]
    return _unknown_key(key, config_name, arguments)


def _explain_ambiguous(match: re.Match[str], config_name: str, arguments: Sequence[str]) -> ConfigError:
    word = match[1].removeprefix("evaluation.") if match[1].startswith("evaluation.strategy=") else match[1]
    key, _, value = word.partition("=")
    return ConfigError(
        f"{word!r} lists values; add -m to sweep over them, write '{key}=[{value}]' for a list, or put one value with "
        f"commas in quotes: {show_quoted(word)}"
    )


def _explain_merge(match: re.Match[str], config_name: str, arguments: Sequence[str]) -> ConfigError:
    key, _, value = match[1].lstrip("+").partition("=")
    if not value.startswith("["):
        return ConfigError(f"{key}={value} does not fit; see seqrl {config_name} --cfg all for what stands there")
    return ConfigError(f"{key}={value} is a list, and {key} is a set of options; give {{option: value}}")


def _explain_choice(match: re.Match[str], config_name: str, arguments: Sequence[str]) -> ConfigError:
    group, _, name = match[1].rpartition("/")
    return ConfigError(f"{group}={name} is no choice; give the name of one file of {group}, see --help")


def _explain_deletion(match: re.Match[str], config_name: str, arguments: Sequence[str]) -> ConfigError:
    return ConfigError(f"~{match[1]} takes out what there is not; leave it out")


def _explain_addition(match: re.Match[str], config_name: str, arguments: Sequence[str]) -> ConfigError:
    return ConfigError(f"there is a setting {match[1]!r} already; leave the + out: {match[1]}=...")


_MEANINGS = (  # of Hydra's texts
    (r"Could not override '([^'@]+)", _explain_key),
    (r"Ambiguous value for argument '(.*?)'\s+1\. To use it as a list", _explain_ambiguous),
    (r"Error merging override (.+)", _explain_merge),
    (r"Could not load '([^']+)'", _explain_choice),
    (r"Could not delete from config\. '([^']+)' does not exist", _explain_deletion),
    (r"Could not delete '([^']+)'\. No match in the defaults list", _explain_deletion),
    (r"Could not append to config\. An item is already at '([^']+)'", _explain_addition),
)


def _unknown_option(group: str, name: str, found: Iterable[str]) -> ConfigError:
    """What could have been chosen in a group, and which plugins might have had more to offer."""
    components = component_names(group)
    options = sorted({*found, *components})
    close = did_you_mean(name, options)
    text = f"no {group} named {name!r}.{close} Available: {', '.join(options)}"
    if components and not close:
        text += f"; {OWN_FILE}"
    if group == "hydra/launcher" and name in _EXTRAS:
        text += f"; pip install 'seqrl[{_EXTRAS[name]}]' adds {name}"
    if components:
        text += "".join(f"\n  plugin {plugin!r} failed to import: {why}" for plugin, why in failures().items())
    return ConfigError(text)


def _unknown_key(key: str, config_name: str, arguments: Sequence[str]) -> ConfigError:
    """Which settings there would have been instead of `key`."""
    others = [a for a in arguments if not a.startswith("-") and a.lstrip("+~").split("=")[0].split("@")[0] != key]
    kept, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # a sweep's next job needs it again
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            composed = hydra.compose(config_name, others)
            typed = list_settings(RunConfig if config_name == "train" else EvaluationConfig)
            known = sorted({*_keys(OmegaConf.to_container(composed)), *typed})
    except Exception:  # the other overrides are wrong as well; the user will hear of them next
        return ConfigError(f"there is no setting {key!r}; see seqrl {config_name} --cfg job for all of them")
    finally:
        GlobalHydra.instance().hydra = kept
    if new := _find_new_field(key, arguments, known):
        return ConfigError(f"there is no setting {key!r}; {new}")
    parent, _, last = key.rpartition(".")
    while parent and not any(each.startswith(f"{parent}.") for each in known):
        parent, _, last = parent.rpartition(".")
    siblings = [each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == parent]
    same = [each for each in known if each.rpartition(".")[2] == key.rpartition(".")[2] != "name"]
    same.sort(key=lambda each: each.startswith(("critic_training.", "tokenizer_training.")))
    elsewhere = f" Did you mean {same[0]!r}?" if same else ""
    close = did_you_mean(last, siblings).replace("'", f"'{parent}." if parent else "'", 1)
    meant = [each for each in same if did_you_mean(key.partition(".")[0], [each.partition(".")[0]])]
    if not parent and meant:  # the section is misspelt, and its setting is not
        close = f" Did you mean {meant[0]!r}?"
    slot, option = key.partition(".")[0], key.rpartition(".")[2]
    if slot in ("logger", "callback"):
        close = f" Name them in a list: training.{slot}s=[{', '.join(registry_of(slot).builtin_names()[:2])}]."
    if key in known:  # in a section that is null
        return ConfigError(f"{parent!r} is null, and nothing can be set in it; give '{parent}={{{option}: ...}}'")
    hint = _find_owners(slot, option) or ("" if parent else _find_options(slot, option)) or close or elsewhere
    if any(each.lstrip("+").startswith((f'{key}="', f"{key}='")) for each in arguments):
        hint += " Its value may stand as it is or in quotes."
    return ConfigError(
        f"there is no setting {key!r}.{hint} Settings{' in ' + repr(parent) if parent else ''}: {', '.join(siblings)}"
    )


def _find_new_field(key: str, arguments: Sequence[str], known: Iterable[str]) -> str | None:
    """How a field is added to the layout, where a key is of one that it has not and none of its own is meant."""
    name = key.removeprefix(_FIELD).partition(".")[0]
    own = f"{_FIELD}{name}"
    word = next((each for each in arguments if each.partition("=")[0].lstrip("+") == key), f"{key}={{}}")
    if key != own and any(re.match(rf"\++{re.escape(own)}=", each) for each in arguments):
        return f"an option of a new field: {shlex.quote('+' + word)}"
    if not key.startswith(_FIELD) or own in known or close_field(name) not in (None, name):
        return None
    option, value = key.removeprefix(own).lstrip("."), word.partition("=")[2]
    return f"a new field: {shlex.quote(f'+{own}={{{option}: {value}}}' if option else f'+{word}')}"


def _find_owners(slot: str, option: str) -> str:
    """Which other components of a slot have an option."""
    registry = next((each for each in registries() if each.slot == slot), None)
    if registry is None or option == "name":
        return ""
    owners = [name for name in registry.builtin_names() if option in {each.name for each in registry.options(name)}]
    return f" It belongs to {' or '.join(f'{slot}={name}' for name in owners)}." if owners else ""


def _find_options(slot: str, option: str) -> str:
    """Which option of another component of a slot was perhaps meant."""
    registry = next((each for each in registries() if each.slot == slot), None)
    if registry is None:
        return ""
    known = {each.name for name in registry.builtin_names() for each in registry.options(name)}
    hint = did_you_mean(option, known)
    return hint.replace("'", f"'{slot}.", 1) + _find_owners(slot, hint.partition("'")[2].partition("'")[0])


def _keys(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _keys(child, f"{prefix}{name}.")
