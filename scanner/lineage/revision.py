"""Which commit of the base the candidate started from: equal hashes first, then the nearest in sampled rows."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from scanner.alignment import align
from scanner.errors import HubAuditError
from scanner.hub import Hub
from scanner.lineage.mixture import Share, read_planned, share_of_way
from scanner.lineage.sampling import plan_samples, read_samples
from scanner.records import Alignment, Check, FileEntry, Measured, RepoFacts, RepoRef
from scanner.weights.opening import open_source
from scanner.weights.source import WeightSource

MAX_COMMITS = 12
"""Commits whose listing is asked for (one request each), newest first."""
MAX_VERSIONS = 6
"""Different sets of weight files that are sampled."""
ROWS = 32
_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """The base at the commit that was chosen, its facts, and the check that says why."""

    facts: RepoFacts
    check: Check


def nearest_revision(base: RepoFacts, candidate: RepoFacts, hub: Hub, *, seed: int) -> Revision:
    """Choose the commit of the base whose weights are nearest to the candidate's. Never raises.

    One request for the history and one listing a commit; rows are read only when the weight files have changed within
    it, and no version holds the candidate's very files. Where nothing decides, the pinned commit stays.
    """
    try:
        versions = _versions(base, hub)
        if len(versions) < 2:
            note = (
                "The weights of the base have one version only." if versions else "The base has no history to search."
            )
            return Revision(facts=base, check=Check(name="base_revision", outcome="not_run", note=note))
        same = next((facts for facts in versions if _weights(facts.files) == _weights(candidate.files)), None)
        if same is not None:
            return _chosen(base, same, len(versions), "its weight files have the candidate's very hashes")
        return _nearest(base, versions, candidate, hub, seed)
    except HubAuditError as error:
        return Revision(facts=base, check=Check(name="base_revision", outcome="not_run", note=str(error)))


def _versions(base: RepoFacts, hub: Hub) -> list[RepoFacts]:
    """The base at each commit that brought other weight files, newest first; the pinned one leads."""
    found: dict[frozenset[tuple[str, str]], RepoFacts] = {}
    if base.ref.repo_id is None:
        return []
    for commit in hub.commits(base.ref, MAX_COMMITS):
        ref = RepoRef(repo_id=base.ref.repo_id, revision=commit.commit)
        facts = base if ref == base.ref else replace(base, ref=ref, files=hub.files(ref))
        weights = _weights(facts.files)
        if weights and weights not in found and len(found) < MAX_VERSIONS:
            found[weights] = facts
    return list(found.values())


def _weights(files: Sequence[FileEntry]) -> frozenset[tuple[str, str]]:
    """Path and hash of every weight file; files without a hash are told apart by their size."""
    return frozenset(
        (entry.path, entry.sha256 or entry.blob_id or str(entry.size_bytes))
        for entry in files
        if entry.path.endswith(_WEIGHTS)
    )


def _nearest(base: RepoFacts, versions: Sequence[RepoFacts], candidate: RepoFacts, hub: Hub, seed: int) -> Revision:
    """Sample every version at the same rows; between the nearest and the pinned one, the regression decides."""
    with ExitStack() as stack:
        ours = stack.enter_context(open_source(candidate, hub))
        sources = [stack.enter_context(open_source(facts, hub)) for facts in versions]
        drifts = [_drift(_aligned(candidate, base, ours, source), source, ours, seed) for source in sources]
        known = [i for i, drift in enumerate(drifts) if drift is not None]
        if not known:
            note = "No rows of the versions could be compared."
            return Revision(facts=base, check=Check(name="base_revision", outcome="not_run", note=note))
        best = min(known, key=lambda i: drifts[i] or 0.0)
        if best == 0:
            words = "of its versions it is the nearest in sampled rows"
            return _chosen(base, versions[0], len(versions), words, drifts[0])
        planned = plan_samples(_aligned(candidate, base, ours, sources[0]).pairs, rows_per_tensor=ROWS, seed=seed)
        rows = [read_planned(planned, source) for source in (sources[0], sources[best])]
        share = share_of_way(rows[0], rows[1], read_planned(planned, ours, candidate=True))
    words = "it is the nearest of its versions, and the candidate carries the whole way to it from the pinned one"
    if share is None or not share.complete:
        words = "no version is for certain where the candidate started, so the pinned one stays"
        best = 0
    return _chosen(base, versions[best], len(versions), words, drifts[best], share)


def _aligned(candidate: RepoFacts, base: RepoFacts, ours: WeightSource, theirs: WeightSource) -> Alignment:
    return align(ours.table, theirs.table, candidate_config=candidate.config, base_config=base.config)


def _drift(alignment: Alignment, base: WeightSource, candidate: WeightSource, seed: int) -> float | None:
    """Relative distance over all sampled rows; None when nothing can be sampled."""
    planned = plan_samples(alignment.pairs, rows_per_tensor=ROWS, seed=seed)
    ratios = []
    for sample in read_samples(planned, base, candidate):
        size = float(np.sum(sample.base**2))
        moved = float(np.sum((sample.candidate - sample.base) ** 2))
        if np.isfinite(size) and np.isfinite(moved) and size > 0:
            ratios.append((moved / size) ** 0.5)
    return float(np.median(ratios)) if ratios else None


def _chosen(
    pinned: RepoFacts,
    facts: RepoFacts,
    versions: int,
    words: str,
    drift: float | None = None,
    share: Share | None = None,
) -> Revision:
    """Word the choice."""
    numbers = [Measured(name="versions", value=float(versions), unit="versions")]
    numbers += [Measured(name="relative_drift", value=drift)] if drift is not None else []
    if share is not None:
        numbers += [Measured(name="beta", value=share.whole), Measured(name="beta_bulk", value=share.bulk)]
    stays = facts.ref == pinned.ref
    head = f"The base is read at {facts.ref.revision}" + ("" if stays else f" instead of {pinned.ref.revision}")
    check = Check(
        name="base_revision",
        outcome="passed" if stays else "failed",
        measurements=tuple(numbers),
        note=f"{head}: {words}.",
    )
    return Revision(facts=facts, check=check)
