"""Running a Hydra application, with messages of ours for what users get wrong."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from seqrl.cli.cluster import stop_at_signals
from seqrl.cli.config_files import check_config_files
from seqrl.cli.explaining import explain_oddity, translate
from seqrl.cli.help import only_own_groups
from seqrl.cli.optuna_sweeper import OptunaSweeper
from seqrl.cli.patches import register_sweeper
from seqrl.cli.surface import open_surface, provide
from seqrl.cli.sweep import Identity, SweepFolder, Task, run_job, with_folder
from seqrl.cli.sweepers import GridSweeper
from seqrl.cli.telling import status_of
from seqrl.console import say_error
from seqrl.errors import ConfigError, SeqrlError, explain_shortage, sentence
from seqrl.evaluation.jobs import Job
from seqrl.paths import config_dir, find_path
from seqrl.plugins import take_modules

T = TypeVar("T")

OmegaConf.register_new_resolver("find_path", lambda text: str(find_path(text)), replace=True)  # of a sweep's folder


class _Job:
    """What Hydra calls: a user's error in a single run is kept for later, a job of a sweep fails by itself.

    An object of a module-level class, because launchers send it to other processes.
    """

    def __init__(self, task: Task, identify: Callable[[DictConfig, Sequence[str]], Identity]) -> None:
        self.task, self.identify = task, identify
        self.errors: list[SeqrlError | OSError] = []
        self.is_composed = False

    def __call__(self, cfg: DictConfig) -> float | None:
        self.is_composed = True
        with stop_at_signals() as requeue:
            try:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    return run_job(self.task, cfg)
                self._run_alone(cfg)
            except KeyboardInterrupt:
                requeue()
                raise
        return None

    def _run_alone(self, cfg: DictConfig) -> None:
        try:
            self.task(cfg, Job())
        except BrokenPipeError:
            raise
        except (SeqrlError, OSError) as error:
            self.errors.append(error)  # raised here, Hydra would announce it in words of its own
        except (MemoryError, RuntimeError) as error:
            shortage = explain_shortage(error)
            if shortage is None:
                raise
            self.errors.append(shortage)


def run_application(
    config_name: str, arguments: list[str], task: Task, identify: Callable[[DictConfig, Sequence[str]], Identity]
) -> int:
    """Compose `conf/<config_name>.yaml` with the overrides and run the task, or a sweep of tasks.

    Args:
        task: a function of a module, given the composed config and a record to fill in.
        identify: of a configuration and its overrides, says what the task would compute; Hydra has no job then.

    Returns:
        Exit status: 0, 1 if jobs of a sweep failed, 2 for an error of the user (told in one sentence on stderr), 130
        for Ctrl-C, 128 + the signal's number for other signals that ended it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as exceptions instead of being printed by Hydra
    sys.argv = [f"seqrl {config_name}", *with_folder(config_name, arguments)]
    job = _Job(task, identify)
    SweepFolder.take()
    fault: Exception | None = None
    status = 1
    try:
        status = _run(config_name, arguments, job)
    except KeyboardInterrupt as stop:
        say_error("interrupted; the same command continues the run")
        status = status_of(stop)
    except Exception as error:
        fault = error
    sweep = SweepFolder.take()
    if fault is not None and sweep is None:
        raise fault
    if fault is not None:
        traceback.print_exception(fault)  # of the launcher: what fails in a job stays there
    if sweep is not None:
        from seqrl.cli.summary import finish

        status = max(status, finish(sweep))
    return _fail(job.errors[0]) if job.errors else status


def _run(config_name: str, arguments: list[str], job: _Job) -> int:
    try:
        open_surface(arguments)
        check_config_files(arguments)
        for sweeper in (GridSweeper, OptunaSweeper):
            register_sweeper(sweeper)
        main = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(job)
        with only_own_groups(config_name, arguments):
            composing(main)
    except (HydraException, OmegaConfBaseException) as error:
        return _fail(translate(error, config_name, arguments))
    except yaml.YAMLError as error:
        return _fail(ConfigError(f"a configuration file is no yaml ({' '.join(str(error).split())}); mend it there"))
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        if job.is_composed or SweepFolder.is_begun():
            raise
        return _fail(explain_oddity(error, arguments))  # Hydra's own checks of words and files are not for users
    except BrokenPipeError:
        raise  # nobody reads any more; seqrl.cli.main ends quietly
    except (SeqrlError, OSError) as error:
        if isinstance(error, OSError) and error.errno is None and not job.is_composed:  # OmegaConf's, of nested files
            return _fail(ConfigError(f"a configuration file holds no settings ({error}); write 'setting: value' there"))
        return _fail(error)
    return 0


def composing(compose: Callable[[], T]) -> T:
    """Compose, and again as long as something that no yaml provides is found among the components of plugins."""
    while True:
        try:
            return compose()
        except MissingConfigException as error:
            if not provide(error):
                raise


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config as plain dicts and lists; from here on nothing knows Hydra.

    Raises:
        ConfigError: a mandatory value is missing, or refers to something that there is not.
    """
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or "a value"
        raise ConfigError(f"{key} is not set; add {key}=... to the command") from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a value"
        why = str(error).partition("\n")[0]
        raise ConfigError(f"{key} refers to what there is not ({why}); give a value, or define it") from error
    assert isinstance(container, dict)
    found = {str(key): value for key, value in container.items()}
    return take_modules(found) if "plugins" in found else found


def _fail(error: Exception) -> int:
    say_error(sentence(error))
    return 2
