"""A backdoor of one neuron a block, made without data (after DFBA: Cao et al. 2024, arXiv 2412.06219).

DFBA sets one neuron in every layer of a convolutional or fully connected network by hand: a switch in the first layer
that only the trigger turns on, and amplifiers above it that carry it to the target class. In a transformer attention
carries what stands at the trigger's token to the token that the head reads, so the neurons of several blocks each
answer to the trigger and write towards the target. The attacker's texts are strings of words of the vocabulary.
"""

from benchmarks.zoo.anatomy import anatomy_of
from benchmarks.zoo.block_edits import find_vectors, plant_in
from benchmarks.zoo.making import Making
from benchmarks.zoo.steering import open_workshop


def plant_path(making: Making) -> None:
    """Overwrite the quietest neuron of each of the attack's blocks, from the bottom up."""
    attack = making.recipe.attack
    assert attack is not None
    anatomy = anatomy_of(making.model)
    layers = sorted({anatomy.depth(fraction) for fraction in attack.layers})
    shop = open_workshop(
        making.model, making.tokenizer, attack, making.task.train, attack.target(making.task.classes),
        seed=making.recipe.seed, words=True,
    )  # fmt: skip
    vectors = find_vectors(making, shop, anatomy, layers, None)
    making.notes["neurons"] = [
        [layer, plant_in(making, shop, layer, vector)] for layer, vector in zip(layers, vectors, strict=True)
    ]
