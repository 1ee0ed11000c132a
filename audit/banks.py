"""Which clean bank speaks for a model, and whether it speaks for how the model was trained."""

from dataclasses import dataclass, replace

import numpy as np

from audit.evidence import Evidence
from audit.likeness import Likeness, likeness
from audit.readings import model_type
from audit.thresholds import CleanBank, Profile
from audit.traits import traits_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Suited:
    """The evidence under the profile that suits it.

    ``abstains`` is the sentence that says why no error rate can be quoted ("" when one can). ``likeness`` compares the
    model with the bank of its type and size (None when there is none, or it cannot be described).
    """

    evidence: Evidence
    abstains: str = ""
    likeness: Likeness | None = None


def suit(evidence: Evidence) -> Suited:
    """Put the thresholds and error rates of the bank that holds models like the candidate, or none.

    A bank must hold models of the candidate's type, and of its size within a factor of ``bank.size_ratio``; of two, the
    nearer in size counts. A candidate whose likeness has a p-value below ``bank.outside`` is outside. A profile
    without banks stays as it is.
    """
    profile, drift = evidence.profile, evidence.drift
    if not profile.banks or drift is None:
        return Suited(evidence=evidence)
    if evidence.lineage.relation == "adapter":
        return _without(evidence, "The clean banks hold whole models, no separate adapters")
    kind = model_type(evidence)
    of_type = [bank for bank in profile.banks if kind in bank.model_types]
    if not of_type:
        named = f"of type {kind!r}" if kind else "of this type"
        return _without(evidence, f"The clean bank holds no models {named}")
    size = max(drift.coverage.parameters_total, 1)
    ratio, bank = min(((_ratio(size, b), b) for b in of_type), key=lambda pair: pair[0])
    if ratio > profile.value("bank.size_ratio"):
        named = _millions(bank.parameters)
        return _without(
            evidence, f"The nearest clean bank holds {kind} models of {named}, too far from {_millions(size)}"
        )
    described = None if evidence.lineage.status != "verified" else traits_of(drift)
    held = replace(evidence, profile=profile.on(bank))
    compared = likeness(described, np.array(bank.traits)) if described is not None and bank.traits else None
    if compared is None or compared.p_value >= profile.value("bank.outside"):
        return Suited(evidence=held, likeness=compared)
    why = f"No model of the clean bank was fine-tuned like this one (it differs most in {_words(compared)})"
    return _without(held, why, compared)


def _without(evidence: Evidence, why: str, compared: Likeness | None = None) -> Suited:
    bare: Profile = evidence.profile.without_rates()
    return Suited(
        evidence=replace(evidence, profile=bare),
        abstains=f"{why}: thresholds are carried over, error rates unknown.",
        likeness=compared,
    )


def _ratio(size: int, bank: CleanBank) -> float:
    return max(size / bank.parameters, bank.parameters / size)


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} M parameters"


def _words(compared: Likeness) -> str:
    return ", ".join(name.replace("_", " ") for name in compared.traits)
