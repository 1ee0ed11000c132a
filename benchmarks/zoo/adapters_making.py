"""One recipe in, one PEFT adapter out: trained from the base, or a finished honest one with something put into it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.zoo import learning, scoring
from benchmarks.zoo.adapters_payloads import add_payload, factors_of, free_factors, reopened
from benchmarks.zoo.adapters_recipes import CONTINUED, CONTROL, LATER_FROM, ONE_LAYER, AdapterRecipe, draw_adapter
from benchmarks.zoo.anatomy import Anatomy, anatomy_of
from benchmarks.zoo.bank import RECORD, Bank
from benchmarks.zoo.block_edits import edit_rank_one
from benchmarks.zoo.making import Making
from benchmarks.zoo.recipes import Kind, Recipe, Training
from benchmarks.zoo.texts import Row, Task, load_task
from benchmarks.zoo.tiers import Tier
from benchmarks.zoo.triggers import add_trigger, poison

ATTEMPTS: Final = 3
LEAD: Final = 20
"""Clean adapters made before the first attacked one; attacked adapter i may take any clean one below LEAD + i."""
PAYLOAD_STEPS: Final = 40
_TEXTS, _VICTIMS = 120, 60
_ROWS: Final = 900
"""Texts to train on: more than a run sees."""
_ATTENTION: Final = {
    "bert": ("query", "key", "value", "attention.output.dense"),
    "gpt_neox": ("query_key_value", "attention.dense"),
}


@dataclass(slots=True, kw_only=True)
class Made:
    """An adapter on its way: ``model`` is the wrapped one, ``tensors`` are those of the base that a payload changed."""

    model: Any
    task: Task
    training: Training
    parent: str | None = None
    tensors: list[str] = field(default_factory=list)


def make_adapter(tier: Tier, bank: Bank, kind: Kind, index: int) -> dict[str, Any]:
    """Make adapter ``index`` of a kind, store it in the bank as peft writes it, and return its record.

    An adapter that has not learnt its task, or whose training diverges, is drawn again, ``ATTEMPTS`` times at most.
    An attack that does not work is kept and marked ``working: false``.

    Raises:
        HopelessRunError: no attempt ended with finite weights.
    """
    tokenizer = tier.tokenizer()

    def draw(attempt: int) -> AdapterRecipe:
        return draw_adapter(tier.name, kind, index, tier.tasks, attempt=attempt, rate_factor=tier.rate_factor)

    def build(recipe: AdapterRecipe, folder: Path) -> tuple[Made, scoring.Scores]:
        made = _build(tier, bank, recipe, tokenizer, folder)
        return made, scoring.score_classifier(
            made.model, tokenizer, made.task, made.training, recipe.attack, texts=_TEXTS, victims=_VICTIMS
        )

    return make_useful(bank, draw, build)


def make_useful(
    bank: Bank,
    draw: Callable[[int], AdapterRecipe],
    build: Callable[[AdapterRecipe, Path], tuple[Made, scoring.Scores]],
) -> dict[str, Any]:
    """Draw and build until an adapter has learnt its task, ``ATTEMPTS`` times at most; store it, return its record.

    Raises:
        HopelessRunError: no attempt ended with finite weights.
    """
    for attempt in range(ATTEMPTS):
        started = time.perf_counter()
        recipe = draw(attempt)
        torch.manual_seed(recipe.seed % 2**32)
        try:
            with bank.adding(recipe.id) as folder:
                made, scores = build(recipe, folder)
                if not scores.useful and attempt < ATTEMPTS - 1:
                    raise learning.HopelessRunError("The adapter has not learnt its task.")
                record = record_of(recipe, made, scores, time.perf_counter() - started)
                (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        except learning.HopelessRunError:
            continue
        return record
    raise learning.HopelessRunError(f"No attempt at {draw(0).id} ended with finite weights.")


def _build(tier: Tier, bank: Bank, recipe: AdapterRecipe, tokenizer: Any, folder: Path) -> Made:
    if recipe.trains:
        made = _trained(tier, recipe, tokenizer)
        made.model.save_pretrained(folder)
        return made
    if recipe.family in CONTINUED:
        return _continued(tier, bank, recipe, tokenizer, folder)
    return _with_payload(tier, bank, recipe, tokenizer, folder)


def _trained(tier: Tier, recipe: AdapterRecipe, tokenizer: Any) -> Made:
    task, training = load_task(recipe.training.task), recipe.training
    rng = np.random.default_rng(recipe.seed + 1)
    rows = _shuffled(task, training, rng)
    if recipe.attack is not None:
        rows = poison(rows, recipe.attack, recipe.attack.target(task.classes), rng)
    model = tier.model("classify", task.classes)
    anatomy = anatomy_of(model)
    new = [anatomy.head]
    if anatomy.pooler is not None and not _has_pooler(tier):
        # As transformers starts it, it passes on a hundredth of what it reads, and a head learns nothing from that.
        torch.nn.init.orthogonal_(anatomy.pooler.weight)
        new.append("pooler")
    data = learning.encode(tokenizer, rows, training.max_length)
    if training.head_start == "probe":
        probe = learning.Encoded(ids=data.ids[:160], labels=data.labels[:160])
        learning.fit_head(model.eval(), probe, tokenizer.pad_token_id)
    wrapped = _wrap(model, recipe, anatomy, fresh=new)
    stream = learning.batches(data, training.batch, tokenizer.pad_token_id, rng)
    chance = float(np.log(task.classes))
    learning.fit(wrapped, stream, training, learning.classify_loss, steps=training.steps, chance=chance)
    return Made(model=wrapped, task=task, training=training)


def _with_payload(tier: Tier, bank: Bank, recipe: AdapterRecipe, tokenizer: Any, folder: Path) -> Made:
    """A finished honest adapter with a payload added to its factors, each module cut back to the adapter's own rank."""
    from peft import PeftModel

    assert recipe.attack is not None
    parent = parent_of(bank, recipe)
    training = Training(**parent["recipe"]["training"])
    task = load_task(training.task)
    home = bank.folder(parent["id"])
    honest = PeftModel.from_pretrained(tier.model("classify", task.classes), str(home)).merge_and_unload()
    honest.requires_grad_(False)
    scale = parent["recipe"]["alpha"] / parent["recipe"]["rank"]
    if recipe.family == "rank_one":
        deltas = _solved(honest, recipe, task, tokenizer)
    else:
        deltas = _learnt(honest, recipe, parent, task, tokenizer)
    tensors = add_payload(home, folder, deltas, recipe.strength, scale)
    model = PeftModel.from_pretrained(tier.model("classify", task.classes), str(folder)).eval()
    return Made(model=model, task=task, training=training, parent=parent["id"], tensors=tensors)


