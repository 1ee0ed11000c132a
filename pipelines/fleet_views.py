"""What people are shown of a ledger: the status as text, and the overview page's figures."""

from datetime import UTC, datetime
from pathlib import Path

from pipelines.ledger_views import OUTCOMES, LedgerReader
from reports.fleet_page import FamilyRow, FleetOverview, FleetRow, TrendPoint
from reports.safe_text import clean_line

WORST_SHOWN = 200
FAMILIES_SHOWN = 50
RULES_SHOWN = 30


def overview(reader: LedgerReader, *, title: str, now: datetime) -> FleetOverview:
    """Gather what the page shows."""
    counts, totals = reader.counts(), reader.totals()
    return FleetOverview(
        title=title,
        generated_at=_iso(now),
        repos=counts.total,
        pending=counts.pending,
        counts=reader.verdicts(),
        requests=int(totals["requests"]),
        bytes_read=int(totals["bytes_read"]),
        scan_seconds=totals["seconds"],
        worst=[
            FleetRow(
                repo_id=row["repo_id"],
                revision=row["revision"],
                outcome=row["outcome"],
                score=row["score"],
                false_positive_rate=row["false_positive_rate"],
                base=row["base_repo"],
                relation=row["relation"],
                status=row["status"],
                coverage=row["parameters_compared"] / row["parameters_total"] if row["parameters_total"] else 0.0,
                rules=tuple(dict.fromkeys(note["rule_id"] for note in row["findings"])),
                created_at=row["created_at"],
            )
            for row in reader.results(limit=WORST_SHOWN)
        ],
        families=[
            FamilyRow(
                base=row["base"],
                members=row["members"],
                counts={outcome: row[outcome] for outcome in OUTCOMES},
                worst_score=row["worst_score"],
            )
            for row in reader.families(FAMILIES_SHOWN)
        ],
        failures=reader.failures(),
        rules=reader.rules(RULES_SHOWN),
        trend=[
            TrendPoint(when=_iso(datetime.fromtimestamp(run.ended_at, UTC)), counts=run.counts)
            for run in reader.runs()
            if run.ended_at is not None and run.counts
        ],
    )


def status_as_json(reader: LedgerReader) -> dict[str, object]:
    """Return the counts of ``hubaudit fleet status --format json``; ``done`` to ``total`` are distinct repositories."""
    counts = reader.counts()
    return {
        "done": counts.done,
        "failed": counts.failed,
        "pending": counts.pending,
        "total": counts.total,
        "verdicts": reader.verdicts(),
        "causes": {cause: n for cause, n, _ in reader.failures()},
        **{name: round(value, 3) for name, value in reader.totals().items()},
    }


def status_as_text(reader: LedgerReader) -> str:
    """Return the same for people, with the worst few by name."""
    counts = reader.counts()
    lines = [f"{counts.done} done, {counts.failed} failed, {counts.pending} pending, {counts.total} in all"]
    verdicts = reader.verdicts()
    if verdicts:
        lines.append(", ".join(f"{n} {name}" for name, n in verdicts.items()))
    flagged = [row for row in reader.results(limit=10) if row["outcome"] in OUTCOMES[:2]]
    for row in flagged:
        rules = ", ".join(dict.fromkeys(note["rule_id"] for note in row["findings"]))
        lines.append(f"  {row['outcome']:<7} {row['score']:.2f}  {clean_line(row['repo_id'])}  {rules}")
    for cause, n, example in reader.failures():
        lines.append(f"  failed  {n} × {clean_line(cause)}: {clean_line(example)}")
    return "\n".join(lines)


def title_of(path: Path) -> str:
    """Return what to call a fleet that has no name: that of its ledger."""
    return path.name.removesuffix(path.suffix)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
