"""Writing checkpoints so that a full disk or a kill never costs the one that was there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk and then renames.

    Lightning's own writer renames as well, but from the system's temporary folder, which copies where that lies on
    another disk: what is there after a failed copy is the beginning of a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Raises OSError with the checkpoint's name when the disk is full; the old file stays then."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(target)) from error
        except RuntimeError as error:  # torch's zip writer wraps what the disk says
            cause = error.__context__ if isinstance(error.__context__, OSError) else OSError(None, str(error))
            raise OSError(cause.errno, cause.strerror or str(error), str(target)) from error
        finally:
            temporary.unlink(missing_ok=True)
