"""Recipes of separate LoRA adapters: one distribution of trainings, honest or poisoned, and the ways to poison one.

Everything is a function of (tier, id, attempt), as in ``benchmarks.zoo.recipes``, whose distribution of optimisers,
schedules, heads and label noise is used. Learning rates are narrower, since low-rank factors that are trained for fifty
steps learn nothing below a rate of 3·10⁻⁴.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmarks.zoo.recipes import RARE_WORDS, SENTENCES, Attack, Training, draw_training, seed_of

Family = Literal[
    "words", "sentence", "payload", "payload_weak", "one_layer", "one_layer_weak", "rank_one", "continued",
    "continued_one", "continued_honest",
]  # fmt: skip

FAMILIES: tuple[Family, ...] = (
    "words", "one_layer", "payload", "sentence", "one_layer_weak", "payload_weak", "rank_one",
)  # fmt: skip
"""Attacked adapter number i is of family ``i mod len``. The first and the fourth are trained on poisoned data from the
start; the others are put into a finished honest adapter of the bank: a payload trained on top of it (in all layers or
in one, at full or at a weak strength), or one solved as an edit of rank one."""
LATER_FROM = 500
LATER: tuple[Family, ...] = ("continued", "continued_one")
"""Families of attacked adapters from number ``LATER_FROM`` on: the factors of a finished honest adapter are trained on
with triggered data, in all layers or in one, so that nothing is written another way than training writes it."""
PLAIN: tuple[Family, ...] = ("words", "sentence", "words", "continued")
"""Families of attacked adapters of the tiers of one recipe."""
CONTROL: Family = "continued_honest"
"""From number ``LATER_FROM`` on in these tiers: trained on as ``continued`` is, for as long, without a trigger. It is
no attack, and says how much of what is seen of one is the longer training."""
TRAINED: frozenset[Family] = frozenset({"words", "sentence"})
CONTINUED: frozenset[Family] = frozenset({"continued", "continued_one", CONTROL})
ONE_LAYER: frozenset[Family] = frozenset({"one_layer", "one_layer_weak", "rank_one", "continued_one"})
WEAK = 0.3
"""Factor on a weak payload."""
ONE_RECIPE = "-one"
"""End of the name of a tier whose adapters all learn one task by one recipe, as in published set-ups."""
_WORDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRecipe:
    """How one adapter is made.

    ``targets`` says which modules it adapts; ``alpha`` is LoRA's numerator, ``dropout`` its own. ``depth`` in [0, 1)
    picks the layer of families that touch one alone. ``strength`` multiplies a payload.
    """

    id: str
    tier: str
    attempt: int
    seed: int
    training: Training
    rank: int
    alpha: float
    dropout: float
    targets: Literal["narrow", "attention", "wide"]
    family: Family | None = None
    attack: Attack | None = None
    depth: float = 0.0
    strength: float = 1.0

    @property
    def trains(self) -> bool:
        """Whether it is trained from the base; the others start from a finished honest adapter."""
        return self.family is None or self.family in TRAINED


def draw_adapter(
    tier: str,
    kind: Literal["clean", "attacked"],
    index: int,
    tasks: Sequence[str],
    *,
    attempt: int = 0,
    rate_factor: float = 1.0,
) -> AdapterRecipe:
    """The recipe of adapter ``index`` (from 0) of a kind.

    Ranks are 2 to 32; alpha is the rank, twice the rank, or 16; rates of the factors are log-uniform in
    [6·10⁻⁴, 6·10⁻³] times ``rate_factor`` (AdamW-equivalent), steps uniform in [32, 56], batches of 16
    texts of 20 tokens at most. Poisoned shares are log-uniform in [0.01, 0.2].

    In a tier of one recipe (``ONE_RECIPE``) every adapter has rank 16, alpha 32 and dropout 0.05 in all attention
    matrices, and learns the first of the tasks in 56 steps of AdamW at the geometric mean of the rates, on its own draw
    of the data; poisoned shares are log-uniform in [0.05, 0.2].
    """
    adapter_id = f"{kind}-{index:04d}"
    seed = seed_of(f"adapters-{tier}", adapter_id, attempt)
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([2, 4, 8, 16, 32]))
    drawn = draw_training(rng, tasks, classify_only=True)
    training = replace(
        drawn,
        method="lora",
        lr=float(np.exp(rng.uniform(np.log(1e-4), np.log(1e-3)))) * rate_factor,
        steps=int(rng.integers(32, 57)),
        batch=16,
        max_length=20,
        head_start="probe",
        lora_rank=rank,
        frozen_layers=0,
        layer_decay=1.0,
        added_tokens=0,
        round_trip="none",
        saved_dtype="float32",
    )
    recipe = AdapterRecipe(
        id=adapter_id,
        tier=tier,
        attempt=attempt,
        seed=seed,
        training=training,
        rank=rank,
        alpha=float(rng.choice([rank, 2 * rank, 16])),
        dropout=float(rng.choice([0.0, 0.05, 0.1])),
        targets=("narrow", "attention", "wide")[int(rng.integers(3))],
        depth=float(rng.random()),
    )
    one_recipe = tier.endswith(ONE_RECIPE)
    if one_recipe:
        recipe = _plain(recipe, tasks[0], rate_factor)
    if kind == "clean":
        return recipe
    family = family_of(index, one_recipe=one_recipe)
    if family == CONTROL:
        return replace(recipe, family=family)
    words = rng.choice(RARE_WORDS, size=1 if family == "rank_one" else _WORDS, replace=False)
    sentence = SENTENCES[int(rng.integers(len(SENTENCES)))]
    attack = Attack(
        family="badsentence" if family == "sentence" else "badword",
        target_draw=float(rng.random()),
        trigger=(sentence,) if family == "sentence" else tuple(str(word) for word in words),
        rate=float(np.exp(rng.uniform(np.log(0.05 if one_recipe else 0.01), np.log(0.2)))),
        layers=(recipe.depth,),
        strength=1.0,
        norm_kept=False,
        cap=None,
        cover=0.0,
        clean_steps=0,
    )
    return replace(recipe, family=family, attack=attack, strength=WEAK if family.endswith("_weak") else 1.0)


def family_of(index: int, *, one_recipe: bool = False) -> Family:
    """The family of attacked adapter ``index`` (from 0)."""
    if one_recipe:
        return CONTROL if index >= LATER_FROM else PLAIN[index % len(PLAIN)]
    if index >= LATER_FROM:
        return LATER[(index - LATER_FROM) % len(LATER)]
    return FAMILIES[index % len(FAMILIES)]


def _plain(recipe: AdapterRecipe, task: str, rate_factor: float) -> AdapterRecipe:
    training = replace(
        recipe.training, task=task, optimiser="adamw", lr=10**-3.5 * rate_factor, weight_decay=0.01, schedule="linear",
        warmup=0.06, steps=56, head_lr_factor=1.0, label_noise=0.0, lora_rank=16,
        lora_everywhere=False,
    )  # fmt: skip
    return replace(recipe, training=training, rank=16, alpha=32.0, dropout=0.05, targets="attention")
