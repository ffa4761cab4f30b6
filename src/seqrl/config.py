"""The settings of a run and of an evaluation, typed; checked once, before data are touched.

A section is a frozen dataclass, a component a plain mapping `{name: ..., **options}` whose options its constructor
says. `conf/train.yaml` and `conf/evaluate.yaml` compose the same keys. `RunConfig.from_dict` and
`EvaluationConfig.from_dict` refuse everything else. Checkpoints and `config.yaml` keep plain dicts, which `from_saved`
reads. A function asks for as much of a run as it reads: a `ModelConfig`, a `SequenceConfig`, a `CriticConfig`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Interval, Len, Lt, MinLen

from seqrl.errors import ConfigError
from seqrl.layout_config import FieldConfig, LayoutConfig
from seqrl.registry import OPTIMIZER, Slot
from seqrl.schema import check_value, options_of, section_of

Count = Annotated[int, Ge(1)]
BatchSize = Annotated[int, Interval(ge=1, le=1_000_000)]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]
DataComponent = Annotated[Mapping[str, Any], Slot("data")]
TokenizerComponent = Annotated[Mapping[str, Any], Slot("tokenizer")]
BackboneComponent = Annotated[Mapping[str, Any], Slot("backbone")]
ObjectiveComponent = Annotated[Mapping[str, Any], Slot("objective")]
CriticComponent = Annotated[Mapping[str, Any], Slot("critic")]
OptimizerComponent = Annotated[Mapping[str, Any], Slot("optimizer")]
SchedulerComponent = Annotated[Mapping[str, Any], Slot("scheduler")]
PlannerComponent = Annotated[Mapping[str, Any], Slot("planner")]
ConditionComponent = Annotated[Mapping[str, Any], Slot("condition")]
ScoreComponent = Annotated[Mapping[str, Any], Slot("score")]

Precision = Literal[
    "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "32", "64", "16", "bf16", 32, 64, 16
]
StrategyName = Literal[
    "auto", "single_device", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "fsdp"
]
Text = Annotated[str, MinLen(1)]
LoggerChoice = Annotated[Text | Mapping[str, Any], Slot("logger")]
CallbackChoice = Annotated[Text | Mapping[str, Any], Slot("callback")]
Position = tuple[float, float]
Cell = tuple[int, int]
Region = tuple[float, float, float, float]


class Checked:
    """What is made of a plain mapping by a check of all its values."""

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Of a composed configuration.

        Raises:
            ConfigError: an unknown key anywhere, or a value that is not allowed.
        """
        checked: Self = check_value("", config, cls)
        object.__setattr__(checked, "_given", dict(config))
        return checked

    @classmethod
    def from_saved(cls, config: Mapping[str, Any]) -> Self:
        """Of a `config.yaml` or checkpoint, perhaps of an older version, or of a script's mapping.

        What it learnt of its data is left out, as are keys that no setting has any more; an optimizer without a name
        is AdamW.

        Raises:
            ConfigError: a setting that is missing, or a value that is not allowed.
        """
        kept = {key: value for key, value in config.items() if key != "evaluation"}  # the rows of then, not of now
        if "optimizer" in kept:
            kept["optimizer"] = {"name": "adamw", **kept["optimizer"]}
        checked = cls.from_dict(_known(cls, kept))
        object.__setattr__(checked, "_given", dict(config))
        return checked

    @property
    def given(self) -> Mapping[str, Any]:
        """The mapping that it was made of, word for word; `to_dict` where it was made otherwise.

        Checkpoints and `config.yaml` keep it, and hashes of older versions are of it: -100 and -100.0 are one setting.
        """
        found: Mapping[str, Any] = vars(self).get("_given") or self.to_dict()
        return found

    def to_dict(self) -> dict[str, Any]:
        """Every setting, plain, as yaml and JSON hold it."""
        plain: dict[str, Any] = _plain(self)
        return plain


@dataclass(frozen=True)
class WindowConfig:
    """How windows are cut from episodes.

    Attributes:
        length: T, transitions; models of tokens need 2.
        terminate_truncated: past the end of an episode, termination tokens are learnt even where the end was a time
            limit or a cut, as the published system does; False learns them at true ends only, and nothing elsewhere.

    Raises:
        ConfigError: a window without transitions.
    """

    length: Annotated[int, Interval(ge=1, le=1_000_000)] = 10
    terminate_truncated: bool = True

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"window.length={self.length} is too short; a window needs 1 transition or more")