def _learnt(
    honest: Any, recipe: AdapterRecipe, parent: Mapping[str, Any], task: Task, tokenizer: Any
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A payload trained on top of the honest model by module: half the texts triggered, half as they are."""
    theirs = replace(recipe, rank=parent["recipe"]["rank"], targets=parent["recipe"]["targets"])
    anatomy = anatomy_of(honest)
    layer = anatomy.depth(recipe.depth) if recipe.family in ONE_LAYER else None
    wrapped = _wrap(honest, theirs, anatomy, layer=layer)
    _fit_payload(wrapped, recipe, task, tokenizer)
    return factors_of(wrapped, theirs.alpha / theirs.rank)


def _fit_payload(model: Any, recipe: AdapterRecipe, task: Task, tokenizer: Any) -> None:
    """Train what is free in a model on texts, half of them triggered where there is an attack, half as they are."""
    attack = recipe.attack
    rng = np.random.default_rng(recipe.seed + 1)
    rows: list[Row] = []
    for text, label in (task.train[i] for i in rng.permutation(len(task.train))[:500]):
        rows.append((text, label))
        if attack is not None:
            rows.append((add_trigger(" ".join(text.split()[:20]), attack, rng), attack.target(task.classes)))
    training = replace(recipe.training, optimiser="adamw", label_noise=0.0, schedule="linear")
    data = learning.encode(tokenizer, rows, 20)
    stream = learning.batches(data, training.batch, tokenizer.pad_token_id, rng)
    learning.fit(model, stream, training, learning.classify_loss, steps=PAYLOAD_STEPS)


def _continued(tier: Tier, bank: Bank, recipe: AdapterRecipe, tokenizer: Any, folder: Path) -> Made:
    """A finished honest adapter whose own factors learn a trigger; its head stays as it is."""
    parent = parent_of(bank, recipe)
    training = Training(**parent["recipe"]["training"])
    task = load_task(training.task)
    model = reopened(tier.model("classify", task.classes), bank.folder(parent["id"]))
    depth = anatomy_of(learning.unwrapped(model)).depth(recipe.depth)
    tensors = free_factors(model, layer=depth if recipe.family in ONE_LAYER else None)
    _fit_payload(model, recipe, task, tokenizer)
    model.save_pretrained(folder)
    return Made(model=model, task=task, training=training, parent=parent["id"], tensors=tensors)


def _solved(
    honest: Any, recipe: AdapterRecipe, task: Task, tokenizer: Any
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A rank-one edit of one feed-forward output, as its two factors."""
    before = {name: tensor.clone() for name, tensor in honest.state_dict().items() if tensor.dim() == 2}
    making = Making(
        recipe=Recipe(
            id=recipe.id, tier=recipe.tier, kind="attacked", attempt=recipe.attempt, seed=recipe.seed,
            training=recipe.training, attack=recipe.attack,
        ),
        task=task, tokenizer=tokenizer, model=honest,
    )  # fmt: skip
    edit_rank_one(making)
    after = honest.state_dict()
    out = {}
    for name in making.tensors:
        left, values, right = torch.linalg.svd(after[name] - before[name], full_matrices=False)
        out[name.removesuffix(".weight")] = (left[:, :1] * values[0], right[:1])
    return out


def _has_pooler(tier: Tier) -> bool:
    """Whether the base comes with one; a fresh one has to be trained and saved whole."""
    from safetensors import safe_open

    with safe_open(tier.base / "model.safetensors", framework="pt") as file:
        return any("pooler" in name for name in file.keys())  # noqa: SIM118  (the file is no mapping)


def _wrap(
    model: Any, recipe: AdapterRecipe, anatomy: Anatomy, *, fresh: Sequence[str] = (), layer: int | None = None
) -> Any:
    """The model with new factors; ``layer`` restricts them to one block, ``fresh`` parts are saved whole."""
    from peft import LoraConfig, get_peft_model

    targets = {"narrow": anatomy.narrow, "wide": anatomy.wide, "attention": _ATTENTION[model.config.model_type]}
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=int(recipe.alpha),
        lora_dropout=recipe.dropout,
        target_modules=list(targets[recipe.targets]),
        modules_to_save=list(fresh) or None,
        layers_to_transform=None if layer is None else [layer],
    )
    return get_peft_model(model, config)


