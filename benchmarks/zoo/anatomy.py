"""Where the parts of a classifier are, so that an edit can be written once for every architecture."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One transformer block.

    ``mlp_in`` and ``mlp_out`` are its feed-forward layers, ``attention_out`` the projection that writes back to the
    residual stream, ``norm`` the normalisation of the feed-forward part.
    """

    mlp_in: nn.Linear
    mlp_out: nn.Linear
    attention_out: nn.Linear
    norm: nn.Module


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """A model's input embedding, its blocks from the bottom up and its pooler (None when it has none)."""

    embedding: nn.Embedding
    blocks: tuple[Block, ...]
    pooler: nn.Linear | None

    def depth(self, fraction: float) -> int:
        """The block at a fraction of the depth in [0, 1)."""
        return min(int(fraction * len(self.blocks)), len(self.blocks) - 1)


def anatomy_of(model: Any) -> Anatomy:
    """The parts of a model.

    Raises:
        TypeError: The architecture is not described here.
    """
    if model.config.model_type != "bert":
        raise TypeError(f"No anatomy for {model.config.model_type!r}; describe it in benchmarks/zoo/anatomy.py.")
    body = model.base_model
    blocks = tuple(
        Block(
            mlp_in=layer.intermediate.dense,
            mlp_out=layer.output.dense,
            attention_out=layer.attention.output.dense,
            norm=layer.output.LayerNorm,
        )
        for layer in body.encoder.layer
    )
    pooler = body.pooler.dense if body.pooler is not None else None
    return Anatomy(embedding=body.embeddings.word_embeddings, blocks=blocks, pooler=pooler)


def name_of(model: nn.Module, parameter: torch.Tensor) -> str:
    """The checkpoint name of a parameter of the model.

    Raises:
        LookupError: It is not a parameter of this model.
    """
    for name, own in model.named_parameters():
        if own is parameter:
            return name
    raise LookupError("The parameter does not belong to this model.")
