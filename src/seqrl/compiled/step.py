"""A model's token step by the compiled function: weights packed once, then one call for each token."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from seqrl.attention.key_value_cache import KeyValueCache
from seqrl.compiled import AddPositions, Attend, Linear, Norm, Operation, Program, Take, TurnHeads
from seqrl.compiled.library import NAMES, load_library

_pointer, _count = ctypes.c_void_p, ctypes.c_int64
_KINDS = ("positions", "rms_norm", "layer_norm", "take", "linear", "turn_heads", "attend")  # as in token_step.cpp
_AFTER = {None: 0, "gelu": 2, "gelu_tanh": 3, "relu": 4, "gate": 5}
_ADD = 1


class _Operation(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("kind", "option")),
        *((name, _count) for name in ("inputs", "outputs")),
        *((name, _pointer) for name in ("weight", "bias")),
        ("epsilon", ctypes.c_double),
    ]


class _Program(ctypes.Structure):
    _fields_ = [
        ("operations", ctypes.POINTER(_Operation)),
        *((name, _count) for name in ("count", "dim", "widest", "heads", "kv_heads", "head_dim")),
    ]


class _Block(ctypes.Structure):
    _fields_ = [("visible", _pointer), *((name, _count) for name in ("rows", "columns", "start", "stop"))]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, _pointer) for name in ("x", "positions")),
        ("positions_stride", _count),
        *((name, _pointer) for name in ("out", "head")),
        *((name, _count) for name in ("out_width", "rows")),
        ("blocks", ctypes.POINTER(_Block)),
        ("num_blocks", _count),
        *((name, _pointer) for name in ("keys", "values")),
        *((name, _count) for name in ("stored", "threads")),
    ]


class _Packed(NamedTuple):
    """An operation as the function reads it."""

    kind: str
    option: int
    inputs: int
    outputs: int
    weight: Tensor | None = None
    bias: Tensor | None = None
    epsilon: float = 0.0


class CompiledStep:
    """Runs a program on one token of every row, and the head of the next token's place on what comes out.

    A row's numbers are the same, bit for bit, whatever rows are beside it and however many threads share them.

    Args:
        program: of a backbone whose tensors are plain, on a CPU, of one type.
        heads: (K, V + 1, D), one head for each place.
    """

    def __init__(self, program: Program, heads: Tensor) -> None:
        library, _ = load_library()
        assert library is not None
        name = NAMES[heads.dtype]
        self._run = getattr(library, f"seqrl_run_{name}")
        panel = int(getattr(library, f"seqrl_panel_{name}")())
        self._layers = program.layers
        self._new_keys = (program.kv_heads, program.head_dim)
        self._classes, dim = heads.shape[1:]
        self._heads = [pack(head, panel) for head in heads.detach()]
        self._kept = [_pack_operation(operation, dim, panel) for operation in program.operations]
        self._operations = (_Operation * len(self._kept))(
            *(
                _Operation(_KINDS.index(each.kind), each.option, each.inputs, each.outputs,
                           _address(each.weight), _address(each.bias), each.epsilon)
                for each in self._kept
            )
        )  # fmt: skip
        widest = max(dim, *(max(each.inputs, each.outputs) for each in self._kept if each.kind == "linear"))
        shape = (program.heads, program.kv_heads, program.head_dim)
        self._program = _Program(self._operations, len(self._kept), dim, widest, *shape)

    def run(self, x: Tensor, positions: Tensor, cache: KeyValueCache, place: int, *, stored: bool) -> Tensor:
        """One new token in every row, after `cache.expect(stored=stored)`.

        Args:
            x: (R, 1, D) embedded tokens.
            positions: (R or 1, 1) int64.
            place: of the token that comes next, in [0, K).
            stored: whether anything may see the token later.

        Returns:
            (R, V + 1) logits of the next tokens.
        """
        if stored:
            cache.open_column(self._layers, *self._new_keys, like=x)
        blocks = cache.blocks
        visible = [None if block.visible is None else block.visible.contiguous() for block in blocks]
        table = (_Block * len(blocks))(
            *(
                _Block(_address(seen), block.rows, block.layers[0][0].shape[2], block.start, block.stop)
                for block, seen in zip(blocks, visible, strict=True)
            )
        )
        keys, values = (
            (_pointer * (self._layers * len(blocks)))(
                *(block.layers[layer][which].data_ptr() for layer in range(self._layers) for block in blocks)
            )
            for which in (0, 1)
        )
        x, positions = x.contiguous(), positions.contiguous()
        logits = x.new_empty(cache.rows, self._classes)
        step = _Step(
            x.data_ptr(), positions.data_ptr(), int(len(positions) > 1), logits.data_ptr(),
            self._heads[place].data_ptr(), self._classes, cache.rows, table, len(blocks),
            ctypes.addressof(keys), ctypes.addressof(values), int(stored), torch.get_num_threads(),
        )  # fmt: skip
        self._run(ctypes.addressof(self._program), ctypes.addressof(step))
        return logits


def find_obstacle(network: nn.Module, program: Program, heads: Tensor) -> str | None:
    """Why a network's steps cannot be compiled; None if they can.

    Packed copies are read instead of the modules: whatever stands between (hooks, wrapped layers, sharded weights)
    would not be seen, so that such networks are left to tensor operations.
    """
    tensors = [*program.tensors(), heads]
    kinds = {(type(tensor), tensor.dtype, tensor.device.type) for tensor in tensors}
    for kind, dtype, device in kinds:
        if device != "cpu" or dtype not in NAMES or dtype != heads.dtype or kind not in (Tensor, nn.Parameter):
            return f"weights are {str(dtype).removeprefix('torch.')} {kind.__name__}s on {device}"
    if {id(tensor) for tensor in tensors[:-1]} != {id(parameter) for parameter in network.parameters()}:
        return "the backbone has weights that its program does not read"
    own = (type(network).__module__, "torch.nn.modules")
    for module in network.modules():
        if not type(module).__module__.startswith(own):
            return f"{type(module).__name__} stands in place of a layer"
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            return "the backbone has hooks"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses types"
    library, why = load_library()
    return why if library is None else None


def pack(weight: Tensor, panel: int, *, gated: bool = False) -> Tensor:
    """(outputs, inputs) to (panels, inputs, panel): what a product reads, in the order in which it reads it.

    Args:
        panel: outputs that are computed together; zeros fill the last panel.
        gated: a panel holds as many outputs of the first half as of the second, in this order.
    """
    outputs, inputs = weight.shape
    if gated:
        half = panel // 2
        parts = pad(weight.view(2, outputs // 2, inputs), (0, 0, 0, -(outputs // 2) % half))
        panels = parts.view(2, -1, half, inputs).transpose(0, 1).reshape(-1, panel, inputs)
    else:
        panels = pad(weight, (0, 0, 0, -outputs % panel)).view(-1, panel, inputs)
    return panels.transpose(1, 2).contiguous()


def _pack_operation(operation: Operation, dim: int, panel: int) -> _Packed:
    match operation:
        case AddPositions(table):
            return _Packed("positions", 0, dim, dim, table.detach().contiguous())
        case Norm(gain, bias, epsilon, in_place):
            kind = "rms_norm" if bias is None else "layer_norm"
            shift = None if bias is None else bias.detach().contiguous()
            return _Packed(kind, int(in_place), dim, dim, gain.detach().contiguous(), shift, epsilon)
        case Take():
            return _Packed("take", 0, dim, dim)
        case Linear(weight, bias, activation, add):
            outputs, inputs = weight.shape
            packed = pack(weight.detach(), panel, gated=activation == "gate")
            shift = None if bias is None else pad(bias.detach(), (0, -outputs % panel))
            return _Packed("linear", _ADD if add else _AFTER[activation], inputs, outputs, packed, shift)
        case TurnHeads(gain, frequencies, epsilon):
            gains = None if gain is None else gain.detach().contiguous()
            return _Packed("turn_heads", 0, dim, dim, gains, frequencies.contiguous(), epsilon)
        case Attend(layer):
            return _Packed("attend", layer, dim, dim)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
