"""Tells which tensors lie in files that both repositories declare to be the same, and how far that can be trusted.

The SHA-256 of an LFS file is claimed by whoever uploads it, and nothing verifies it where the content is stored in
Xet. A file is therefore left unread only where its SHA-256 *and* its Xet hash agree; one hash alone is a claim.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scanner.records import FileEntry, PairSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Names of pairs: ``proven`` need not be read, ``claimed`` are declared identical and must be looked at."""

    proven: frozenset[str]
    claimed: frozenset[str]


def identical_pairs(
    pairs: Iterable[PairSpec], base_files: Iterable[FileEntry], candidate_files: Iterable[FileEntry]
) -> Identity:
    """Compare the declared hashes of the files behind each pair.

    Only tensors that lie at the same place of files of the same size can be the same; what is decoded from a
    quantiser's codes takes no part.
    """
    theirs, ours = _by_path(base_files), _by_path(candidate_files)
    proven: set[str] = set()
    claimed: set[str] = set()
    for pair in pairs:
        base, candidate = theirs.get(pair.base.file), ours.get(pair.candidate.file)
        if base is None or candidate is None or not _same_place(pair):
            continue
        agreement = _agreement(base, candidate)
        if agreement is not None:
            (proven if agreement else claimed).add(pair.name)
    return Identity(proven=frozenset(proven), claimed=frozenset(claimed))


def _by_path(files: Iterable[FileEntry]) -> Mapping[str, FileEntry]:
    return {entry.path: entry for entry in files}


def _same_place(pair: PairSpec) -> bool:
    base, candidate = pair.base, pair.candidate
    if base.scheme is not None or candidate.scheme is not None:
        return False
    return (base.dtype, base.shape, base.start, base.end) == (
        candidate.dtype,
        candidate.shape,
        candidate.start,
        candidate.end,
    )


def _agreement(base: FileEntry, candidate: FileEntry) -> bool | None:
    """True where both hashes agree, False where the only one that both sides declare does, None otherwise."""
    if base.size_bytes != candidate.size_bytes:
        return None
    declared = [
        (one, other)
        for one, other in ((base.sha256, candidate.sha256), (base.xet_hash, candidate.xet_hash))
        if one and other
    ]
    if not declared or any(one != other for one, other in declared):
        return None
    return len(declared) == 2  # both kinds of hashes
