"""seqrl: offline reinforcement learning as sequence modelling.

Names are loaded when they are first used, so that `import seqrl` stays fast and imports neither Hydra, Lightning nor
a simulator.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqrl.backbones import Backbone
    from seqrl.checkpoint import load, load_critic
    from seqrl.conditions import Condition
    from seqrl.critics import Critic
    from seqrl.data.episodes import EpisodeStore
    from seqrl.data.sources import DataSource
    from seqrl.decoding import DecodingSession
    from seqrl.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        PluginError,
        SeqrlError,
        UnknownComponentError,
    )
    from seqrl.layout import Layout
    from seqrl.model import SequenceModel
    from seqrl.objectives import Objective
    from seqrl.planners import Planner
    from seqrl.policy import Policy
    from seqrl.registry import (
        register_backbone,
        register_condition,
        register_critic,
        register_data,
        register_objective,
        register_planner,
        register_score,
        register_tokenizer,
    )
    from seqrl.scores import Score
    from seqrl.tokenizers import CodeTokenizer, Tokenizer
    from seqrl.training.critic_module import CriticModule, TransitionDataModule
    from seqrl.training.datamodule import EpisodeDataModule
    from seqrl.training.module import SequenceModule
    from seqrl.training.tokenizer_module import TokenizerModule
    from seqrl.vectors import VectorModel

_MODULES = {
    "Backbone": "backbones",
    "CheckpointError": "errors",
    "CodeTokenizer": "tokenizers",
    "Condition": "conditions",
    "ConfigError": "errors",
    "Critic": "critics",
    "CriticModule": "training.critic_module",
    "DataError": "errors",
    "DataSource": "data.sources",
    "DecodingSession": "decoding",
    "EpisodeDataModule": "training.datamodule",
    "EpisodeStore": "data.episodes",
    "Layout": "layout",
    "Objective": "objectives",
    "Planner": "planners",
    "PluginError": "errors",
    "Policy": "policy",
    "Score": "scores",
    "SeqrlError": "errors",
    "SequenceModel": "model",
    "SequenceModule": "training.module",
    "Tokenizer": "tokenizers",
    "TokenizerModule": "training.tokenizer_module",
    "TransitionDataModule": "training.critic_module",
    "UnknownComponentError": "errors",
    "VectorModel": "vectors",
    "load": "checkpoint",
    "load_critic": "checkpoint",
    "register_backbone": "registry",
    "register_condition": "registry",
    "register_critic": "registry",
    "register_data": "registry",
    "register_objective": "registry",
    "register_planner": "registry",
    "register_score": "registry",
    "register_tokenizer": "registry",
}

__all__ = [
    "Backbone",
    "CheckpointError",
    "CodeTokenizer",
    "Condition",
    "ConfigError",
    "Critic",
    "CriticModule",
    "DataError",
    "DataSource",
    "DecodingSession",
    "EpisodeDataModule",
    "EpisodeStore",
    "Layout",
    "Objective",
    "Planner",
    "PluginError",
    "Policy",
    "Score",
    "SeqrlError",
    "SequenceModel",
    "SequenceModule",
    "Tokenizer",
    "TokenizerModule",
    "TransitionDataModule",
    "UnknownComponentError",
    "VectorModel",
    "load",
    "load_critic",
    "register_backbone",
    "register_condition",
    "register_critic",
    "register_data",
    "register_objective",
    "register_planner",
    "register_score",
    "register_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'seqrl' has no attribute {name!r}")
    return getattr(importlib.import_module(f"seqrl.{_MODULES[name]}"), name)
