"""A misspelt setting is answered with the right one, in every section."""

from __future__ import annotations

import pytest

from seqrl.cli import train
from seqrl.config import RunConfig
from seqrl.schema import list_settings

SETTINGS = [key for key in list_settings(RunConfig) if "." in key]
SECTIONS = sorted({key.rpartition(".")[0] for key in SETTINGS})


def misspell(key: str) -> str:
    """Without its last letter but one."""
    return key[:-2] + key[-1]


def refusal(capsys: pytest.CaptureFixture[str], word: str) -> str:
    assert train.run([word, "--check"]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_there_are_sections_within_sections_and_sections_that_are_null() -> None:
    assert {"landmarks", "layout.goal", "trial", "window", "evaluation.settings"} <= set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_setting_of_a_section_is_named(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = max((each for each in SETTINGS if each.rpartition(".")[0] == section), key=len)
    said = refusal(capsys, f"{misspell(key)}=1")
    assert f"no setting {misspell(key)!r}. Did you mean {key!r}?" in said


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("landmarks={spacin: 0.3}", "landmarks.spacing"),
        ("landmarks={spacing: 0.3, horizn: 3}", "landmarks.horizon"),
        ("layout.goal={dim: [0]}", "layout.goal.dims"),
        ("+layout.fields.valu={hidden: true}", "layout.fields.value"),
        ("backbone.num_layer=3", "backbone.num_layers"),
        ("critic.expectil=0.8", "critic.expectile"),
    ],
)
def test_a_misspelt_setting_of_a_tree_or_of_a_component_is_named(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"Did you mean {meant!r}?" in refusal(capsys, word)


def test_a_setting_of_a_section_that_is_null_says_how_to_give_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'landmarks' is null, and nothing can be set in it; give 'landmarks={spacing: ...}'" in refusal(
        capsys, "landmarks.spacing=0.3"
    )


@pytest.mark.parametrize(
    ("word", "wrong", "meant"),
    [
        ("planer.horizon=3", "planer", "planner"),
        ("planner.horizn=3", "planner.horizn", "planner.horizon"),
        ("scor={name: reward}", "scor", "score"),
    ],
)
def test_a_misspelt_part_of_a_row_is_named(
    word: str, wrong: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, f"evaluation.rows.reward.{word}")
    assert f"row 'reward' of evaluation.rows: there is no setting {wrong!r}. Did you mean {meant!r}?" in said
