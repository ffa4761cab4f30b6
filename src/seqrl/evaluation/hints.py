"""Names of settings in messages, as the command at hand has them."""

from __future__ import annotations

import re
from dataclasses import fields

from seqrl.config import RowSettings

_ROW_SETTING = re.compile(rf"(?<![\w.])({'|'.join(field.name for field in fields(RowSettings))})=")


def name_for_training(text: str) -> str:
    """A message about a row of a training, which names settings as `seqrl evaluate` does, for `seqrl train`.

    `add goals=[[x, y]]` becomes `add evaluation.settings.goals=[[x, y]]`.
    """
    return _ROW_SETTING.sub(
        lambda match: match[0] if f"evaluation.settings.{match[0]}" in text else f"evaluation.settings.{match[0]}", text
    )
