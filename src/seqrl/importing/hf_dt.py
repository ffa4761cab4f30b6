"""A folder that transformers' `DecisionTransformerModel.save_pretrained` wrote."""

from __future__ import annotations

from pathlib import Path

from seqrl.importing import Imported, Wishes
from seqrl.importing.decision_transformer import convert_gpt2
from seqrl.importing.reading import find_pretrained, read_weights


def read(source: Path, wishes: Wishes) -> Imported:
    """What `config.json` and the weights beside it say.

    Raises:
        seqrl.errors.SeqrlError: files that are missing or damaged, or do not fit each other.
    """
    weights, said = find_pretrained(source, "decision_transformer")
    return convert_gpt2(read_weights(weights), said, wishes, where=repr(str(weights)), prefix="encoder.")