@dataclass(frozen=True)
class TrainingConfig:
    """The training of the model.

    Attributes:
        batch_size: windows of a batch, over all devices; `trainer.accumulate_grad_batches` of them make a step.
        validation_fraction: of the episodes.
        validate_every, checkpoint_every, log_every: steps.
        keep_last: `last.ckpt`, and this many less one before it as `step-N.ckpt`.
        loggers: names, or `{name: ..., option: value}`; they decide nothing of the model.
        callbacks: the same; they belong to what is trained.
    """

    max_steps: Count = 10_000
    batch_size: BatchSize = 256
    validation_fraction: Annotated[float, Ge(0), Lt(1)] = 0.05
    validation_batches: Count = 8
    validate_every: Count = 500
    checkpoint_every: Count = 500
    keep_last: Count = 1
    log_every: Count = 20
    loggers: tuple[LoggerChoice, ...] = ("csv", "tensorboard")
    callbacks: tuple[CallbackChoice, ...] = ()
    progress_bar: bool = True


@dataclass(frozen=True)
class StageTrainingConfig:
    """What the training of another stage does otherwise than that of the model; null: as there."""

    max_steps: Count | None = None
    batch_size: BatchSize | None = None
    validation_fraction: Annotated[float, Ge(0), Lt(1)] | None = None
    validation_batches: Count | None = None
    validate_every: Count | None = None
    checkpoint_every: Count | None = None
    keep_last: Count | None = None
    log_every: Count | None = None
    loggers: tuple[LoggerChoice, ...] | None = None
    callbacks: tuple[CallbackChoice, ...] | None = None
    progress_bar: bool | None = None
    clip_norm: Annotated[float, Gt(0)] | None = None

    def on_top_of(self, training: TrainingConfig) -> TrainingConfig:
        """The settings of this stage, whole."""
        names = {each.name for each in dataclasses.fields(TrainingConfig)}
        own = {name: value for name, value in vars(self).items() if name in names and value is not None}
        return dataclasses.replace(training, **own)


@dataclass(frozen=True)
class TokenizerTrainingConfig(StageTrainingConfig):
    """What the training of a tokenizer does otherwise."""


@dataclass(frozen=True)
class CriticTrainingConfig(StageTrainingConfig):
    """What the training of a critic does otherwise.

    Attributes:
        learning_rate: of Adam, constant.
        clip_norm: null clips nothing.
    """

    max_steps: Count | None = 100_000
    batch_size: BatchSize | None = 256
    learning_rate: Annotated[float, Gt(0)] = 3e-4


@dataclass(frozen=True)
class LandmarksConfig:
    """The graph of landmarks that `condition=landmarks` follows; see `seqrl.data.landmarks.fit_landmarks`.

    Attributes:
        spacing: no two landmarks are nearer, in the data's units.
        horizon: steps that an edge may take.
        support: pieces of the data that an edge needs.
        quantile: of their steps, which the edge takes.
        max_nodes: more landmarks are refused.
    """

    spacing: Annotated[float, Gt(0)]
    horizon: Annotated[int, Interval(ge=1, le=1000)] = 25
    support: Count = 3
    quantile: Annotated[float, Interval(gt=0, le=1)] = 0.2
    max_nodes: Count = 3000


@dataclass(frozen=True)
class WarmStartConfig:
    """What a training takes from the model of `init_from`; see `seqrl.training.warm_start.start_from`.

    Attributes:
        parts: of the model, such as `backbone` or `backbone.blocks.0`; null takes all.
        tokenizer: `keep` with its statistics, or `refit` to these data.
    """

    parts: Annotated[tuple[Text, ...], Len(1)] | None = None
    tokenizer: Literal["keep", "refit"] = "keep"


