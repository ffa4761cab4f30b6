"""What searches over tokens refuse before they plan."""

from __future__ import annotations

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.scores import Score

SHOWN = frozenset(
    {"transitions", "next_observation", "goals", "distributions", "extras", "evidence"}
)  # in the traces of these searches


def check_imagined(layout: Layout, planner: str, *, further: bool) -> None:
    """Refuse a layout whose model did not learn what a search imagines.

    Args:
        planner: its name.
        further: whether observations are imagined as well.

    Raises:
        ConfigError: names the field, and the override that lets a model learn it.
    """
    for field in layout.fields[0 if further else len(layout.known) :]:
        if field.loss_weight == 0 and not (field.name == "observation" and layout.has("difference")):
            raise ConfigError(
                f"the checkpoint did not learn to imagine {field.name!r} (its loss weight is 0), as planner={planner} "
                f"would; use planner=sample, or train with layout.fields.{field.name}.loss_weight=1"
            )


def check_shown(score: Score, layout: Layout) -> None:
    """Refuse a score that asks a search over tokens for what this layout's model cannot tell.

    Raises:
        ConfigError: says what is missing and the override that adds it.
    """
    score.check(layout)
    for name in score.wants_extras:
        layout.field(name)
    if score.evidence_steps and (layout.goal is None or layout.goal.dropout == 0):
        raise ConfigError(
            "the score compares actions toward a goal with those toward none, and this checkpoint was not trained with "
            "both; train with layout=tt_goal layout.goal.dropout=0.5"
        )
