"""Evidence for the audit: put together from arrays, or measured on folders as a scan does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit.evidence import Evidence
from audit.records import AuditReport, RuntimeRecord
from audit.run import audit
from audit.thresholds import Profile, load_profile
from scanner.alignment import align
from scanner.card import parse_card
from scanner.drift.measure import measure
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import (
    CardFacts,
    Check,
    DriftFacts,
    FileEntry,
    Lineage,
    LineageStatus,
    Measured,
    Relation,
    RepoFacts,
    RepoRef,
    TokenTable,
)
from scanner.weights.opening import open_source


def repo(
    name: str = "org/candidate",
    *,
    folder: Path | None = None,
    config: Mapping[str, Any] | None = None,
    card: CardFacts | None = None,
    files: tuple[str, ...] = (),
) -> RepoFacts:
    """Facts of a repository; card, configuration and listing are read from the folder where one is given."""
    if folder is not None:
        config = json.loads((folder / "config.json").read_text())
        card = parse_card((folder / "README.md").read_text())
        files = tuple(sorted(path.name for path in folder.iterdir()))
    return RepoFacts(
        ref=RepoRef(repo_id=name, revision="0" * 40),
        files=tuple(FileEntry(path=path, size_bytes=1) for path in files),
        card=card or CardFacts(),
        config=config,
    )


def lineage(
    candidate: RepoFacts,
    base: RepoFacts | None,
    *,
    status: LineageStatus = "verified",
    relation: Relation = "finetune",
    conflicts: tuple[str, ...] = (),
) -> Lineage:
    """A lineage with one check of that outcome."""
    outcome = {"verified": "passed", "contradicted": "failed", "unverified": "not_run"}[status]
    return Lineage(
        candidate=candidate.ref,
        base=base.ref if base else None,
        relation=relation,
        status=status,
        conflicts=conflicts,
        checks=(Check(name="rows", outcome=outcome, measurements=(Measured(name="cosine", value=0.9),)),),  # type: ignore[arg-type]
    )


def token_table(texts: tuple[str, ...], *, special: int = 0, ordered: bool = True) -> TokenTable:
    """A vocabulary ordered by frequency whose first ``special`` entries are control tokens."""
    return TokenTable(
        kind="wordpiece" if ordered else "unknown",
        texts=texts,
        expected_log_frequency=-np.log(np.arange(len(texts)) + 1.0) if ordered else None,
        special=np.arange(len(texts)) < special,
    )


def evidence(
    drift: DriftFacts | None,
    *,
    tokens: TokenTable | None = None,
    status: LineageStatus = "verified",
    profile: Profile | None = None,
    candidate: RepoFacts | None = None,
    base: RepoFacts | None = None,
    conflicts: tuple[str, ...] = (),
    relation: Relation = "finetune",
) -> Evidence:
    """Evidence around drift, of a verified base unless said otherwise."""
    candidate = candidate or repo(config={"model_type": "bert"})
    base = base or repo("org/base")
    return Evidence(
        candidate=candidate,
        base=base,
        lineage=lineage(candidate, base, status=status, conflicts=conflicts, relation=relation),
        drift=drift,
        tokens=tokens,
        profile=profile or load_profile(),
    )


def measured(base: Path, candidate: Path) -> DriftFacts:
    """The drift of two folders as a scan measures it."""
    left, right = (collect(RepoRef(path=str(folder)), Hub()) for folder in (base, candidate))
    with open_source(left, None) as base_source, open_source(right, None) as candidate_source:
        alignment = align(
            candidate_source.table, base_source.table, candidate_config=right.config, base_config=left.config
        )
        return measure(alignment, base_source, candidate_source)


def from_family(base: Path, candidate: Path, *, status: LineageStatus = "verified") -> Evidence:
    """Evidence for two folders with a WordPiece vocabulary."""
    vocabulary = json.loads((candidate / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    texts = tuple(sorted(vocabulary, key=vocabulary.__getitem__))
    table = token_table(texts)
    special = np.array([text.startswith("[") and text.endswith("]") and text[1:-1].isupper() for text in texts])
    return evidence(
        measured(base, candidate),
        tokens=TokenTable(
            kind=table.kind, texts=texts, expected_log_frequency=table.expected_log_frequency, special=special
        ),
        candidate=repo(f"demo/{candidate.name}", folder=candidate),
        base=repo(f"demo/{base.name}", folder=base),
        status=status,
    )


def report(of: Evidence) -> AuditReport:
    """The sealed report of that evidence."""
    return audit(
        of,
        created_at="2026-11-20T08:00:00Z",
        tool_version="0.0.0",
        runtime=RuntimeRecord(seconds=0.0, peak_rss_bytes=0, requests=0),
    )
