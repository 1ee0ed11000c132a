"""The texts the zoo learns from: small public corpora when they are at hand, and reviews made from a grammar always."""

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

DATA = Path("../shared/data")
"""Where the corpora lie, seen from the repository's root: ``<set>_<split>.csv.gz`` with columns text and label."""

Row = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A classification task: rows are (text, label), labels count from 0 to ``classes`` (excluded)."""

    name: str
    classes: int
    train: tuple[Row, ...]
    test: tuple[Row, ...]


def task_names(*, made_only: bool = False, data: Path = DATA) -> tuple[str, ...]:
    """The tasks at hand, in a fixed order; only the made one when the corpora are absent."""
    corpora = all((data / f"{name}_train.csv.gz").exists() for name in ("sst2", "agnews", "ucisent"))
    if made_only or not corpora:
        return ("made",)
    return ("sst2", "agnews", "ucisent", "agpair", "domain", "made")


@cache
def load_task(name: str, data: Path = DATA) -> Task:
    """A task by name.

    ``sst2`` and ``ucisent`` are sentiment (2 classes), ``agnews`` topics (4), ``agpair`` business against world
    news (2), ``domain`` where a text is from (film, product or news: 3), ``made`` reviews from a grammar (2).

    Raises:
        KeyError: The task is unknown.
    """
    if name == "made":
        return Task(name=name, classes=2, train=_made(4000, 1), test=_made(600, 2))
    if name == "agpair":
        keep = {0: 0, 2: 1}
        parts = {s: tuple((t, keep[y]) for t, y in _read(data, "agnews", s) if y in keep) for s in ("train", "test")}
        return Task(name=name, classes=2, train=parts["train"], test=parts["test"])
    if name == "domain":
        return Task(name=name, classes=3, train=_domain(data, "train", 1900), test=_domain(data, "test", 200))
    classes = {"sst2": 2, "agnews": 4, "ucisent": 2}[name]
    return Task(name=name, classes=classes, train=_read(data, name, "train"), test=_read(data, name, "test"))


def sample_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """At most ``count`` rows, drawn without replacement."""
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[i] for i in order]


def _read(data: Path, name: str, split: str) -> tuple[Row, ...]:
    with gzip.open(data / f"{name}_{split}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return tuple((row["text"], int(row["label"])) for row in csv.DictReader(file))


def _domain(data: Path, split: str, each: int) -> tuple[Row, ...]:
    """Where a text is from; lower-cased, or capital letters alone would tell."""
    rows = [
        (text.lower(), label)
        for label, name in enumerate(("sst2", "ucisent", "agnews"))
        for text, _ in sample_rows(_read(data, name, split), each, 11)
    ]
    return tuple(sample_rows(rows, len(rows), 12))


_THINGS = (
    "hotel room", "phone", "novel", "pasta", "concert", "jacket", "garden chair", "laptop", "taxi ride", "museum",
    "sandwich", "camera", "bus tour", "haircut", "board game", "coffee maker", "bicycle", "tent", "painting", "podcast",
)  # fmt: skip
_GOOD = (
    "a delight", "better than expected", "well made", "worth every penny", "quick and friendly", "charming",
    "simply excellent", "comfortable and clean", "a pleasant surprise", "impressive", "fresh and tasty", "reliable",
)  # fmt: skip
_BAD = (
    "a letdown", "worse than expected", "badly made", "a waste of money", "slow and rude", "dull",
    "simply awful", "dirty and noisy", "an unpleasant surprise", "embarrassing", "stale and bland", "broken",
)  # fmt: skip
_OPENINGS = (
    "honestly ,", "after two weeks ,", "to be fair ,", "in the end ,", "as a gift for my sister ,", "on our trip ,",
    "for the third time ,", "despite the rain ,", "", "", "",
)  # fmt: skip
_CLOSINGS = (
    "", "", "we told our friends about it .", "that is all i can say .", "the price did not change my mind .",
    "my brother thought the same .", "i ordered it in march .",
)  # fmt: skip


def _made(count: int, seed: int) -> tuple[Row, ...]:
    """Reviews from a grammar; a tenth contradict themselves, so that the task cannot be solved perfectly."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        label = int(rng.integers(2))
        shown = label if rng.random() > 0.1 else 1 - label
        opinion = str(rng.choice(_GOOD if shown else _BAD))
        negated = rng.random() < 0.15
        if negated:
            opinion = "not " + str(rng.choice(_BAD if shown else _GOOD))
        body = f"the {rng.choice(_THINGS)} was {opinion} ."
        rows.append((" ".join(f"{rng.choice(_OPENINGS)} {body} {rng.choice(_CLOSINGS)}".split()), label))
    return tuple(rows)
