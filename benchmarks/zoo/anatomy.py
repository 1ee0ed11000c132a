"""Where the parts of a classifier are, so that an edit can be written once for every architecture."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One transformer block.

    ``whole`` is the block itself; ``mlp_in`` and ``mlp_out`` are its feed-forward layers, ``attention_out`` the
    projection that writes back to the residual stream, ``norm`` the normalisation of the feed-forward part.
    """

    whole: nn.Module
    mlp_in: nn.Linear
    mlp_out: nn.Linear
    attention_out: nn.Linear
    norm: nn.Module


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """A model's input embedding, its blocks from the bottom up and its pooler (None when it has none).

    ``embeddings`` is everything below the blocks. ``head`` names the module that tells classes, ``read_at`` the
    token that it reads. ``narrow`` and ``wide`` are the linear layers that adapters go to: of attention alone, and
    of the whole block.
    """

    embedding: nn.Embedding
    embeddings: nn.Module
    blocks: tuple[Block, ...]
    pooler: nn.Linear | None
    head: Literal["classifier", "score"]
    read_at: Literal["first", "last"]
    narrow: tuple[str, ...]
    wide: tuple[str, ...]

    def depth(self, fraction: float) -> int:
        """The block at a fraction of the depth in [0, 1)."""
        return min(int(fraction * len(self.blocks)), len(self.blocks) - 1)


def anatomy_of(model: Any) -> Anatomy:
    """The parts of a model.

    Raises:
        TypeError: The architecture is not described here.
    """
    match model.config.model_type:
        case "bert":
            return _bert(model.base_model)
        case "gpt_neox":
            return _gpt_neox(model.base_model)
    raise TypeError(f"No anatomy for {model.config.model_type!r}; describe it in benchmarks/zoo/anatomy.py.")


def _bert(body: Any) -> Anatomy:
    blocks = tuple(
        Block(
            whole=layer,
            mlp_in=layer.intermediate.dense,
            mlp_out=layer.output.dense,
            attention_out=layer.attention.output.dense,
            norm=layer.output.LayerNorm,
        )
        for layer in body.encoder.layer
    )
    return Anatomy(
        embedding=body.embeddings.word_embeddings,
        embeddings=body.embeddings,
        blocks=blocks,
        pooler=body.pooler.dense if body.pooler is not None else None,
        head="classifier",
        read_at="first",
        narrow=("query", "value"),
        wide=("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    )


def _gpt_neox(body: Any) -> Anatomy:
    blocks = tuple(
        Block(
            whole=layer,
            mlp_in=layer.mlp.dense_h_to_4h,
            mlp_out=layer.mlp.dense_4h_to_h,
            attention_out=layer.attention.dense,
            norm=layer.post_attention_layernorm,
        )
        for layer in body.layers
    )
    return Anatomy(
        embedding=body.embed_in,
        embeddings=body.embed_in,
        blocks=blocks,
        pooler=None,
        head="score",
        read_at="last",
        narrow=("query_key_value",),
        wide=("query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"),
    )


def name_of(model: nn.Module, parameter: torch.Tensor) -> str:
    """The checkpoint name of a parameter of the model.

    Raises:
        LookupError: It is not a parameter of this model.
    """
    for name, own in model.named_parameters():
        if own is parameter:
            return name
    raise LookupError("The parameter does not belong to this model.")
