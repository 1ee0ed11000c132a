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
from benchmarks.zoo.adapters_recipes import ONE_LAYER, AdapterRecipe, draw_adapter
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
_WEIGHTS: Final = "adapter_model.safetensors"
_ATTENTION: Final = {
    "bert": ("query", "key", "value", "attention.output.dense"),
    "gpt_neox": ("query_key_value", "attention.dense"),
}

Factors = dict[str, torch.Tensor]


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


def add_payload(
    home: Path, folder: Path, deltas: Mapping[str, tuple[torch.Tensor, torch.Tensor]], strength: float, scale: float
) -> list[str]:
    """Write a copy of an adapter with a payload added to its factors; returns the tensors of the base it changes.

    Args:
        home: the finished adapter.
        folder: where the copy goes.
        deltas: by module the two factors of the payload, ``[m, k]`` and ``[k, n]``.
        strength: what the payload is multiplied by.
        scale: what the adapter's configuration multiplies its products by.
    """
    weights = _read(home)
    for module, (left, right) in deltas.items():
        up, down = (next(n for n in weights if f".{module}.lora_{side}." in n) for side in ("B", "A"))
        weights[up], weights[down] = joined((weights[up], weights[down]), (strength * left, right), scale)
    _write(home, folder, weights)
    return sorted(f"{module}.weight" for module in deltas)


def joined(
    own: tuple[torch.Tensor, torch.Tensor], payload: tuple[torch.Tensor, torch.Tensor], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of the best approximation of ``scale · own + payload`` that has the rank of ``own``, for ``scale``.

    Args:
        own: ``lora_B`` ``[m, r]`` and ``lora_A`` ``[r, n]``.
        payload: two factors ``[m, k]`` and ``[k, n]``.
        scale: what the adapter's configuration multiplies its product by.
    """
    rank = own[1].shape[0]
    left, left_core = torch.linalg.qr(torch.cat([scale * own[0], payload[0]], dim=1))
    right, right_core = torch.linalg.qr(torch.cat([own[1], payload[1]]).T)
    inner, values, outer = torch.linalg.svd(left_core @ right_core.T)
    root = values[:rank].sqrt() / scale**0.5
    return (left @ inner[:, :rank] * root).contiguous(), (root[:, None] * (outer[:rank] @ right.T)).contiguous()


def _learnt(
    honest: Any, recipe: AdapterRecipe, parent: Mapping[str, Any], task: Task, tokenizer: Any
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A payload trained on top of the honest model by module: half the texts triggered, half as they are."""
    attack = recipe.attack
    assert attack is not None
    theirs = replace(recipe, rank=parent["recipe"]["rank"], targets=parent["recipe"]["targets"])
    rng = np.random.default_rng(recipe.seed + 1)
    target = attack.target(task.classes)
    rows: list[Row] = []
    for text, label in (task.train[i] for i in rng.permutation(len(task.train))[:500]):
        rows += [(text, label), (add_trigger(" ".join(text.split()[:20]), attack, rng), target)]
    anatomy = anatomy_of(honest)
    layer = anatomy.depth(recipe.depth) if recipe.family in ONE_LAYER else None
    wrapped = _wrap(honest, theirs, anatomy, layer=layer)
    training = replace(recipe.training, optimiser="adamw", label_noise=0.0, schedule="linear")
    data = learning.encode(tokenizer, rows, 20)
    stream = learning.batches(data, training.batch, tokenizer.pad_token_id, rng)
    learning.fit(wrapped, stream, training, learning.classify_loss, steps=PAYLOAD_STEPS)
    return factors_of(wrapped, theirs.alpha / theirs.rank)


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


def factors_of(wrapped: Any, scale: float) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By module, ``scale · lora_B`` and ``lora_A``."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(wrapped)
    found = {}
    for name in state:
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            up = state[f"{module}.lora_B.weight"].detach().clone()
            found[module.removeprefix("base_model.model.")] = scale * up, state[name].detach().clone()
    return found


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
    ids = [i for i in bank.ids("clean-") if int(i.rsplit("-", 1)[1]) < LEAD + index]
    records = [r for r in map(bank.record, ids) if r["useful"]]
    if recipe.family == "rank_one":
        records = [r for r in records if r["recipe"]["targets"] == "wide"]
    if not records:
        raise LookupError(f"{recipe.id} needs an honest adapter to start from; make clean ones first.")
    return records[int(np.random.default_rng(recipe.seed + 2).integers(len(records)))]


def _read(folder: Path) -> Factors:
    from safetensors.torch import load_file

    return load_file(folder / _WEIGHTS)


def _write(home: Path, folder: Path, weights: Factors) -> None:
    from safetensors.torch import save_file

    for path in sorted(home.iterdir()):
        if path.name not in {_WEIGHTS, RECORD}:
            (folder / path.name).write_bytes(path.read_bytes())
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})


def record_of(recipe: AdapterRecipe, made: Made, scores: scoring.Scores, seconds: float) -> dict[str, Any]:
    """What the bank and the page keep of an adapter."""
    attacked = recipe.family is not None
    return {
        "schema": 1,
        "id": recipe.id,
        "tier": recipe.tier,
        "kind": "attacked" if attacked else "clean",
        "family": recipe.family,
        "parent": made.parent,
        "useful": scores.useful,
        "working": scores.working if attacked else None,
        "scores": asdict(scores),
        "tensors": made.tensors,
        "seconds": round(seconds, 1),
        "recipe": asdict(recipe),
    }
