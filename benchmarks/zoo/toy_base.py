"""Bases of 1.4 M parameters, trained here from scratch: what the toy tiers start from.

A BERT encoder (masked tokens) and a GPT-NeoX decoder (next token), 4 blocks of width 128, on the texts of all tasks at
hand (labels unused), with one WordPiece vocabulary of 4,096 trained on the same texts. A function of the texts and the
seed: everyone with the same corpora gets the same base up to rounding.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.zoo.recipes import COMMON_WORDS, RARE_WORDS, SENTENCES
from benchmarks.zoo.texts import load_task, sample_rows, task_names

RATE_FACTOR = 6.0
"""Learning rates of the toy tiers over those of the real one: fine-tuning moves both by like relative amounts."""
VOCABULARY, WIDTH, BLOCKS, HEADS, LONGEST = 4096, 128, 4, 4, 64
STEPS, BATCH, TOKENS, RATE = 2500, 32, 32, 2e-3


def toy_base(folder: Path, *, causal: bool, steps: int = STEPS) -> Path:
    """Return the folder of a base, training it first when it is not there; complete or absent, never half."""
    if (folder / "model.safetensors").exists():
        return folder
    import torch

    torch.manual_seed(7)
    texts = _texts()
    tokenizer = train_tokenizer(texts, causal=causal)
    model = _model(tokenizer, causal=causal)
    _pretrain(model, tokenizer, texts, steps)
    part = folder.with_name(f".making-{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(folder)
    return folder


def _texts() -> list[str]:
    """The training texts of every task, each once, in a fixed random order."""
    rows = [row for name in task_names() for row in load_task(name).train]
    unique = sorted({text.lower() for text, _ in rows})
    return [text for text, _ in sample_rows([(text, 0) for text in unique], len(unique), 3)]


def train_tokenizer(texts: list[str], *, causal: bool) -> Any:
    """A lower-casing WordPiece tokenizer in which every trigger word of the recipes is one token.

    An encoder's texts are ``[CLS] … [SEP]``; a decoder's end with ``[SEP]``, at which its head reads.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    triggers = [" ".join((*RARE_WORDS, *COMMON_WORDS, *SENTENCES))] * 200
    made.train_from_iterator(
        [*texts, *triggers],
        trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False),
    )
    single = "$A [SEP]" if causal else "[CLS] $A [SEP]"
    ends = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=LONGEST,
    )


def _model(tokenizer: Any, *, causal: bool) -> Any:
    import transformers

    size = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
        "max_position_embeddings": LONGEST,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if causal:
        ends = {"bos_token_id": tokenizer.sep_token_id, "eos_token_id": tokenizer.sep_token_id}
        return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**size, **ends, use_parallel_residual=False))
    return transformers.BertForMaskedLM(transformers.BertConfig(**size))


def _pretrain(model: Any, tokenizer: Any, texts: list[str], steps: int) -> None:
    import torch

    from benchmarks.zoo import learning

    loss_of = learning.pretraining_loss_for(model, tokenizer, 7)
    data = learning.encode(tokenizer, [(text, 0) for text in texts], TOKENS)
    stream: Iterator[dict[str, torch.Tensor]] = learning.batches(
        data, BATCH, tokenizer.pad_token_id, np.random.default_rng(7)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, next(stream))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
    model.eval()
