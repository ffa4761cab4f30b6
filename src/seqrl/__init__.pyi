"""The public names, once: `seqrl` loads them from here lazily, and type checkers read them here."""

from .acting.policy import Policy as Policy
from .acting.strategy import Strategy as Strategy
from .backbones import Backbone as Backbone
from .checkpoints.loading import load as load
from .checkpoints.loading import load_critic as load_critic
from .conditions import Condition as Condition
from .critics import Critic as Critic
from .data.episodes import EpisodeStore as EpisodeStore
from .decoding.session import DecodingSession as DecodingSession
from .errors import CheckpointError as CheckpointError
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import PluginError as PluginError
from .errors import SeqrlError as SeqrlError
from .errors import UnknownComponentError as UnknownComponentError
from .layout import Layout as Layout
from .models import Model as Model
from .models.building import SequenceModel as SequenceModel
from .models.code import CodeModel as CodeModel
from .models.token import TokenModel as TokenModel
from .models.vector import VectorModel as VectorModel
from .objectives import Objective as Objective
from .optimizers import Optimizer as Optimizer
from .planners import Planner as Planner
from .registry import register_backbone as register_backbone
from .registry import register_condition as register_condition
from .registry import register_critic as register_critic
from .registry import register_data as register_data
from .registry import register_objective as register_objective
from .registry import register_optimizer as register_optimizer
from .registry import register_planner as register_planner
from .registry import register_scheduler as register_scheduler
from .registry import register_score as register_score
from .registry import register_tokenizer as register_tokenizer
from .schedulers import Scheduler as Scheduler
from .scores import Score as Score
from .sources import DataSource as DataSource
from .tokenizers import CodeTokenizer as CodeTokenizer
from .tokenizers import Tokenizer as Tokenizer
from .training.critic_module import CriticModule as CriticModule
from .training.critic_module import TransitionDataModule as TransitionDataModule
from .training.datamodule import EpisodeDataModule as EpisodeDataModule
from .training.module import SequenceModule as SequenceModule
from .training.tokenizer_module import TokenizerModule as TokenizerModule

__version__: str
