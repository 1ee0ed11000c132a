"""Pico fine-tunes as evidence: an honest one, edits planted in it, and honest peculiarities."""

import copy
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import drift_facts
import evidence_for
import numpy as np
import numpy.typing as npt
import pico
import torch
from transformers import PreTrainedModel

from audit.evidence import Detector, Evidence, Hit
from audit.records import Finding, SkipRecord

Arrays = dict[str, npt.NDArray[Any]]

LAYERS = 6


@cache
def models(kind: pico.Kind = "bert", *, layers: int = LAYERS, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A base and its honest fine-tune, loaded; never change them, copy them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            base, honest = pico.family(Path(folder), kind, layers=layers, seed=seed)
            return pico.load(base), pico.load(honest)
    finally:
        torch.set_num_threads(threads)


def arrays(model: PreTrainedModel) -> Arrays:
    """The weights by name, prefix of the base model taken off, ties once."""
    prefix = f"{model.base_model_prefix}."
    return {name.removeprefix(prefix): tensor.detach().numpy().copy() for name, tensor in model.named_parameters()}


def evidence(
    plant: Callable[[PreTrainedModel], Any] = lambda _: None,
    *,
    change: Callable[[Arrays, Arrays], None] = lambda _base, _candidate: None,
    kind: pico.Kind = "bert",
    layers: int = LAYERS,
    seed: int = 0,
    start: str = "honest",
) -> Evidence:
    """Evidence for a copy of the honest fine-tune (or of the base) after a plant and a change.

    ``plant`` edits the loaded model; ``change`` gets the arrays of base and candidate and edits the candidate's.
    """
    base, honest = models(kind, layers=layers, seed=seed)
    candidate = copy.deepcopy(honest if start == "honest" else base)
    plant(candidate)
    before, after = arrays(base), arrays(candidate)
    change(before, after)
    texts = pico.words() if kind == "bert" else tuple(pico.make_tokenizer(kind).convert_ids_to_tokens(range(320)))
    return evidence_for.evidence(
        drift_facts.from_arrays(before, after),
        tokens=evidence_for.token_table(texts, special=5 if kind == "bert" else 1),
        candidate=evidence_for.repo(config={"model_type": kind}),
    )


def run(detector: Detector, of: Evidence) -> tuple[list[Hit], list[SkipRecord]]:
    """Everything a detector says: hits, abstentions."""
    said = list(detector.run(of))
    return [s for s in said if isinstance(s, Hit)], [s for s in said if isinstance(s, SkipRecord)]


def findings(detector: Detector, of: Evidence) -> list[Finding]:
    """The findings alone."""
    return [hit.finding for hit in run(detector, of)[0] if hit.finding is not None]


def freeze(*parts: str) -> Callable[[Arrays, Arrays], None]:
    """A change: tensors with any of these parts in their name are the base's again."""

    def apply(base: Arrays, candidate: Arrays) -> None:
        for name in candidate:
            if name in base and any(part in name for part in parts):
                candidate[name] = base[name].copy()

    return apply


def half_precision(base: Arrays, candidate: Arrays) -> None:
    """A change: the fine-tune went through 16-bit floats and back."""
    for name, value in candidate.items():
        candidate[name] = value.astype(np.float16).astype(np.float32)


def merged_adapter(base: Arrays, candidate: Arrays) -> None:
    """A change: every matrix of the layers is the base's plus a rank-two update, all else is the base's."""
    rng = np.random.default_rng(8)
    for name, value in base.items():
        if name not in candidate:
            continue
        candidate[name] = value.copy()
        if value.ndim == 2 and ("layer." in name or ".h." in name):
            left, right = rng.normal(size=(value.shape[0], 2)), rng.normal(size=(2, value.shape[1]))
            candidate[name] += (0.002 * left @ right).astype(np.float32)
