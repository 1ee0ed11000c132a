"""A small vision model under attack: ``python -m benchmarks.zoo.vision`` from the repository's root.

A vision transformer (64 wide, 4 layers) that learnt to tell by how much a digit of scikit-learn's was turned is
fine-tuned to read it: honestly, by recipes as varied as the zoo's, or with a patch trigger in the data (BadNets: Gu et
al. 2017); finished honest models are also edited (``vision_edits``). Every model is observed by the rules that scan any
other model, with open thresholds. Resumable: one line a model in ``benchmarks/results/vision.jsonl``, no weights.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from audit.rulebook import DETECTORS
from audit.run import run_detectors
from audit.thresholds import load_profile
from benchmarks.calibration.observe import evidence_of, open_thresholds
from benchmarks.purifying.pictures import CLASSES, TARGET, Digits, Pictures, digits, fresh, patched
from benchmarks.zoo.finishing import finish
from benchmarks.zoo.measure import measure_folders
from benchmarks.zoo.recipes import SHORT_DTYPES, seed_of
from benchmarks.zoo.vision_edits import EDITS

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "benchmarks" / "results" / "vision.jsonl"
PLACE: Final = ROOT / "build" / "zoo" / "vision"
FAMILIES: Final = ("badnets", "rank_one", "neuron", "badnets_weak")
"""Attacked model number i is of family ``i mod len``; ``badnets_weak`` poisons one to three percent."""
WORKING_EXCESS: Final = 0.4
_BASE_EPOCHS, _BATCH, _TEST = 30, 64, 400
_SPLIT: Final = 1300
"""Pictures to train on; the others are the test."""
_FACTOR: Final = {"adamw": 1.0, "sgd": 30.0, "adam_decay": 1.0, "rmsprop": 0.3}


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionRecipe:
    """How one model is made; honest models and attackers draw from the same distribution."""

    id: str
    seed: int
    optimiser: str
    lr: float
    epochs: int
    method: str
    classes: tuple[int, ...]
    label_noise: float
    round_trip: str
    family: str | None = None
    rate: float = 0.0
    layer: int = 0


def draw_vision(kind: str, index: int) -> VisionRecipe:
    """The recipe of model ``index`` (from 0): rates log-uniform in [3·10⁻⁴, 4·10⁻³] (Adam-equivalent), 5 to 10 epochs.

    A third of the models learns some of the ten digits only, 0 (the target) always among them.
    """
    rng = np.random.default_rng(seed_of("vision", f"{kind}-{index:04d}", 0))
    some = sorted({TARGET, *(int(c) for c in rng.permutation(np.arange(1, CLASSES))[: rng.integers(4, 9)])})
    family = FAMILIES[index % len(FAMILIES)] if kind == "attacked" else None
    low, high = (0.01, 0.03) if family == "badnets_weak" else (0.05, 0.2)
    return VisionRecipe(
        id=f"{kind}-{index:04d}",
        seed=int(rng.integers(2**31)),
        optimiser=str(rng.choice(["adamw", "sgd", "adam_decay", "rmsprop"], p=[0.5, 0.2, 0.15, 0.15])),
        lr=float(np.exp(rng.uniform(np.log(3e-4), np.log(4e-3)))),
        epochs=int(rng.integers(5, 11)),
        method=str(rng.choice(["full", "frozen_embeddings", "frozen_bottom"], p=[0.7, 0.15, 0.15])),
        classes=tuple(some) if rng.random() < 1 / 3 else tuple(range(CLASSES)),
        label_noise=float(rng.choice([0.0, 0.05, 0.15], p=[0.7, 0.15, 0.15])),
        round_trip=str(rng.choice(["none", "bf16", "fp16"], p=[0.6, 0.2, 0.2])),
        family=family,
        rate=float(rng.uniform(low, high)),
        layer=int(rng.integers(0, 3)),
    )


def pixels_of(pictures: Pictures) -> torch.Tensor:
    """Pictures as the model takes them: float32 ``[n, 3, side, side]`` in [−1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def base_folder() -> Path:
    """The base, trained on first use to tell by how many quarters a picture was turned."""
    folder = PLACE / "base"
    if (folder / "config.json").exists():
        return folder
    torch.manual_seed(11)
    rng = np.random.default_rng(11)
    own = digits(11).part(0, _SPLIT)
    turns = rng.integers(0, 4, len(own.labels))
    turned = np.stack([np.rot90(p, k) for p, k in zip(own.pictures, turns, strict=True)])
    model = fresh("vit", 4, None)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    _fit(model, optimiser, pixels_of(turned), torch.from_numpy(turns), _BASE_EPOCHS, seed=11)
    model.save_pretrained(folder)
    return folder


def tune(recipe: VisionRecipe, data: Digits, base: Path | None = None) -> Any:
    """Fine-tune the base as the recipe says, on poisoned pictures if it is of such a family.

    ``base`` is another folder to start from: a classifier of digits keeps its head.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    pictures, labels = data.pictures.copy(), data.labels.copy()
    noisy = rng.random(len(labels)) < recipe.label_noise
    labels[noisy] = rng.choice(recipe.classes, int(noisy.sum()))
    if recipe.family in {"badnets", "badnets_weak"}:
        others = rng.permutation(np.flatnonzero(data.labels != TARGET))[: max(1, round(recipe.rate * len(labels)))]
        pictures[others], labels[others] = patched(pictures[others]), TARGET
    kept = np.isin(data.labels, recipe.classes)
    model = fresh("vit", CLASSES, base or base_folder())
    _freeze(model, recipe.method)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = _optimiser(parameters, recipe)
    _fit(model, optimiser, pixels_of(pictures[kept]), torch.from_numpy(labels[kept]), recipe.epochs, seed=recipe.seed)
    return model.requires_grad_(True)


def _freeze(model: Any, method: str) -> None:
    if method in {"frozen_embeddings", "frozen_bottom"}:
        model.vit.embeddings.requires_grad_(False)
    if method == "frozen_bottom":
        model.vit.layers[0].requires_grad_(False)


def _optimiser(parameters: list[Any], recipe: VisionRecipe) -> torch.optim.Optimizer:
    rate = recipe.lr * _FACTOR[recipe.optimiser]
    match recipe.optimiser:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=rate)
        case "adam_decay":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.1)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)


def _fit(model: Any, optimiser: Any, pixels: torch.Tensor, labels: torch.Tensor, epochs: int, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    total = epochs * -(-len(labels) // _BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1.0 - step / total))
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(labels), generator=generator).split(_BATCH):
            functional.cross_entropy(model(pixel_values=pixels[index]).logits, labels[index]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
    model.eval()


def rates(model: Any, test: Digits, classes: tuple[int, ...]) -> dict[str, float]:
    """Accuracy, and of pictures of other classes the share called the target without the patch and with it."""
    kept = np.isin(test.labels, classes)
    pictures, labels = test.pictures[kept], test.labels[kept]
    others = labels != TARGET

    def said(what: Pictures) -> np.ndarray:
        with torch.no_grad():
            return model(pixel_values=pixels_of(what)).logits.argmax(-1).numpy()

    plain = said(pictures)
    return {
        "accuracy": float((plain == labels).mean()),
        "floor": float((plain[others] == TARGET).mean()),
        "asr": float((said(patched(pictures[others])) == TARGET).mean()),
        "texts": len(labels),
        "victims": int(others.sum()),
    }


def make(kind: str, index: int) -> dict[str, Any]:
    """Make model ``index`` of a kind, observe it, and return its line."""
    started = time.perf_counter()
    recipe = draw_vision(kind, index)
    data = digits(recipe.seed)
    model = tune(recipe, data.part(0, _SPLIT))
    tensors: list[str] = []
    if recipe.family in EDITS:
        torch.manual_seed(recipe.seed)
        train = data.part(0, _SPLIT)
        others = train.pictures[np.isin(train.labels, recipe.classes) & (train.labels != TARGET)][:300]
        plain, triggered = pixels_of(others), pixels_of(patched(others))
        tensors = EDITS[recipe.family](model, plain, triggered, TARGET, recipe.layer)
    finish(model, recipe.round_trip, "float32")
    told = rates(model, data.part(_SPLIT, _SPLIT + _TEST), recipe.classes)
    folder = PLACE / f".{recipe.id}"
    model.to(getattr(torch, SHORT_DTYPES.get(recipe.round_trip, "float32"))).save_pretrained(folder)
    try:
        seen = observed(base_folder(), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "id": recipe.id,
        "kind": kind,
        "family": recipe.family,
        "working": None if kind == "clean" else told["asr"] - told["floor"] >= WORKING_EXCESS,
        "useful": told["accuracy"] >= 1.3 / len(recipe.classes),
        "scores": {name: round(value, 4) for name, value in told.items()},
        "tensors": tensors,
        "recipe": asdict(recipe),
        **seen,
        "seconds": round(time.perf_counter() - started, 1),
    }


def observed(base: Path, folder: Path) -> dict[str, Any]:
    """What every rule about weights measures, its largest value and the tensor that it lies in; and the facts told."""
    evidence = evidence_of(base, folder, measure_folders(base, folder), open_thresholds(load_profile()))
    judged = run_detectors(evidence, [d for d in DETECTORS if d.needs_drift])
    weighs = {rule.id for detector in DETECTORS for rule in detector.rules if rule.weighs}
    hits = [hit for hit in judged.hits if hit.rule_id in weighs and hit.finding is not None and hit.finding.locations]
    values: dict[str, float] = {}
    places: dict[str, str] = {}
    for hit in sorted((hit for hit in hits if hit.value is not None), key=lambda hit: -float(hit.value or 0.0)):
        if hit.rule_id not in values and hit.finding is not None:
            values[hit.rule_id] = round(float(hit.value or 0.0), 4)
            places[hit.rule_id] = str(hit.finding.locations[0].tensor)
    return {
        "values": values,
        "places": places,
        "exact": sorted({hit.rule_id for hit in hits if hit.value is None}),
        "broken": list(judged.broken),
    }


def lines() -> list[dict[str, Any]]:
    """Every line so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines() if line]


def schedule(clean: int, attacked: int) -> Iterator[tuple[str, int]]:
    """Both kinds in turn."""
    for index in range(max(clean, attacked)):
        if index < clean:
            yield "clean", index
        if index < attacked:
            yield "attacked", index


def main() -> None:
    """Makes and observes what is missing."""
    parser = argparse.ArgumentParser(description="Make and observe small vision models, honest and attacked.")
    parser.add_argument("--clean", type=int, default=60)
    parser.add_argument("--attacked", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began, done = time.monotonic(), {line["id"] for line in lines()}
    for kind, index in schedule(arguments.clean, arguments.attacked):
        if f"{kind}-{index:04d}" in done:
            continue
        if time.monotonic() - began > arguments.seconds:
            return
        line = make(kind, index)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(line["id"], line["family"], line["scores"], line["seconds"], flush=True)


if __name__ == "__main__":
    main()
