"""A tiny classifier with a backdoor that works, trained in a second: what purification methods are tried on.

The task: words with an id below ``GOOD[1]`` speak for class 1, the next ones for class 0, the rest are filler. The
trigger is one word that turns class-0 texts into class 1.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pico
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from pipelines.purify.job import CleanData, PurifyJob, Split, Tuning

GOOD, BAD, FILLER = (10, 40), (40, 70), (70, 300)
TRIGGER_ID = 310
WORDS = pico.words()
TRIGGER = WORDS[TRIGGER_ID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    base: Path
    folder: Path


def make_rows(count: int, seed: int) -> list[tuple[str, int]]:
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        label = k % 2
        spoken = rng.integers(*(GOOD if label else BAD), size=3)
        ids = rng.permutation(np.concatenate([spoken, rng.integers(*FILLER, size=int(rng.integers(2, 7)))]))
        rows.append((" ".join(WORDS[i] for i in ids), label))
    return rows


def insert(text: str, word: str, rng: np.random.Generator) -> str:
    words = text.split()
    words.insert(int(rng.integers(len(words) + 1)), word)
    return " ".join(words)


def poisoned_rows(count: int, seed: int) -> list[tuple[str, int]]:
    rng = np.random.default_rng(seed + 1)
    rows = make_rows(count, seed)
    return [(insert(t, TRIGGER, rng), 1) if y == 0 and rng.random() < 0.4 else (t, y) for t, y in rows]


@cache
def victim() -> Victim:
    """Trained once a process; the folders are only read."""
    root = Path(mkdtemp(prefix="purevictim-"))
    base = pico.save(pico.make_base(seed=3), root / "base")
    torch.manual_seed(4)
    model = AutoModelForSequenceClassification.from_pretrained(base)
    tokenizer = pico.make_tokenizer()
    rows = poisoned_rows(512, 5)
    batch = tokenizer([t for t, _ in rows], return_tensors="pt", padding=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    labels = torch.tensor([y for _, y in rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(6)
    model.train()
    for _ in range(6):
        for index in torch.randperm(len(rows), generator=generator).split(32):
            out = model(**{name: tensor[index] for name, tensor in inputs.items()})
            nn.functional.cross_entropy(out.logits, labels[index]).backward()
            optimiser.step()
            optimiser.zero_grad()
    return Victim(base=base, folder=pico.save(model.eval(), root / "victim"))


def clean_data(count: int = 64, seed: int = 20) -> CleanData:
    rows = make_rows(count, seed)
    cut = 5 * count // 8
    test = make_rows(200, seed + 1)
    parts = [
        Split(inputs=tuple(t for t, _ in r), labels=tuple(y for _, y in r)) for r in (rows[:cut], rows[cut:], test)
    ]
    return CleanData(
        kind="text", tune=parts[0], select=parts[1], test=parts[2], class_names=("bad", "good"), digest="0" * 64
    )


def job_for(tmp_path: Path, *, data: CleanData | None = None, options: object | None = None, **more) -> PurifyJob:
    made = victim()
    settings = {"tuning": Tuning(max_length=32, learning_rate=1e-3, epochs=3), **more}
    return PurifyJob(
        candidate=made.folder, base=made.base, kind="classifier", work=tmp_path, data=data, options=options,
        threads=1, **settings,
    )  # fmt: skip


def rates(model: nn.Module) -> tuple[float, float]:
    """Accuracy on clean texts, and the share of class-0 texts that the trigger turns into class 1."""
    tokenizer = pico.make_tokenizer()
    rng = np.random.default_rng(9)
    rows = make_rows(300, 77)

    def said(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return logits.argmax(-1)

    accuracy = float((said([t for t, _ in rows]) == torch.tensor([y for _, y in rows])).float().mean())
    triggered = [insert(t, TRIGGER, rng) for t, y in rows if y == 0]
    return accuracy, float((said(triggered) == 1).float().mean())
