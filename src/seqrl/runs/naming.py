"""Names of run folders, and the folder that a run has already."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqrl.config import RunConfig
from seqrl.errors import ConfigError
from seqrl.paths import find_path
from seqrl.runs.identity import IRRELEVANT, RunIdentity
from seqrl.runs.old_names import old_run_name

IDENTITY = "identity.json"
_LONGEST = 60  # characters of the words in a name
_UNSAFE = re.compile(r"[^\w.+-]+", re.ASCII)
_DATA_FILE = re.compile(r"\.(hdf5|h5|npz)$")


def find_run(run: RunConfig, identity: RunIdentity) -> Path | None:
    """The folder of a run that was begun before; None where there is none.

    It carries the name that the user gives, or that of the experiment, whatever its other words; or a name by the
    rule of before (see `old_run_name`), which it keeps.
    """
    parent, beginning = find_path(run.runs_dir), name_beginning(run)
    folders = [parent / f"{beginning}-{identity.digest}"]
    if run.name is None and parent.is_dir():
        folders += sorted(parent.glob(f"{glob.escape(beginning)}-*-{identity.digest}"))
    for folder in folders:
        if folder.is_dir() and RunIdentity.read(folder / IDENTITY) in (None, identity):
            return folder
    old = parent / old_run_name(run.given)
    leaves = {"", ".", ".."} & set(run.experiment_name.split("/"))  # the folder of the runs
    if run.name is None and not leaves and (old / "config.yaml").is_file():
        known = RunIdentity.read(old / IDENTITY)
        if known is None or known == identity:
            return old
    return None


def name_run(run: RunConfig, identity: RunIdentity, overrides: Mapping[str, Any]) -> str:
    """The name of a new run's folder: `<name>-<hash>`, or `<experiment_name>-<words>-<hash>`.

    Args:
        overrides: what the user set otherwise than the defaults, by key, as in `{"backbone": "llama", "seed": 1}`.

    Raises:
        ConfigError: a `name` that is no name of a folder.
    """
    beginning = name_beginning(run)
    words = [] if run.name is not None else _words(run, overrides)
    return "-".join([beginning, *words, identity.digest])


def name_beginning(run: RunConfig) -> str:
    """The user's `name`, or that of the experiment.

    Raises:
        ConfigError: a `name` that is no name of a folder.
    """
    name = run.name
    if name is None:
        return _safe(run.experiment_name) or "run"
    if _safe(name) != name or len(name) > _LONGEST:
        raise ConfigError(
            f"name={name!r} cannot begin the name of a folder; give up to {_LONGEST} letters, digits, '.', '_', '+' or "
            "'-', the first a letter or digit"
        )
    return name


def _words(run: RunConfig, overrides: Mapping[str, Any]) -> list[str]:
    """As many of the overrides that decide what is computed as there is room for."""
    words: list[str] = []
    for key, value in overrides.items():
        section, _, option = key.partition(".")
        if section in IRRELEVANT[""] or section.startswith("hydra") or option in IRRELEVANT.get(section, ()):
            continue
        if value == run.experiment_name:
            continue  # it is said already
        word = _word(key, value)
        if word and len("-".join([*words, word])) <= _LONGEST:
            words.append(word)
    return words


def _word(key: str, value: Any) -> str:
    """`training.max_steps: 4000` as `steps4000`, `backbone: llama` as `llama`, `critic: None` as `no_critic`."""
    if value is None and "." not in key:
        return _safe(f"no_{key}")
    option = key.rpartition(".")[2] if "." in key or key == "seed" else ""
    if option in ("path", "id", "mix", "parts", "name"):
        option = ""
    option = option.removeprefix("max_").removeprefix("num_")
    values = value if isinstance(value, list) else [value]
    texts = [_text(each) for each in values]
    text = "-".join(texts)
    between = "-" if option and not text[:1].isdigit() else ""
    return _safe(f"{option}{between}{text}")


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return _DATA_FILE.sub("", Path(value).name if isinstance(value, str) else str(value))


def _safe(text: str) -> str:
    return re.sub("-+", "-", _UNSAFE.sub("-", text)).strip("-.")
