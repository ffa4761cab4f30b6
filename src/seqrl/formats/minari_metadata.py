"""What the metadata of a Minari data set say, checked before the library sees them.

The library makes the environment that they name where a space is missing, and whenever it recovers it; an environment
is named by the place of its code. Here the metadata are plain data: spaces are numbers, sizes fit the files that lie
there, and a specification of an environment is a mapping of which `seqrl.formats.minari_environment` takes an id and
settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.errors import DataError, explain_unread, is_damage
from seqrl.files import read_bytes

SPACES = ("observation_space", "action_space")
SPECS = ("env_spec", "eval_env_spec")
_TEXTS = ("dataset_id", "minari_version", "data_format")
_LARGEST = 2**28  # bytes of metadata; spaces of images are written out number by number
_EPISODE = 64  # bytes that an episode takes at least, in every format
_CHOICES = 2**31  # values of a discrete space
_DEPTH = 16  # spaces within spaces


def read_metadata(place: Path, dataset_id: str) -> dict[str, Any]:
    """The content of a data set's `metadata.json`, checked; nothing that it names is imported.

    Args:
        place: the folder of the data set.

    Raises:
        DataError: the file is missing or damaged, lacks a space, or says what cannot be.
    """
    file = place / "data" / "metadata.json"
    if not file.exists():
        raise DataError(
            f"the Minari data set {dataset_id!r} in {str(place)!r} has no data/metadata.json: minari wrote none before "
            "version 0.5, so keep the folder, and convert it with the version that recorded it; or complete the copy"
        )
    try:
        size = file.stat().st_size
        if size > _LARGEST:
            raise DataError(f"{str(file)!r} has {size} bytes, more than metadata have; take a whole copy of the set")
        content = json.loads(read_bytes(file))
    except PermissionError as error:
        raise DataError(f"{str(file)!r} may not be read; check its permissions") from error
    except (OSError, ValueError, RecursionError) as error:
        if not is_damage(error):
            raise DataError(explain_unread(file, error)) from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _damaged(place, dataset_id, f"metadata.json: {reason.splitlines()[0].rstrip('.')}") from error
    if not isinstance(content, dict):
        raise _damaged(place, dataset_id, "metadata.json holds no mapping")
    for key in _TEXTS:
        if not isinstance(content.get(key), str):
            raise DataError(
                f"the Minari data set {dataset_id!r} in {str(place)!r} has no text {key!r} in its metadata.json; keep "
                "it and convert it with the version of minari that recorded it, or complete the copy"
            )
    _check_episodes(content, place, dataset_id)
    for key in SPACES:
        _check_space_text(content.get(key), f"the Minari data set {dataset_id!r}", key)
    for key in SPECS:
        read_spec(content, key, dataset_id)
    return content


def read_spec(metadata: Mapping[str, Any], key: str, dataset_id: str) -> dict[str, Any] | None:
    """What the metadata say of an environment, as plain data; None where they say nothing.

    Args:
        key: one of `SPECS`.

    Raises:
        DataError: it is no specification.
    """
    text = metadata.get(key)
    if text is None:
        return None
    try:
        spec = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        spec = None
    if not isinstance(spec, dict) or not isinstance(spec.get("id"), str):
        raise DataError(
            f"the Minari data set {dataset_id!r} has a {key} that is none of Gymnasium's; take {key} out of its "
            "metadata.json to read the episodes without an environment"
        )
    return spec


def _damaged(place: Path, dataset_id: str, reason: str) -> DataError:
    return DataError(
        f"the Minari data set {dataset_id!r} in {str(place)!r} is damaged ({reason}); take a copy of it, or fetch it "
        "again"
    )


def _check_episodes(content: Mapping[str, Any], place: Path, dataset_id: str) -> None:
    """Refuse more episodes than the files have room for: the library makes a list of their numbers."""
    count = content.get("total_episodes")
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise _damaged(place, dataset_id, f"metadata.json has total_episodes={count!r}")
    size = sum(each.stat().st_size for each in (place / "data").rglob("*") if each.is_file())
    if count * _EPISODE > size:
        raise _damaged(place, dataset_id, f"metadata.json promises {count} episodes, and its files have {size} bytes")


def _check_space_text(text: Any, origin: str, key: str) -> None:
    """Refuse metadata without a space, and one that is no space.

    Raises:
        DataError: naming the key.
    """
    if text is None:
        raise DataError(
            f"{origin} has no {key} in its metadata.json, and minari would run the environment that they name to find "
            "out; write the space there (minari.serialization.serialize_space), or record the set again"
        )
    try:
        _check_space(json.loads(text) if isinstance(text, str) else text, 0)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise DataError(
            f"{origin} has a {key} in its metadata.json that is no space ({type(error).__name__}: {error}); write it "
            "with minari.serialization.serialize_space"
        ) from error


def _check_space(space: Any, depth: int) -> None:
    """Raise ValueError, TypeError or KeyError for what `minari.serialization` cannot have written."""
    if not isinstance(space, dict) or not isinstance(space.get("type"), str) or depth > _DEPTH:
        raise ValueError("it has no type")
    kind = space["type"]
    if kind == "Box":
        _check_box(space)
    elif kind == "Discrete":
        if not 1 <= _whole(space["n"]) <= _CHOICES or abs(_whole(space["start"])) > _CHOICES:
            raise ValueError("its n and start are no small whole numbers")
    elif kind in ("Dict", "Tuple"):
        parts = space["subspaces"]
        if not isinstance(parts, dict if kind == "Dict" else list):
            raise ValueError(f"its subspaces are no {'mapping' if kind == 'Dict' else 'list'}")
        for part in parts.values() if isinstance(parts, dict) else parts:
            _check_space(part, depth + 1)
    elif kind == "MultiDiscrete":
        _numeric(space["dtype"])
        if not np.array_equal(np.asarray(space["nvec"], np.int64).shape, np.asarray(space["start"], np.int64).shape):
            raise ValueError("its nvec and start differ in shape")
        nvec = np.asarray(space["nvec"], np.int64)
        if not nvec.size or nvec.min() < 1 or nvec.max() > _CHOICES:
            raise ValueError("its nvec holds no small numbers of choices")
    elif kind == "MultiBinary":
        sizes = [_whole(each) for each in (space["n"] if isinstance(space["n"], list) else [space["n"]])]
        if min(sizes, default=0) < 1 or np.prod(sizes, dtype=float) > _LARGEST:
            raise ValueError("its n is no size")
    elif kind == "Text":
        if not isinstance(space["charset"], str) or not 0 <= _whole(space["min_length"]) <= _whole(space["max_length"]):
            raise ValueError("its lengths and letters are none")
    else:
        raise ValueError(f"its type {kind!r} is unknown")


def _check_box(space: Mapping[str, Any]) -> None:
    _numeric(space["dtype"])
    shape = tuple(_whole(each) for each in space["shape"])
    for bound in ("low", "high"):
        found = np.asarray(space[bound], np.float64).shape
        if found != shape:
            raise ValueError(f"its {bound} has shape {found} and its shape is {shape}")


def _numeric(name: Any) -> None:
    if not isinstance(name, str) or np.dtype(name).kind not in "fiub":
        raise ValueError(f"its dtype {name!r} is none of numbers")


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    return value
