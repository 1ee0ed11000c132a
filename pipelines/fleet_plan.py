"""What a fleet would cost, before anything is scanned: repositories, bytes, requests, and the hours they take.

An estimate from a listing. Sizes that no listing states are taken to be like the known ones, and how many those are is
said. What one scan costs in requests was measured by ``benchmarks/fleet.py`` (docs/scale.md); bytes per second and
requests per window are the caller's to state.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from pipelines.ledger_selection import Wanted
from scanner.errors import HubAuditError
from scanner.hub import Hub
from scanner.refs import RepoSpec

CHUNK_BYTES: Final = 8 << 20
"""Of one request for weights, as in ``scanner.weights.ranges``."""
API_PER_REPO: Final = 2
"""Listing of files, security report; the head is known from the listing."""
API_UNLISTED: Final = 1
"""To find the head of a repository that only a file has named."""
FILES_PER_REPO: Final = 4
"""Card, configuration, tokenizer, and the place of the weights; the weights themselves come on top."""
API_PER_BASE: Final = 3
SAMPLE: Final = 40


@dataclass(slots=True, kw_only=True)
class FleetPlan:
    """The sums of a selection. Bytes are those of weights; ``base_bytes`` counts each base once.

    ``unchanged`` repositories cost nothing. ``sized`` says how many sizes are known, ``unlisted`` how many heads are
    not.
    """

    repos: int = 0
    unchanged: int = 0
    sized: int = 0
    unlisted: int = 0
    known_bytes: int = 0
    families: dict[str, int] = field(default_factory=dict)
    """Base → size of its largest member, in bytes: the best guess of the base's own."""

    def add(self, one: Wanted, *, unchanged: bool = False) -> None:
        """Count one repository."""
        self.repos += 1
        if unchanged:
            self.unchanged += 1
            return
        self.unlisted += one.listed is None
        if one.size_bytes is not None:
            self.sized += 1
            self.known_bytes += one.size_bytes
        if one.family is not None:
            self.families[one.family] = max(self.families.get(one.family, 0), one.size_bytes or 0)

    @property
    def to_scan(self) -> int:
        """Repositories that are not known to be unchanged."""
        return self.repos - self.unchanged

    @property
    def mean_bytes(self) -> float:
        """Mean of the known sizes."""
        return self.known_bytes / self.sized if self.sized else 0.0

    @property
    def candidate_bytes(self) -> int:
        """Bytes of the weights to scan, unknown sizes at the mean."""
        return int(self.known_bytes + self.mean_bytes * (self.to_scan - self.sized))

    @property
    def base_bytes(self) -> int:
        """Bytes of the bases, each once; at least one is assumed where no family is known."""
        guessed = [size or self.mean_bytes for size in self.families.values()]
        return int(sum(guessed)) if guessed else int(self.mean_bytes)

    @property
    def api_requests(self) -> int:
        """Requests that count against the API quota."""
        return API_PER_REPO * self.to_scan + API_UNLISTED * self.unlisted + API_PER_BASE * max(1, len(self.families))

    @property
    def file_requests(self) -> int:
        """Requests for files: small ones, and the weights in chunks."""
        total = self.candidate_bytes + self.base_bytes
        return FILES_PER_REPO * (self.to_scan + max(1, len(self.families))) + math.ceil(total / CHUNK_BYTES)

    def seconds(self, *, bytes_per_second: float, api_per_second: float | None) -> tuple[float, str]:
        """Return the time that the scarcest means allow, and which one that is.

        Args:
            bytes_per_second: of the network, or of the numerics if that is less.
            api_per_second: of the quota; None when there is none.
        """
        times = {"bytes": (self.candidate_bytes + self.base_bytes) / bytes_per_second}
        if api_per_second:
            times["API requests"] = self.api_requests / api_per_second
        slowest = max(times, key=lambda name: times[name])
        return times[slowest], slowest


def sample_sizes(plan: FleetPlan, names: Iterable[Wanted], hub: Hub, *, seed: int = 0) -> None:
    """Ask the Hub for the sizes of ``SAMPLE`` repositories drawn at random (reservoir sampling), where none is known.

    Two requests each. Repositories that cannot be read are passed over: the plan is an estimate.
    """
    draw = Random(seed)  # noqa: S311 - a sample, not a secret
    drawn: list[Wanted] = []
    for number, one in enumerate(names):
        if number < SAMPLE:
            drawn.append(one)
        elif (place := draw.randrange(number + 1)) < SAMPLE:
            drawn[place] = one
    for one in drawn:
        try:
            ref = hub.resolve(RepoSpec(text=one.repo_id, repo_id=one.repo_id, revision=one.wanted or None))
            about = hub.describe(ref)
        except HubAuditError:
            continue
        if about.get("weights_bytes") is not None:
            plan.sized += 1
            plan.known_bytes += about["weights_bytes"]
        for base in about.get("base_models", ())[:1]:
            plan.families.setdefault(base, about.get("weights_bytes") or 0)


def plan_as_json(plan: FleetPlan, *, bytes_per_second: float, api_per_second: float | None) -> dict[str, object]:
    """Return the plan as plain values."""
    seconds, bottleneck = plan.seconds(bytes_per_second=bytes_per_second, api_per_second=api_per_second)
    return {
        "repos": plan.repos,
        "unchanged": plan.unchanged,
        "to_scan": plan.to_scan,
        "sizes_known": plan.sized,
        "candidate_bytes": plan.candidate_bytes,
        "bases": len(plan.families),
        "base_bytes": plan.base_bytes,
        "api_requests": plan.api_requests,
        "file_requests": plan.file_requests,
        "seconds": round(seconds, 1),
        "bottleneck": bottleneck,
    }
