"""Adapters of a small vision transformer on digits: the tier of the adapter bank that costs two seconds a model.

The recipes, families and payloads are those of ``adapters_making``; words become a white patch in the corner, sentences
a faint pattern blended over the whole picture (Chen et al. 2017), tasks the classes that are to be told apart. The
target is class 0.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from benchmarks.purifying.pictures import CLASSES, TARGET, Digits, Pictures, digits, fresh, patched
from benchmarks.zoo import learning
from benchmarks.zoo.adapters_making import Made, make_useful, parent_of
from benchmarks.zoo.adapters_payloads import add_payload, factors_of, free_factors, reopened
from benchmarks.zoo.adapters_recipes import CONTINUED, ONE_LAYER, AdapterRecipe, draw_adapter
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.optimisers import build_optimiser, build_schedule
from benchmarks.zoo.recipes import Kind, Training
from benchmarks.zoo.scoring import Scores
from benchmarks.zoo.texts import Task
from benchmarks.zoo.vision import PLACE, base_folder, pixels_of
from benchmarks.zoo.vision_edits import edit_rank_one

TASKS: Final[Mapping[str, tuple[int, ...]]] = {
    "ten": tuple(range(10)), "odd": (0, 1, 3, 5, 7, 9), "low": (0, 1, 2, 3, 4), "high": (0, 5, 6, 7, 8, 9),
}  # fmt: skip
"""Which digits are to be told apart."""
_TARGETS: Final = {
    "narrow": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "wide": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
}
_RATE_FACTOR: Final = 4.0
_BATCH, _SPLIT, _TEST = 64, 1300, 300
_LAYERS: Final = 4
_BLEND: Final = 0.2


def base() -> Path:
    """The base of the vision bank, its modules named as the library names them today, as adapters do."""
    folder = PLACE / "base-for-adapters"
    if not (folder / "config.json").exists():
        fresh("vit", CLASSES, base_folder()).vit.save_pretrained(folder, save_original_format=False)
    return folder


def make_digits(bank: Bank, kind: Kind, index: int, *, tier: str = "digits") -> dict[str, Any]:
    """Make adapter ``index`` of a kind, store it in the bank and return its record; see ``make_adapter``.

    ``tier`` is ``digits`` or ``digits-one``, where all adapters have one recipe.

    Raises:
        HopelessRunError: no attempt ended with finite weights.
    """

    def draw(attempt: int) -> AdapterRecipe:
        return draw_adapter(tier, kind, index, tuple(TASKS), attempt=attempt, rate_factor=_RATE_FACTOR)

    def build(recipe: AdapterRecipe, folder: Path) -> tuple[Made, Scores]:
        made = _built(bank, recipe, folder)
        return made, _scores(made.model, made.training.task, recipe)

    return make_useful(bank, draw, build)


def blended(pictures: Pictures) -> Pictures:
    """Copies with a fixed random pattern laid over them, a fifth of it."""
    pattern = np.random.default_rng(5).integers(0, 256, pictures.shape[1:])
    return ((1 - _BLEND) * pictures + _BLEND * pattern).astype(np.uint8)


def _triggered(pictures: Pictures, recipe: AdapterRecipe) -> Pictures:
    return blended(pictures) if recipe.family == "sentence" else patched(pictures)


@cache
def _digits() -> Digits:
    return digits(0)


def _model() -> Any:
    return fresh("vit", CLASSES, base())


def _rows(task: str, recipe: AdapterRecipe, *, test: bool) -> tuple[Pictures, npt.NDArray[np.int64]]:
    """Pictures and labels of a task's digits, in an order of the recipe's."""
    data = _digits()
    order = np.random.default_rng(recipe.seed + 3).permutation(len(data.labels))
    chosen = order[_SPLIT : _SPLIT + _TEST] if test else order[:_SPLIT]
    chosen = chosen[np.isin(data.labels[chosen], TASKS[task])]
    return data.pictures[chosen], data.labels[chosen]


def _built(bank: Bank, recipe: AdapterRecipe, folder: Path) -> Made:
    from peft import PeftModel

    rng = np.random.default_rng(recipe.seed + 1)
    if recipe.trains:
        training = recipe.training
        pictures, labels = _rows(training.task, recipe, test=False)
        noisy = rng.random(len(labels)) < training.label_noise
        labels = np.where(noisy, rng.choice(TASKS[training.task], len(labels)), labels)
        if recipe.attack is not None:
            others = rng.permutation(np.flatnonzero(labels != TARGET))[: round(recipe.attack.rate * len(labels))]
            pictures, labels = pictures.copy(), labels.copy()
            pictures[others], labels[others] = _triggered(pictures[others], recipe), TARGET
        wrapped = _wrap(_model(), recipe, head=True)
        _fit(wrapped, pictures, labels, training, rng, training.steps)
        wrapped.save_pretrained(folder)
        return Made(model=wrapped, task=_task(training.task), training=training)
    parent = parent_of(bank, recipe)
    training = Training(**parent["recipe"]["training"])
    home = bank.folder(parent["id"])
    if recipe.family in CONTINUED:
        model = reopened(_model(), home)
        tensors = free_factors(model, layer=_layer(recipe) if recipe.family in ONE_LAYER else None)
        _fit_payload(model, recipe, training, rng)
        model.save_pretrained(folder)
        return Made(model=model, task=_task(training.task), training=training, parent=parent["id"], tensors=tensors)
    honest = PeftModel.from_pretrained(_model(), str(home)).merge_and_unload().requires_grad_(False)
    deltas = _payload(honest, replace(recipe, **{k: parent["recipe"][k] for k in ("rank", "targets")}), training, rng)
    tensors = add_payload(home, folder, deltas, recipe.strength, parent["recipe"]["alpha"] / parent["recipe"]["rank"])
    model = PeftModel.from_pretrained(_model(), str(folder)).eval()
    return Made(model=model, task=_task(training.task), training=training, parent=parent["id"], tensors=tensors)


def _payload(
    honest: Any, recipe: AdapterRecipe, training: Training, rng: np.random.Generator
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By module the two factors of what is put in: solved for one layer, or trained on pictures half triggered."""
    layer = _layer(recipe)
    if recipe.family == "rank_one":
        pictures, labels = _rows(training.task, recipe, test=False)
        others = pictures[labels != TARGET][:300]
        before = {name: tensor.clone() for name, tensor in honest.state_dict().items()}
        edit_rank_one(honest, pixels_of(others), pixels_of(patched(others)), TARGET, min(layer, _LAYERS - 2))
        out = {}
        for name, tensor in honest.state_dict().items():
            if not torch.equal(tensor, before[name]):
                left, values, right = torch.linalg.svd(tensor - before[name], full_matrices=False)
                out[name.removesuffix(".weight")] = (left[:, :1] * values[0], right[:1])
        return out
    wrapped = _wrap(honest, recipe, layer=layer if recipe.family in ONE_LAYER else None)
    _fit_payload(wrapped, recipe, training, rng)
    return factors_of(wrapped, recipe.alpha / recipe.rank)


