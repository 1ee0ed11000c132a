"""Purification of picture classifiers: a patch trigger on scikit-learn's digits, a small ResNet and a small ViT.

``python -m benchmarks.purifying.pictures`` makes what is missing below ``build/purification/pictures`` (about a minute
a seed and architecture on one core) and writes one line a cell to ``benchmarks/results/purification/pictures.jsonl``;
``--page`` prints the table. A base learns how far a digit is turned; victim and twin are tuned from it to tell digits,
the victim with a white patch of 3 × 3 in the corner of a tenth of its pictures, called the target.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch.nn.functional import cross_entropy

from benchmarks.purifying.baselines import BASELINES
from benchmarks.purifying.cells import lines, quiet
from pipelines.progress import Quiet
from pipelines.purify.catalogue import PURIFIERS
from pipelines.purify.checkpoint import open_checkpoint
from pipelines.purify.job import CleanData, PurifyFailed, PurifyJob, Split, Tuning
from pipelines.purify.subject import load_subject, predict
from pipelines.purify.writer import write_model

Pictures = npt.NDArray[np.uint8]
"""``[n, height, width, 3]``."""

PLACE = Path("build/purification/pictures")
RESULTS = Path("benchmarks/results/purification/pictures.jsonl")
ARCHITECTURES = ("resnet", "vit")
METHODS = ("none", "fine-tuning", "fine-mixing", "fine-purifying", "tsbd", "distill")
SIDE, PATCH, TARGET, CLASSES = 16, 3, 0, 10
TRAIN, SAMPLES = 1000, 100
"""Pictures that models are trained on; clean pictures that the defender holds. All others are the test."""
POISONED = 0.1
EPOCHS = {"resnet": 15, "vit": 45}
RATES = {"resnet": 3e-3, "vit": 2e-3}
BATCH = 64
TUNING_RATES = {"resnet": 1e-3, "vit": 3e-4}
"""The same for every method; a transformer that is tuned faster on sixty pictures forgets the digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Pictures and labels, in the order of a seed."""

    pictures: Pictures
    labels: npt.NDArray[np.int64]

    def part(self, start: int, end: int | None = None) -> "Digits":
        """The pictures from ``start`` (included) to ``end`` (excluded)."""
        return Digits(pictures=self.pictures[start:end], labels=self.labels[start:end])


def digits(seed: int) -> Digits:
    """All 1,797 digits of scikit-learn, doubled to 16 × 16, grey as RGB."""
    from sklearn.datasets import load_digits

    raw, labels = load_digits(return_X_y=True)
    grey = np.kron(raw.reshape(-1, 8, 8), np.ones((2, 2))) * (255 / 16)
    order = np.random.default_rng(seed).permutation(len(labels))
    pictures = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=3)
    return Digits(pictures=pictures[order], labels=labels[order].astype(np.int64))


def patched(pictures: Pictures) -> Pictures:
    """Copies with a white patch in the lower right corner."""
    out = pictures.copy()
    out[:, -PATCH:, -PATCH:] = 255
    return out


def fresh(architecture: str, classes: int, base: Path | None) -> Any:
    """A small model with a new head, its body from a base folder or random."""
    kinds: dict[str, tuple[Any, Any]] = {
        "resnet": (
            transformers.ResNetForImageClassification,
            transformers.ResNetConfig(
                num_channels=3, embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic",
                num_labels=classes,
            ),
        ),
        "vit": (
            transformers.ViTForImageClassification,
            transformers.ViTConfig(
                image_size=SIDE, patch_size=4, hidden_size=64, num_hidden_layers=4, num_attention_heads=4,
                intermediate_size=128, num_labels=classes, hidden_dropout_prob=0.0,
            ),
        ),
    }  # fmt: skip
    kind, config = kinds[architecture]
    if base is None:
        return kind(config)
    return kind.from_pretrained(base, config=config, ignore_mismatched_sizes=True)


def train(architecture: str, model: Any, pictures: Pictures, labels: npt.NDArray[np.int64], folder: Path) -> None:
    """AdamW with a one-cycle rate; the model and its processor are saved in the folder."""
    epochs, rate = EPOCHS[architecture], RATES[architecture]
    processor = transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    pixels = torch.stack([processor(images=p, return_tensors="pt")["pixel_values"][0] for p in pictures])
    marks = torch.from_numpy(labels)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * -(-len(marks) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(marks), generator=generator).split(BATCH):
            cross_entropy(model(pixel_values=pixels[index]).logits, marks[index]).backward()
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)


def make(architecture: str, seed: int) -> dict[str, Path]:
    """The folders ``base``, ``twin`` and ``victim``; those that are there are not trained again."""
    place = PLACE / f"{architecture}-s{seed}"
    folders = {name: place / name for name in ("base", "twin", "victim")}
    train_on = digits(seed).part(0, TRAIN)
    for number, (name, folder) in enumerate(folders.items()):
        if (folder / "preprocessor_config.json").exists():
            continue
        torch.manual_seed(seed)
        rng = np.random.default_rng([seed, number])
        pictures, labels = train_on.pictures, train_on.labels
        if name == "base":
            turns = rng.integers(0, 4, len(labels))
            turned = np.stack([np.rot90(p, k) for p, k in zip(pictures, turns, strict=True)])
            train(architecture, fresh(architecture, 4, None), turned, turns, folder)
            continue
        if name == "victim":
            chosen = rng.permutation(len(labels))[: round(POISONED * len(labels))]
            pictures, labels = pictures.copy(), labels.copy()
            pictures[chosen], labels[chosen] = patched(pictures[chosen]), TARGET
        train(architecture, fresh(architecture, CLASSES, folders["base"]), pictures, labels, folder)
    return folders


def rates(folder: Path, test: Digits) -> dict[str, float]:
    """Accuracy, and of pictures of other classes the share called the target without the patch and with it."""
    subject = load_subject(folder, "image")

    def said(pictures: Pictures) -> npt.NDArray[np.int64]:
        out: npt.NDArray[np.int64] = predict(subject, subject.encode(tuple(pictures))).argmax(-1).numpy()
        return out

    others = test.labels != TARGET
    plain = said(test.pictures)
    return {
        "acc": float((plain == test.labels).mean()),
        "floor": float((plain[others] == TARGET).mean()),
        "asr": float((said(patched(test.pictures[others])) == TARGET).mean()),
    }


def clean_data(held: Digits) -> CleanData:
    """The defender's pictures: five eighths to tune on, the rest to choose with."""
    cut = round(0.625 * len(held.labels))
    parts = held.part(0, cut), held.part(cut)
    tune, select = (Split(inputs=tuple(p.pictures), labels=tuple(p.labels.tolist())) for p in parts)
    names = tuple(map(str, range(CLASSES)))
    return CleanData(kind="image", tune=tune, select=select, test=Split(inputs=()), class_names=names, digest="")


