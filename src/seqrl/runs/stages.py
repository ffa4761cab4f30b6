"""The stages of a run, as far as they are known without their models: names, settings, metrics."""

from __future__ import annotations

from dataclasses import dataclass

from seqrl.config import RunConfig


@dataclass(frozen=True)
class StageKind:
    """What a stage is called.

    Attributes:
        name: of its folder in the run and of its entry in status.json.
        prefix: of the names of its metrics.
        section: of the configuration, whose settings stand over those of `training`; None where `training` is its own.
        asked_by: section of the configuration that asks for the stage where it is set; None: see `is_asked`.
    """

    name: str
    prefix: str
    section: str | None
    asked_by: str | None

    @property
    def title(self) -> str:
        """What sentences about the stage begin with; those about the model need no beginning."""
        return f"{self.name}: " if self.prefix else ""

    def is_asked(self, run: RunConfig) -> bool:
        """Whether a run's configuration alone tells that it has this stage; a tokenizer's class tells of its own."""
        return self.asked_by is not None and getattr(run, self.asked_by) is not None

    def owns(self, metric: str) -> bool:
        """Whether a name of metrics.csv is this stage's."""
        others = [kind.prefix for kind in KINDS if kind.prefix and kind is not self]
        return metric.startswith(self.prefix) and not metric.startswith(tuple(others))


TOKENIZER = StageKind("tokenizer", prefix="tokenizer/", section="tokenizer_training", asked_by=None)
MODEL = StageKind("model", prefix="", section=None, asked_by="training")
CRITIC = StageKind("critic", prefix="critic/", section="critic_training", asked_by="critic")
KINDS = (TOKENIZER, MODEL, CRITIC)  # in the order in which they are trained
