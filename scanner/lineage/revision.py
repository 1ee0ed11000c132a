"""Which commit of the base the candidate started from: equal hashes first, then the nearest in sampled rows."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from scanner.alignment import align
from scanner.errors import HubAuditError
from scanner.hub import Hub
from scanner.lineage.mixture import Share, read_planned, share_of_way
from scanner.lineage.parted import all_in_step
from scanner.lineage.sampling import MAX_SAMPLE_BYTES, PlannedTensor, plan_samples, read_samples
from scanner.records import Alignment, Check, FileEntry, Measured, PairSpec, RepoFacts, RepoRef
from scanner.weights.opening import open_source
from scanner.weights.ranges import GAP_BYTES, SAMPLE_GAP_BYTES
from scanner.weights.source import WeightSource

MAX_COMMITS = 12
"""Commits whose listing is asked for (one request each), newest first."""
MAX_VERSIONS = 6
"""Different sets of weight files that are sampled."""
ROWS = 32
_NO_ROWS = "No rows of the versions could be compared."
_NO_ROOM = (
    "The budget has no room to sample the versions of the base; name one as --base NAME@COMMIT, or raise the budget."
)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """The base at the commit that was chosen, its facts, and the check that says why.

    ``bytes_read`` counts the weights that the choice took, of all versions and the candidate.
    """

    facts: RepoFacts
    check: Check
    bytes_read: int = 0


def nearest_revision(
    base: RepoFacts, candidate: RepoFacts, hub: Hub, *, seed: int, most_bytes: int | None = None
) -> Revision:
    """Choose the commit of the base whose weights are nearest to the candidate's. Never raises.

    One request for the history and one listing a commit; rows are read only when the weight files have changed within
    it, and no version holds the candidate's very files. Where nothing decides, the pinned commit stays.

    Args:
        base: facts of the base at the pinned commit.
        candidate: facts of the model in question.
        hub: the reader.
        seed: of the sampled rows.
        most_bytes: of weights to read from all versions and the candidate; ``sampling.MAX_SAMPLE_BYTES`` a version
            when None.
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
        return _nearest(base, versions, candidate, hub, seed, most_bytes)
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


def _nearest(
    base: RepoFacts, versions: Sequence[RepoFacts], candidate: RepoFacts, hub: Hub, seed: int, most: int | None
) -> Revision:
    """Sample every version at the same rows; between the nearest and the pinned one, the regression decides."""
    with ExitStack() as stack:
        gap = GAP_BYTES if most is None else SAMPLE_GAP_BYTES
        candidate_source = stack.enter_context(open_source(candidate, hub, gap_bytes=gap))
        sources = [stack.enter_context(open_source(facts, hub, gap_bytes=gap)) for facts in versions]
        ours, theirs = all_in_step(candidate_source, sources, candidate, versions)
        pairs = [
            {p.candidate.name: p for p in _aligned(candidate, facts, ours, source).pairs}
            for facts, source in zip(versions, theirs, strict=True)
        ]
        # Every version and the candidate once each, then the two nearest and the candidate: in units of two sides.
        share = MAX_SAMPLE_BYTES if most is None else int(most / (len(versions) + 1.5))
        plans = [plan_samples(tuple(own.values()), rows_per_tensor=ROWS, seed=seed, most_bytes=share) for own in pairs]
        drifts = [_drift(plan, source, ours) for plan, source in zip(plans, theirs, strict=True)]
        known = [i for i, drift in enumerate(drifts) if drift is not None]
        if not known:
            note = _NO_ROWS if most is None or not any(pairs) else _NO_ROOM
            return Revision(facts=base, check=Check(name="base_revision", outcome="not_run", note=note))
        best = min(known, key=lambda i: drifts[i] or 0.0)
        found = None
        if best != 0:
            common = [tensor for tensor in plans[0] if _is_there(tensor, pairs[best])]
            rows = [read_planned(common, theirs[i], pairs=pairs[i]) for i in (0, best)]
            found = share_of_way(rows[0], rows[1], read_planned(common, ours))
        read = sum(source.bytes_read for source in (candidate_source, *sources))
    if best == 0:
        words = "of its versions it is the nearest in sampled rows"
    elif found is not None and found.complete:
        words = "it is the nearest of its versions, and the candidate carries the whole way to it from the pinned one"
    else:
        words = "no version is for certain where the candidate started, so the pinned one stays"
        best = 0
    return replace(_chosen(base, versions[best], len(versions), words, drifts[best], found), bytes_read=read)


def _aligned(candidate: RepoFacts, base: RepoFacts, ours: WeightSource, theirs: WeightSource) -> Alignment:
    return align(ours.table, theirs.table, candidate_config=candidate.config, base_config=base.config)


def _is_there(tensor: PlannedTensor, pairs: Mapping[str, PairSpec]) -> bool:
    """Whether a version has the tensor, of the same shape: a vocabulary may have grown between commits."""
    other = pairs.get(tensor.spec.candidate.name)
    return other is not None and other.base.shape == tensor.spec.base.shape


def _drift(planned: Sequence[PlannedTensor], base: WeightSource, candidate: WeightSource) -> float | None:
    """Relative distance over all sampled rows; None when nothing can be sampled."""
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
