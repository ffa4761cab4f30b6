"""Decoders of Hugging Face's `transformers`, attending the way seqrl does."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt, MinLen
from torch import Tensor, nn

from seqrl.attention import Attention
from seqrl.backbones import Backbone, Dim, NumHeads, NumLayers
from seqrl.backbones._layers import check_heads, feed_forward_width
from seqrl.errors import ConfigError, did_you_mean
from seqrl.paths import find_path
from seqrl.registry import register_backbone

_NAME = "seqrl"  # of our attention among those of the package
Visit = Callable[[Any, Tensor, Tensor, Tensor, float, float, dict[str, Any]], Tensor]
_VISIT: ContextVar[Visit] = ContextVar("visit")
"""What a layer of the decoder that runs does with its query, key and value."""

_FOREIGN = {"softcap": "soft caps on its logits", "s_aux": "sinks", "sliding_window": "sliding windows"}


@register_backbone("hf")
class HfBackbone(Backbone):
    """A decoder of the package `transformers` (5 or newer), of a config or of a local folder with its weights.

    Its layers attend through the package's attention interface, which hands query, key and value to seqrl's attention
    by the index of the layer; masks, caches and positions are ours. Decoders whose layers do anything else there, or
    let tokens meet elsewhere, are refused. No code of a folder is run, and nothing is fetched.

    Args:
        max_length: positions of the training window, for decoders with learnt positions.
        model_type: the package's name of the family, such as `qwen3`, `llama` or `gpt_neox`.
        path: a folder with `config.json` and weights as `.safetensors`, which decides type and sizes; None for new
            weights of the sizes below. It must be there whenever the model is made again.
        num_layers, num_heads, dim: sizes.
        num_kv_heads: key and value heads, where the family has fewer than heads; None for as many.
        attention_dropout: probability, where the family has one.

    Raises:
        ConfigError: the package is missing, the family is unknown or no decoder, or it attends in a way of its own
            (named).
    """

    def __init__(
        self,
        max_length: int,
        *,
        model_type: Annotated[str, MinLen(1)] = "qwen3",
        path: str | None = None,
        num_layers: NumLayers = 4,
        num_heads: NumHeads = 4,
        num_kv_heads: NumHeads | None = None,
        dim: Dim = 128,
        attention_dropout: Annotated[float, Ge(0), Lt(1)] = 0.1,
    ) -> None:
        super().__init__()
        _register()
        if path is None:
            check_heads(dim, num_heads)
            sizes = {
                "hidden_size": dim,
                "num_hidden_layers": num_layers,
                "num_attention_heads": num_heads,
                "num_key_value_heads": num_kv_heads or num_heads,
                "head_dim": dim // num_heads,
                "intermediate_size": feed_forward_width(dim),
                "max_position_embeddings": max_length,
                "attention_dropout": attention_dropout,
            }
            self.decoder: nn.Module = _make(model_type, sizes)
        else:
            self.decoder = _load(find_path(path))
        self.decoder.set_input_embeddings(nn.Identity())  # type: ignore[operator]  # tokens are embedded outside
        self.dim = int(self.decoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        learnt = any(isinstance(part, nn.Embedding) for part in self.decoder.modules())
        self.relative = _refine_rotation(self.decoder) and not learnt
        _check_layers(self.decoder, self.dim)

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        def visit(
            module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float, more: dict[str, Any]
        ) -> Tensor:
            width = query.shape[-1]
            query = query * (scaling * width**0.5)  # ours divides by sqrt(head_dim)
            parts = (each.transpose(1, 2) for each in (query, key, value))
            return attention.attend(module.layer_idx, *parts, dropout=dropout).unflatten(-1, (-1, width))

        return _run(self.decoder, x, positions, visit)


class _Rotation(nn.Module):
    """The cosines and sines of rotary positions, of angles in float64: those of the package are rounded in float32, in
    which places far from the beginning no longer have the differences that near ones have.
    """

    def __init__(self, frequencies: Tensor, scale: float) -> None:
        super().__init__()
        self._frequencies = [frequencies.double()]  # no buffer, which a model in bfloat16 would round
        self.scale = scale

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        if self._frequencies[0].device != x.device:
            self._frequencies = [self._frequencies[0].to(x.device)]
        angles = position_ids[..., None].double() * self._frequencies[0]
        angles = torch.cat([angles, angles], dim=-1)
        return (angles.cos() * self.scale).to(x.dtype), (angles.sin() * self.scale).to(x.dtype)


def _refine_rotation(decoder: Any) -> bool:
    """Put our rotation in the place of the package's where both say the same; whether they do."""
    theirs = getattr(decoder, "rotary_emb", None)
    frequencies = getattr(theirs, "inv_freq", None)
    if theirs is None or not isinstance(frequencies, Tensor):
        return False
    ours = _Rotation(frequencies.detach().clone(), float(getattr(theirs, "attention_scaling", 1.0)))
    x, places = frequencies.new_zeros(1, 3, 1), torch.arange(3, device=frequencies.device)[None]
    try:
        pairs = list(zip(ours(x, places), theirs(x, places), strict=True))
    except (TypeError, ValueError, RuntimeError, AttributeError):  # another signature
        return False
    same = all(one.shape == other.shape for one, other in pairs)
    if not same or (not x.is_meta and not all(torch.allclose(*pair, atol=1e-5) for pair in pairs)):
        return False
    decoder.rotary_emb = ours
    return True


