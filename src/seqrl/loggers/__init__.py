"""The slot `logger`: where a run's numbers, results rows, pictures and videos go, beside its own folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from seqrl.errors import ConfigError
from seqrl.registry import LOGGER
from seqrl.runs.stages import MODEL, StageKind


@dataclass(frozen=True)
class LoggedRun:
    """What a logger knows of the run that it keeps.

    Attributes:
        folder: of the run.
        stage: whose metrics come; names of metrics begin with its prefix already.
        resumed_step: what was logged of the stage after this step is of training that was lost.
    """

    folder: Path
    stage: StageKind = MODEL
    resumed_step: int = 0


class Logger(ABC):
    """Keeps what a run measures. One object is made for each stage, and one for the results that follow.

    Nothing is written before something is logged. Methods are called on the first rank alone.

    Attributes:
        needs: the package that it cannot do without; None where it needs none beyond those of seqrl.
        extra: of seqrl, which brings that package.
    """

    needs: ClassVar[str | None] = None
    extra: ClassVar[str | None] = None

    def log_settings(self, settings: Mapping[str, bool | int | float | str]) -> None:  # noqa: B027
        """Take the settings of the run by dotted key, before its first metric; nothing by default."""

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Take numbers by name, such as `train/loss` or `critic/val/loss`, after so many steps."""

    def log_row(self, label: str, numbers: Mapping[str, float], step: int) -> None:
        """Take the numbers of a results row, such as `return_mean`; by default as metrics `eval/<label>/<number>`.

        Args:
            step: of the model that was evaluated.
        """
        self.log_metrics({f"eval/{label}/{name}": value for name, value in numbers.items()}, step)

    def log_picture(self, name: str, path: Path, step: int) -> None:  # noqa: B027
        """Take a PNG of the run's folder; nothing by default."""

    def log_video(self, name: str, path: Path, step: int) -> None:  # noqa: B027
        """Take an MP4 of the run's folder; nothing by default."""

    def flush(self) -> None:  # noqa: B027
        """Bring what was logged to where a kill leaves it; a checkpoint is written next."""

    def close(self) -> None:  # noqa: B027
        """End; called once, also where training failed."""


def logger_config(choice: str | Mapping[str, Any]) -> dict[str, Any]:
    """An element of `training.loggers` as a component's config: `csv` is short for `{name: csv}`."""
    return {"name": choice} if isinstance(choice, str) else dict(choice)


def check_loggers(choices: Sequence[str | Mapping[str, Any]]) -> None:
    """Refuse loggers whose packages are not installed, or that are named twice.

    Raises:
        ConfigError: says what to install.
    """
    names = [logger_config(choice)["name"] for choice in choices]
    for name in names:
        cls: type[Logger] = LOGGER.get(name)
        if names.count(name) > 1:
            raise ConfigError(f"training.loggers names {name!r} twice; name it once")
        if cls.needs is not None and find_spec(cls.needs) is None:
            how = f"pip install 'seqrl[{cls.extra}]'" if cls.extra else f"pip install {cls.needs}"
            raise ConfigError(
                f"training.loggers has {name!r}, and the package {cls.needs} is not installed; {how}, or leave it out"
            )


def open_loggers(choices: Sequence[str | Mapping[str, Any]], run: LoggedRun) -> list[Logger]:
    """The loggers that a run asks for, in order.

    Raises:
        ConfigError: an unknown name or option, or a package that is not installed.
    """
    check_loggers(choices)
    return [LOGGER.build(logger_config(choice), run=run) for choice in choices]
