"""Random draws of a training step as a function of its batch's number, so that nothing needs to be remembered."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import torch

from seqrl.training.loading import batches_done


def seed_step(module: pl.LightningModule, seed: int) -> None:
    """Seed torch by (seed, batch, rank): a resumed run repeats the dropout masks of an uninterrupted one.

    A batch's number is that of the global step, unless a step has several.

    Args:
        module: at the begin of its `training_step`; without a trainer that is the first batch.
        seed: of the run.
    """
    number = 0 if module._trainer is None else batches_done(module._trainer)
    sequence = np.random.SeedSequence([seed, 3, number, module.global_rank])
    mixed = sequence.generate_state(1, np.uint64)[0]
    if module.device.type == "cpu":
        # torch.manual_seed would also queue a call, with its stack trace, for the GPUs that are never used.
        torch.default_generator.manual_seed(int(mixed >> 1))
    else:
        torch.manual_seed(int(mixed >> 1))
