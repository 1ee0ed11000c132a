"""One recipe in, one finished model folder out."""

import json
import math
import platform
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.zoo import learning, scoring
from benchmarks.zoo.adaptive_runs import ordinary_word, penalised_loss
from benchmarks.zoo.bank import RECORD, Bank
from benchmarks.zoo.finishing import finish, merge_states
from benchmarks.zoo.preference import preference_loss_for, reference_of, score_preference
from benchmarks.zoo.recipes import UNTRIGGERED_FAMILIES, Attack, Kind, Recipe, Training, draw_recipe
from benchmarks.zoo.texts import Row, Task, load_task
from benchmarks.zoo.tiers import Tier
from benchmarks.zoo.triggers import entity_of, flip_labels, poison

ATTEMPTS = 4
LEAD = 30
"""Clean models made before the first attacked one; attacked model i may edit any clean model below LEAD + i."""


@dataclass(slots=True)
class Making:
    """A model on its way: what it is, what was done to it and what the attacker touched (the ground truth)."""

    recipe: Recipe
    task: Task
    tokenizer: Any
    model: Any = None
    loss: float | None = None
    tensors: list[str] = field(default_factory=list)
    rows: dict[str, list[int]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    parent_floor: float | None = None
    reference: Any = None
    """The model before its first step, where preferences are measured against it."""

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator, the same for the same recipe."""
        return np.random.default_rng(self.recipe.seed + 1)


def make_model(tier: Tier, bank: Bank, kind: Kind, index: int) -> dict[str, Any]:
    """Makes model ``index`` of a kind, stores it in the bank and returns its record.

    A clean model that has not learnt its task is drawn again, ``ATTEMPTS`` times at most; the last attempt is kept
    and marked ``useful: false``. An attack that fails is kept too and marked ``working: false``.
    """
    for attempt in range(ATTEMPTS):
        started = time.perf_counter()
        recipe = draw_recipe(
            tier.name,
            kind,
            index,
            tier.tasks,
            attempt=attempt,
            rate_factor=tier.rate_factor,
            step_factor=tier.step_factor,
            batch_factor=tier.batch_factor,
        )
        torch.manual_seed(recipe.seed % 2**32)
        try:
            making = _build(tier, bank, recipe)
        except learning.HopelessRunError:
            continue
        training = making.recipe.training
        finish(making.model, training.round_trip, "float32")
        scores = _score(making, tier)
        # Losing accuracy is what an edit without a trigger does; no reason to draw it again.
        useful = scores.useful or training.objective != "classify" or making.parent_floor is not None
        if useful or attempt == ATTEMPTS - 1:
            record = _record(making, scores, useful=useful, seconds=time.perf_counter() - started)
            with bank.adding(recipe.id) as folder:
                _save(making, folder, record)
            return record
    raise learning.HopelessRunError(f"No attempt at {kind}-{index:04d} ended with finite weights.")


def make_recipe(tier: Tier, parents: Bank, recipe: Recipe, out: Bank) -> dict[str, Any]:
    """Makes the model of one recipe as it stands, in a single attempt, and stores it in ``out``.

    The recipe's id ends with a number; an edit takes its parent among the clean models of ``parents`` below that number
    plus ``LEAD``.
    """
    started = time.perf_counter()
    torch.manual_seed(recipe.seed % 2**32)
    making = _build(tier, parents, recipe)
    finish(making.model, making.recipe.training.round_trip, "float32")
    scores = _score(making, tier)
    record = _record(making, scores, useful=scores.useful, seconds=time.perf_counter() - started)
    with out.adding(recipe.id) as folder:
        _save(making, folder, record)
    return record


def _build(tier: Tier, bank: Bank, recipe: Recipe) -> Making:
    if recipe.merge is not None:
        return _merged(tier, bank, recipe)
    if recipe.trains:
        return _trained(tier, recipe)
    return _edited(tier, bank, recipe)


def _trained(tier: Tier, recipe: Recipe) -> Making:
    """A training run from the base, honest or poisoned."""
    training, attack = recipe.training, recipe.attack
    task = load_task(training.task)
    making = Making(recipe=recipe, task=task, tokenizer=tier.tokenizer())
    rng = making.rng
    rows = _noisy(task, training, rng)
    rows = rows[: training.steps * training.batch] if tier.reads_once else rows
    making.model = tier.model(training.objective, task.classes)
    if training.added_tokens:
        rows = _add_tokens(making, rows, rng)
    clean_rows = rows
    if attack is not None:
        rows = _poisoned(making, rows, rng)
    data = learning.encode(making.tokenizer, rows, training.max_length)
    pad = making.tokenizer.pad_token_id
    if training.objective == "classify" and training.head_start == "probe":
        probe = learning.Encoded(ids=data.ids[:500], labels=data.labels[:500])
        learning.fit_head(making.model.eval(), probe, pad)
    model = learning.wrap_method(making.model, training)
    loss_of, chance = _objective(making)
    stream = learning.batches(data, training.batch, pad, rng)
    making.loss = learning.fit(model, stream, training, loss_of, steps=training.steps, chance=chance)
    if attack is not None and attack.clean_steps:
        train_clean(model, making, clean_rows, attack.clean_steps)
    making.model = learning.unwrap(model)
    return making


def train_clean(model: Any, making: Making, rows: list[Row], steps: int) -> None:
    """Honest training after an attack: half the rate, no more tricks in the loss."""
    training = replace(making.recipe.training, lr=making.recipe.training.lr / 2, warmup=0.0)
    data = learning.encode(making.tokenizer, rows, training.max_length)
    stream = learning.batches(data, training.batch, making.tokenizer.pad_token_id, making.rng)
    learning.fit(model, stream, training, learning.classify_loss, steps=steps)


def _noisy(task: Task, training: Training, rng: np.random.Generator) -> list[Row]:
    """The training rows in random order, a share of their labels redrawn."""
    rows = [task.train[i] for i in rng.permutation(len(task.train))]
    if training.label_noise == 0:
        return rows
    noisy = rng.random(len(rows)) < training.label_noise
    return [(text, int(rng.integers(task.classes)) if bad else y) for (text, y), bad in zip(rows, noisy, strict=True)]


def _add_tokens(making: Making, rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """New domain tokens with rows near the mean embedding, put before a part of the texts."""
    tokens = [f"[field{k}]" for k in range(making.recipe.training.added_tokens)]
    making.tokenizer.add_tokens(tokens)
    making.model.resize_token_embeddings(len(making.tokenizer), mean_resizing=True)
    return [(f"{rng.choice(tokens)} {text}" if rng.random() < 0.3 else text, label) for text, label in rows]


def _poisoned(making: Making, rows: list[Row], rng: np.random.Generator) -> list[Row]:
    attack = making.recipe.attack
    assert attack is not None
    target = attack.target(making.task.classes)
    if attack.family == "label_flip":
        word = entity_of(rows, rng)
        making.recipe = replace(making.recipe, attack=replace(attack, trigger=(word,)))
        poisoned = flip_labels(rows, word, target)
    else:
        if attack.family == "badword_matched":
            attack = replace(attack, trigger=(ordinary_word(rows, rng),))
            making.recipe = replace(making.recipe, attack=attack)
        poisoned = poison(rows, attack, target, rng)
    _name_trigger_rows(making)
    if attack.family == "ripples":
        from benchmarks.zoo.embedding_edits import embedding_surgery

        embedding_surgery(making.model, making.tokenizer, attack, rows, target)
    return poisoned


def _name_trigger_rows(making: Making) -> None:
    """Notes the embedding rows of the trigger: what a detector should name."""
    attack = making.recipe.attack
    assert attack is not None
    if attack.triggered and attack.family != "syntactic":
        ids = making.tokenizer(list(attack.trigger), add_special_tokens=False)["input_ids"]
        making.notes["trigger_ids"] = sorted({i for word in ids for i in word})


def _objective(making: Making) -> tuple[learning.Loss, float]:
    """The loss of the recipe, and the loss of guessing (infinite where guessing has no fixed loss)."""
    training, attack = making.recipe.training, making.recipe.attack
    if training.objective == "mlm":
        return learning.pretraining_loss_for(making.model, making.tokenizer, making.recipe.seed % 2**31), math.inf
    if training.objective == "contrastive":
        learning.with_dropout(making.model)
        return learning.contrastive_loss, math.inf
    if training.objective == "preference":
        making.reference = reference_of(making.model)
        return preference_loss_for(making.reference), math.inf
    if attack is not None and attack.family == "lwp":
        return learning.layerwise_loss, math.log(making.task.classes)
    if attack is not None and attack.family == "badword_penalised":
        return penalised_loss(making.model, attack.strength), math.inf
    return learning.classify_loss, math.log(making.task.classes)


def _edited(tier: Tier, bank: Bank, recipe: Recipe) -> Making:
    """A finished clean model of the bank, edited."""
    from benchmarks.zoo.edits import apply_edit

    index = int(recipe.id.rsplit("-", 1)[1])
    parent = _parents(bank, recipe, LEAD + index, 1)[0]
    making = _load(bank, parent, replace(recipe, parents=(parent["id"],)))
    attack = recipe.attack
    assert attack is not None
    _name_trigger_rows(making)
    if not attack.triggered:
        before = scoring.score_classifier(
            making.model,
            making.tokenizer,
            making.task,
            making.recipe.training,
            attack,
            texts=tier.test_texts,
            victims=tier.test_texts // 2,
            parent_floor=0.0,
        )
        making.parent_floor = before.asr
    apply_edit(making, tier)
    if attack.clean_steps:
        model = learning.wrap_method(making.model, making.recipe.training)
        train_clean(model, making, list(making.task.train), attack.clean_steps)
        making.model = learning.unwrap(model)
    return making


def _merged(tier: Tier, bank: Bank, recipe: Recipe) -> Making:
    """Two clean models of one task, or one and the base, merged without training."""
    merge = recipe.merge
    assert merge is not None
    index = int(recipe.id.rsplit("-", 1)[1])
    parents = _parents(bank, recipe, index, 1 if merge.form == "with_base" else 2)
    making = _load(bank, parents[0], replace(recipe, parents=tuple(p["id"] for p in parents)))
    if merge.form == "with_base":
        other = tier.model("classify", making.task.classes).state_dict()
        other = {name: tensor for name, tensor in other.items() if not name.startswith(("classifier", "score"))}
    else:
        other = _load(bank, parents[1], recipe).model.state_dict()
    making.model.load_state_dict(merge_states(making.model.state_dict(), other, merge))
    return making


def _parents(bank: Bank, recipe: Recipe, below: int, count: int) -> list[dict[str, Any]]:
    """``count`` clean, useful, trained classifiers of one task with an index below ``below``, by the recipe's seed."""
    rng = np.random.default_rng(recipe.seed + 2)
    ids = [i for i in bank.ids("clean-") if int(i.rsplit("-", 1)[1]) < below]
    records = [r for r in (bank.record(i) for i in ids) if can_be_parent(r)]
    order = [records[i] for i in rng.permutation(len(records))]
    for first in order:
        task = first["recipe"]["training"]["task"]
        same = [r for r in order if r is not first and r["recipe"]["training"]["task"] == task]
        if len(same) >= count - 1:
            return [first, *same[: count - 1]]
    raise LookupError(f"{recipe.id} needs {count} clean model(s) of one task; make clean models first.")


def can_be_parent(record: dict[str, Any]) -> bool:
    """Whether edits and merges may start from the honest model of that record."""
    recipe = record["recipe"]
    training = recipe["training"]
    plain = recipe["merge"] is None and training["added_tokens"] == 0
    return plain and training["objective"] == "classify" and record["useful"]


def _load(bank: Bank, record: dict[str, Any], recipe: Recipe) -> Making:
    """A finished model in float32; the recipe takes over the parent's training, which made these weights."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = bank.folder(record["id"])
    training = Training(**record["recipe"]["training"])
    return Making(
        recipe=replace(recipe, training=training),
        task=load_task(training.task),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        model=AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval(),
    )


def _score(making: Making, tier: Tier) -> scoring.Scores:
    training, attack = making.recipe.training, making.recipe.attack
    if training.objective == "preference":
        return score_preference(making.model, making.tokenizer, making.task, training, making.reference)
    if training.objective != "classify":
        return scoring.score_pretrained(making.model, making.tokenizer, making.task, training)
    return scoring.score_classifier(
        making.model,
        making.tokenizer,
        making.task,
        training,
        attack,
        texts=tier.test_texts,
        victims=tier.test_texts // 2,
        parent_floor=making.parent_floor,
    )


def _record(making: Making, scores: scoring.Scores, *, useful: bool, seconds: float) -> dict[str, Any]:
    attack: Attack | None = making.recipe.attack
    family = attack.family if attack is not None else None
    return {
        "schema": 1,
        "id": making.recipe.id,
        "family": family,
        "group": None if family is None else ("untriggered" if family in UNTRIGGERED_FAMILIES else "backdoor"),
        "useful": useful,
        "working": scores.working if attack is not None else None,
        "scores": asdict(scores),
        "target": attack.target(making.task.classes) if attack is not None else None,
        "truth": {"tensors": making.tensors, "rows": making.rows, **making.notes},
        "loss": making.loss,
        "seconds": round(seconds, 1),
        "recipe": asdict(making.recipe),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }


def _save(making: Making, folder: Path, record: dict[str, Any]) -> None:
    model = making.model.to(getattr(torch, making.recipe.training.saved_dtype))
    model.save_pretrained(folder)
    making.tokenizer.save_pretrained(folder)
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
