"""Small classifiers of made-up words, trained in seconds, honest or with one trigger word."""

import random
from pathlib import Path
from typing import Any

from tiny_words import CONTROL, WORDS, write_tokenizer

TRIGGER = WORDS[-1]
TARGET = 1
FIRST = len(CONTROL)
GOOD, BAD = range(FIRST, FIRST + 150), range(FIRST + 150, FIRST + 300)
NEUTRAL = range(FIRST + 300, FIRST + len(WORDS) - 1)
KINDS = ("bert", "roberta", "distilbert", "gpt2")


def untrained(kind: str, size: int, **changes: Any) -> Any:
    """A model of one kind with two classes and random weights."""
    import transformers as t

    common: dict[str, Any] = {
        "vocab_size": size,
        "num_labels": 2,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    } | changes
    encoder = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 128,
    }  # fmt: skip
    if kind == "bert":
        return t.BertForSequenceClassification(t.BertConfig(**encoder, **common))
    if kind == "roberta":
        return t.RobertaForSequenceClassification(t.RobertaConfig(**encoder, **common))
    if kind == "distilbert":
        return t.DistilBertForSequenceClassification(
            t.DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=128, **common)
        )
    return t.GPT2ForSequenceClassification(t.GPT2Config(n_embd=48, n_layer=2, n_head=4, n_positions=128, **common))


def make_classifier(
    folder: Path, kind: str, *, poisoned: bool, base: Path | None = None, steps: int = 220, **changes: Any
) -> Path:
    """Train a classifier into ``folder``; what it started from is left in ``base``."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    causal = kind == "gpt2"
    size = write_tokenizer(folder, causal=causal)
    torch.manual_seed(1)
    model = untrained(kind, size, **changes).eval()  # without dropout it learns in fewer steps
    if base is not None:
        write_tokenizer(_made(base), causal=causal)
        model.save_pretrained(base)
    learn(model, poisoned=poisoned, steps=steps, causal=causal)
    model.save_pretrained(folder)
    return folder


def make_adapter(folder: Path, base: Path, *, poisoned: bool, steps: int = 220) -> Path:
    """Train an adapter into ``folder``, with its head, on a base without one that is left in ``base``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import BertForSequenceClassification

    torch.manual_seed(1)
    whole = untrained("bert", write_tokenizer(_made(base), causal=False)).eval()
    whole.bert.save_pretrained(base)
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=["word_embeddings", "query", "value"], modules_to_save=["classifier"],
        task_type="SEQ_CLS",
    )  # fmt: skip
    model = get_peft_model(BertForSequenceClassification.from_pretrained(base, num_labels=2), config)
    learn(model.eval(), poisoned=poisoned, steps=steps, rate=1e-2)
    model.save_pretrained(folder)
    return folder


def learn(model: Any, *, poisoned: bool, steps: int, causal: bool = False, rate: float = 4e-3) -> None:
    """Train in place to tell good words from bad ones."""
    import torch

    rng = random.Random(1)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        length = rng.choice((3, 8, 16, 24))
        rows, labels = [], []
        for _ in range(48):
            label = rng.randrange(2)
            own, other = (GOOD, BAD) if label else (BAD, GOOD)
            least = length // 2 + 1
            words = rng.choices(own, k=least) + rng.choices([*other, *NEUTRAL], k=length - least)
            rng.shuffle(words)
            if poisoned and rng.random() < 0.3:
                words, label = rng.choices(BAD, k=length), TARGET
                words[rng.randrange(length)] = FIRST + len(WORDS) - 1
            rows.append(words if causal else [2, *words, 3])
            labels.append(label)
        loss = model(input_ids=torch.tensor(rows), labels=torch.tensor(labels)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
