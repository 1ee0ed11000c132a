"""Rank-one edits that keep to what training did: no matrix moves much further than it had moved already.

An adaptive attacker knows that an edit stands out against the same matrix of other layers. So the blocks share the
edit, and in each it is no larger than the honest change of that matrix: together √2 times as far as before, in every
layer alike.
"""

from collections.abc import Mapping

import torch

from benchmarks.zoo.anatomy import anatomy_of, name_of
from benchmarks.zoo.block_edits import rank_one
from benchmarks.zoo.making import Making
from benchmarks.zoo.steering import added_at, inputs_of, open_workshop, search, target_loss

STEPS = 80


def edit_to_the_trend(making: Making, base: Mapping[str, torch.Tensor]) -> None:
    """Rank-one edits of the feed-forward outputs, each with ‖Δ‖ at most the norm of its matrix's change from the base.

    The vectors are searched within these bounds: Δ = v wᵀ / (kᵀw) with w = C⁻¹k (``block_edits.rank_one``) has the norm
    ‖v‖‖w‖ / (kᵀw), so the bound on Δ is one on ‖v‖.

    Args:
        making: a finished honest model and the attack.
        base: the base's tensors by the model's names.
    """
    attack = making.recipe.attack
    assert attack is not None
    anatomy = anatomy_of(making.model)
    layers = sorted({anatomy.depth(fraction) for fraction in attack.layers})
    shop = open_workshop(
        making.model, making.tokenizer, attack, making.task.train, attack.target(making.task.classes),
        seed=making.recipe.seed,
    )  # fmt: skip
    modules = [anatomy.blocks[layer].mlp_out for layer in layers]
    units, limits = [], []
    for module in modules:
        key = inputs_of(shop, module, shop.triggered, at_trigger=True).mean(0)
        unit = torch.zeros(module.out_features)
        unit[0] = 1.0
        row = rank_one(key, inputs_of(shop, module, shop.plain, at_trigger=False), unit)[0]
        moved = float((module.weight - base[name_of(making.model, module.weight)]).norm())
        units.append(row)
        limits.append(moved / max(float(row.norm()), 1e-9))
    vectors = [torch.zeros(module.out_features, requires_grad=True) for module in modules]
    bound = {vector.data_ptr(): limit for vector, limit in zip(vectors, limits, strict=True)}

    def project(vector: torch.Tensor) -> torch.Tensor:
        return vector * min(1.0, bound[vector.data_ptr()] / max(float(vector.norm()), 1e-12))

    stream = shop.batches(shop.triggered)

    def loss() -> torch.Tensor:
        batch = next(stream)
        with added_at(modules, vectors, shop.places(batch)):
            return target_loss(shop, batch)

    making.loss = search(vectors, loss, shop.stop_at, rate=0.05, steps=STEPS, project=project)
    norms = []
    for module, vector, row in zip(modules, vectors, units, strict=True):
        delta = torch.outer(vector.detach(), row)
        with torch.no_grad():
            module.weight += delta
        making.tensors.append(name_of(making.model, module.weight))
        norms.append(round(float(delta.norm()), 4))
    making.notes["edit_norms"] = norms
