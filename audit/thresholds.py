"""Threshold profiles: every number that separates "nothing found" from a finding, with where it came from.

Profiles are JSON files in ``audit/profiles``. No detector and no policy holds a threshold of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib.resources import files
from typing import Any

DEFAULT_PROFILE = "encoder-2026-11"


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanBank:
    """Clean fine-tunes of one base: what they measured, and what they were like.

    ``calibration`` says in words what they are. ``model_types`` are the ``model_type`` values of their configs,
    ``parameters`` how many their base has. ``clean_scores`` are sorted, ascending, in [0, 1]; each was judged by
    thresholds that the model had no part in. ``values`` and ``sources`` are the thresholds taken from this bank.
    ``traits`` describes each model as ``audit.traits`` does, one tuple a model; empty when they are not known.
    """

    id: str
    calibration: str
    model_types: tuple[str, ...]
    parameters: int
    clean_scores: tuple[float, ...]
    values: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    traits: tuple[tuple[float, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named set of thresholds and the calibration it was taken from.

    ``values`` maps "rule-id.name" to a number. ``calibration`` says what the numbers were measured on (text), how
    many clean models (``clean_models``) and their sorted scores (``clean_scores``, ascending, in [0, 1]).
    ``model_types`` are the ``model_type`` values of the configs in that bank; error rates are quoted for no others.
    ``sources`` says of each threshold where it came from. ``digest`` is the SHA-256 of the file. ``banks`` are the
    clean banks at hand; ``bank`` is the id of the one that ``on`` has taken these numbers from, "" for the default.
    """

    id: str
    digest: str
    calibration: str
    clean_models: int
    clean_scores: tuple[float, ...]
    values: Mapping[str, float]
    model_types: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    banks: tuple[CleanBank, ...] = ()
    bank: str = ""

    def value(self, name: str) -> float:
        """The threshold of that name.

        Raises:
            KeyError: the profile does not define it.
        """
        return self.values[name]

    def on(self, bank: CleanBank) -> "Profile":
        """The profile with the thresholds and the error rates of one of its banks."""
        return replace(
            self,
            bank=bank.id,
            calibration=bank.calibration,
            clean_models=len(bank.clean_scores),
            clean_scores=bank.clean_scores,
            model_types=bank.model_types,
            values={**self.values, **bank.values},
            sources={**self.sources, **bank.sources},
        )

    def without_rates(self) -> "Profile":
        """The profile with the same thresholds, for a model that no bank speaks for: no error rate is known."""
        return replace(self, clean_scores=(), model_types=())

    def false_positive_rate(self, score: float) -> float | None:
        """Share of clean models with a score at least as high, (1 + #{clean ≥ score}) / (n + 1).

        The conformal p-value of Bates et al. 2023 (arXiv 2104.08279): valid when the subject is exchangeable with
        the bank. None when the profile has no bank.
        """
        if not self.clean_scores:
            return None
        at_least = sum(1 for clean in self.clean_scores if clean >= score)
        return (1 + at_least) / (len(self.clean_scores) + 1)


def load_profile(name: str = DEFAULT_PROFILE) -> Profile:
    """Read a profile that ships with the package.

    Raises:
        KeyError: there is no profile of that name.
    """
    resource = files(__package__).joinpath("profiles", f"{name}.json")
    if not resource.is_file():
        raise KeyError(name)
    raw = resource.read_bytes()
    content: dict[str, Any] = json.loads(raw)
    return Profile(
        id=content["id"],
        digest=sha256(raw).hexdigest(),
        calibration=content["calibration"],
        clean_models=content["clean_models"],
        clean_scores=tuple(content["clean_scores"]),
        values=_values(content["thresholds"]),
        model_types=tuple(content.get("model_types", ())),
        sources=_sources(content["thresholds"]),
        banks=tuple(_bank(entry) for entry in content.get("banks", ())),
    )


def _bank(content: Mapping[str, Any]) -> CleanBank:
    return CleanBank(
        id=content["id"],
        calibration=content["calibration"],
        model_types=tuple(content["model_types"]),
        parameters=content["parameters"],
        clean_scores=tuple(content["clean_scores"]),
        values=_values(content["thresholds"]),
        sources=_sources(content["thresholds"]),
        traits=tuple(tuple(row) for row in content["traits"]),
    )


def _values(thresholds: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(entry["value"]) for key, entry in thresholds.items()}


def _sources(thresholds: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(entry["source"]) for key, entry in thresholds.items() if "source" in entry}
