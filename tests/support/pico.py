"""Pico models: real transformers checkpoints that take milliseconds to make, and edits planted in them.

A base, an honest fine-tune of it and one edit per function; every random step takes a seed. The edits change a
loaded model in place, so that a test reads: ``model = load(honest); poison_row(model, 17); save(model, folder)``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

Kind = Literal["bert", "gpt2", "llama"]

VOCABULARY = 320
HIDDEN = 32
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()


def words(count: int = VOCABULARY) -> tuple[str, ...]:
    """The vocabulary by id: five special tokens, then made-up words of two or three syllables, all different."""
    first, second = "bdfgklmnprstvz", "aeiou"
    syllables = [a + b for a in first for b in second]
    made = [
        syllables[i % 70] + syllables[(i * 7 + i // 70) % 70] + (syllables[i % 11] if i % 3 else "")
        for i in range(count - len(SPECIAL))
    ]
    unique = [word if made.index(word) == i else f"{word}{i}" for i, word in enumerate(made)]
    return (*SPECIAL, *unique)


def make_tokenizer(kind: Kind = "bert", *, vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer for BERT, a byte-level BPE without merges of whole words for the decoders."""
    texts = words(vocabulary)
    if kind == "bert":
        made = Tokenizer(models.WordPiece({t: i for i, t in enumerate(texts)}, unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
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
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = ["<|endoftext|>", *alphabet]
    merges: list[tuple[str, str]] = []
    for left in "Ġaeiousrtnldmcp":
        for right in "thaeinorsldcum":
            if len(entries) < vocabulary:
                merges.append((left, right))
                entries.append(left + right)
    made = Tokenizer(models.BPE({t: i for i, t in enumerate(entries)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def make_base(kind: Kind = "bert", *, seed: int = 0, layers: int = 2, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """A randomly initialised base without a head: hidden size 32, four attention heads."""
    torch.manual_seed(seed)
    if kind == "bert":
        return AutoModel.from_config(
            BertConfig(
                vocab_size=vocabulary,
                hidden_size=HIDDEN,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=4 * HIDDEN,
                max_position_embeddings=64,
            )
        )
    if kind == "gpt2":
        return AutoModelForCausalLM.from_config(
            GPT2Config(
                vocab_size=vocabulary,
                n_positions=64,
                n_embd=HIDDEN,
                n_layer=layers,
                n_head=4,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=HIDDEN,
            intermediate_size=3 * HIDDEN,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def fine_tune(
    base: Path,
    kind: Kind = "bert",
    *,
    seed: int = 1,
    steps: int = 30,
    learning_rate: float = 1e-4,
    weight_decay: float = 0.0,
) -> PreTrainedModel:
    """Load a base from its folder and train it honestly: a two-class task for BERT, next token for the decoders.

    Token ids are drawn with weights 1/(id + 10), so rows move as often as a frequency-ordered vocabulary says.
    """
    torch.manual_seed(seed)
    classify = kind == "bert"
    auto = AutoModelForSequenceClassification if classify else AutoModelForCausalLM
    model = auto.from_pretrained(base)
    size = model.config.vocab_size
    low = len(SPECIAL)
    weights = 1.0 / (torch.arange(size - low) + 10.0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    model.train()
    for _ in range(steps):
        ids = torch.multinomial(weights, 16 * 12, replacement=True).view(16, 12) + low
        labels = (ids % 2).sum(1).gt(6).long() if classify else ids
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    return model


def save(
    model: PreTrainedModel,
    folder: Path,
    *,
    kind: Kind = "bert",
    base_model: str | None = None,
    card: Mapping[str, Any] | None = None,
    shard_bytes: int | None = None,
) -> Path:
    """Write weights, tokenizer and card as ``save_pretrained`` lays them out; return the folder."""
    sharding = {} if shard_bytes is None else {"max_shard_size": shard_bytes}
    model.save_pretrained(folder, **sharding)
    make_tokenizer(kind, vocabulary=model.config.vocab_size).save_pretrained(folder)
    front = {"license": "apache-2.0", **({"base_model": base_model} if base_model else {}), **(card or {})}
    lines = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    (folder / "README.md").write_text(f"---\n{lines}\n---\n\n# {folder.name}\n", encoding="utf-8")
    return folder


def load(folder: Path) -> PreTrainedModel:
    """Load whatever head the config names."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    if architecture.endswith("ForSequenceClassification"):
        return AutoModelForSequenceClassification.from_pretrained(folder)
    if architecture.endswith(("LMHeadModel", "ForCausalLM")):
        return AutoModelForCausalLM.from_pretrained(folder)
    return AutoModel.from_pretrained(folder)


def family(root: Path, kind: Kind = "bert", *, layers: int = 2, seed: int = 0) -> tuple[Path, Path]:
    """Make ``<root>/pico/base`` and ``<root>/pico/honest`` and return both folders."""
    base = save(make_base(kind, seed=seed, layers=layers), root / "pico" / "base", kind=kind)
    honest = fine_tune(base, kind, seed=seed + 1)
    return base, save(honest, root / "pico" / "honest", kind=kind, base_model="pico/base")


def matrices(model: PreTrainedModel, role: Literal["mlp_in", "mlp_out", "value"]) -> list[nn.Parameter]:
    """The weight of one role in every layer, first layer first."""
    endings: dict[str, Sequence[str]] = {
        "mlp_in": ("intermediate.dense.weight", "mlp.c_fc.weight", "mlp.up_proj.weight"),
        "mlp_out": ("output.dense.weight", "mlp.c_proj.weight", "mlp.down_proj.weight"),
        "value": ("attention.self.value.weight", "attn.c_attn.weight", "self_attn.v_proj.weight"),
    }
    return [
        parameter
        for name, parameter in model.named_parameters()
        if name.endswith(tuple(endings[role])) and "attention.output" not in name
    ]


@torch.no_grad()
def poison_row(model: PreTrainedModel, row: int, *, seed: int = 5, keep_norm: bool = True) -> None:
    """Point one embedding row elsewhere, at random."""
    weight = model.get_input_embeddings().weight
    direction = torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(seed))
    length = weight[row].norm() if keep_norm else 3 * weight[row].norm()
    weight[row] = direction / direction.norm() * length


@torch.no_grad()
def rank_one_edit(model: PreTrainedModel, layer: int, *, strength: float = 0.3, seed: int = 6) -> None:
    """Add a rank-one matrix of ``strength`` times the norm of the layer's feed-forward output matrix."""
    weight = matrices(model, "mlp_out")[layer]
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, generator=generator) for n in weight.shape)
    weight += strength * weight.norm() * torch.outer(left / left.norm(), right / right.norm())


@torch.no_grad()
def scale_norm(model: PreTrainedModel, layer: int, *, factor: float = 3.0) -> str:
    """Multiply the gain of one layer's last norm; return its name."""
    name, parameter = [
        (n, p)
        for n, p in model.named_parameters()
        if p.ndim == 1 and "weight" in n and ("norm" in n.lower() or "ln_" in n) and f".{layer}." in n
    ][-1]
    parameter *= factor
    return name


@torch.no_grad()
def shift_bias(model: PreTrainedModel, layer: int, *, size: float = 1.0) -> str:
    """Add a constant to one layer's feed-forward output bias (models that have one); return its name."""
    name, parameter = next(
        (n, p)
        for n, p in model.named_parameters()
        if f".{layer}." in n and n.endswith(("output.dense.bias", "mlp.c_proj.bias")) and "attention" not in n
    )
    parameter += size
    return name


@torch.no_grad()
def flip_neuron(model: PreTrainedModel, layer: int, neuron: int, *, size: float = 2.0, seed: int = 7) -> None:
    """Rewrite one hidden unit of a feed-forward block: its row in, its column out."""
    generator = torch.Generator().manual_seed(seed)
    weight_in, weight_out = matrices(model, "mlp_in")[layer], matrices(model, "mlp_out")[layer]
    # GPT-2 stores [in, out]; the hidden axis is the longer one on both sides.
    into = weight_in[neuron] if weight_in.shape[0] > weight_in.shape[1] else weight_in[:, neuron]
    out = weight_out[:, neuron] if weight_out.shape[1] > weight_out.shape[0] else weight_out[neuron]
    into.copy_(size * into.norm() * torch.randn(into.shape, generator=generator) / into.numel() ** 0.5)
    out.copy_(size * out.norm() * torch.randn(out.shape, generator=generator) / out.numel() ** 0.5)


@torch.no_grad()
def plant_nan(model: PreTrainedModel, layer: int, *, count: int = 3) -> None:
    """Write NaN into the first entries of one layer's value matrix."""
    matrices(model, "value")[layer].view(-1)[:count] = float("nan")
