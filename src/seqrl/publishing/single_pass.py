"""Policies that act by one pass of a network, as ONNX files: models of vectors, and the actor of a critic."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqrl.critics import Critic
from seqrl.errors import ConfigError
from seqrl.models import Model
from seqrl.models.vector import VectorModel

POLICY, ACTOR = "policy.onnx", "actor.onnx"
TOLERANCE = 1e-4  # of outputs under ONNX Runtime, of their largest magnitude: float32 in another order
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class VectorPolicy(nn.Module):
    """A model of vectors in the units of the data, from a history to an action.

    Args:
        model: in eval mode, on the CPU.
    """

    def __init__(self, model: VectorModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: Tensor, time: Tensor, goal: Tensor | None = None) -> Tensor:
        """(B, A) the action; (B, n) logits of a discrete one.

        Args:
            values: (B, T, S) transitions, `stride` steps apart, the present one last, whose action is not read; T at
                most the model's context.
            time: (B,) int64 steps of the episode before the present one.
            goal: (B, G), NaN for none; where the layout has a goal.
        """
        model = self.model
        starts = (time - (values.shape[1] - 1) * model.layout.stride).clamp(min=0)
        aim = None if goal is None else model.encode_goals(goal, values.shape[0])
        action = model(model.tokenizer.normalise(values), aim, starts)["action"][:, -1]
        if "action" in model.layout.categories:
            return action
        found = torch.zeros_like(values[:, -1])
        found[:, model.layout.field("action").slice] = action
        return model.tokenizer.denormalise(found)[:, model.layout.field("action").slice]


class CriticPolicy(nn.Module):
    """The policy that a critic brings along: (B, O) observations to (B, A) actions, in the units of the data."""

    def __init__(self, critic: Critic) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, observation: Tensor) -> Tensor:
        return self.critic.act(observation)


def check_single_pass(model: Model, critic: Critic | None) -> None:
    """Refuse what no ONNX file can hold.

    Raises:
        ConfigError: a package that is missing, or a model that decodes one token after the other, without a critic.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f"--onnx needs {' and '.join(missing)}; pip install 'seqrl[onnx]'")
    if not isinstance(model, VectorModel) and critic is None:
        raise ConfigError(
            f"--onnx writes policies of one pass, and a model of {model.made_of} decodes one after the other; train "
            "with method=dt, bc, rvs_return or rvs_goal, or with critic=iql, whose actor is one pass"
        )


def write_policies(folder: Path, model: Model, critic: Critic | None) -> Generator[str, None, list[str]]:
    """Write `policy.onnx` of a model of vectors and `actor.onnx` of a critic; both are tried under ONNX Runtime.

    Yields:
        What is done next, which takes seconds.

    Returns:
        Names of the files.

    Raises:
        ConfigError: see `check_single_pass`; or a network that ONNX cannot hold, or whose outputs are others there.
    """
    check_single_pass(model, critic)
    written = []
    if isinstance(model, VectorModel):
        longest = model.context
        policy = VectorPolicy(model)
        examples = [_example(model, rows, length) for rows, length in ((2, longest), (3, 1), (1, min(2, longest)))]
        yield _tell(POLICY)
        _write(folder / POLICY, policy, examples, _notes(model), longest)
        written.append(POLICY)
    if critic is not None:
        size = critic.observation_mean.shape[0]
        examples = [{"observation": torch.randn(rows, size, generator=_generator())} for rows in (2, 1, 5)]
        yield _tell(ACTOR)
        _write(folder / ACTOR, CriticPolicy(critic), examples, {}, 1)
        written.append(ACTOR)
    return written


def _tell(name: str) -> str:
    return f"tracing {name} with torch.export, then comparing its actions under ONNX Runtime"


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _example(model: VectorModel, rows: int, length: int) -> dict[str, Tensor]:
    """Inputs of `VectorPolicy` with values about those of the data."""
    random = _generator()
    values = model.tokenizer.denormalise(torch.rand(rows, length, model.layout.size, generator=random))
    for name in model.layout.categories:
        first = model.layout.field(name).start
        for column, count in enumerate(model.layout.choices(name), first):
            values[..., column] = torch.randint(count, (rows, length), generator=random).float()
    inputs = {"values": values, "time": torch.arange(rows) + length - 1}
    if model.layout.goal is not None:
        inputs["goal"] = values[:, -1, model.goal_columns]
    return inputs


def _notes(model: VectorModel) -> dict[str, Any]:
    """What who calls the file needs to know."""
    layout = model.layout
    columns = {field.name: [field.start, field.start + field.size] for field in layout.fields}
    return {"columns": columns, "context": model.context, "stride": layout.stride, "discount": layout.discount}


def _write(
    path: Path, policy: nn.Module, examples: list[dict[str, Tensor]], notes: Mapping[str, Any], longest: int
) -> None:
    """One file, whose batches and histories may have any size that was asked for."""
    policy.eval()
    shapes: dict[str, dict[int, Any]] = {name: {0: torch.export.Dim.DYNAMIC} for name in examples[0]}
    if longest > 1:
        shapes["values"][1] = torch.export.Dim.DYNAMIC
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                policy,
                kwargs=examples[0],
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(examples[0]),
                output_names=["action"],
                external_data=False,
                verbose=False,
            )
            assert program is not None
            program.model.metadata_props.update({key: json.dumps(value) for key, value in notes.items()})
            program.save(str(path), external_data=False)
            _compare(path, policy, examples)
    except ConfigError:
        raise
    except Exception as error:  # of torch.export, of the converter, of the runtime: each has its own
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"ONNX cannot hold this policy ({reason}); export without --onnx") from error


def _compare(path: Path, policy: nn.Module, examples: list[dict[str, Tensor]]) -> None:
    """Refuse a file whose outputs are not those of PyTorch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for inputs in examples:
        wanted = policy(**inputs)
        (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        error = float((wanted - torch.from_numpy(found)).abs().max())
        if not error <= TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise ConfigError(f"{path.name} gives actions that differ by {error:.2g} from the model's; report this")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter tells of packages that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
