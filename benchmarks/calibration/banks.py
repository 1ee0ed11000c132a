"""The clean banks of a profile, from the observations and what the protocol made of them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.calibration.fit import FAIL_RATE, FLOORS, REVIEW_RATE, fit
from benchmarks.calibration.splits import Observations, recipe_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TierBank:
    """What a profile says of a tier: ``base`` in words, its ``model_type`` and number of parameters."""

    id: str
    tier: str
    base: str
    model_type: str
    parameters: int


_TOY = "that the benchmark trains from scratch (rates on toys are not those of real models)"
BANKS = (
    TierBank(
        id="minilm-22m",
        tier="real",
        base="one 22.7 M-parameter BERT encoder (MiniLM)",
        model_type="bert",
        parameters=22_713_216,
    ),
    TierBank(
        id="toy-encoder",
        tier="toy-encoder",
        base=f"one toy BERT encoder of 1.3 M parameters {_TOY}",
        model_type="bert",
        parameters=1_344_000,
    ),
    TierBank(
        id="toy-gpt",
        tier="toy-gpt",
        base=f"one toy GPT-NeoX decoder of 1.8 M parameters {_TOY}",
        model_type="gpt_neox",
        parameters=1_843_000,
    ),
)
"""The first bank gives the thresholds of every model that no bank speaks for."""


LEAST_CLEAN = 30
"""A bank of fewer clean models is told of in the page and not shipped: its rates would say next to nothing."""


def bank_entry(bank: TierBank, clean: Observations, scores: list[float]) -> dict[str, Any]:
    """One bank as a profile holds it."""
    described = [o["traits"] for o in clean.values() if o["traits"] is not None]
    return {
        "id": bank.id,
        "calibration": calibration_line(bank, clean),
        "model_types": [bank.model_type],
        "parameters": bank.parameters,
        "thresholds": thresholds(clean),
        "clean_scores": scores,
        "traits": [[round(x, 3) for x in row] for row in described],
    }


def calibration_line(bank: TierBank, clean: Observations) -> str:
    """What the rates of a bank were measured on, in one line."""
    pairs = len({recipe_of(o) for o in clean.values()})
    return f"{len(clean)} clean fine-tunes of {bank.base}: {pairs} recipes, five-fold cross-fitted"


def thresholds(clean: Observations) -> dict[str, dict[str, Any]]:
    """The calibrated thresholds, each with its source."""
    entries = {}
    for rule, (review, fail) in fit(list(clean.values())).items():
        count = sum(1 for o in clean.values() if rule in o["values"])
        for name, value, share in (("review", review, REVIEW_RATE), ("fail", fail, FAIL_RATE)):
            source = f"tail of {count} clean models at {share:g}, floor {FLOORS[rule]:.2g}"
            entries[f"{rule}.{name}"] = {"value": value, "source": source}
    return entries


def fill(profile: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    """Put the banks into a profile; the first also becomes what it says of models without a bank."""
    first = entries[0]
    profile["thresholds"] |= first["thresholds"]
    profile |= {name: first[name] for name in ("calibration", "model_types", "clean_scores")}
    profile["clean_models"] = len(first["clean_scores"])
    profile["banks"] = entries


def as_text(profile: Mapping[str, Any]) -> str:
    """The profile as JSON, rows of numbers on one line each."""
    text = json.dumps(profile, indent=2, ensure_ascii=False)
    return (
        re.sub(r"\[\s+([-+\d.eE,\s]+?)\s+\]", lambda m: f"[{', '.join(m[1].replace(',', ' ').split())}]", text) + "\n"
    )