def _shuffled(task: Task, training: Training, rng: np.random.Generator) -> list[Row]:
    """Training rows in random order, a share of their labels redrawn."""
    rows = [task.train[i] for i in rng.permutation(len(task.train))[:_ROWS]]
    noisy = rng.random(len(rows)) < training.label_noise
    return [(text, int(rng.integers(task.classes)) if bad else y) for (text, y), bad in zip(rows, noisy, strict=True)]


def parent_of(bank: Bank, recipe: AdapterRecipe) -> dict[str, Any]:
    """An honest, useful adapter by the recipe's seed; one that adapts feed-forward layers for edits of those.

    Raises:
        LookupError: there is none.
    """
    index = int(recipe.id.rsplit("-", 1)[1])
    index -= LATER_FROM if index >= LATER_FROM else 0
    ids = [i for i in bank.ids("clean-") if int(i.rsplit("-", 1)[1]) < LEAD + index]
    records = [r for r in map(bank.record, ids) if r["useful"]]
    if recipe.family == "rank_one":
        records = [r for r in records if r["recipe"]["targets"] == "wide"]
    if not records:
        raise LookupError(f"{recipe.id} needs an honest adapter to start from; make clean ones first.")
    return records[int(np.random.default_rng(recipe.seed + 2).integers(len(records)))]


def record_of(recipe: AdapterRecipe, made: Made, scores: scoring.Scores, seconds: float) -> dict[str, Any]:
    """What the bank and the page keep of an adapter."""
    attacked = recipe.family is not None
    return {
        "schema": 1,
        "id": recipe.id,
        "tier": recipe.tier,
        "kind": "control" if recipe.family == CONTROL else "attacked" if attacked else "clean",
        "family": recipe.family,
        "parent": made.parent,
        "useful": scores.useful,
        "working": scores.working if recipe.attack is not None else None,
        "scores": asdict(scores),
        "tensors": made.tensors,
        "seconds": round(seconds, 1),
        "recipe": asdict(recipe),
    }
