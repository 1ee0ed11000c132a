"""Threshold profiles: every number that separates "nothing found" from a finding, with where it came from.

Profiles are JSON files in ``audit/profiles``. No detector and no policy holds a threshold of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from typing import Any

DEFAULT_PROFILE = "encoder-2026-11"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named set of thresholds and the calibration it was taken from.

    ``values`` maps "rule-id.name" to a number. ``calibration`` says what the numbers were measured on (text), how
    many clean models (``clean_models``) and their sorted scores (``clean_scores``, ascending, in [0, 1]).
    ``model_types`` are the ``model_type`` values of the configs in that bank; error rates are quoted for no others.
    ``sources`` says of each threshold where it came from. ``digest`` is the SHA-256 of the file.
    """

    id: str
    digest: str
    calibration: str
    clean_models: int
    clean_scores: tuple[float, ...]
    values: Mapping[str, float]
    model_types: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """The threshold of that name.

        Raises:
            KeyError: the profile does not define it.
        """
        return self.values[name]

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
        values={key: float(entry["value"]) for key, entry in content["thresholds"].items()},
        model_types=tuple(content.get("model_types", ())),
        sources={key: str(entry["source"]) for key, entry in content["thresholds"].items() if "source" in entry},
    )