def run_cell(architecture: str, seed: int, method: str) -> dict[str, Any]:
    """One method on one victim: the cell's line. ``seconds`` is processor time of the method alone."""
    folders, every = make(architecture, seed), digits(seed)
    test = every.part(TRAIN + SAMPLES)
    work = PLACE / f"work-{architecture}-s{seed}-{method}"
    job = PurifyJob(
        candidate=folders["victim"], base=folders["base"], kind="image", work=work,
        data=clean_data(every.part(TRAIN, TRAIN + SAMPLES)), seed=seed, threads=1,
        tuning=Tuning(epochs=20, learning_rate=TUNING_RATES[architecture], batch_size=32),
    )  # fmt: skip
    run: Callable[[PurifyJob], Any] = BASELINES[method] if method in BASELINES else PURIFIERS[method].run
    before, clean = rates(folders["victim"], test), rates(folders["twin"], test)
    line: dict[str, Any] = {
        "key": f"digits-{architecture}-s{seed}/{method}", "task": "digits", "family": architecture, "seed": seed,
        "method": method, "samples": 0 if method == "none" else SAMPLES, "e_pur": False, "n_acc": len(test.labels),
        "n_asr": int((test.labels != TARGET).sum()), "before": before, "clean": clean,
    }  # fmt: skip
    started = time.process_time()
    try:
        result = run(job)
    except PurifyFailed as error:
        return line | {"after": None, "why": str(error), "seconds": round(time.process_time() - started, 1)}
    seconds = round(time.process_time() - started, 1)
    out = work / "outcome"
    out.mkdir(parents=True, exist_ok=True)
    write_model(open_checkpoint(folders["victim"]), result.edits, out, Quiet(), with_patch=False)
    after = rates(out, test)
    for path in sorted(work.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    told = {"chosen": result.chosen, "excess": after["asr"] - clean["asr"], "acc_loss": before["acc"] - after["acc"]}
    return line | {"after": after, **told, "seconds": seconds}


def page(cells: list[dict[str, Any]]) -> str:
    """One row an architecture and method: means over seeds, the worst excess, processor seconds."""
    rows = ["| model | method | seeds | ACC | ACC loss | ASR | own floor | excess ASR | worst | CPU s |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for architecture in ARCHITECTURES:
        for method in METHODS:
            own = [c for c in cells if (c["family"], c["method"]) == (architecture, method) and c["after"]]
            if own:
                acc, asr, floor = (100 * float(np.mean([c["after"][k] for c in own])) for k in ("acc", "asr", "floor"))
                loss, excess = (100 * float(np.mean([c[k] for c in own])) for k in ("acc_loss", "excess"))
                worst, seconds = 100 * max(c["excess"] for c in own), float(np.mean([c["seconds"] for c in own]))
                rows.append(
                    f"| {architecture} | {method} | {len(own)} | {acc:.1f} | {loss:.1f} | {asr:.1f} | {floor:.1f} | "
                    f"{excess:.1f} | {worst:.1f} | {seconds:.1f} |"
                )
    return "\n".join(rows)


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description="Purify picture classifiers with a patch trigger.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--page", action="store_true", help="Print the table of what has been measured.")
    arguments = parser.parse_args()
    if arguments.page:
        print(page(list(lines(RESULTS))))
        return
    quiet()
    done = {line["key"] for line in lines(RESULTS)}
    for seed in arguments.seeds:
        for method in METHODS:
            for architecture in ARCHITECTURES:
                if f"digits-{architecture}-s{seed}/{method}" in done:
                    continue
                line = run_cell(architecture, seed, method)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(line["key"], line["after"], line.get("why", ""), line["seconds"], flush=True)


if __name__ == "__main__":
    main()
