"""What was searched how in the rows of a table, and in what they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields

from seqrl.evaluation.rows import Component, ResultsRow, Starts
from seqrl.evaluation.wording import LETTERS, abbreviate, list_differences, name_terms, write_setting

# In which rows may differ that were decoded alike.
_CIRCUMSTANCES = (
    *("env_id", "dataset", "shuffle_goals", "min_cells", "end_at_goal", "regions", "map_landmarks", "radius"),
    *("training_seed", "training_steps", "seed"),
)
_TOLD_EVERYWHERE = ("env_id", "training_seed", "training_steps", "seed", "max_steps")  # where the title names several
_LONGEST = 60  # letters of a setting that tells two rows apart


def describe_decoding(rows: Sequence[ResultsRow]) -> list[str]:
    """What was searched how, for each of some rows, with all in which rows of one planner differ.

    Beside the sizes that every cell has, these are options of the planner (those of plugins included), the score and
    its options, options of the condition, and the condition itself where nothing else tells two rows apart. Of a score
    that is composed, its terms are told always.
    """
    cells = [_planner(row) for row in rows]
    told = [[cell] for cell in cells]
    for number, row in enumerate(rows):
        if terms := name_terms(row.score):
            told[number].append(f"score {terms}")
        peers = [each for each in rows if each.planner.name == row.planner.name]
        told[number] += [text for text in _differences(row, peers) if text not in cells[number].split(", ")]
    texts = [", ".join(each) for each in told]
    for number, row in enumerate(rows):
        alike = [other for text, other in zip(texts, rows, strict=True) if text == texts[number]]
        if len({other.condition.name for other in alike}) > 1:
            told[number].append(f"condition {row.condition.name}")
    return [", ".join(each) for each in told]


def _differences(row: ResultsRow, peers: Sequence[ResultsRow]) -> Iterator[str]:
    """The settings in which a row differs from others with the same planner."""
    if len({each.score.name for each in peers}) > 1 and name_terms(row.score) is None:
        yield f"score {row.score.name}"
    for slot in ("planner", "score", "condition"):
        own: Component = getattr(row, slot)
        for option, value in list_differences(own, [getattr(each, slot) for each in peers]):
            shown = slot == "planner" and option in (*LETTERS, "cache", "time_budget_ms")
            if not shown and option != "guidance":
                yield abbreviate(option, value)
    if any(each.precision != row.precision for each in peers):
        yield row.precision


def tell_apart(rows: Sequence[ResultsRow]) -> list[str]:
    """What was searched how, and in what else rows differ that were decoded alike."""
    texts = describe_decoding(rows)
    trees = [{**asdict(row.starts), **row.to_json()} for row in rows]
    everywhere = [key for key in _TOLD_EVERYWHERE if any(tree.get(key) != trees[0].get(key) for tree in trees)]
    told = []
    for number, text in enumerate(texts):
        alike = [tree for tree, other in zip(trees, texts, strict=True) if other == text]
        keys = [*_CIRCUMSTANCES, *(field.name for field in fields(Starts) if field.name != "num_episodes")]
        own = trees[number]
        differing = [key for key in keys if any(tree.get(key) != own.get(key) for tree in alike)]
        differing = list(dict.fromkeys([*everywhere, *differing]))
        told.append(", ".join([text, *(abbreviate(key, _cut(write_setting(own.get(key)))) for key in differing)]))
    return told


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _planner(row: ResultsRow) -> str:
    """What was searched how, short enough for a table: `beam W8 H8 E2, every 4, 50 ms (H 3.2 of 8), cache exact`."""
    name, options = row.planner.name, row.planner.options
    if row.model == "vectors" and name == "sample" and not row.discrete_actions:
        return "regression"
    text = " ".join(
        [name, *(abbreviate(option, write_setting(options[option])) for option in LETTERS if option in options)]
    )
    if row.plan_every > 1:
        text += f", {abbreviate('plan_every', str(row.plan_every))}"
    if row.time_budget_ms is not None:
        text += f", {abbreviate('time_budget_ms', write_setting(row.time_budget_ms))}"
        asked = f" of {options['horizon']}" if "horizon" in options else ""
        text += f" (H {row.horizon_mean:.1f}{asked})"
    guidance = row.condition.options.get("guidance", 1)
    if guidance != 1:
        text += f", {abbreviate('guidance', write_setting(guidance))}"
    return text + (f", {abbreviate('cache', row.cache)}" if row.cache else "")
