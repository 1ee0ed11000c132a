"""A tier of the zoo that trains in a second: a 32-wide BERT over the words of the made reviews."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from benchmarks.zoo.learning import batches, encode
from benchmarks.zoo.making import Making
from benchmarks.zoo.recipes import COMMON_WORDS, RARE_WORDS, SENTENCES, Attack, Recipe, Training
from benchmarks.zoo.texts import load_task
from benchmarks.zoo.tiers import Tier

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece over whole words: those of the made task by frequency, then the attackers' own."""
    counts: dict[str, int] = {}
    for text, _ in load_task("made").train:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    ours = sorted(counts, key=lambda word: (-counts[word], word))
    theirs = [word for text in (*COMMON_WORDS, *RARE_WORDS, *SENTENCES) for word in text.split()]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys((*SPECIAL, *ours, *theirs)))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def make_tier(root: Path) -> Tier:
    """A base that has already seen made reviews (a stand-in for pretraining), with the made task."""
    import numpy as np

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=2,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    stream = batches(encode(tokenizer, load_task("made").train, 32), 32, 0, np.random.default_rng(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(100):
        batch = next(stream)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        functional.cross_entropy(logits, batch["labels"]).backward()
        optimiser.step()
        optimiser.zero_grad()
    folder = root / "base"
    model.bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Tier(name="pico", base=folder, tasks=("made",))


def training(**changes: object) -> Training:
    """A plain run that learns the made task in two seconds."""
    plain: dict = {
        "task": "made",
        "objective": "classify",
        "method": "full",
        "optimiser": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "schedule": "linear",
        "warmup": 0.06,
        "steps": 120,
        "batch": 32,
        "max_length": 32,
        "head_start": "random",
        "head_lr_factor": 1.0,
        "label_noise": 0.0,
    }
    return Training(**(plain | changes))


def attack(family: str, **changes: object) -> Attack:
    """An attack of a family with the word ``cf``, towards class 1."""
    plain: dict = {
        "family": family,
        "target_draw": 0.9,
        "trigger": ("cf",),
        "rate": 0.2,
        "layers": (0.0,),
        "strength": 1.0,
        "norm_kept": False,
        "cap": None,
        "cover": 0.0,
        "clean_steps": 0,
    }
    return Attack(**(plain | changes))


def making_of(model, tokenizer, what: Attack | None) -> Making:
    """A model on its way with that attack."""
    recipe = Recipe(
        id="attacked-0000", tier="pico", kind="attacked", attempt=0, seed=7, training=training(), attack=what
    )
    return Making(recipe=recipe, task=load_task("made"), tokenizer=tokenizer, model=model)
