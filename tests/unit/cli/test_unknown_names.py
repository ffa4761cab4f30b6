"""A name that nothing provides is answered with what a file of your own needs, unless it is close to a known one."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqrl.cli import evaluate, plugins, train
from seqrl.errors import OWN_FILE, UnknownComponentError
from seqrl.evaluation.hints import telling_plugins
from seqrl.registry import registry_of

pytestmark = pytest.mark.usefixtures("clean_plugins")


@pytest.mark.parametrize(
    ("command", "words", "is_close"),
    [
        (train, ["backbone=rglru"], False),
        (train, ["data=swing"], False),
        (train, ["evaluation.rows.mine={strategy: reward, score: thrift}"], False),
        (train, ["training.callbacks=[freezer]"], False),
        (train, ["backbone=lama"], True),
        (evaluate, ["checkpoint=runs/latest", "score=thrift"], False),
        (evaluate, ["checkpoint=runs/latest", "planner=baem"], True),
        (plugins, ["check", "thrift", "--slot", "score"], False),
        (plugins, ["check", "unifrom", "--slot", "tokenizer"], True),
    ],
)
def test_an_unknown_name(
    command: object,
    words: list[str],
    is_close: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.run(words) == 2  # type: ignore[attr-defined]
    said = " ".join(capsys.readouterr().err.split())
    assert " named " in said
    assert ("Did you mean" in said) == is_close
    assert (OWN_FILE in said) == (not is_close)


def test_a_group_that_is_no_slot_has_no_components(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.run(["layout=zzz", f"runs_dir={tmp_path}"]) == 2
    assert "plugins=[FILE]" not in capsys.readouterr().err


@pytest.mark.parametrize(("slot", "name"), [("data", "swing"), ("critic", "mine")])
def test_where_the_plugins_of_a_model_are_known_they_are_named(slot: str, name: str) -> None:
    trained = {"plugins": ["swing.py"]}
    with (
        pytest.raises(UnknownComponentError, match=r"trained with plugins=\['swing.py'\]; give the same$") as caught,
        telling_plugins(trained),
    ):
        registry_of(slot).get(name)
    assert OWN_FILE not in str(caught.value)
    with pytest.raises(UnknownComponentError, match=r"plugins=\[FILE\]$"), telling_plugins({"plugins": []}):
        registry_of(slot).get(name)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["layout.fields.energy={}"], "'layout.fields.energy'; a new field: '+layout.fields.energy={}'"),
        (["layout.fields.energy.hidden=true"], "a new field: '+layout.fields.energy={hidden: true}'"),
        (["layout.fields.load.loss_weight=2"], "a new field: '+layout.fields.load={loss_weight: 2}'"),
        (["layout.fields.return={}"], "a new field: '+layout.fields.return={}'"),
        (
            ["+layout.fields.energy={}", "layout.fields.energy.hidden=true"],
            "an option of a new field: +layout.fields.energy.hidden=true",
        ),
        (["layout.fields.valeu.hidden=true"], "Did you mean 'layout.fields.value'?"),
        (["layout.fields.rewards={}"], "Did you mean 'layout.fields.reward'?"),
        (["layout.fields.reward.loss_wait=1"], "Did you mean 'layout.fields.reward.loss_weight'?"),
    ],
)
def test_a_field_that_the_layout_has_not(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.run([*words, "--check"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert told in said
    assert ("new field" in said) == ("new field" in told)
