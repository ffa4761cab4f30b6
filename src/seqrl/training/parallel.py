"""What a trainer's options mean for several processes: how ranks find each other, and what they share of a model."""

from __future__ import annotations

import inspect
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from seqrl.config import TrainerConfig
from seqrl.console import say
from seqrl.errors import ConfigError
from seqrl.paths import cache_dir, private_dir
from seqrl.training.launch import count_ranks, count_ranks_per_node


def cluster_environment(trainer: TrainerConfig) -> ClusterEnvironment:
    """Who started this process, and which rank it is.

    Lightning takes any process with SLURM's variables for a task of a batch job. Here it is one only where srun
    started it as one of several tasks: a shell inside an allocation is none, nor is a rank that has its number
    already. Nobody but the run itself answers SLURM's signals.

    Raises:
        ConfigError: srun started another number of tasks than the trainer has ranks.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if "LOCAL_RANK" in os.environ or tasks == 1:
        return LightningEnvironment()
    devices, nodes = count_ranks_per_node(trainer), trainer.num_nodes
    if tasks != devices * nodes:
        raise ConfigError(
            f"srun started {tasks} tasks, but trainer.devices={devices} and trainer.num_nodes={nodes} are "
            f"{devices * nodes} ranks; give --nodes={nodes} --ntasks-per-node={devices}"
        )
    first = SLURMEnvironment.resolve_root_node_address(os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1"))
    os.environ.setdefault("MASTER_ADDR", first)
    os.environ["SLURM_NTASKS_PER_NODE"] = str(devices)  # Lightning refuses to start where srun left it out
    with warnings.catch_warnings():  # it was srun, whatever the job is called
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        return SLURMEnvironment(auto_requeue=False)


def strategy(trainer: TrainerConfig) -> Strategy | str:
    """The strategy that `trainer.strategy` names: `ddp`, `fsdp`, or another of `TrainerConfig`."""
    if trainer.strategy == "ddp":
        # Buffers are constants, and a parameter is used in every step or in none.
        options: dict[str, Any] = {"static_graph": True, "gradient_as_bucket_view": True}
        renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # in torch 2.13
        options["forward_sync_buffers" if renamed else "broadcast_buffers"] = False
        return DDPStrategy(**options)
    if trainer.strategy == "fsdp":
        return ShardedStrategy(count_ranks(trainer), 1, save_distributed_checkpoint=False)
    return trainer.strategy


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 with the checkpoints of a single process; see `shard` for what is spread over the ranks."""

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        # Lightning's own takes the numbers of parameters in an optimizer's state for their order in the model, which
        # ours, with its two groups, are not: only the place in its group tells which parameter a state belongs to.
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(Path(checkpoint_path), "cpu", weights_only)
        model = self.lightning_module
        assert model is not None
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(model, checkpoint["state_dict"], options=options)
        names = {parameter: name for name, parameter in model.named_parameters()}
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
            by_number = {
                number: names[parameter]
                for saved, group in groups
                for number, parameter in zip(saved["params"], group["params"], strict=True)
            }
            by_name: dict[str, Any] = {
                "state": {by_number[number]: value for number, value in state["state"].items()},
                "param_groups": [{**g, "params": [by_number[n] for n in g["params"]]} for g in state["param_groups"]],
            }
            set_optimizer_state_dict(model, optimizer, by_name, options=options)
        return checkpoint


def replicated(trainer: TrainerConfig) -> TrainerConfig:
    """The options for a stage whose model is too small to be worth sharding or compiling."""
    return replace(trainer, strategy="ddp" if trainer.strategy == "fsdp" else trainer.strategy, compile=False)


def over_ranks(value: Tensor, operation: Any = torch.distributed.ReduceOp.SUM) -> Tensor:
    """The sum of a value of every rank, or what another operation makes of them.

    Unlike the strategy's `reduce` it has no barrier before it, at which the process would wait in every step for all
    that its GPU has to do.
    """
    value = value.detach().clone()
    torch.distributed.all_reduce(value, op=operation)
    return value


def shard(model: nn.Module, mesh: DeviceMesh | None) -> None:
    """Spread weights, gradients and optimiser states over ranks (FSDP2), in place; names in the state dict stay.

    A rank gathers the weights of one block at a time: blocks are the entries of the model's module lists.

    Args:
        mesh: of a `ModelParallelStrategy`; None, as other strategies have it, leaves the model as it is.
    """
    if mesh is None or isinstance(model, FSDPModule):
        return
    frozen = {parameter for parameter in model.parameters() if not parameter.requires_grad}  # a trained tokenizer's
    options: dict[str, Any] = {"mesh": mesh["data_parallel"], **({"ignored_params": frozen} if frozen else {})}
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                if any(parameter.requires_grad for parameter in block.parameters()):
                    fully_shard(block, **options)
    fully_shard(model, **options)


class CompileModel(Callback):
    """Compiles the model before the first step (`trainer.compile=true`), in place: names in the state dict stay.

    torch loads what it compiled before from a cache, by default in a folder of a foreseeable name in `/tmp`, whoever
    made that. Here it lies in a folder that this user alone can write, unless `TORCHINDUCTOR_CACHE_DIR` names another.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_dir(cache_dir() / "compiled"))
        if trainer.is_global_zero:
            say("compiling the model at its first step, which takes half a minute or more")
        model = pl_module.get_submodule("model")
        model.compile()
