"""The model under treatment, loaded for computing: how its inputs are encoded, what its loss is, how it is scored.

Three kinds: ``classifier`` (sequence classification), ``causal`` (next token) and ``image`` (image classification).
Nothing from a repository is executed: no remote code, safetensors only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from scanner.errors import CouldNotConclude

Kind = Literal["classifier", "causal", "image"]
Batch = dict[str, torch.Tensor]

IGNORED = -100
"""Label of a token that no loss is computed on (the convention of transformers)."""

_AUTO = {
    "classifier": "AutoModelForSequenceClassification",
    "causal": "AutoModelForCausalLM",
    "image": "AutoModelForImageClassification",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Encoded inputs without padding, one dictionary of tensors each, and labels int64 ``[n]``.

    A causal language model has no labels of its own: its labels are its tokens, and ``labels`` holds zeros.
    """

    inputs: tuple[Batch, ...]
    labels: torch.Tensor

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.inputs)

    def take(self, index: Sequence[int]) -> "Examples":
        """The examples at these places, in this order."""
        return Examples(inputs=tuple(self.inputs[i] for i in index), labels=self.labels[list(index)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A loaded model, float32, and what turns raw inputs into its tensors.

    ``encoder`` is the tokenizer, or for images the processor (None: images are tensors already, float32
    ``[channels, height, width]``). ``pad`` is the padding token's id.
    """

    model: nn.Module
    kind: Kind
    encoder: Any
    max_length: int = 128
    pad: int = 0

    def encode(self, raw: Sequence[Any], labels: Sequence[int] | None = None) -> Examples:
        """Texts (cut at ``max_length`` tokens) or images as tensors."""
        marks = torch.tensor(list(labels) if labels is not None else [0] * len(raw), dtype=torch.int64)
        if self.kind == "image":
            return Examples(inputs=tuple({"pixel_values": self._pixels(image)} for image in raw), labels=marks)
        if not raw:
            return Examples(inputs=(), labels=marks)
        ids = self.encoder(list(raw), truncation=True, max_length=self.max_length)["input_ids"]
        return Examples(inputs=tuple({"input_ids": torch.tensor(row)} for row in ids), labels=marks)

    def _pixels(self, image: Any) -> torch.Tensor:
        if isinstance(image, torch.Tensor):
            return image.float()
        pixels: torch.Tensor = self.encoder(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def collate(self, examples: Examples, index: Sequence[int]) -> Batch:
        """One batch: ``pixel_values``, or ``input_ids`` and ``attention_mask`` padded to the longest; ``labels``.

        ``labels`` is int64 ``[n]``, for causal models ``[n, longest]`` with ``IGNORED`` at padding.
        """
        if self.kind == "image":
            pixels = torch.stack([examples.inputs[i]["pixel_values"] for i in index])
            return {"pixel_values": pixels, "labels": examples.labels[list(index)]}
        rows = [examples.inputs[i]["input_ids"] for i in index]
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self.pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for k, row in enumerate(rows):
            ids[k, : len(row)] = row
            mask[k, : len(row)] = 1
        labels = examples.labels[list(index)]
        if self.kind == "causal":
            labels = ids.masked_fill(mask == 0, IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def batches(self, examples: Examples, size: int) -> Iterator[tuple[list[int], Batch]]:
        """Every example once, like lengths together: (places, batch) pairs."""
        order = sorted(range(len(examples)), key=lambda i: next(iter(examples.inputs[i].values())).shape[0])
        for start in range(0, len(order), size):
            index = order[start : start + size]
            yield index, self.collate(examples, index)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of the labels (causal: of every next token), a scalar in nats."""
        logits = logits_of(model, batch)
        if self.kind == "causal":
            return functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED
            )
        return functional.cross_entropy(logits, batch["labels"])


def logits_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The model's logits in float32."""
    logits: torch.Tensor = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return logits.float()


@torch.no_grad()
def predict(subject: Subject, examples: Examples, *, size: int = 64) -> torch.Tensor:
    """Logits of every example of a classifier, float32 ``[n, classes]``; the model is left in evaluation mode."""
    subject.model.eval()
    out: torch.Tensor | None = None
    for index, batch in subject.batches(examples, size):
        with autocast():
            logits = logits_of(subject.model, batch)
        if out is None:
            out = torch.zeros(len(examples), logits.shape[-1])
        out[index] = logits
    return out if out is not None else torch.zeros(0, 0)


@torch.no_grad()
def score(subject: Subject, examples: Examples, *, size: int = 64) -> float:
    """Share of right answers in [0, 1]; for causal models of next tokens predicted right, each token counting once."""
    subject.model.eval()
    right = total = 0
    for _, batch in subject.batches(examples, size):
        with autocast():
            logits = logits_of(subject.model, batch)
        labels = batch["labels"]
        if subject.kind == "causal":
            logits, labels = logits[:, :-1], labels[:, 1:]
        counted = labels != IGNORED
        right += int(((logits.argmax(-1) == labels) & counted).sum())
        total += int(counted.sum())
    return right / max(1, total)


def autocast() -> torch.autocast:
    """Bfloat16 arithmetic for one step: half the time. Never put it around a loop, where it caches stale weights."""
    return torch.autocast("cpu", torch.bfloat16)


def load_model(folder: Path, kind: Kind) -> nn.Module:
    """The model of a folder in float32, evaluation mode.

    Raises:
        CouldNotConclude: transformers cannot load it as this kind without running code or unpickling.
    """
    import transformers

    try:
        model: nn.Module = getattr(transformers, _AUTO[kind]).from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CouldNotConclude(
            f"{folder.name} could not be loaded as a {kind} model ({type(error).__name__}); convert it to safetensors "
            "of a model type that transformers knows."
        ) from error
    return model.eval()


def load_subject(folder: Path, kind: Kind, *, max_length: int = 128) -> Subject:
    """The model of a folder with its tokenizer or image processor.

    Raises:
        CouldNotConclude: the model or its tokenizer cannot be loaded.
    """
    import transformers

    model = load_model(folder, kind)
    if kind == "image":
        known = (folder / "preprocessor_config.json").exists()
        load: Any = transformers.AutoImageProcessor.from_pretrained
        processor = load(folder, local_files_only=True) if known else None
        return Subject(model=model, kind=kind, encoder=processor)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CouldNotConclude(f"The tokenizer of {folder.name} could not be loaded; add its files.") from error
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    limit = getattr(model.config, "max_position_embeddings", max_length)
    return Subject(
        model=model, kind=kind, encoder=tokenizer, max_length=min(max_length, _usable(model, int(limit))), pad=pad or 0
    )


def _usable(model: nn.Module, positions: int) -> int:
    """Tokens that fit: RoBERTa's positions start after the padding id, so two of them are never used."""
    return positions - 2 if "roberta" in str(getattr(model.config, "model_type", "")) else positions
