"""Models made from configs: which class of model a tokenizer asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqrl.config import ModelConfig
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.models.code import CodeModel
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.registry import TOKENIZER

MODELS: tuple[type[Model], ...] = (TokenModel, CodeModel, VectorModel)


def model_class(tokenizer: Mapping[str, Any]) -> type[Model]:
    """The class of model that reads what a tokenizer makes.

    Args:
        tokenizer: component config, `{"name": ..., **options}`.

    Raises:
        ConfigError: no name, an unknown one, or a class that is no kind of tokenizer.
    """
    named = TOKENIZER.named_by(tokenizer)
    for model in MODELS:
        if issubclass(named, model.reads):
            return model
    kinds = ", ".join(model.reads.__name__ for model in MODELS)
    raise ConfigError(f"tokenizer={tokenizer['name']} is of no kind that a model reads; derive it from one of {kinds}")


def build_model(config: ModelConfig, sizes: DataSizes) -> Model:
    """The untrained model that a run asks for.

    Raises:
        ConfigError: whatever the components refuse.
    """
    layout, tokenizer, backbone = sizes.lay_out(config.layout), config.tokenizer, config.backbone
    context, longest = config.window.length, sizes.longest_episode
    if model_class(tokenizer) is VectorModel:
        if longest is None:
            raise ConfigError("longest_episode is not set, and a model of vectors needs it; give 1 or more")
        return VectorModel(layout, tokenizer, backbone, context=context, longest_episode=longest)
    return SequenceModel(layout, tokenizer, backbone, context=context)


def SequenceModel(
    layout: Layout, tokenizer: Mapping[str, Any], backbone: Mapping[str, Any], *, context: int
) -> TokenModel | CodeModel:
    """The model of tokens or of codes, whichever the tokenizer asks for; see `TokenModel` and `CodeModel`."""
    kind = CodeModel if model_class(tokenizer) is CodeModel else TokenModel
    return kind(layout, tokenizer, backbone, context=context)
