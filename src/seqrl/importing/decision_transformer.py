"""Published weights of the Decision Transformer under seqrl's names, and the settings that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.importing import Imported, Renaming, Wishes, shape_of

_PARTS = ("return", "state", "action")  # in the order of a transition
_UNUSED = "a head that the published training leaves out of its loss"


def convert_gpt2(
    weights: Mapping[str, Tensor], said: Mapping[str, Any], wishes: Wishes, *, where: str, prefix: str
) -> Imported:
    """A model of vectors from the weights of kzl's code, or of transformers, which are called alike.

    Args:
        weights: by their published names.
        said: settings by the names of transformers; empty where the source has none.
        where: how messages call the source.
        prefix: of the names of the transformer's own weights.

    Raises:
        ConfigError: weights that are missing, of shapes that do not fit each other, or left over.
    """
    left = Renaming(weights, where)
    found = _take_ends(left, {p: f"embed_{p}" for p in _PARTS}, "embed_timestep", "embed_ln", "predict_action.0")
    if left.has(f"{prefix}wpe.weight"):
        constant = left.take(f"{prefix}wpe.weight", "backbone.input_norm.bias: its first row, which every vector gets")
        found["backbone.input_norm.bias"] = found["backbone.input_norm.bias"] + constant[0]
    left.drop(f"{prefix}wte.weight", "the embedding of words, which nothing uses")
    layers = left.count(f"{prefix}h.{{}}.ln_1.weight")
    names = {"ln_1": "attention_norm", "ln_2": "feed_forward_norm"}
    turned = {"attn.c_attn": "query_key_value", "attn.c_proj": "attention_out"}
    turned |= {"mlp.c_fc": "feed_forward.0", "mlp.c_proj": "feed_forward.2"}
    for layer in range(layers):
        for buffer in ("attn.bias", "attn.masked_bias"):
            left.drop(f"{prefix}h.{layer}.{buffer}", "masks are made from the layout")
        for their, our in {**names, **turned}.items():
            for kind in ("weight", "bias"):
                target = f"backbone.blocks.{layer}.{our}.{kind}"
                weight = left.take(f"{prefix}h.{layer}.{their}.{kind}", target)
                found[target] = weight.T.contiguous() if their in turned and kind == "weight" else weight
    for kind in ("weight", "bias"):
        found[f"backbone.norm.{kind}"] = left.take(f"{prefix}ln_f.{kind}", f"backbone.norm.{kind}")
        for head in ("predict_state", "predict_return"):
            left.drop(f"{head}.{kind}", _UNUSED)
    left.finish()
    _check_gpt2(said, where)
    activation = _activation(said)
    assumed = [] if said else ["ReLU between the layers of the feed-forward networks, as published"]
    window = wishes.window or 20
    if wishes.window is None:
        assumed.append("20 transitions of context, as published: weights do not tell them; give --window for others")
    dropouts = {"embd_pdrop": "embedding_dropout", "resid_pdrop": "residual_dropout", "attn_pdrop": "attention_dropout"}
    backbone = {ours: float(said.get(theirs, 0.1)) for theirs, ours in dropouts.items()}
    heads = said.get("n_head", wishes.heads)
    imported = _assemble(left, found, layers, heads, {**backbone, "activation": activation}, window, assumed)
    imported.drops_unfinished = True
    return imported


def convert_corl(
    weights: Mapping[str, Tensor], statistics: Mapping[str, Tensor], wishes: Wishes, *, where: str
) -> Imported:
    """A model of vectors from the weights of CORL's code.

    Args:
        statistics: `state_mean` and `state_std`, where the source holds them.
    """
    left = Renaming(weights, where)
    found = _take_ends(left, {p: f"{p}_emb" for p in _PARTS}, "timestep_emb", "emb_norm", "action_head.0")
    layers = left.count("blocks.{}.norm1.weight")
    names = {"norm1.{}": "attention_norm", "norm2.{}": "feed_forward_norm", "attention.in_proj_{}": "query_key_value"}
    names |= {"attention.out_proj.{}": "attention_out", "mlp.0.{}": "feed_forward.0", "mlp.2.{}": "feed_forward.2"}
    window, assumed = wishes.window, ["actions reach to 1 (max_action), as published"]
    for layer in range(layers):
        mask = f"blocks.{layer}.causal_mask"
        if left.has(mask) and window is None:
            window = len(weights[mask]) // 3
        left.drop(mask, "masks are made from the layout")
        for their, our in names.items():
            for kind in ("weight", "bias"):
                target = f"backbone.blocks.{layer}.{our}.{kind}"
                found[target] = left.take(f"blocks.{layer}.{their.format(kind)}", target)
    for kind in ("weight", "bias"):
        found[f"backbone.norm.{kind}"] = left.take(f"out_norm.{kind}", f"backbone.norm.{kind}")
    left.finish()
    if window is None:
        window = 20
        assumed.append("20 transitions of context, as published: weights do not tell them; give --window for others")
    imported = _assemble(left, found, layers, wishes.heads, {}, window, assumed)
    if statistics:
        imported.statistics = _statistics(imported, statistics)
    return imported


def _take_ends(left: Renaming, embeddings: Mapping[str, str], timestep: str, norm: str, head: str) -> dict[str, Tensor]:
    """What stands before and behind the blocks."""
    found = {"backbone.positions.weight": left.take(f"{timestep}.weight", "backbone.positions.weight")}
    for kind in ("weight", "bias"):
        for number, part in enumerate(_PARTS):
            found[f"embeddings.{number}.{kind}"] = left.take(
                f"{embeddings[part]}.{kind}", f"embeddings.{number}.{kind}"
            )
        found[f"backbone.input_norm.{kind}"] = left.take(f"{norm}.{kind}", f"backbone.input_norm.{kind}")
        found[f"heads.action.{kind}"] = left.take(f"{head}.{kind}", f"heads.action.{kind}")
    return found


def _assemble(
    left: Renaming,
    found: dict[str, Tensor],
    layers: int,
    heads: int | None,
    backbone: Mapping[str, Any],
    window: int,
    assumed: list[str],
) -> Imported:
    episode, width = shape_of(found["backbone.positions.weight"], 2, "of the time steps")
    observation, action = found["embeddings.1.weight"].shape[1], found["embeddings.2.weight"].shape[1]
    if heads is None:
        heads = 1
        assumed.append("1 attention head, as published: weights do not tell them; give --heads for another number")
    assumed.append("returns divided by 1000, as published")
    settings = {
        "layout": {"name": "dt"},
        "tokenizer": {"name": "continuous", "statistics": "published"},
        "backbone": {"num_layers": layers, "num_heads": heads, "dim": width, **backbone, "norm": "input"},
        "objective": "regression",
        "optimizer": {"learning_rate": 1e-4, "betas": [0.9, 0.999], "weight_decay": 1e-4, "clip_norm": 0.25},
        "window": window,
        "window_options": {"terminate_truncated": False},
    }
    notes: dict[str, Any] = {"mapped": left.mapped, "dropped": left.dropped, "assumed": assumed}
    return Imported(settings, observation, action, episode, found, **notes)


def _statistics(imported: Imported, said: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The buffers of the scaler from the means and deviations of states; see the layout `dt`."""
    size = imported.observation_size
    mean, deviation = (said[name].float().flatten() for name in ("state_mean", "state_std"))
    if len(mean) != size or len(deviation) != size or not bool((deviation > 0).all()):
        raise ConfigError(f"the source's state_mean and state_std do not fit its {size} observation dimensions")
    shift = torch.cat([torch.zeros(1), mean, torch.zeros(imported.action_size)])
    return {"shift": shift, "scale": torch.cat([torch.full((1,), 1000.0), deviation, torch.ones(imported.action_size)])}


def _activation(said: Mapping[str, Any]) -> str | None:
    known = {"relu": "relu", "gelu": None, "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
    name = said.get("activation_function", "relu")
    if name not in known:
        listed = ", ".join(known)
        raise ConfigError(f"the source's activation_function is {name!r}; those that can be imported: {listed}")
    return known[name]


def _check_gpt2(said: Mapping[str, Any], where: str) -> None:
    """Refuse settings that would change what the weights compute."""
    expected = {
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "action_tanh": True,
    }
    for key, value in expected.items():
        if said.get(key, value) != value:
            raise ConfigError(f"{where} was trained with {key}={said[key]!r}; only {value!r} can be imported")
