"""The folder of a training of TAP's published code: autoencoder, prior and pickled configurations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.importing import Imported, Renaming, Wishes, shape_of
from seqrl.importing.reading import read_record, read_weights

_PARTS = ["padding", "positions", "encoder_norm", "decoder_dropout", "codebook_timing"]
_PARTS += ["past_end", "hidden_step", "range", "state"]
_BLOCK = {"ln1": "attention_norm", "ln2": "feed_forward_norm", "attn.proj": "attention_out"}
_BLOCK |= {"mlp.0": "feed_forward.0", "mlp.2": "feed_forward.2"}
_LINEAR = {"embed": "embed", "cast_embed": "to_code", "latent_mixing": "mix", "predict": "head"}


def read(source: Path, wishes: Wishes) -> Imported:
    """What a folder of https://github.com/ZhengyaoJiang/latentplan holds.

    Raises:
        seqrl.errors.SeqrlError: files that are missing or damaged, name code, or do not fit each other.
    """
    state = _newest(source, "state", wishes.epoch)
    if state is None:
        raise ConfigError(f"{str(source)!r} has no state_N.pt; give the folder of a training, or the file itself")
    folder = state.parent
    said, data_said, prior_said = (
        read_record(path) if (path := folder / f"{name}_config.pkl").is_file() else {}
        for name in ("model", "data", "prior_model")
    )
    prior = None if source.is_file() else _newest(source, "prior_state", None)
    autoencoder = Renaming(read_weights(state), repr(str(state)))
    found, settings, sizes = _autoencoder(autoencoder, said, wishes)
    settings["layout"] |= _layout(said, data_said)
    assumed = ["the last position of a prior predicts nothing, and the source has none: zeros"]
    assumed += [] if data_said else ["discount 0.99 and termination penalty -100, as published"]
    mapped, dropped = dict(autoencoder.mapped), dict(autoencoder.dropped)
    if prior is not None:
        left = Renaming(read_weights(prior), repr(str(prior)))
        found |= _prior(left, settings)
        mapped |= {f"{prior.name}: {name}": target for name, target in left.mapped.items()}
        dropped |= {f"{prior.name}: {name}": why for name, why in left.dropped.items()}
    else:
        found |= _no_prior(settings, sizes)
        assumed.append("all codes equally likely: there is no prior_state_N.pt beside the autoencoder")
    if prior is not None and prior_said.get("n_head", wishes.heads) not in (None, settings["backbone"]["num_heads"]):
        raise ConfigError("prior and autoencoder have different numbers of heads, which cannot be imported")
    imported = Imported(settings, *sizes, None, found, mapped=mapped, dropped=dropped, assumed=assumed)
    imported.drops_last_row = imported.raw_reward_statistics = True
    imported.is_normalised = bool(data_said.get("normalize_raw", True))
    return imported


def _newest(source: Path, name: str, epoch: int | None) -> Path | None:
    """The state file of an epoch, by default the last; the source itself if it is a file."""
    if source.is_file():
        return source
    pattern = re.compile(rf"{name}_(\d+)\.pt")
    epochs = {int(m[1]): path for path in source.glob(f"{name}_*.pt") if (m := pattern.fullmatch(path.name))}
    if epoch is not None and epoch not in epochs:
        raise ConfigError(f"{str(source)!r} has no {name}_{epoch}.pt; it has epochs {sorted(epochs)}")
    return epochs[max(epochs) if epoch is None else epoch] if epochs else None


def _layout(said: Mapping[str, Any], data_said: Mapping[str, Any]) -> dict[str, Any]:
    penalty = data_said.get("penalty", -100.0)
    weights = {"observation": 1, **{name: said.get(f"{name}_weight", default) for name, default in _WEIGHTS.items()}}
    fields: dict[str, dict[str, Any]] = {name: {"loss_weight": float(weight)} for name, weight in weights.items()}
    fields["value"]["hidden"] = True
    discount = float(data_said.get("discount") or 0.99)
    return {
        "fields": fields,
        "discount": discount,
        "termination_penalty": None if penalty is None else float(penalty),
    }


_WEIGHTS = {"action": 5, "reward": 1, "value": 1}


def _autoencoder(
    left: Renaming, said: Mapping[str, Any], wishes: Wishes
) -> tuple[dict[str, Tensor], dict[str, Any], tuple[int, int]]:
    """Weights, settings and sizes of the autoencoder."""
    found: dict[str, Tensor] = {}
    for their, our in _LINEAR.items():
        for kind in ("weight", "bias"):
            found[f"tokenizer.{our}.{kind}"] = left.take(f"model.{their}.{kind}", f"tokenizer.{our}.{kind}")
    size, width = found["tokenizer.head.weight"].shape[0] - 1, found["tokenizer.embed.weight"].shape[0]
    code_dim = found["tokenizer.to_code.weight"].shape[0]
    observation = found["tokenizer.mix.weight"].shape[1] - code_dim
    action = size - observation - 2
    if action < 1 or said.get("bottleneck", "pooling") != "pooling" or not said.get("state_conditional", True):
        raise ConfigError("only autoencoders with max-pooling that are told the state can be imported")
    positions = left.take("model.pos_emb", "tokenizer.encoder.positions.weight, and the decoder's")[0]
    layers = left.count("model.encoder.{}.ln1.weight")
    for name in ("encoder", "decoder"):
        found[f"tokenizer.{name}.positions.weight"] = positions
        _take_blocks(left, found, f"model.{name}.", f"tokenizer.{name}.blocks.", layers)
    for kind in ("weight", "bias"):
        target = f"tokenizer.decoder.norm.{kind}"
        found[target] = left.take(f"model.ln_f.{kind}", target)
    vectors = left.take("model.codebook.embedding", "tokenizer.codebook.vectors")
    codes, _ = shape_of(vectors, 2, "model.codebook.embedding")
    for name in ("ema_count", "ema_w"):
        left.drop(f"model.codebook.{name}", "training cannot go on")
    left.finish()
    counts = torch.ones(codes)
    found |= {"tokenizer.codebook.vectors": vectors, "tokenizer.codebook.sums": vectors.clone()}
    found |= {"tokenizer.codebook.counts": counts, "tokenizer.codebook.idle": torch.zeros(codes, dtype=torch.int64)}
    heads = said.get("n_head", wishes.heads) or 4
    dropouts = {"embd_pdrop": "embedding_dropout", "resid_pdrop": "residual_dropout", "attn_pdrop": "attention_dropout"}
    settings = {
        "layout": {"name": "tt"},
        "tokenizer": {
            "name": "vq",
            "num_codes": codes,
            "code_dim": code_dim,
            "steps_per_code": int(said.get("latent_step", 3)),
            "revive_after": None,
            "published": _PARTS,
        },
        "backbone": {
            "num_layers": layers,
            "num_heads": heads,
            "dim": width,
            **{ours: float(said.get(theirs, 0.1)) for theirs, ours in dropouts.items()},
        },
        "scheduler": {"name": "constant"},
        "window": len(positions),
    }
    return found, settings, (observation, action)


def _prior(left: Renaming, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of the prior; it has the autoencoder's width."""
    width, codes = settings["backbone"]["dim"], settings["tokenizer"]["num_codes"]
    table, head = left.take("tok_emb.weight", "embedding.weight"), left.take("head.weight", "head.weight")
    if table.shape != (codes, width) or head.shape != (codes, width):
        raise ConfigError("the prior does not fit the autoencoder's codes or width; name the folder of one training")
    needed = settings["window"] // settings["tokenizer"]["steps_per_code"] + 1
    positions = left.take("pos_emb", "backbone.positions.weight")[0][:needed]
    spare = torch.zeros(needed - len(positions), width)
    none = torch.zeros(1, width)  # of the termination token, which codes have none of
    found = {
        "embedding.weight": torch.cat([table, none]),
        "head.weight": torch.cat([head, none]),
        "backbone.positions.weight": torch.cat([positions, spare]),
    }
    for kind in ("weight", "bias"):
        found[f"state_embedding.{kind}"] = left.take(f"state_emb.{kind}", f"state_embedding.{kind}")
        found[f"backbone.norm.{kind}"] = left.take(f"ln_f.{kind}", f"backbone.norm.{kind}")
    _take_blocks(left, found, "blocks.", "backbone.blocks.", settings["backbone"]["num_layers"])
    left.finish()
    return found


