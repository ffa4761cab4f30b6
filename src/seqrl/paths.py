"""Where things lie: what a user's text for a place means, the configuration folder, and the caches of a user."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from seqrl.errors import ConfigError


def find_path(text: str | Path) -> Path:
    """The place that a user wrote, in a setting, an argument or an environment variable; `~` is the home folder.

    A `~name` of nobody stays as it is, as in a shell.

    Raises:
        ConfigError: the text holds a NUL character, which no path may.
    """
    place = os.fspath(text)
    if "\0" in place:
        raise ConfigError(f"{place!r} is no path, since it holds a NUL character; leave that out")
    first, _, rest = place.partition("/")
    if first == "~":
        return home_dir() / rest.lstrip("/")
    with suppress(RuntimeError):  # there is no such user
        return Path(place).expanduser()
    return Path(place)


def home_dir() -> Path:
    """The home folder; of a user who has none, as in many containers, a folder of that user for temporary files."""
    try:
        return Path.home()
    except (RuntimeError, KeyError):  # neither $HOME nor an entry in the password file
        return _temporary_home()


@cache
def _temporary_home() -> Path:
    home = Path(tempfile.gettempdir()) / f"seqrl-{os.getuid()}"
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
    state = home.lstat()
    if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid():
        return home
    return Path(tempfile.mkdtemp(prefix="seqrl-"))  # anybody may have put something there


def complete_user() -> None:
    """Give a process whose user has no home or no name both, by environment variables that libraries go by.

    Matplotlib, Minari and torch ask for the one or the other, and fail without. Processes that are started later have
    the same.
    """
    try:
        Path.home()
    except (RuntimeError, KeyError):
        os.environ["HOME"] = str(_temporary_home())
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("LOGNAME", f"user-{os.getuid()}")


def config_dir() -> Path:
    """The folder with `train.yaml`: inside an installed wheel, or at the root of a checkout (editable installs).

    Raises:
        ConfigError: neither place has one, which means a damaged installation.
    """
    package = Path(__file__).resolve().parent
    candidates = [package / "conf", package.parents[1] / "conf"]
    for candidate in candidates:
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError(
        f"no configuration folder: looked for train.yaml in {', '.join(str(c) for c in candidates)}; reinstall seqrl"
    )


def named_dir(variable: str) -> Path | None:
    """The folder that an environment variable names; None where it is not set, or empty."""
    text = os.environ.get(variable)
    return find_path(text) if text else None


def cache_dir() -> Path:
    """Where what can be made again is kept for this user: `$XDG_CACHE_HOME/seqrl`, else `~/.cache/seqrl`."""
    return (named_dir("XDG_CACHE_HOME") or home_dir() / ".cache") / "seqrl"


def private_dir(path: Path) -> Path:
    """A folder for compiled code, which this user alone can write; made where there is none.

    Who may write a folder above may replace all that lies in it: each must be of this user or of root, and writable by
    nobody else, but for those where others can remove nothing (sticky, as `/tmp`). Where that does not hold, it is a
    new folder, which goes with this process.
    """
    path = Path(os.path.realpath(path))  # links are followed now, and not when code is loaded
    with suppress(OSError):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_safe(path, sticky=False) and all(_is_safe(parent, sticky=True) for parent in path.parents):
            return path
    return Path(_new_private().name)


@cache
def _new_private() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="seqrl-")


def _is_safe(folder: Path, *, sticky: bool) -> bool:
    """Whether nobody but this user and root can change what lies in a folder.

    Args:
        sticky: whether a folder will do in which others can add and not remove.
    """
    state = folder.lstat()
    written = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (sticky and state.st_mode & stat.S_ISVTX)
    return stat.S_ISDIR(state.st_mode) and state.st_uid in (0, os.getuid()) and not written


def data_dir() -> Path:
    """Where generated and downloaded data are kept: `$SEQRL_DATA`, else `~/.cache/seqrl`."""
    return named_dir("SEQRL_DATA") or home_dir() / ".cache" / "seqrl"
