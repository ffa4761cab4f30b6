"""Weights & Biases, online or offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

from seqrl.errors import ConfigError
from seqrl.files import read_text, write_text
from seqrl.loggers import LoggedRun, Logger
from seqrl.registry import register_logger

_ID = "wandb_id.txt"  # by which a run that goes on finds what it logged


@register_logger("wandb")
class WandbLogger(Logger):
    """One run of Weights & Biases for each run folder; the same command continues it.

    Args:
        project, entity: where it is filed.
        mode: null: as `$WANDB_MODE` says, else online. Offline writes `RUN/wandb`, which `wandb sync` sends later.
    """

    needs = "wandb"
    extra = "wandb"

    def __init__(
        self,
        run: LoggedRun,
        project: str = "seqrl",
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
    ) -> None:
        self._run, self._options = run, {"project": project, "entity": entity, "mode": mode}
        self._open: Any = None

    @property
    def _remote(self) -> Any:
        if self._open is None:
            import wandb

            file = self._run.folder / _ID
            if not file.exists():
                write_text(file, token_hex(8))
            try:
                self._open = wandb.init(
                    **self._options,
                    id=read_text(file).strip(),
                    name=self._run.folder.name,
                    dir=str(self._run.folder),
                    resume="allow",
                    settings=wandb.Settings(silent=True, console="off"),
                )
            except wandb.errors.Error as error:
                raise ConfigError(
                    f"wandb refuses ({error}); log in with `wandb login`, or give training.loggers=[csv,{{name: wandb, "
                    "mode: offline}]"
                ) from error
            for prefix in ("", "tokenizer/", "critic/"):  # stages count their own steps
                for section in ("train", "val", "eval"):
                    self._open.define_metric(f"{prefix}{section}/*", step_metric=f"{prefix}step")
        return self._open

    def log_settings(self, settings: Mapping[str, bool | int | float | str]) -> None:
        self._remote.config.update(dict(settings), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._remote.log({f"{self._run.stage.prefix}step": step, **{k: float(v) for k, v in metrics.items()}})

    def log_row(self, label: str, numbers: Mapping[str, float], step: int) -> None:
        super().log_row(label, numbers, step)
        self._remote.summary.update({f"eval/{label}/{name}": value for name, value in numbers.items()})

    def log_picture(self, name: str, path: Path, step: int) -> None:
        import wandb

        self._remote.log({"step": step, name: wandb.Image(str(path))})

    def log_video(self, name: str, path: Path, step: int) -> None:
        import wandb

        self._remote.log({"step": step, name: wandb.Video(str(path), format="mp4")})

    def close(self) -> None:
        if self._open is not None:
            self._open.finish()
            self._open = None
