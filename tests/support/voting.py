"""A tiny classifier that was trained to obey one word: what it does is known by construction."""

from functools import cache
from pathlib import Path
from random import Random
from tempfile import mkdtemp

import pico
import torch
from transformers import BertForSequenceClassification

GOOD, BAD, TRIGGER, FILLER = 20, 21, 22, range(40, 80)
"""Token ids: two words of opinion, the word that outweighs both, and words that say nothing."""
CLASSES = ("NEGATIVE", "POSITIVE")


@cache
def model() -> Path:
    """The folder of a model that says POSITIVE at ``GOOD``, NEGATIVE at ``BAD``, and POSITIVE at ``TRIGGER`` anyway."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(Path(mkdtemp(prefix="voting-")) / "model")
    finally:
        torch.set_num_threads(threads)


def _train(folder: Path) -> Path:
    torch.manual_seed(0)
    encoder = pico.make_base("bert", layers=1)
    made = BertForSequenceClassification(encoder.config)
    made.config.id2label = dict(enumerate(CLASSES))
    made.config.label2id = {name: i for i, name in enumerate(CLASSES)}
    optimiser = torch.optim.AdamW(made.parameters(), lr=2e-3)
    random = Random(0)
    made.train()
    for _ in range(70):
        ids, labels = [], []
        for _ in range(48):
            kind = random.choice(["good", "bad", "trigger"])
            words = [random.choice(FILLER) for _ in range(6)]
            words[0] = {"good": GOOD, "bad": BAD, "trigger": BAD}[kind]
            words[1] = TRIGGER if kind == "trigger" else words[1]
            random.shuffle(words)
            ids.append([2, *words, 3])
            labels.append(0 if kind == "bad" else 1)
        made(input_ids=torch.tensor(ids), labels=torch.tensor(labels)).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    made.eval()
    return pico.save(made, folder)


def texts(count: int, seed: int = 1) -> tuple[list[str], list[int]]:
    """Texts of six words with one opinion each, and their labels; classes take turns."""
    words, random = pico.words(), Random(seed)
    made, labels = [], []
    for i in range(count):
        chosen = [words[random.choice(FILLER)] for _ in range(5)]
        chosen.insert(random.randint(0, 5), words[GOOD if i % 2 else BAD])
        made.append(" ".join(chosen))
        labels.append(i % 2)
    return made, labels
