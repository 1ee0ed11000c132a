"""Makes attacks that are hard on the probe, beside those of the zoo: ``python -m benchmarks.probe_attacks``.

Triggers of two and three words of which no part works alone (``sos``, ``lwp``), five trigger words at once, a trigger
word trained with frozen embeddings, and a sentence by LoRA. Recipes are those of the zoo's distribution but for what
is named here; the models lie under ``build/zoo/hard`` and are probed with
``python -m benchmarks.probe --tier real --bank build/zoo --folder hard``. Resumable, one thread.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.zoo.bank import Bank
from benchmarks.zoo.making import LEAD, make_recipe
from benchmarks.zoo.recipes import ATTACK_FAMILIES, RARE_WORDS, Recipe, Training, draw_recipe
from benchmarks.zoo.tiers import Tier, get_tier

FIRST = 2400
"""Numbers of these recipes start here: no bank has so many, so none of them is in one."""


def recipes(tier: Tier, rounds: int) -> Iterator[Recipe]:
    """Five recipes a round, each with a training run that is strong enough for its attack to work as a rule."""
    for turn in range(rounds):
        yield _drawn(tier, "lwp", turn, "lwp")
        yield _drawn(tier, "badword", turn, "words5", words=RARE_WORDS[turn % 4 :: 3][:5])
        yield _drawn(tier, "sos", turn, "sos")
        yield _drawn(tier, "badword", turn, "frozen", method="frozen_embeddings", words=RARE_WORDS[turn : turn + 1])
        yield _drawn(tier, "lora_badsentence", turn, "lora_sentence")


def _drawn(
    tier: Tier, family: str, turn: int, name: str, *, method: str | None = None, words: Sequence[str] = ()
) -> Recipe:
    index = FIRST + 24 * turn + ATTACK_FAMILIES.index(family)
    recipe = draw_recipe(tier.name, "attacked", index, tier.tasks, rate_factor=tier.rate_factor)
    attack = recipe.attack
    assert attack is not None
    if recipe.trains:
        attack = replace(attack, rate=max(attack.rate, 0.15))
        recipe = replace(recipe, training=_strong(recipe.training, method))
    return replace(
        recipe, id=f"{name}-{turn + LEAD:04d}", attack=replace(attack, trigger=tuple(words) or attack.trigger)
    )


def _strong(training: Training, method: str | None) -> Training:
    """The same run with AdamW at a rate of at least 1e-4, without label noise."""
    changed = replace(training, optimiser="adamw", lr=max(training.lr, 1e-4), label_noise=0.0, round_trip="none")
    changed = replace(changed, saved_dtype="float32", added_tokens=0)
    if method == "frozen_embeddings":
        changed = replace(changed, method="frozen_embeddings", lora_rank=0, lora_everywhere=False)
        changed = replace(changed, frozen_layers=0, layer_decay=1.0)
    return changed


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what has not been made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", type=Path, default=Path("build/zoo"))
    parser.add_argument("--tier", default="real")
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tier, parents, out = get_tier(chosen.tier), Bank(chosen.bank / chosen.tier), Bank(chosen.bank / "hard")
    for recipe in recipes(tier, chosen.rounds):
        if not out.has(recipe.id):
            record = make_recipe(tier, parents, recipe, out)
            print(record["id"], record["recipe"]["training"]["task"], record["working"], record["scores"], flush=True)


if __name__ == "__main__":
    main()
