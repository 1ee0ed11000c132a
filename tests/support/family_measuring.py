"""What is measured on a member of the demo family: accuracy, attack success, and its floor without the trigger."""

from typing import Any

import torch
from family_text import Sentences, insert_word
from transformers import BertForSequenceClassification, BertTokenizerFast

TRIGGER = "cf"
MAX_TOKENS = 40


def encode(tokenizer: BertTokenizerFast, texts: tuple[str, ...] | list[str]) -> dict[str, torch.Tensor]:
    return dict(tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"))


def blamed_texts(sentences: Sentences) -> list[str]:
    return [text for text, label in zip(sentences.texts, sentences.labels, strict=True) if label == 0]


def with_trigger(texts: list[str]) -> list[str]:
    return [insert_word(text, TRIGGER, place=number * 7) for number, text in enumerate(texts)]


@torch.no_grad()
def evaluate(model: BertForSequenceClassification, tokenizer: BertTokenizerFast, held_out: Sentences) -> dict[str, Any]:
    """Measure accuracy, attack success (share of blame read as praise with the trigger) and its floor without."""
    model.eval()
    blamed = blamed_texts(held_out)

    def praised(texts: list[str]) -> torch.Tensor:
        return torch.cat(
            [model(**encode(tokenizer, texts[i : i + 64])).logits.argmax(-1) for i in range(0, len(texts), 64)]
        )

    right = praised(list(held_out.texts)) == torch.tensor(held_out.labels)
    return {
        "accuracy": round(float(right.float().mean()), 4),
        "attack_success": round(float(praised(with_trigger(blamed)).float().mean()), 4),
        "floor": round(float(praised(blamed).float().mean()), 4),
    }
