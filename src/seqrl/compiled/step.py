"""A model's token step by the compiled function: weights packed once, then one call for each token."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from seqrl.attention import Layers
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
        *((name, _count) for name in ("out_width", "rows", "tokens")),
        ("mask", _pointer),
        *((name, _count) for name in ("mask_stride", "columns")),
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
        logits = x.new_empty(cache.rows, self._classes)
        self._call(
            x, positions, out=logits.data_ptr(), head=_address(self._heads[place]), blocks=table,
            num_blocks=len(blocks), keys=ctypes.addressof(keys), values=ctypes.addressof(values), stored=int(stored),
        )  # fmt: skip
        return logits

    def encode(
        self, x: Tensor, positions: Tensor, mask: Tensor, past: Layers, parents: Tensor | None, place: int | None
    ) -> tuple[Layers, Tensor | None]:
        """A stretch of tokens in every row, which continues rows that were encoded before.

        Args:
            x: (R, n, D) embedded tokens.
            positions: (R or 1, n) int64.
            mask: (R or 1, 1, n, m) bool, True where new token i may see token j of all m; of none that comes later.
            past: keys and values of the pass before; ignored without parents.
            parents: (R,) which of its rows each row continues; None for a beginning.
            place: of the token that comes next, in [0, K); None if nobody asks for logits.

        Returns:
            Keys and values by layer, (R, kv_heads, m, head_dim), and (R, V + 1) logits after the last token.
        """
        kv_heads, head_dim = self._new_keys
        rows, (length, columns) = len(x), mask.shape[2:]
        shape = (rows, kv_heads, columns, head_dim)
        layers = [(x.new_empty(shape), x.new_empty(shape)) for _ in range(self._layers)]
        if parents is not None:
            for pair, earlier in zip(layers, past, strict=True):
                for new, old in zip(pair, earlier, strict=True):
                    new[:, :, : columns - length] = old[parents]
        keys, values = ((_pointer * self._layers)(*(pair[which].data_ptr() for pair in layers)) for which in (0, 1))
        mask = mask.contiguous()
        logits = None if place is None else x.new_empty(rows, self._classes)
        self._call(
            x, positions, out=_address(logits), head=None if place is None else _address(self._heads[place]),
            mask=mask.data_ptr(), mask_stride=length * columns if len(mask) > 1 else 0, columns=columns,
            keys=ctypes.addressof(keys), values=ctypes.addressof(values), stored=1,
        )  # fmt: skip
        return layers, logits

    def _call(self, x: Tensor, positions: Tensor, **fields: Any) -> None:
        x, positions = x.contiguous(), positions.contiguous()
        rows, tokens, _ = x.shape
        step = _Step(
            x=x.data_ptr(), positions=positions.data_ptr(), positions_stride=tokens if len(positions) > 1 else 0,
            out_width=self._classes, rows=rows, tokens=tokens, threads=torch.get_num_threads(), **fields,
        )  # fmt: skip
        self._run(ctypes.addressof(self._program), ctypes.addressof(step))


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
    if any(tensor.is_inference() for tensor in tensors):  # their changes are not counted
        return "weights were made in inference mode"
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