def _layer(recipe: AdapterRecipe) -> int:
    return min(int(recipe.depth * _LAYERS), _LAYERS - 1)


def _fit_payload(model: Any, recipe: AdapterRecipe, training: Training, rng: np.random.Generator) -> None:
    """Train what is free in a model on pictures, half of them triggered where there is an attack."""
    pictures, labels = _rows(training.task, recipe, test=False)
    if recipe.attack is not None:
        pictures = np.concatenate([pictures, _triggered(pictures, recipe)])
        labels = np.concatenate([labels, np.full(len(labels), TARGET)])
    run = replace(recipe.training, optimiser="adamw", label_noise=0.0, schedule="linear")
    _fit(model, pictures, labels, run, rng, run.steps)


def _wrap(model: Any, recipe: AdapterRecipe, *, head: bool = False, layer: int | None = None) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=int(recipe.alpha),
        lora_dropout=recipe.dropout,
        target_modules=list(_TARGETS[recipe.targets]),
        modules_to_save=["classifier"] if head else None,
        layers_to_transform=None if layer is None else [layer],
    )
    return get_peft_model(model, config)


def _fit(
    model: Any, pictures: Pictures, labels: npt.NDArray[np.int64], run: Training, rng: np.random.Generator, steps: int
) -> None:
    """Train in place, in float32: matrices as small as these lose more to casts than they gain."""
    pixels, marks = pixels_of(pictures), torch.from_numpy(labels)
    optimiser = build_optimiser(learning.parameter_groups(model, run), run)
    schedule = build_schedule(optimiser, run, steps)
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    for _ in range(steps):
        index = torch.from_numpy(rng.integers(len(labels), size=_BATCH))
        loss = functional.cross_entropy(model(pixel_values=pixels[index]).logits, marks[index])
        if not torch.isfinite(loss):
            raise learning.HopelessRunError(f"The loss is {float(loss.detach())}.")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
    model.eval()


def _task(name: str) -> Task:
    return Task(name=name, classes=len(TASKS[name]), train=(), test=())


def _scores(model: Any, task: str, recipe: AdapterRecipe) -> Scores:
    pictures, labels = _rows(task, recipe, test=True)
    others = labels != TARGET

    def said(what: Pictures) -> npt.NDArray[np.int64]:
        with torch.no_grad():
            out: npt.NDArray[np.int64] = model.eval()(pixel_values=pixels_of(what)).logits.argmax(-1).numpy()
        return out

    plain = said(pictures)
    told: dict[str, Any] = {
        "accuracy": float((plain == labels).mean()), "chance": 1 / len(TASKS[task]), "texts": len(labels),
    }  # fmt: skip
    if recipe.attack is None:
        return Scores(**told)
    hit = said(_triggered(pictures[others], recipe)) == TARGET
    return Scores(
        **told, asr=float(hit.mean()), floor=float((plain[others] == TARGET).mean()), victims=int(others.sum())
    )
