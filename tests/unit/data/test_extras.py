"""Arrays that data record beside their steps, as fields of a transition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import sample_transitions, transitions
from seqrl.data.summary import DataSizes
from seqrl.data.token_cache import token_key
from seqrl.errors import ConfigError, DataError
from seqrl.formats.flat import FlatEpisodes
from seqrl.layout import Layout
from seqrl.layout_config import LayoutConfig
from seqrl.schema import check_value
from seqrl.sources import load_episodes

FIELDS: dict[str, Any] = {"observation": {}, "task": {}, "action": {}, "reward": {}, "cost": {}}
LENGTHS = [4, 3]


def store(*, attributes: dict[str, Any] | None = None, **changes: np.ndarray) -> EpisodeStore:
    rows, rng = sum(LENGTHS), np.random.default_rng(0)
    extras = {"task": np.array([2, 2, 2, 2, 0, 0, 0]), "cost": rng.random((rows, 2)), "spare": np.full(rows, np.nan)}
    ends = np.isin(np.arange(rows), np.cumsum(LENGTHS) - 1)
    return EpisodeStore.from_arrays(
        rng.normal(size=(rows, 2)).astype(np.float32),
        rng.normal(size=(rows, 1)).astype(np.float32),
        rng.normal(size=rows).astype(np.float32),
        ends,
        np.zeros(rows, bool),
        extras={**extras, **changes},
        attributes={"num_task": 3} if attributes is None else attributes,
    )


def layout_of(episodes: EpisodeStore, fields: dict[str, Any] = FIELDS, **options: Any) -> Layout:
    section = check_value("layout", {"fields": fields, **options}, LayoutConfig)
    return DataSizes.of(episodes).lay_out(section)


def test_extras_are_columns_where_the_layout_names_them() -> None:
    episodes = store()
    layout = layout_of(episodes)
    wanted = np.column_stack(
        [
            episodes.observations,
            episodes.extras["task"],
            episodes.actions,
            episodes.rewards,
            episodes.extras["cost"],
        ]
    ).astype(np.float32)
    np.testing.assert_array_equal(transitions(episodes, layout), wanted)
    np.testing.assert_array_equal(sample_transitions(episodes, layout, np.array([1])), wanted[4:])
    assert [f.name for f in layout.contexts] == ["task"]
    assert [(f.name, f.size) for f in layout.outcomes] == [("cost", 2)]
    assert layout.categories == {"task": 3}
    assert layout.known == ("observation", "task")


def test_a_subset_a_mix_and_a_saved_store_keep_them(tmp_path: Path) -> None:
    episodes = store()
    layout, whole = layout_of(episodes), transitions(episodes, layout_of(episodes))
    np.testing.assert_array_equal(transitions(episodes.subset([1]), layout), whole[4:])
    twice = EpisodeStore.mix([episodes, episodes.subset([0])])
    np.testing.assert_array_equal(transitions(twice, layout), np.concatenate([whole, whole[:4]]))
    episodes.save(tmp_path / "saved")
    again = EpisodeStore.open(tmp_path / "saved")
    np.testing.assert_array_equal(transitions(again, layout_of(again)), whole)


def test_other_costs_are_other_tokens_and_other_data() -> None:
    one, other = store(), store(cost=np.ones((7, 2)))
    layout, plain = layout_of(one), layout_of(one, {"observation": {}, "action": {}})
    assert token_key(one, layout, "encoder") != token_key(other, layout, "encoder")
    assert token_key(one, plain, "encoder") == token_key(other, plain, "encoder")
    assert one.fingerprint() == other.fingerprint()
    assert one.fingerprint(["cost"]) != other.fingerprint(["cost"])
    assert one.fingerprint(["task"]) == other.fingerprint(["task"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"observation": {}, "action": {}, "price": {}}, "fields.price is an array that the data should record.*cost"),
        ({"observation": {}, "action": {}, "costs": {}}, "Did you mean 'cost'"),
        ({"observation": {}, "action": {}, "goal": {}}, "layout.goal puts a goal"),
        ({"observation": {}, "action": {}, "rewards": {}}, "Did you mean 'layout.fields.reward'"),
        ({"observation": {}, "action": {}, "values": {}}, "Did you mean 'layout.fields.value'"),
        ({"observation": {}, "action": {}, "a cost": {}}, "no name of letters"),
        ({"observation": {}, "reward": {}, "action": {}}, "reward and value after it"),
        ({"observation": {}, "task": {"hidden": True}, "action": {}}, "fields.task is hidden"),
    ],
)
def test_fields_that_the_data_cannot_fill_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layout_of(store(), fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cost": np.array([0, 1, np.nan, 0, 0, 0, 0])}, "'cost' holds nan at row 2"),
        ({"cost": np.array([0, 1, 1e300, 0, 0, 0, 0])}, "'cost' holds inf at row 2"),
        ({"cost": np.array(list("abcdefg"))}, "type <U1.*needs numbers"),
        ({"cost": np.arange(7)}, "whole numbers.*data.categories.cost=N"),
        ({"task": np.array([0, 1, 3, 0, 0, 0, 0])}, "'task' holds 3 at row 2; of 3 choices"),
        ({"task": np.array([0, 0.5, 1, 0, 0, 0, 0])}, "'task' holds 0.5 at row 1; of 3 choices"),
    ],
)
def test_numbers_that_cannot_be_learnt_are_refused(changes: dict[str, np.ndarray], message: str) -> None:
    episodes = store(**changes)
    with pytest.raises(DataError, match=message):
        transitions(episodes, layout_of(episodes))


def test_shapes_that_cannot_be_served_are_refused() -> None:
    with pytest.raises(ConfigError, match="task has 2 numbers in a row, and choices were counted for 1 of them"):
        layout_of(store(task=np.zeros((7, 2), int)))
    with pytest.raises(ConfigError, match=r"'cost' has no numbers in a row"):
        layout_of(store(cost=np.zeros((7, 0))))
    with pytest.raises(ConfigError, match=r"record an array 'reward' beside their steps"):
        layout_of(store(reward=np.zeros(7)))
    layout = layout_of(store())
    with pytest.raises(DataError, match=r"'cost' has 1 numbers in a row, and the model's layout has 2"):
        transitions(store(cost=np.zeros(7)), layout)
    bare = EpisodeStore(**{**{k: v for k, v in vars(store()).items() if k != "identity"}, "extras": {}})
    with pytest.raises(DataError, match=r"'task' is not recorded beside the steps"):
        transitions(bare, layout)
    with pytest.raises(DataError, match=r"cost has 6 rows and observations has 7"):
        store(cost=np.zeros(6))
    with pytest.raises(ConfigError, match=r"layout.stride=2 joins several steps.*'cost'"):
        layout_of(store(), stride=2)
    steps = transitions(store(), layout_of(store(), {"observation": {}, "task": {}, "action": {}}, stride=2))
    np.testing.assert_array_equal(steps[:, 2], store().extras["task"])


def test_whole_numbers_are_choices_once_they_are_declared(tmp_path: Path) -> None:
    plain = store(attributes={})
    with pytest.raises(DataError, match=r"data.categories.task=N"):
        transitions(plain, layout_of(plain))
    rows = {name: np.asarray(getattr(plain, name)) for name in ("observations", "actions", "rewards", "offsets")}
    np.savez(tmp_path / "file.npz", **rows, **plain.extras)
    np.savez(tmp_path / "says.npz", **rows, **plain.extras, num_task=np.array(3))
    for data in (
        {"path": str(tmp_path / "file.npz"), "categories": {"task": 3}},
        {"path": str(tmp_path / "says.npz")},
    ):
        found = load_episodes({"name": "arrays", **data})
        assert layout_of(found).categories == {"task": 3}
        np.testing.assert_array_equal(transitions(found, layout_of(found)), transitions(store(), layout_of(store())))
    with pytest.raises(DataError, match=r"data.categories.tusk=3.*they record cost, spare, task"):
        load_episodes({"name": "arrays", "path": str(tmp_path / "file.npz"), "categories": {"tusk": 3}})


def test_two_arrays_of_one_name_are_refused() -> None:
    flat = FlatEpisodes.of(store(), "twice")
    twice = {**flat.extras, "cost": np.zeros(7), "infos/cost": np.ones(7)}
    with pytest.raises(DataError, match=r"two different arrays 'cost' and 'infos/cost'"):
        FlatEpisodes(**{**vars(flat), "extras": twice}).store()
    same = FlatEpisodes(**{**vars(flat), "extras": {"cost": np.ones(7), "infos/cost": np.ones(7)}}).store()
    assert set(same.extras) == {"cost"}
