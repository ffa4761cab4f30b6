"""Names of settings in messages, as the command at hand has them, and the plugins that it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from seqrl.config import RowSettings
from seqrl.errors import UnknownComponentError, drop_own_file, show_value

_ROW_SETTING = re.compile(rf"(?<![\w.])({'|'.join(field.name for field in fields(RowSettings))})=")


def name_for_training(text: str) -> str:
    """A message about a row of a training, which names settings as `seqrl evaluate` does, for `seqrl train`.

    `add goals=[[x, y]]` becomes `add evaluation.settings.goals=[[x, y]]`.
    """
    return _ROW_SETTING.sub(
        lambda match: match[0] if f"evaluation.settings.{match[0]}" in text else f"evaluation.settings.{match[0]}", text
    )


@contextmanager
def telling_plugins(trained: Mapping[str, Any]) -> Iterator[None]:
    """Where a component is not known, say which plugins a model was trained with.

    Args:
        trained: the configuration that its checkpoint keeps.

    Raises:
        UnknownComponentError: with that sentence.
    """
    try:
        yield
    except UnknownComponentError as error:
        given = list(trained.get("plugins") or [])
        if not given:
            raise
        hint = f"the model was trained with plugins={show_value(given)}; give the same"
        raise UnknownComponentError(f"{drop_own_file(str(error))}\n  {hint}") from error
