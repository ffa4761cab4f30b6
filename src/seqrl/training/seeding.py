"""Random draws of a training step as a function of the step, so that nothing needs to be remembered."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import torch


def seed_step(module: pl.LightningModule, seed: int) -> None:
    """Seed torch by (seed, global step, rank): a resumed run repeats the dropout masks of an uninterrupted one.

    Args:
        module: one in a trainer, at the begin of its `training_step`.
        seed: of the run.
    """
    mixed = np.random.SeedSequence([seed, 3, module.global_step, module.global_rank]).generate_state(1, np.uint64)[0]
    if module.device.type == "cpu":
        # torch.manual_seed would also queue a call, with its stack trace, for the GPUs that are never used.
        torch.default_generator.manual_seed(int(mixed >> 1))
    else:
        torch.manual_seed(int(mixed >> 1))
