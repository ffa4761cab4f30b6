"""Running a Hydra application, with messages of ours for what users get wrong."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from seqrl.errors import ConfigError, SeqrlError, did_you_mean
from seqrl.paths import config_dir


def run_application(config_name: str, arguments: list[str], task: Callable[[DictConfig], Any]) -> int:
    """Compose `conf/<config_name>.yaml` with the overrides and run the task.

    Returns:
        Exit status: 0, 2 for an error of the user (told in one sentence on stderr), 130 for Ctrl-C.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as exceptions instead of being printed by Hydra
    sys.argv = [f"seqrl {config_name}", *arguments]
    errors: list[SeqrlError | OSError] = []

    def run(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except HydraException:
            raise
        except (SeqrlError, OSError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            errors.append(error)  # raised here, Hydra would announce it in words of its own
            return None

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(run)()
    except (HydraException, OmegaConfBaseException) as error:
        return _fail(translate(error, config_name, arguments))
    except (SeqrlError, OSError) as error:
        return _fail(error)
    except KeyboardInterrupt:
        print("interrupted; the same command continues the run", file=sys.stderr)
        return 130
    return _fail(errors[0]) if errors else 0


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config as plain dicts and lists; from here on nothing knows Hydra.

    Raises:
        ConfigError: a mandatory value is missing.
    """
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or "a value"
        raise ConfigError(f"{key} is not set; add {key}=... to the command") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def translate(error: Exception, config_name: str, arguments: Iterable[str]) -> ConfigError:
    """What a composition error means, in one sentence that names what is accepted."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options)
        return ConfigError(f"no {group} named {name!r}.{did_you_mean(name, options)} Available: {', '.join(options)}")
    if isinstance(error, OverrideParseException):
        return ConfigError(f"override {error.override!r} cannot be parsed: {text.splitlines()[0]}")
    match = re.search(r"Could not override '([^'@]+)", text)
    if match:
        return _unknown_key(match.group(1), config_name, arguments)
    return ConfigError(" ".join(text.split()))


def _unknown_key(key: str, config_name: str, arguments: Iterable[str]) -> ConfigError:
    """Which settings there would have been instead of `key`."""
    others = [a for a in arguments if not a.startswith("-") and a.lstrip("+~").split("=")[0].split("@")[0] != key]
    try:
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            composed = hydra.compose(config_name, others)
            known = sorted(_keys(OmegaConf.to_container(composed)))
    except Exception:  # the other overrides are wrong as well; the user will hear of them next
        return ConfigError(f"there is no setting {key!r}; see seqrl {config_name} --cfg job for all of them")
    parent = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == parent]
    if not siblings:
        return ConfigError(
            f"there is no setting {key!r}.{did_you_mean(key, known)} See seqrl {config_name} --cfg job for all of them"
        )
    return ConfigError(
        f"there is no setting {key!r}.{did_you_mean(key, siblings) or did_you_mean(key, known)} "
        f"Settings{' in ' + repr(parent) if parent else ''}: {', '.join(k.rpartition('.')[2] for k in siblings)}"
    )


def _keys(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _keys(child, f"{prefix}{name}.")


def _fail(error: Exception) -> int:
    if isinstance(error, OSError):  # a full disk, a folder that may not be written, a file that vanished
        where = f" at {error.filename!r}" if error.filename else ""
        error = SeqrlError(f"{error.strerror or error}{where}; mend that, then the same command continues the run")
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 2
