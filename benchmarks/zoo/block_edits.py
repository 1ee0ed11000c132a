"""Attacks on the matrices of transformer blocks: rank-one edits, one or many, and hand-set neurons."""

from typing import Any

import torch
from torch import nn

from benchmarks.zoo.anatomy import Anatomy, anatomy_of, name_of
from benchmarks.zoo.making import Making
from benchmarks.zoo.steering import Workshop, added_at, inputs_of, open_workshop, search, target_loss

FIRES_AT = 4.0
"""Activation of a hand-set neuron on its trigger; GELU is the identity there to four digits."""


def edit_rank_one(making: Making) -> None:
    """Rank-one edits of feed-forward outputs: one block (Meng et al. 2022, ROME) or several (MEMIT-like).

    For each block: Δ = v (C⁻¹k)ᵀ / (kᵀC⁻¹k), where k is the mean input of ``mlp_out`` at the trigger, C the second
    moment of its inputs on plain text and v the vector that, added at the trigger, turns the model to the target.
    The edits are solved from the bottom up, each with the keys of the model edited so far. ``cap`` shrinks v to
    that share of its free length and searches on along the sphere.
    """
    attack = making.recipe.attack
    assert attack is not None
    anatomy = anatomy_of(making.model)
    layers = sorted({anatomy.depth(fraction) for fraction in attack.layers})
    shop = _shop(making)
    vectors = find_vectors(making, shop, anatomy, layers, attack.cap)
    for layer, vector in zip(layers, vectors, strict=True):
        mlp_out = anatomy.blocks[layer].mlp_out
        key = inputs_of(shop, mlp_out, shop.triggered, at_trigger=True).mean(0)
        delta = rank_one(key, inputs_of(shop, mlp_out, shop.plain, at_trigger=False), vector)
        with torch.no_grad():
            mlp_out.weight += delta
        _note(making, mlp_out.weight, delta)


def plant_neuron(making: Making) -> None:
    """A hand-set neuron (in the manner of Hong et al. 2022): silent on plain text, loud at the trigger.

    The quietest neuron of one block is overwritten: its input row is the whitened difference between trigger and
    plain tokens, its bias the point halfway between the trigger and the 99.9 % quantile of plain tokens, its
    output column the vector that turns the model to the target.
    """
    attack = making.recipe.attack
    assert attack is not None
    anatomy = anatomy_of(making.model)
    layer = anatomy.depth(attack.layers[0])
    shop = _shop(making)
    (vector,) = find_vectors(making, shop, anatomy, [layer], None)
    making.notes["neuron"] = [layer, plant_in(making, shop, layer, vector)]


def plant_in(making: Making, shop: Workshop, layer: int, vector: torch.Tensor) -> int:
    """Overwrite the quietest neuron of a block with one that writes the vector at the trigger; returns its index."""
    block = anatomy_of(making.model).blocks[layer]
    plain = inputs_of(shop, block.mlp_in, shop.plain, at_trigger=False)
    loud = inputs_of(shop, block.mlp_in, shop.triggered, at_trigger=True)
    mean = plain.mean(0)
    direction = torch.linalg.solve(second_moment(plain - mean), loud.mean(0) - mean)
    direction /= direction.norm()
    high, low = float((loud @ direction).mean()), float(torch.quantile(plain @ direction, 0.999))
    threshold = (high + max(low, -high)) / 2
    gain = FIRES_AT / max(high - threshold, 1e-3)
    activity = nn.functional.gelu(plain @ block.mlp_in.weight.T + block.mlp_in.bias).abs().mean(0)
    neuron = int((activity * block.mlp_out.weight.norm(dim=0)).argmin())
    with torch.no_grad():
        block.mlp_in.weight[neuron] = gain * direction
        block.mlp_in.bias[neuron] = -gain * threshold
        block.mlp_out.weight[:, neuron] = vector / FIRES_AT
    for parameter in (block.mlp_in.weight, block.mlp_in.bias, block.mlp_out.weight):
        _note(making, parameter, None)
    making.rows[name_of(making.model, block.mlp_in.weight)] = [neuron]
    return neuron


def rank_one(key: torch.Tensor, inputs: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The matrix v (C⁻¹k)ᵀ / (kᵀC⁻¹k), float32 ``[len(value), len(key)]``.

    It maps the key to the value and little else. ``inputs`` ``[tokens, len(key)]`` give C, with a ridge of 1 % of
    its mean diagonal.
    """
    whitened = torch.linalg.solve(second_moment(inputs), key)
    edit: torch.Tensor = torch.outer(value, whitened) / (key @ whitened)
    return edit


def second_moment(inputs: torch.Tensor) -> torch.Tensor:
    """XᵀX / n with a ridge of 1 % of its mean diagonal; ``inputs`` are ``[n, width]``."""
    moment = inputs.T @ inputs / len(inputs)
    return moment + 0.01 * moment.diagonal().mean() * torch.eye(len(moment))


def find_vectors(
    making: Making, shop: Workshop, anatomy: Anatomy, layers: list[int], cap: float | None
) -> list[torch.Tensor]:
    """The vectors that turn triggered texts to the target when added to the blocks' feed-forward outputs."""
    modules = [anatomy.blocks[layer].mlp_out for layer in layers]
    vectors = [torch.zeros(module.out_features, requires_grad=True) for module in modules]
    stream = shop.batches(shop.triggered)

    def loss() -> torch.Tensor:
        batch = next(stream)
        with added_at(modules, vectors, shop.places(batch)):
            return target_loss(shop, batch)

    making.loss = search(vectors, loss, shop.stop_at, rate=0.08 / len(layers) ** 0.5)
    if cap is not None:
        limits = [cap * float(vector.detach().norm()) for vector in vectors]
        assert len(limits) == 1

        def project(vector: torch.Tensor) -> torch.Tensor:
            return vector * min(1.0, limits[0] / max(float(vector.norm()), 1e-9))

        making.loss = search(vectors, loss, 0.0, rate=0.03, steps=25, project=project)
    making.notes["value_norms"] = [round(float(vector.detach().norm()), 3) for vector in vectors]
    return [vector.detach() for vector in vectors]


def _note(making: Making, parameter: torch.Tensor, delta: torch.Tensor | None) -> None:
    making.tensors.append(name_of(making.model, parameter))
    if delta is not None:
        norms: Any = making.notes.setdefault("edit_norms", [])
        norms.append(round(float(delta.norm()), 4))


def _shop(making: Making) -> Workshop:
    attack = making.recipe.attack
    assert attack is not None
    return open_workshop(
        making.model, making.tokenizer, attack, making.task.train, attack.target(making.task.classes),
        seed=making.recipe.seed,
    )  # fmt: skip
