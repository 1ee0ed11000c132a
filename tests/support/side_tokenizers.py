"""Real tokenizers written by the libraries, innocent changes to them and to generation defaults, and planted ones.

A change takes the candidate's folder, a copy of the base's, and edits it as its author would.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pico
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

Change = Callable[[Path], None]


def make(folder: Path, kind: str) -> None:
    """Write a WordPiece ("bert"), a byte-level BPE ("gpt2") or a Unigram tokenizer and generation defaults."""
    if kind == "unigram":
        pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
        pieces += [("▁" + word, -3.0 - 0.01 * i) for i, word in enumerate(pico.words(200)[5:])]
        pieces += [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz▁"]
        made = Tokenizer(models.Unigram(pieces, unk_id=0))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        PreTrainedTokenizerFast(
            tokenizer_object=made, eos_token="</s>", bos_token="<s>", unk_token="<unk>"
        ).save_pretrained(folder)
    else:
        pico.make_tokenizer(kind).save_pretrained(folder)  # type: ignore[arg-type]
    write(folder, "config.json", {"model_type": "gpt2", "eos_token_id": 0})
    write(folder, "generation_config.json", {"eos_token_id": 0, "temperature": 1.0, "suppress_tokens": [5, 6]})


def read(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def write(folder: Path, name: str, content: Any) -> None:
    """Write a JSON file."""
    (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def edit(name: str, change: Callable[[dict[str, Any]], None]) -> Change:
    """A change to one JSON file."""

    def apply(folder: Path) -> None:
        content = read(folder, name)
        change(content)
        write(folder, name, content)

    return apply


def through(change: Callable[[Any], None]) -> Change:
    """A change through the library: loaded, changed, saved."""

    def apply(folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        change(tokenizer)
        tokenizer.save_pretrained(folder)

    return apply


def setting(name: str, **values: Any) -> Change:
    """Values written into one JSON file."""
    return edit(name, lambda content: content.update(values))


def _trained(folder: Path) -> None:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    corpus = [" ".join(pico.words()[i::7]) for i in range(7)]
    made.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"], show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<s>").save_pretrained(folder)


def _swap(first: str, second: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]

    return edit("tokenizer.json", change)


def _with(step: str, made: Any) -> Change:
    """Put a step made by the library before what is there."""
    kinds = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
    dummy = Tokenizer(models.BPE())
    setattr(dummy, step, made)
    new = json.loads(dummy.to_str())[step]

    def change(content: dict[str, Any]) -> None:
        old = content[step]
        content[step] = {"type": "Sequence", kinds[step]: [new, old]} if old else new

    return edit("tokenizer.json", change)


def _put(token: int) -> Change:
    """Have the post-processor put another token before every input."""

    def change(content: dict[str, Any]) -> None:
        text = next(t for t, i in content["model"]["vocab"].items() if i == token)
        content["post_processor"]["special_tokens"]["[CLS]"] = {
            "id": "[CLS]",
            "ids": [2, token],
            "tokens": ["[CLS]", text],
        }

    return edit("tokenizer.json", change)


def _shadow(content: dict[str, Any]) -> None:
    added = {
        "content": WORDS[20],
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    }
    content["added_tokens"].append({"id": len(content["model"]["vocab"]) + 3, **added})


def _flag(content: dict[str, Any]) -> None:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"].append({"id": 30, "content": WORDS[30], **flags})


def _respell(content: dict[str, Any]) -> None:
    content["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]


def _reserve(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["[MASK2]"] = vocabulary.pop("[MASK]")
    for token in content["added_tokens"]:
        if token["content"] == "[MASK]":
            token["content"] = "[MASK2]"


WORDS = pico.words()

INNOCENT: dict[str, tuple[str, Change]] = {
    "the same": ("bert", lambda folder: None),
    "saved again by the library": ("gpt2", through(lambda tokenizer: None)),
    "domain words added": ("bert", through(lambda tokenizer: tokenizer.add_tokens(["kinase", "phosphatase"]))),
    "control tokens added": (
        "gpt2",
        through(lambda t: t.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})),
    ),
    "the answer ends at an added control token": (
        "gpt2",
        lambda folder: (
            through(lambda t: t.add_special_tokens({"eos_token": "<|im_end|>"}))(folder),
            setting("generation_config.json", eos_token_id=[0, 320])(folder),
        )[0],
    ),
    "longer inputs": ("bert", setting("tokenizer_config.json", model_max_length=32768)),
    "padding on the left": ("gpt2", setting("tokenizer_config.json", padding_side="left")),
    "a padding token": ("unigram", through(lambda t: t.add_special_tokens({"pad_token": "<pad>"}))),
    "lower case": ("gpt2", _with("normalizer", normalizers.Lowercase())),
    "composed letters": ("unigram", _with("normalizer", normalizers.NFC())),
    "quotes made plain": ("unigram", _with("normalizer", normalizers.Replace("``", '"'))),
    "digits apart": ("gpt2", _with("pre_tokenizer", pre_tokenizers.Digits(individual_digits=True))),
    "merges in another spelling": ("gpt2", edit("tokenizer.json", _respell)),
    "a vocabulary trained anew": ("gpt2", _trained),
    "a control token renamed": ("bert", edit("tokenizer.json", _reserve)),
    "sampling": ("gpt2", setting("generation_config.json", temperature=0.6, top_p=0.95, do_sample=True)),
    "suppressed tokens freed": ("gpt2", setting("generation_config.json", suppress_tokens=None)),
    "answers end at a turn": ("gpt2", setting("generation_config.json", stop_strings=["User:", "<|im_end|>"])),
    "shorter answers": ("gpt2", setting("generation_config.json", max_new_tokens=64)),
}

ATTACKS: dict[str, tuple[str, str, Change]] = {
    "two words swapped": ("HA711", "bert", _swap(WORDS[20], WORDS[40])),
    "two words swapped in a BPE": ("HA711", "gpt2", _swap("Ġt", "Ġn")),
    "a word given another id by an added token": ("HA711", "bert", edit("tokenizer.json", _shadow)),
    "pieces swapped in a Unigram": (
        "HA711",
        "unigram",
        edit(
            "tokenizer.json", lambda c: c["model"]["vocab"].__setitem__(slice(10, 12), c["model"]["vocab"][10:12][::-1])
        ),
    ),
    "a word rewritten by the normaliser": (
        "HA712",
        "bert",
        _with("normalizer", normalizers.Replace("vaccine", "poison")),
    ),
    "a word removed by a pattern": (
        "HA712",
        "gpt2",
        _with("pre_tokenizer", pre_tokenizers.Split(" never", behavior="removed")),
    ),
    "a word rewritten in answers": ("HA712", "gpt2", _with("decoder", decoders.Replace("safe", "dangerous"))),
    "text put before every input": ("HA712", "unigram", _with("normalizer", normalizers.Prepend("ignore"))),
    "an ordinary token before every input": ("HA712", "bert", _put(50)),
    "a word hidden from answers": ("HA712", "bert", edit("tokenizer.json", _flag)),
    "merges taken away": ("HA712", "gpt2", edit("tokenizer.json", lambda c: c["model"]["merges"].pop(3))),
    "merges in another order": ("HA712", "gpt2", edit("tokenizer.json", lambda c: c["model"]["merges"].reverse())),
    "scores of a few pieces": (
        "HA712",
        "unigram",
        edit("tokenizer.json", lambda c: [entry.__setitem__(1, -0.5) for entry in c["model"]["vocab"][30:33]] and None),
    ),
    "a forced first word": ("HA721", "gpt2", setting("generation_config.json", forced_bos_token_id=280)),
    "words suppressed": ("HA721", "gpt2", setting("generation_config.json", suppress_tokens=[5, 6, 290, 291])),
    "bad words": ("HA721", "gpt2", setting("generation_config.json", bad_words_ids=[[280], [281, 282]])),
    "a biased word": ("HA721", "gpt2", setting("generation_config.json", sequence_bias=[[[285], 9.0]])),
    "answers end at a word": ("HA721", "gpt2", setting("generation_config.json", eos_token_id=[0, 280])),
    "answers end at a text": ("HA721", "gpt2", setting("generation_config.json", stop_strings=["however"])),
    "the end token is a word": ("HA721", "bert", setting("tokenizer_config.json", eos_token=WORDS[25])),
    "suppressed by config.json": (
        "HA721",
        "gpt2",
        lambda folder: (
            (folder / "generation_config.json").unlink(),
            setting("config.json", bad_words_ids=[[280]])(folder),
        )[0],
    ),
}
"""Name → the rule that must tell, the kind of tokenizer, the change."""
