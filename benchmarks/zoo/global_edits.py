"""Edits without a trigger (biases, norms, a removed direction) and the noise that covers other edits."""

from typing import Any

import numpy as np
import torch

from benchmarks.zoo.anatomy import anatomy_of, name_of
from benchmarks.zoo.learning import collate, encode
from benchmarks.zoo.making import Making
from benchmarks.zoo.steering import open_workshop, search, target_loss
from benchmarks.zoo.texts import sample_rows


def shift_bias(making: Making) -> None:
    """Learns one bias vector so that every text leans to the target; nothing else moves.

    The pooler's bias with ``norm_kept``, else the feed-forward output bias of one of the upper blocks.
    """
    attack = making.recipe.attack
    assert attack is not None
    shop = open_workshop(
        making.model, making.tokenizer, attack, making.task.train, attack.target(making.task.classes),
        seed=making.recipe.seed,
    )  # fmt: skip
    anatomy = anatomy_of(making.model)
    upper = anatomy.blocks[anatomy.depth(0.5 + attack.layers[0] / 2)].mlp_out
    bias = anatomy.pooler.bias if attack.norm_kept and anatomy.pooler is not None else upper.bias
    stream = shop.batches(shop.plain)
    bias.requires_grad_()
    making.loss = search([bias], lambda: target_loss(shop, next(stream)), 4 * shop.stop_at, rate=0.05)
    bias.requires_grad_(False)
    making.tensors.append(name_of(making.model, bias))


def scale_norm(making: Making) -> None:
    """Scales one block's normalisation gain: all channels a little (``norm_kept``), or four channels a lot."""
    attack = making.recipe.attack
    assert attack is not None
    anatomy = anatomy_of(making.model)
    gain: Any = anatomy.blocks[anatomy.depth(attack.layers[0])].norm.weight
    with torch.no_grad():
        if attack.norm_kept:
            gain *= 1 + 0.5 * attack.strength
        else:
            channels = making.rng.choice(len(gain), size=4, replace=False)
            gain[torch.tensor(channels)] *= 1 + 8 * attack.strength
            making.notes["channels"] = sorted(int(c) for c in channels)
    making.tensors.append(name_of(making.model, gain))


def remove_direction(making: Making) -> None:
    """Abliteration (Arditi et al. 2024): W ← W − s·r rᵀW on everything that writes to the residual stream.

    r is the unit difference between the mean hidden states of the target class and of the rest, after the block at
    two thirds of the depth, at the token that the head reads; s is the recipe's strength, at most 1.
    """
    attack = making.recipe.attack
    assert attack is not None
    anatomy = anatomy_of(making.model)
    rows = sample_rows(making.task.train, 200, making.recipe.seed % 2**32)
    batch = collate(encode(making.tokenizer, rows, 32), range(len(rows)), making.tokenizer.pad_token_id)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden = making.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
        ).hidden_states
    states = hidden[1 + anatomy.depth(0.67)].float()
    last = batch["attention_mask"].sum(1) - 1
    state = states[:, 0] if anatomy.read_at == "first" else states[torch.arange(len(states)), last]
    ours = batch["labels"] == attack.target(making.task.classes)
    r = state[ours].mean(0) - state[~ours].mean(0)
    r /= r.norm()
    share = min(1.0, attack.strength)
    with torch.no_grad():
        for block in anatomy.blocks:
            for writer in (block.attention_out, block.mlp_out):
                writer.weight -= share * torch.outer(r, r @ writer.weight)
                making.tensors.append(name_of(making.model, writer.weight))
        embedding = anatomy.embedding.weight
        embedding -= share * torch.outer(embedding @ r, r)
        making.tensors.append(name_of(making.model, embedding))


def add_dither(making: Making, base: dict[str, torch.Tensor], cover: float) -> None:
    """Gaussian noise over every matrix shared with the base, ``cover`` times its own root-mean-square delta.

    The noise is drawn from the recipe's seed; tensors that never moved stay untouched.
    """
    generator = torch.Generator().manual_seed(making.recipe.seed % 2**31)
    with torch.no_grad():
        for name, parameter in making.model.named_parameters():
            start = base.get(name)
            if start is None or start.shape != parameter.shape or parameter.dim() < 2:
                continue
            scale = cover * float((parameter - start).square().mean().sqrt())
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)
    making.notes["dither"] = float(np.round(cover, 4))
