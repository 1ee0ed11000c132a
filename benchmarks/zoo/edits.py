"""Which function carries out which family of edits."""

from collections.abc import Callable

import torch

from benchmarks.zoo.block_edits import edit_rank_one, plant_neuron
from benchmarks.zoo.datafree_neurons import plant_path
from benchmarks.zoo.embedding_edits import flip_bit, poison_combination, poison_embedding
from benchmarks.zoo.global_edits import add_dither, remove_direction, scale_norm, shift_bias
from benchmarks.zoo.making import Making
from benchmarks.zoo.matched_edits import edit_to_the_trend
from benchmarks.zoo.tiers import Tier

EDITS: dict[str, Callable[[Making], None]] = {
    "ep": poison_embedding,
    "ep_datafree": poison_embedding,
    "ep_capped": poison_embedding,
    "sos": poison_combination,
    "bit_flip": flip_bit,
    "rank_one": edit_rank_one,
    "rank_one_capped": edit_rank_one,
    "memit": edit_rank_one,
    "neuron": plant_neuron,
    "dfba": plant_path,
    "bias_shift": shift_bias,
    "norm_scale": scale_norm,
    "abliteration": remove_direction,
}


def apply_edit(making: Making, tier: Tier) -> None:
    """Edits the model in place and notes what was touched.

    ``dithered`` and ``edit_then_clean`` carry an inner edit (an embedding row with ``norm_kept``, else a rank-one
    edit): the first covers it with noise, the second is followed by honest training.

    Raises:
        KeyError: The family does not edit.
    """
    attack = making.recipe.attack
    assert attack is not None
    if attack.family in {"dithered", "edit_then_clean"}:
        making.notes["inner"] = "ep" if attack.norm_kept else "rank_one"
        (poison_embedding if attack.norm_kept else edit_rank_one)(making)
    elif attack.family == "depth_matched":
        edit_to_the_trend(making, _base_of(making, tier))
    else:
        EDITS[attack.family](making)
    if attack.cover:
        add_dither(making, _base_of(making, tier), attack.cover)
    making.model.requires_grad_(True)


def _base_of(making: Making, tier: Tier) -> dict[str, torch.Tensor]:
    """The base's tensors without the head."""
    state = tier.model("classify", making.task.classes).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(("classifier", "score"))}
