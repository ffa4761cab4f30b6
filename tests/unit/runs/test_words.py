"""Words as they are shown, against the words that the command line makes of what is typed."""

from __future__ import annotations

import pytest

from seqrl.cli.words import spell_words
from seqrl.runs.words import show_words


@pytest.mark.parametrize(
    "typed",
    [
        ["planner.beam_width=8", "seed=1"],
        ["strategy=goal"],
        ["score.terms.avoid.margin=0.3"],
        ["condition.target=3600"],
        ["evaluation.rows.mine={strategy: goal}"],
        ["evaluation.rows.reward search={strategy: reward}"],
        ["~evaluation.rows.goal, no guidance", "seed=2"],
        ["evaluation.rows.reward.planner.horizon=5"],
        ["data.top_fraction=0.1"],
        ["data.categories.task=3"],
        ["data.mix=[a,b]", "seed=3"],
        ["seed=1", "data.mix=[a,b]", "planner.horizon=5"],
        ["critic=null"],
        ["name=two words"],
        ["data=mix", "data.names=[a]"],
    ],
)
def test_what_was_typed_is_shown(typed: list[str]) -> None:
    assert show_words(spell_words("train", typed)) == typed