def _run(decoder: nn.Module, x: Tensor, positions: Tensor, visit: Visit) -> Tensor:
    token = _VISIT.set(visit)
    try:
        found = decoder(inputs_embeds=x, position_ids=positions.expand(len(x), -1), use_cache=False)
    finally:
        _VISIT.reset(token)
    features: Tensor = found.last_hidden_state
    return features


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """The package's attention interface: (R, heads, n, head_dim) each to (R, n, heads, head_dim)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _VISIT.get()(module, query, key, value, scale, dropout, more), None


def _register() -> None:
    try:
        from transformers import AttentionInterface
    except ImportError as error:
        raise ConfigError("backbone=hf needs the package transformers, 5 or newer; pip install 'seqrl[hf]'") from error
    AttentionInterface.register(_NAME, _attend)


def _make(model_type: str, sizes: dict[str, Any]) -> nn.Module:
    """New weights."""
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigError(
            f"backbone.model_type={model_type!r} is no decoder that transformers has."
            f"{did_you_mean(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)} Well-known ones: qwen3, llama, gpt_neox"
        )
    none = {"vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    try:
        config = AutoConfig.for_model(model_type, **sizes, **none, sliding_window=None, use_cache=False)
        made: nn.Module = AutoModel.from_config(config, attn_implementation=_NAME)  # type: ignore[no-untyped-call, unused-ignore]
    except Exception as error:  # whatever its families make of sizes that they do not know
        raise _refusal(f"backbone.model_type={model_type!r}", error) from error
    return made


def _load(folder: Path) -> nn.Module:
    """The weights of a folder; without them where none take memory."""
    from transformers import AutoConfig, AutoModel

    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "auto_map" in said:
            raise ConfigError(
                f"backbone.path={str(folder)!r} names code of its own (auto_map), which is never run; give a folder "
                "of a family that transformers has"
            )
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if torch.get_default_device().type == "meta":
            made: nn.Module = AutoModel.from_config(config, attn_implementation=_NAME)  # type: ignore[no-untyped-call, unused-ignore]
        else:
            made = AutoModel.from_pretrained(
                folder,
                config=config,
                attn_implementation=_NAME,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
            )
    except ConfigError:
        raise
    except Exception as error:  # of the file system, of JSON, or whatever its families make of a config
        raise _refusal(f"backbone.path={str(folder)!r}", error) from error
    return made


def _refusal(what: str, error: Exception) -> ConfigError:
    return ConfigError(f"{what} makes no decoder: {str(error).strip().splitlines()[0].rstrip('.')}")


def _check_layers(decoder: nn.Module, dim: int) -> None:
    """Try two tokens, and refuse a decoder that lets tokens meet in another way than softmax attention of all layers.

    Raises:
        ConfigError: names what it has.
    """
    config: Any = decoder.config
    name = f"the decoder {config.model_type!r}"
    layers: list[int] = []

    def look(
        module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float, more: dict[str, Any]
    ) -> Tensor:
        for option, what in _FOREIGN.items():
            if more.get(option) is not None:
                raise ConfigError(f"{name} attends with {what}, which seqrl's attention has not; use another family")
        if not getattr(module, "is_causal", True) or value.shape[-1] != query.shape[-1]:
            raise ConfigError(f"{name} does not attend causally with values as wide as its keys; use another family")
        layers.append(module.layer_idx)
        return torch.zeros_like(query).transpose(1, 2)

    weight = next(decoder.parameters())
    was_training = decoder.training
    with torch.no_grad():
        try:
            positions = torch.arange(2, device=weight.device)[None]
            _run(decoder.eval(), weight.new_zeros(1, 2, dim), positions, look)
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise _refusal(name, error) from error
        finally:
            decoder.train(was_training)
    if sorted(layers) != list(range(config.num_hidden_layers)):
        kinds = sorted(set(getattr(config, "layer_types", None) or ())) or "layers of its own"
        raise ConfigError(
            f"{name} has {config.num_hidden_layers} layers, of which {len(set(layers))} attend by softmax attention "
            f"({kinds}); linear, recurrent and other layers cannot be cached here; use another family, or mingru and s6"
        )