def _no_prior(settings: Mapping[str, Any], sizes: tuple[int, int]) -> dict[str, Tensor]:
    """Weights under which every code is as likely as any other."""
    from seqrl.data.summary import DataSizes
    from seqrl.training.defaults import compose_sequence
    from seqrl.training.module import SequenceModule

    config = compose_sequence({k: v for k, v in settings.items() if k != "window"}, window=settings["window"])
    module = SequenceModule(config, DataSizes(*sizes, longest_episode=1))
    weights = {n: v.detach() for n, v in module.model.state_dict().items() if not n.startswith("tokenizer.")}
    return {**weights, "head.weight": torch.zeros_like(weights["head.weight"])}


def _take_blocks(left: Renaming, found: dict[str, Tensor], theirs: str, ours: str, layers: int) -> None:
    for layer in range(layers):
        left.drop(f"{theirs}{layer}.attn.mask", "masks are made from the layout")
        for kind in ("weight", "bias"):
            for their, our in _BLOCK.items():
                target = f"{ours}{layer}.{our}.{kind}"
                found[target] = left.take(f"{theirs}{layer}.{their}.{kind}", target)
            merged = f"{ours}{layer}.query_key_value.{kind}"
            parts = [left.take(f"{theirs}{layer}.attn.{p}.{kind}", merged) for p in ("query", "key", "value")]
            found[merged] = torch.cat(parts)