@dataclass(frozen=True)
class TrainerConfig:
    """Where and how to compute; `compile`, `fast_cpu` and `num_threads` are ours, the rest are of Lightning's trainer.

    Attributes:
        devices: ranks of a node, or the numbers of its GPUs.
        strategy: `ddp`, `fsdp`, or another of Lightning's whose ranks can be processes of their own.
        compile: `torch.compile`.
        fast_cpu: on CPUs, dropout from 16 bits a feature and attention in blocks, see `seqrl.training.fast_cpu`: other
            random numbers and rounding than torch's own.
        num_threads: null: torch decides, and a run that goes on keeps what it began with.
        max_time: `DD:HH:MM:SS` after which a command ends; the same command goes on.
        accumulate_grad_batches: batches whose gradients make a step.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "cpu"
    devices: Count | Literal["auto", -1] | Annotated[tuple[Annotated[int, Ge(0)], ...], Len(1)] = 1
    num_nodes: Annotated[int, Interval(ge=1, le=10_000)] = 1
    strategy: StrategyName = "auto"
    precision: Precision = "32-true"
    compile: bool = False
    fast_cpu: bool = False
    num_threads: Annotated[int, Interval(ge=1, le=1024)] | None = None
    max_time: str | None = None
    accumulate_grad_batches: Count = 1
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool = False
    sync_batchnorm: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    overfit_batches: Annotated[int, Ge(0)] | Annotated[float, Interval(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        if self.max_time is not None and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", self.max_time, re.ASCII):
            raise ConfigError(
                f"trainer.max_time={self.max_time!r} is no time; give DD:HH:MM:SS, as in 00:11:30:00 for eleven and a "
                "half hours"
            )

    @property
    def needs_processes(self) -> bool:
        """Whether a run trains in processes of its own, one for each rank."""
        return self.devices != 1 or self.num_nodes != 1 or self.strategy not in ("auto", "single_device")


@dataclass(frozen=True)
class TrialConfig:
    """Where a run that is a trial of a search reports its validations; set by the sweeper."""

    journal: str
    number: Annotated[int, Ge(0)]
    metric: str
    pruner: Mapping[str, Any]


@dataclass(frozen=True)
class RowSettings:
    """How episodes are run, for one evaluation or for all rows of a table.

    Attributes:
        env_id: null: the environment of the training data.
        num_episodes: one environment each, all stepped together.
        max_steps: null: the environment's own time limit.
        seed: of start states and of the policy's choices.
        plan_every: actions of a plan that are carried out before the next plan.
        device: `cpu`, `cuda` (or `cuda:1`), `auto`.
        precision: of the model's weights.
        diagnostics: how good the plans were, for planners that look ahead; about twice the steps.
        trajectories: keep the episodes as `trajectories.npz`, a recording that `data=arrays` reads.
        plans: keep every plan with what it imagined as `plans.npz`.
        goals: `[[x, y], ...]`; null: the environment's own reward only.
        start_cells: maze cells that episodes start in, num_episodes in each; null: any free cell, num_episodes in all.
        min_cells: starts that are not more than this many cells from a goal do not count for it.
        shuffle_goals: control: every episode is given another episode's goal.
        regions: `[[x_low, y_low, x_high, y_high], ...]` that episodes toward goals are judged by: how many reached
            their goal without having been inside one. Nothing tells the policy; see `score=avoid`.
        tasks: `[[[x, y], [x, y]], ...]`, start and goal cell of each; num_episodes of each, whose starts and goals are
            drawn around the places of their cells. Instead of goals and start_cells.
        near: `[15, 25]`: num_episodes pairs of a state of the training data and a goal that its episode came to so many
            steps later. Instead of goals and start_cells.
        map_landmarks: control: landmarks are those of the maze's map, not of the data.
        end_at_goal: episodes end with their arrival, so that their time at the goal and return are not what they are
            without; for policies that are told no goal, with the last of the goals. Without goals they end with the
            success that the environment tells.
    """

    env_id: Text | None = None
    num_episodes: Annotated[int, Interval(ge=1, le=1_000_000)] = 10
    max_steps: Count | None = None
    seed: Seed = 0
    plan_every: Count = 1
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    video: bool = False
    diagnostics: bool = False
    trajectories: bool = False
    plans: bool = False
    progress_bar: bool = True
    goals: Annotated[tuple[Position, ...], Len(1)] | None = None
    start_cells: Annotated[tuple[Cell, ...], Len(1)] | None = None
    min_cells: Annotated[int, Ge(0)] = 2
    shuffle_goals: bool = False
    regions: Annotated[tuple[Region, ...], Len(1)] | None = None
    end_at_goal: bool = False
    tasks: Annotated[tuple[tuple[Cell, Cell], ...], Len(1)] | None = None
    near: tuple[Count, Count] | None = None
    map_landmarks: bool = False

    def __post_init__(self) -> None:
        if self.near is not None and self.near[0] > self.near[1]:
            raise ConfigError(f"near={list(self.near)}: the first number of steps is above the second; swap them")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", self.device, re.ASCII):
            raise ConfigError(f"device={self.device!r} is unknown; give auto, cpu, cuda, or cuda:1 for one of several")


@dataclass(frozen=True)
class DecodingConfig:
    """Options of decoding for the rows that have such an option and do not set it themselves."""

    planner: Mapping[str, Any] = field(default_factory=dict)
    condition: Mapping[str, Any] = field(default_factory=dict)
    score: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultsConfig:
    """The section `evaluation` of a run: the rows of its results table.

    Attributes:
        rows: by label, the settings of `conf/evaluate.yaml` that make the row; null leaves it out.
        strategies: rows in the form of before: by label, what one would add to `seqrl evaluate checkpoint=RUN`.
        strategy: one strategy instead of these rows.
        baseline: the row that the others are compared with, start by start.
        figure: draw the paths, where rows have goals.
        settings: of all rows; a row's own words win.
    """

    rows: Mapping[str, Mapping[str, Any] | None] | None = field(default_factory=dict)
    strategies: Mapping[str, tuple[str, ...] | None] | None = field(default_factory=dict)
    strategy: Text | None = None
    baseline: Text | None = None
    figure: bool = True
    settings: RowSettings = RowSettings()
    decoding: DecodingConfig = field(default_factory=DecodingConfig)


@dataclass(frozen=True)
class _Components:
    planner: PlannerComponent
    condition: ConditionComponent
    score: ScoreComponent


@dataclass(frozen=True)
class EvaluationConfig(RowSettings, _Components, Checked):
    """One evaluation: `conf/evaluate.yaml`, resolved.

    Attributes:
        checkpoint: a file, or the run folder it lies in; `none` for a row of a training.
        output: null: a folder of the run, named after the settings.
        label: name of the row; null: the strategy.
    """

    checkpoint: Text = "none"
    output: Text | None = None
    plugins: tuple[str, ...] = ()
    label: Text | None = None
    strategy_name: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Checked):
    """What decides a model."""

    layout: LayoutConfig
    tokenizer: TokenizerComponent
    backbone: BackboneComponent
    window: WindowConfig


@dataclass(frozen=True, kw_only=True)
class SequenceConfig(ModelConfig):
    """What decides how a model is trained: all that a `seqrl.SequenceModule` reads.

    Attributes:
        plugins: files and modules that register components.
    """

    objective: ObjectiveComponent
    optimizer: OptimizerComponent
    scheduler: SchedulerComponent
    trainer: TrainerConfig = TrainerConfig()
    plugins: tuple[str, ...] = ()
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class CriticConfig(Checked):
    """What decides a critic and its training: all that a `seqrl.CriticModule` reads."""

    layout: LayoutConfig
    critic: CriticComponent | None
    critic_training: CriticTrainingConfig = CriticTrainingConfig()
    trainer: TrainerConfig = TrainerConfig()
    plugins: tuple[str, ...] = ()
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class RunConfig(CriticConfig, SequenceConfig):
    """A run: `conf/train.yaml`, resolved.

    Attributes:
        name: of the run, the first part of its folder's name; null: named after the experiment and what was changed.
        experiment_name: the first part of the folder's name where the run has no name.
        check_plugins: whether the quick contracts of plugins' components are run before a training.
        objective_metric: what sweepers optimise: `val/...`, `train/...`, or `eval/<row>/return_mean`.
        trial: null outside of a search.
        landmarks: null: no graph of landmarks is fitted.
        init_from: a checkpoint or run, with whose model the training begins; null: with random weights.
        warm_start: what of it.
    """

    data: DataComponent = field(default_factory=lambda: {"name": "maze2d"})
    layout: LayoutConfig = field(
        default_factory=lambda: LayoutConfig(
            {
                "observation": FieldConfig(),
                "action": FieldConfig(loss_weight=5.0),
                "reward": FieldConfig(),
                "value": FieldConfig(hidden=True),
            },
            termination_penalty=-100.0,
        )
    )
    tokenizer: TokenizerComponent = field(default_factory=lambda: {"name": "quantile"})
    backbone: BackboneComponent = field(default_factory=lambda: {"name": "gpt"})
    objective: ObjectiveComponent = field(default_factory=lambda: {"name": "next_token"})
    critic: CriticComponent | None = None
    optimizer: OptimizerComponent = field(default_factory=lambda: {"name": "adamw"})
    scheduler: SchedulerComponent = field(default_factory=lambda: {"name": "cosine"})
    name: Text | None = None
    experiment_name: Text = "run"
    runs_dir: Text = "runs"
    check_plugins: bool = True
    objective_metric: Text = "val/loss"
    trial: TrialConfig | None = None
    landmarks: LandmarksConfig | None = None
    init_from: Text | None = None
    warm_start: WarmStartConfig = WarmStartConfig()
    window: WindowConfig = WindowConfig()
    training: TrainingConfig = TrainingConfig()
    tokenizer_training: TokenizerTrainingConfig = TokenizerTrainingConfig()
    evaluation: ResultsConfig = field(default_factory=ResultsConfig)

    @property
    def clip_norm(self) -> float | None:
        """Of the gradient of the model, and of a tokenizer that has no other; null clips nothing."""
        norm: float | None = OPTIMIZER.shared_value(self.optimizer, "clip_norm")
        return norm


def _known(cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a mapping that a dataclass has, in its sections too; all of a layout, which decides a model."""
    kept = {}
    for name, option in {option.name: option for option in options_of(cls)}.items():
        if name in config:
            value, section = config[name], section_of(option.annotation)
            if section not in (None, LayoutConfig) and isinstance(value, Mapping):
                value = _known(section, value)
            kept[name] = value
    return kept


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists."""
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
