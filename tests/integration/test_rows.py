"""The rows of a training's results table: trees of settings, in the form of today and of before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hydra
import pytest

from seqrl.cli.application import plain
from seqrl.cli.rows import Rows, choose_rows, compose_rows, read_words
from seqrl.cli.words import spell_words
from seqrl.errors import ConfigError
from seqrl.paths import config_dir


@pytest.fixture(autouse=True)
def _composing() -> Iterator[None]:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield


def composed(*words: str) -> Rows:
    written = spell_words("train", words)
    return compose_rows(plain(hydra.compose("train", written))["evaluation"], written)


def row(found: Rows, label: str) -> dict[str, Any]:
    return next(config.to_dict() for config in found.configs if config.label == label)


def test_a_row_is_what_evaluate_composes_of_the_same_words() -> None:
    found = composed("evaluation.rows.mine={strategy: goal, planner: {name: beam, horizon: 4}, plan_every: 2}")
    words = ["checkpoint=none", "strategy=goal", "planner=beam", "planner.horizon=4", "plan_every=2"]
    assert row(found, "mine") == {**plain(hydra.compose("evaluate", words)), "label": "mine"}


def test_rows_merge_as_trees() -> None:
    found = composed("evaluation=maze2d_umaze", "evaluation.rows.goal.planner.temperature=0.25")
    goal = row(found, "goal")
    assert (goal["planner"]["temperature"], goal["condition"]["guidance"], goal["video"]) == (0.25, 4, True)


@pytest.mark.parametrize(
    "word",
    [
        "evaluation.rows.mine={strategy: objective, score: {terms: {near: {name: target, dim: 2}}}}",
        "evaluation.rows.mine={strategy: goal, score: {name: sum, terms: {near: {name: target, dim: 2}}}}",
        "evaluation.rows.mine={strategy: detour, score: {terms: {near: {name: target, dim: 2}}}}",
        "+evaluation.decoding.score.terms.near={name: target, dim: 2}",
    ],
)
def test_a_row_names_terms_of_its_own(word: str) -> None:
    found = composed("evaluation=none", "evaluation.rows.mine={strategy: objective}", word)
    terms = row(found, "mine")["score"]["terms"]
    assert terms["near"] == {"name": "target", "dim": 2}
    assert set(terms) - {"near"} == ({"avoid", "arrival", "evidence"} if "detour" in word else set())


def test_options_that_are_no_trees_take_no_names() -> None:
    with pytest.raises(ConfigError, match=r"there is no setting 'score\.share\.of\.mine'"):
        composed("evaluation.rows.mine={strategy: reward, score: {name: cvar, share: {of: {mine: 3}}}}")
    with pytest.raises(ConfigError, match=r"no setting 'score\.term'\. Did you mean 'score\.terms'"):
        composed("evaluation.rows.mine={strategy: objective, score: {term: {near: {name: target}}}}")


def test_a_row_wins_over_what_is_given_for_all_rows() -> None:
    found = composed(
        "planner.horizon=3", "evaluation.settings.num_episodes=7",
        "evaluation.rows.mine={strategy: reward, num_episodes: 9}",
    )  # fmt: skip
    horizons = {config.label: config.planner.get("horizon") for config in found.configs}
    assert horizons == {
        "zero": None,
        "random": None,
        "greedy imitation": None,
        "beam H=1": 1,
        "reward": 3,
        "mine": 3,
    }
    assert [config.num_episodes for config in found.configs] == [7, 7, 7, 7, 7, 9]


def test_rows_are_added_to_nothing_and_taken_out() -> None:
    assert composed("evaluation=none").configs == []
    assert [c.label for c in composed("evaluation=none", "evaluation.rows={a: {strategy: zero}}").configs] == ["a"]
    fewer = composed("evaluation.rows.zero=null", "evaluation.strategies.random=null")
    assert [config.label for config in fewer.configs] == ["greedy imitation", "beam H=1", "reward"]
    assert [config.label for config in composed("strategy=goal").configs] == ["goal"]


def test_a_baseline_that_is_no_row_is_none() -> None:
    assert composed().baseline == "greedy imitation"
    assert composed("evaluation.rows={greedy imitation: null}").baseline is None


def test_each_choice_of_parts_is_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = plain(hydra.compose("train", ["evaluation=maze2d_umaze", "++evaluation.decoding.planner.horizon=2"]))
    words: list[tuple[str, ...]] = []
    compose = hydra.compose
    monkeypatch.setattr(hydra, "compose", lambda name, given: words.append(tuple(given)) or compose(name, given))
    assert len(compose_rows(evaluation["evaluation"], []).configs) == 10
    assert len(words) == len(set(words)) == 6


@pytest.mark.parametrize(
    ("words", "tree"),
    [
        (["strategy=goal", "planner.temperature=0.5", "video=true"],
         {"strategy": "goal", "planner": {"temperature": 0.5}, "video": True}),
        (["strategy=reward", "planner=beam", "planner.context=null"],
         {"strategy": "reward", "planner": {"name": "beam", "context": None}}),
        (["goals=[[1,1],[2,3]]", "label='a b'"], {"goals": [[1, 1], [2, 3]], "label": "a b"}),
        ("strategy=zero", {"strategy": "zero"}),
    ],
)  # fmt: skip
def test_the_form_of_before_is_read_as_a_tree(
    words: Any, tree: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    label = "of_this_test"  # it is said once for each label and process
    assert read_words(label, words) == tree
    assert f"evaluation.strategies.{label} is now evaluation.rows.{label}={{" in capsys.readouterr().out
    read_words(label, words)
    assert capsys.readouterr().out == "", "it is said once"


def test_both_forms_make_the_same_rows() -> None:
    old = composed('+evaluation.strategies.reward=["strategy=reward","planner.beam_width=8","planner.cdf_act=null"]')
    new = composed("evaluation.rows.reward={strategy: reward, planner: {beam_width: 8, cdf_act: null}}")
    assert old == new


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rows.mine={strategy: reward, planner: {bream_width: 3}}",
         "row 'mine' of evaluation.rows: there is no setting 'planner.bream_width'. Did you mean 'planner.beam"),
        ("rows.mine={strategy: reward, num_episode: 3}", "no setting 'num_episode'. Did you mean 'num_episodes'?"),
        ("rows.mine={strategy: rewrad}", "row 'mine' of evaluation.rows: no strategy named 'rewrad'. Did you mean 're"),
        ("rows.mine={strategy: goal, planner: baem}", "no planner named 'baem'. Did you mean 'beam'?"),
        ("rows.mine=3", "row 'mine' of evaluation.rows is 3; give settings of conf/evaluate.yaml"),
        ("rows.rewrad.planner.horizon=3", "row 'rewrad' of evaluation.rows has no strategy. Did you mean 'reward'?"),
        ("strategies.mine=[3]", "row 'mine' of evaluation.strategies"),
        ("strategies.mine=['==']", "row 'mine' of evaluation.strategies"),
        ("decoding.planner.bream_width=3", "planner.bream_width fits none of the rows 'zero', "),
        ("decoding.planner.temperature=3", "is set by every row that has it; give evaluation.rows.LABEL.planner.temp"),
    ],
)  # fmt: skip
def test_a_row_that_is_wrong_is_named(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        composed(f"{'++' if word.startswith('decoding') else ''}evaluation.{word}")
    assert message in str(error.value)


def test_a_row_of_a_group_alone_is_refused_on_the_command() -> None:
    with pytest.raises(ConfigError, match=r"evaluation.rows.mine=\{strategy: goal, planner: beam\}"):
        spell_words("train", ["planner=beam"])


def test_the_trees_are_given_out_without_nulls() -> None:
    evaluation = {
        "strategy": None,
        "rows": {"a": None, "b": {"strategy": "goal", "planner": "beam"}},
        "strategies": None,
    }
    assert choose_rows(evaluation) == {"b": {"strategy": "goal", "planner": {"name": "beam"}}}
