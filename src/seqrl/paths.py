"""Where things lie: the configuration folder, and the caches of a user."""

from __future__ import annotations

import os
from pathlib import Path

from seqrl.errors import ConfigError


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


def cache_dir() -> Path:
    """Where what can be made again is kept for this user: `$XDG_CACHE_HOME/seqrl`, else `~/.cache/seqrl`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqrl"


def data_dir() -> Path:
    """Where generated and downloaded data are kept: `$SEQRL_DATA`, else `~/.cache/seqrl`."""
    return Path(os.environ.get("SEQRL_DATA") or Path.home() / ".cache" / "seqrl")
