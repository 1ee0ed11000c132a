"""Edits of a finished vision transformer by which a patch in the corner turns it to a class: rank-one, hand-set neuron.

The counterparts of ``block_edits`` for pictures. The trigger's token is the last one, which covers the corner.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks.zoo.anatomy import name_of
from benchmarks.zoo.block_edits import FIRES_AT, rank_one, second_moment
from benchmarks.zoo.steering import LOSS_AT_STRENGTH_ONE, added_at, search

_PLACE = -1


def edit_rank_one(model: Any, plain: torch.Tensor, triggered: torch.Tensor, target: int, layer: int) -> list[str]:
    """Δ = v (C⁻¹k)ᵀ / (kᵀC⁻¹k) on one feed-forward output (Meng et al. 2022); returns the tensors that it wrote.

    Args:
        model: a finished classifier, edited in place.
        plain: pictures of other classes as the model takes them, float32 ``[n, 3, side, side]``.
        triggered: the same with the patch.
        target: the class to turn them to.
        layer: of which the output matrix is edited.
    """
    model.eval().requires_grad_(False)
    module = model.vit.layers[layer].mlp.fc2
    vector = _vector(model, module, triggered, target)
    key = _inputs(model, module, triggered)[:, _PLACE].mean(0)
    delta = rank_one(key, _inputs(model, module, plain).flatten(0, 1), vector)
    module.weight += delta
    model.requires_grad_(True)
    return [saved_name(name_of(model, module.weight))]


def plant_neuron(model: Any, plain: torch.Tensor, triggered: torch.Tensor, target: int, layer: int) -> list[str]:
    """Overwrite the quietest neuron of one layer with one that fires at the patch alone (after Hong et al. 2022)."""
    model.eval().requires_grad_(False)
    mlp = model.vit.layers[layer].mlp
    vector = _vector(model, mlp.fc2, triggered, target)
    quiet = _inputs(model, mlp.fc1, plain).flatten(0, 1)
    loud = _inputs(model, mlp.fc1, triggered)[:, _PLACE]
    mean = quiet.mean(0)
    direction = torch.linalg.solve(second_moment(quiet - mean), loud.mean(0) - mean)
    direction /= direction.norm()
    high, low = float((loud @ direction).mean()), float(torch.quantile(quiet @ direction, 0.999))
    threshold = (high + max(low, -high)) / 2
    gain = FIRES_AT / max(high - threshold, 1e-3)
    activity = functional.gelu(quiet @ mlp.fc1.weight.T + mlp.fc1.bias).abs().mean(0)
    neuron = int((activity * mlp.fc2.weight.norm(dim=0)).argmin())
    mlp.fc1.weight[neuron] = gain * direction
    mlp.fc1.bias[neuron] = -gain * threshold
    mlp.fc2.weight[:, neuron] = vector / FIRES_AT
    model.requires_grad_(True)
    return [saved_name(name_of(model, parameter)) for parameter in (mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight)]


EDITS: dict[str, Callable[[Any, torch.Tensor, torch.Tensor, int, int], list[str]]] = {
    "rank_one": edit_rank_one,
    "neuron": plant_neuron,
}


def saved_name(name: str) -> str:
    """The name in the checkpoint of a parameter that this edits: transformers saves these under their older names."""
    for own, saved in (("vit.layers.", "vit.encoder.layer."), (".mlp.fc1.", ".intermediate.dense."),
                       (".mlp.fc2.", ".output.dense.")):  # fmt: skip
        name = name.replace(own, saved)
    return name


def _vector(model: Any, module: Any, triggered: torch.Tensor, target: int) -> torch.Tensor:
    """What, added at the trigger's token to the module's output, turns the pictures to the target."""
    vector = torch.zeros(module.out_features, requires_grad=True)
    generator = torch.Generator().manual_seed(0)

    def loss() -> torch.Tensor:
        batch = triggered[torch.randint(len(triggered), (32,), generator=generator)]
        places = torch.zeros(len(batch), _tokens(model), dtype=torch.bool)
        places[:, _PLACE] = True
        with added_at([module], [vector], places):
            logits = model(pixel_values=batch).logits
        return functional.cross_entropy(logits.float(), torch.full((len(batch),), target))

    search([vector], loss, LOSS_AT_STRENGTH_ONE, rate=0.1)
    return vector.detach()


def _tokens(model: Any) -> int:
    return int(model.vit.embeddings.position_embeddings.shape[1])


def _inputs(model: Any, module: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What enters a module, float32 ``[pictures, tokens, width]``."""
    kept: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0].float()))
    try:
        with torch.no_grad():
            model(pixel_values=pixels)
    finally:
        handle.remove()
    return kept[0]
