"""What a user's text for a place means, and what a user without a home or a name has instead."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from seqrl import paths
from seqrl.errors import ConfigError
from seqrl.paths import private_dir
from seqrl.registry import DATA

NOBODY = """
import os, pwd
def no_entry(*_): raise KeyError("getpwuid(): uid not found: 12345")
pwd.getpwuid = no_entry  # a container under a user id that its password file lacks
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "SEQRL_DATA", "XDG_CACHE_HOME"): os.environ.pop(name, None)
"""


@pytest.mark.parametrize(
    ("text", "below_home"),
    [("~", ""), ("~/a.hdf5", "a.hdf5"), ("~/a b/c#1", "a b/c#1"), ("~/~x", "~x"), ("~//a", "a"), ("~/ü", "ü")],
)
def test_a_tilde_is_the_home_folder(
    text: str, below_home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.find_path(text) == tmp_path / below_home


@pytest.mark.parametrize("text", ["a.hdf5", "/tmp/~/a", "~nobody-is-called-so/a", "$HOME/a", "a~", "a#1/o'k&[1].npz"])
def test_other_texts_stay(text: str) -> None:
    assert str(paths.find_path(text)) == text
    assert paths.find_path(Path(text)) == Path(text)


def test_a_path_without_meaning_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL"):
        paths.find_path("a\0b")


def test_environment_variables_go_through_the_same_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SEQRL_DATA", "~/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    monkeypatch.setenv("D4RL_DATASET_DIR", "~/d4rl")
    assert paths.data_dir() == tmp_path / "data"
    assert paths.cache_dir() == tmp_path / "cache" / "seqrl"
    assert paths.named_dir("D4RL_DATASET_DIR") == tmp_path / "d4rl"
    monkeypatch.setenv("SEQRL_DATA", "")
    assert paths.data_dir() == tmp_path / ".cache" / "seqrl"
    assert DATA.build({"name": "maze2d", "cache_dir": "~/made"}).path.parent == tmp_path / "made"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print(paths.home_dir())", f"seqrl-{os.getuid()}"),
        ("print(paths.data_dir())", f"seqrl-{os.getuid()}/.cache/seqrl"),
        ("paths.complete_user(); import getpass; print(getpass.getuser())", f"user-{os.getuid()}"),
        ("paths.complete_user(); print(os.path.expanduser('~/x'))", f"seqrl-{os.getuid()}/x"),
        ("os.environ['HOME'] = '/elsewhere'; paths.complete_user(); print(os.environ['HOME'])", "/elsewhere"),
    ],
)
def test_a_user_without_name_and_home(code: str, told: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{NOBODY}\nfrom seqrl import paths\n{code}"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().removeprefix(f"{tmp_path}/") == told


@pytest.mark.parametrize("planted", ["link", "file"])
def test_a_home_that_somebody_planted_is_not_used(planted: str, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    place = tmp_path / f"seqrl-{os.getuid()}"
    place.symlink_to(tmp_path / "theirs") if planted == "link" else place.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", f"{NOBODY}\nfrom seqrl import paths\nprint(paths.home_dir())"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    home = Path(done.stdout.strip())
    assert home.is_dir()
    assert home not in (place, tmp_path / "theirs")


def test_compiled_code_lies_where_nobody_else_can_write(tmp_path: Path) -> None:
    own = private_dir(tmp_path / "cache" / "compiled")
    assert own == tmp_path / "cache" / "compiled"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert private_dir(own) == own
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    assert private_dir(tmp_path / "link") == tmp_path / "other"  # what was checked is what is used
    for folder in (own, own.parent):
        folder.chmod(0o777)  # others may replace what lies below
        elsewhere = private_dir(own)
        assert not elsewhere.is_relative_to(tmp_path)
        assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
        folder.chmod(0o1777)  # others may add, and remove nothing
        assert (private_dir(own) == own) == (folder == own.parent)
        folder.chmod(0o700)
    if os.getuid() == 0:
        os.chown(own.parent, 12345, -1)
        assert private_dir(own) != own
    (tmp_path / "file").touch()
    assert private_dir(tmp_path / "file" / "compiled").is_dir()
