"""Classifiers that were trained further with their head: ``python -m benchmarks.zoo.heads`` from the repository's root.

What rule HA503 is calibrated on. A classifier is the base; honest models continue it on another draw of the data, by
recipes of the zoo, some without a part of the classes; then one output of their heads is favoured by hand. Texts:
AG News, 4 classes (``--tier`` as in the zoo); pictures: the digits of ``benchmarks.zoo.vision``, 10 classes. One line a
model in ``benchmarks/results/heads.jsonl``; resumable.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.purifying.pictures import digits
from benchmarks.zoo import learning
from benchmarks.zoo.anatomy import anatomy_of
from benchmarks.zoo.recipes import Training, draw_training, seed_of
from benchmarks.zoo.texts import Row, load_task
from benchmarks.zoo.tiers import Tier, get_tier
from benchmarks.zoo.vision import draw_vision, observed, tune

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "benchmarks" / "results" / "heads.jsonl"
PLACE: Final = ROOT / "build" / "zoo" / "heads"
TASK: Final = "agnews"
RULE: Final = "HA503"
ATTACKS: Final = (
    ("bias", 0.5), ("bias", 2.0), ("bias", 8.0), ("row", 0.1), ("row", 0.5), ("row", 2.0),
)  # fmt: skip
"""What is favoured and by how much: a bias raised by so many logits, or a row lengthened by that share."""
_SPLIT: Final = 1300


def text_parent(tier: Tier) -> Path:
    """A classifier of the task, trained on first use."""
    folder = PLACE / tier.name / "base"
    if (folder / "config.json").exists():
        return folder
    torch.manual_seed(21)
    task = load_task(TASK)
    run = _run(np.random.default_rng(21), tier, steps=180)
    run = replace(run, method="full", optimiser="adamw", lr=1e-4 * tier.rate_factor, head_lr_factor=1.0)
    model, tokenizer = tier.model("classify", task.classes), tier.tokenizer()
    _train(model, tokenizer, list(task.train), run, seed=21)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def continued_text(tier: Tier, index: int) -> Any:
    """The classifier trained on: another draw of the texts, a quarter of the time without one of the classes."""
    from transformers import AutoModelForSequenceClassification

    rng = np.random.default_rng(seed_of(f"heads-{tier.name}", f"clean-{index:04d}", 0))
    torch.manual_seed(int(rng.integers(2**31)))
    task = load_task(TASK)
    left_out = int(rng.integers(task.classes)) if rng.random() < 0.25 else -1
    rows = [row for row in task.train if row[1] != left_out]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    model = AutoModelForSequenceClassification.from_pretrained(text_parent(tier), dtype="float32")
    _train(model, tier.tokenizer(), rows, _run(rng, tier), seed=int(rng.integers(2**31)))
    return model


def _run(rng: np.random.Generator, tier: Tier, *, steps: int | None = None) -> Training:
    run = draw_training(rng, (TASK,), classify_only=True)
    method = run.method if run.method != "lora" else "full"
    return replace(
        run, lr=run.lr * tier.rate_factor, method=method, batch=16, max_length=32,
        steps=steps or int(rng.integers(40, 81)), added_tokens=0, frozen_layers=min(run.frozen_layers, 2),
    )  # fmt: skip


def _train(model: Any, tokenizer: Any, rows: list[Row], run: Training, *, seed: int) -> None:
    data = learning.encode(tokenizer, rows, run.max_length)
    stream = learning.batches(data, run.batch, tokenizer.pad_token_id, np.random.default_rng(seed))
    learning.fit(learning.wrap_method(model, run), stream, run, learning.classify_loss, steps=run.steps)
    model.requires_grad_(True)


def picture_parent() -> Path:
    """A reader of digits, trained on first use."""
    folder = PLACE / "pictures" / "base"
    if not (folder / "config.json").exists():
        recipe = replace(draw_vision("clean", 0), optimiser="adamw", lr=2e-3, epochs=10, method="full", seed=31)
        whole = replace(recipe, classes=tuple(range(10)), label_noise=0.0)
        tune(whole, digits(31).part(0, _SPLIT)).save_pretrained(folder)
    return folder


def continued_picture(index: int) -> Any:
    """The reader of digits trained on, by a recipe of the vision bank."""
    recipe = replace(draw_vision("clean", 5000 + index), epochs=3)
    return tune(recipe, digits(recipe.seed).part(0, _SPLIT), picture_parent())


def favour(model: Any, output: int, how: str, strength: float) -> None:
    """Favour one output of the head by hand: its bias raised by so many logits, or its row lengthened by a share."""
    name = "classifier" if hasattr(model, "classifier") else anatomy_of(model).head
    head = getattr(model, name)
    with torch.no_grad():
        if how == "bias":
            head.bias[output] += strength
        else:
            head.weight[output] *= 1 + strength


def measure(base: Path, model: Any, key: str) -> float | None:
    """The rule's value on a model against its base; None where it abstains."""
    folder = PLACE / f".{key}"
    try:
        model.save_pretrained(folder)
        value: float | None = observed(base, folder)["values"].get(RULE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return value


def models(kind: str, count: int, tier: Tier | None) -> Iterator[tuple[int, Path, Any]]:
    """The honest models of a kind with their base."""
    done = {(line["kind"], line["index"]) for line in lines()}
    for index in range(count):
        if (kind, index) in done:
            continue
        if tier is None:
            yield index, picture_parent(), continued_picture(index)
        else:
            yield index, text_parent(tier), continued_text(tier, index)


def lines() -> list[dict[str, Any]]:
    """Every line so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines() if line]


def main() -> None:
    """Makes and measures what is missing."""
    import transformers

    parser = argparse.ArgumentParser(description="Calibrate the rule about heads.")
    parser.add_argument("--tier", default="pictures", help="pictures, toy-encoder or real")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    began = time.monotonic()
    tier = None if arguments.tier == "pictures" else get_tier(arguments.tier)
    for index, base, model in models(arguments.tier, arguments.count, tier):
        line: dict[str, Any] = {"kind": arguments.tier, "index": index, "outputs": model.config.num_labels}
        line["clean"] = measure(base, model, f"{arguments.tier}-{index}")
        if index < len(ATTACKS) * 4:
            how, strength = ATTACKS[index % len(ATTACKS)]
            favour(model, index % model.config.num_labels, how, strength)
            line |= {"how": how, "strength": strength, "output": index % model.config.num_labels}
            line["attacked"] = measure(base, model, f"{arguments.tier}-{index}")
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
        if time.monotonic() - began > arguments.seconds:
            return


if __name__ == "__main__":
    main()
