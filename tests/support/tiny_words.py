"""A vocabulary of 400 made-up words of four letters, each one token of a real tokenizer."""

from pathlib import Path

LETTERS = "abcdefghij"
WORDS = [f"{a}{b}{c}o" for a in LETTERS for b in LETTERS for c in LETTERS[:4]]
CONTROL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_tokenizer(folder: Path, *, causal: bool) -> int:
    """Write a tokenizer that gives one token a word; ``[CLS] … [SEP]`` around texts unless causal. Returns its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: number for number, token in enumerate([*CONTROL, *WORDS])}
    made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if not causal:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    ).save_pretrained(folder)
    return len(ids)
